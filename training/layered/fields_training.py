"""Trains the fields of the layered generator on pairs of photos and the teacher's fields."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.torch_shader import fields_planes
from training.errors import CheckpointError
from training.files import save_tensors
from training.generator.config import LayersConfig
from training.generator.layered_networks import FieldsNet

__all__ = ["FieldsExample", "FieldsTrainer", "fields_loss"]

log = logging.getLogger(__name__)

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

CROP = 192
"""Side of the crops, in pixels of what the network sees."""
BATCH = 8
LEARNING_RATE = 2e-3
SCALES = (-0.4, 0.75)
"""Natural logarithm of how much larger or smaller a crop is than in the photo."""
WEIGHTS = (1.5, 1.0, 1.5)
"""Of sky, depth and tone."""
SURPRISE_WEIGHT = 3.0
"""More for the sky where the layout did not know it: between leaves, at thin things."""
CLOUD_WEIGHTS = (0.6, 8.0)
"""Of a clear sky, and more the further a cloud is from it: most of a sky is clear, and L1 would forget its clouds."""
SLOPE_WEIGHT = 3.0
"""Of the fields' slopes: they decide where borders lie."""
STEP_WEIGHT = 0.5
"""Of tone and sky after stepping: what eyes see."""
TONE_LEVELS = 3
SAVE_EVERY = 300.0
"""Seconds between two checkpoints."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FieldsExample:
    """A photo, what the layout network says of it, and what the teacher makes of it."""

    image: U8
    """RGB ``(H, W, 3)``."""
    layout: U8
    """Sky and depth at stride 8, times 255, ``(H / 8, W / 8, 2)``."""
    tone: F32
    """The vector `tone` of `engine.layout`."""
    fields: U8
    """The teacher's fields times 255, ``(H, W, 4)``."""


def fields_loss(found: Tensor, wanted: Tensor, guess: Tensor) -> Tensor:
    """L1 of fields and slopes, each where it is seen (depth and tone on land, clouds in the sky), and of the steps.

    Args:
        found: sky, depth, tone, cloud ``(N, 4, h, w)``.
        wanted: the same, of the teacher.
        guess: the layout's sky ``(N, 1, h, w)``.
    """
    sky, cloud = wanted[:, :1], (wanted[:, 3:] - 0.5).abs()
    surprise = ((guess - sky).abs() > 0.3).float()
    weight = torch.cat(
        [
            WEIGHTS[0] + SURPRISE_WEIGHT * surprise,
            WEIGHTS[1] * (1 - sky),
            WEIGHTS[2] * (1 - sky),
            sky * (CLOUD_WEIGHTS[0] + CLOUD_WEIGHTS[1] * cloud),
        ],
        1,
    )
    loss = (weight * (found - wanted).abs()).mean((0, 2, 3)).sum()
    error = found - wanted
    loss = loss + SLOPE_WEIGHT * ((error[..., 1:] - error[..., :-1]).abs() * weight[..., 1:]).mean()
    loss = loss + SLOPE_WEIGHT * ((error[..., 1:, :] - error[..., :-1, :]).abs() * weight[..., 1:, :]).mean()
    tone = (_soft_steps(found[:, 2:3], TONE_LEVELS) - _soft_steps(wanted[:, 2:3], TONE_LEVELS)).abs() * (1 - sky)
    mask = (_soft_steps(found[:, :1], 1) - _soft_steps(wanted[:, :1], 1)).abs()
    return loss + STEP_WEIGHT * (tone.mean() + mask.mean())


def _soft_steps(values: Tensor, levels: int) -> Tensor:
    """A field after stepping, with borders wide enough for gradients."""
    s = values.clamp(0, 1) * levels
    k = torch.floor(s.detach())
    return (k + ((s - k - 0.5) / 0.35 + 0.5).clamp(0, 1)) / levels


class FieldsTrainer:
    """The network, its optimizer and a running mean of its weights; goes on from its checkpoint.

    Args:
        config: what is trained; of a checkpoint that is there already, the same.
        examples: photos with the teacher's fields.
        checkpoint: file that is written every five minutes and at the end, beside and renamed.
    """

    def __init__(self, config: LayersConfig, examples: Sequence[FieldsExample], checkpoint: Path) -> None:
        if not examples:
            raise ValueError("no example to train on: label some photos first")
        self.config, self.examples, self.checkpoint = config, examples, checkpoint
        self.net = FieldsNet(config)
        self.optimizer = torch.optim.Adam(self.net.parameters(), LEARNING_RATE, betas=(0.9, 0.99))
        self.mean = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.step = 0
        if checkpoint.is_file():
            self._restore(torch.load(checkpoint, weights_only=True))
        self.draw = np.random.default_rng(self.step)

    def _restore(self, state: dict[str, Any]) -> None:
        if state["config"] != self.config.to_dict():
            raise CheckpointError(
                f"{self.checkpoint} is of another network ({state['config']}): give another folder, or the same options"
            )
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.mean, self.step = state["mean"], state["step"]

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "config": self.config.to_dict(),
            "net": self.net.state_dict(),
            "mean": self.mean,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        save_tensors(self.checkpoint, state)

    def run(self, seconds: float) -> None:
        """Train for so long; the learning rate falls towards the end."""
        started = saved = time.monotonic()
        total, count = 0.0, 0
        try:
            while (done := (time.monotonic() - started) / seconds) < 1:
                rate = LEARNING_RATE * min(1.0, (self.step + 1) / 100, max(0.03, 2.2 * (1 - done)))
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                total, count = total + self.train_step(), count + 1
                if count == 200:
                    log.info("fields: step %d, loss %.4f", self.step, total / count)
                    total, count = 0.0, 0
                if time.monotonic() - saved > SAVE_EVERY:
                    self.save()
                    saved = time.monotonic()
        finally:  # after Ctrl-C as well
            self.save()

    def train_step(self) -> float:
        """One update; its loss."""
        images, layouts, tones, fields = self._batch()
        pool, factor = self.config.pool, self.config.pool * self.config.stride // 2
        images, layouts = (F.avg_pool2d(x, pool) if pool > 1 else x for x in (images, layouts))
        wanted = F.avg_pool2d(fields, factor) if factor > 1 else fields
        planes, fine = fields_planes(images, layouts, tones), self.config.stride // 2
        guess = F.avg_pool2d(planes[:, 5:6], fine) if fine > 1 else planes[:, 5:6]
        loss = fields_loss(self.net(planes), wanted, guess)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 2.0)
        self.optimizer.step()
        self.step += 1
        keep = min(0.999, self.step / (self.step + 50))
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                self.mean[name].lerp_(value, 1 - keep)
        return float(loss.detach())

    def _batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Crops: images in -1..1, layouts and fields in 0..1, and the tone vectors of their photos."""
        chosen = [self.examples[i] for i in self.draw.integers(len(self.examples), size=BATCH)]
        crops = [self._crop(example) for example in chosen]
        images, layouts, fields = (
            torch.from_numpy(np.stack(part)).permute(0, 3, 1, 2).float() / 255 for part in zip(*crops, strict=True)
        )
        tones = torch.from_numpy(np.stack([example.tone for example in chosen]))
        if self.draw.random() < 0.5:  # the same place in another light: the tones follow
            gamma = torch.from_numpy(np.exp(self.draw.uniform(-0.25, 0.25, (BATCH, 1))).astype(np.float32))
            images, tones = images.clamp(1e-4, 1) ** gamma[..., None, None], tones.clamp(1e-4, 1) ** gamma
        if self.draw.random() < 0.3:
            images = images + torch.randn_like(images) * float(self.draw.uniform(0, 0.025))
        return images * 2 - 1, layouts, tones, fields

    def _crop(self, example: FieldsExample) -> tuple[U8, U8, U8]:
        height, width = example.image.shape[:2]
        side = int(min(height, width, max(96, CROP / np.exp(self.draw.uniform(*SCALES)))))
        top, left = (int(self.draw.integers(n - side + 1)) for n in (height, width))
        method = cv2.INTER_AREA if side > CROP else cv2.INTER_CUBIC
        layout = cv2.resize(example.layout, (width, height), interpolation=cv2.INTER_LINEAR)
        flip = self.draw.random() < 0.5
        parts: list[U8] = []
        for whole in (example.image, layout, example.fields):
            part = np.ascontiguousarray(whole[top : top + side, left : left + side])
            part = np.asarray(cv2.resize(part, (CROP, CROP), interpolation=method), np.uint8)
            parts.append(np.asarray(np.ascontiguousarray(part[:, ::-1] if flip else part), np.uint8))
        return parts[0], parts[1], parts[2]
