"""Trains the fields of the layered generator on pairs of photos and the teacher's fields."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.looks.torch_shader import fields_planes
from training.errors import CheckpointError
from training.files import save_tensors
from training.generator.config import LayersConfig
from training.generator.layered_networks import FieldsNet
from training.layered.adversary import Adversary
from training.layered.crops import FieldsExample, Photos
from training.layered.replayed import Replayed

__all__ = ["FieldsTrainer", "fields_loss"]

log = logging.getLogger(__name__)

BATCH = 8
LEARNING_RATE = 2e-3
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
        device: where it is trained; on CUDA in bf16, by a CUDA graph.
        batch: crops of a step.
        adversary: a judge of the painted fields, or none.
    """

    def __init__(
        self,
        config: LayersConfig,
        examples: Sequence[FieldsExample],
        checkpoint: Path,
        *,
        device: torch.device | None = None,
        batch: int = BATCH,
        adversary: Adversary | None = None,
    ) -> None:
        self.config, self.checkpoint, self.batch, self.adversary = config, checkpoint, batch, adversary
        self.device = device or torch.device("cpu")
        self.photos = Photos(examples, self.device)
        self.net = FieldsNet(config).to(self.device)
        self.rate = torch.tensor(LEARNING_RATE, device=self.device)
        self.optimizer = torch.optim.Adam(
            self.net.parameters(), self.rate, betas=(0.9, 0.99), capturable=self.device.type == "cuda"
        )
        self.mean = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.step = 0
        if checkpoint.is_file():
            self._restore(torch.load(checkpoint, weights_only=True, map_location=self.device))
        self.draw = np.random.default_rng(self.step)
        self._update = Replayed(self._learn, self.device, plain=adversary is not None)

    def _restore(self, state: dict[str, Any]) -> None:
        if state["config"] != self.config.to_dict():
            raise CheckpointError(
                f"{self.checkpoint} is of another network ({state['config']}): give another folder, or the same options"
            )
        self.net.load_state_dict(state["net"])
        groups = self.optimizer.state_dict()["param_groups"]  # those of another device may differ
        self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate  # loading makes a copy
        self.mean, self.step = state["mean"], state["step"]
        if self.adversary is not None and "adversary" in state:
            self.adversary.restore(state["adversary"])

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "config": self.config.to_dict(),
            "net": self.net.state_dict(),
            "mean": self.mean,
            "optimizer": {"state": self.optimizer.state_dict()["state"]},
            "step": self.step,
        }
        save_tensors(self.checkpoint, state | ({"adversary": self.adversary.state()} if self.adversary else {}))

    def run(self, seconds: float) -> None:
        """Train for so long; the learning rate falls towards the end."""
        started = saved = time.monotonic()
        losses: list[Tensor] = []
        try:
            while (done := (time.monotonic() - started) / seconds) < 1:
                self.rate.fill_(LEARNING_RATE * min(1.0, (self.step + 1) / 100, max(0.03, 2.2 * (1 - done))))
                losses.append(self.train_step().clone())
                if len(losses) == 200:
                    log.info("fields: step %d, loss %.4f", self.step, float(torch.stack(losses).mean()))
                    losses.clear()
                if time.monotonic() - saved > SAVE_EVERY:
                    self.save()
                    saved = time.monotonic()
        finally:  # after Ctrl-C as well
            self.save()

    def train_step(self) -> Tensor:
        """One update; its loss, of which the next call may take the memory."""
        keep = min(0.999, (self.step + 1) / (self.step + 51))
        loss = self._update(*self.photos.draw(self.draw, self.batch), torch.tensor(1 - keep))
        self.step += 1
        return loss

    def _learn(self, chosen: Tensor, boxes: Tensor, light: Tensor, change: Tensor) -> Tensor:
        """The update of a draw of `Photos`; `change` is how far the mean of the weights follows them."""
        pairs = self.photos.pairs(chosen, boxes, light)
        pool, fine = self.config.pool, self.config.stride // 2
        images, layouts = (F.avg_pool2d(x, pool) if pool > 1 else x for x in (pairs.images, pairs.layouts))
        planes = fields_planes(images, layouts[:, :2], pairs.tones)
        guess = F.avg_pool2d(layouts, fine) if fine > 1 else layouts
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            found = self.net(planes).float()
        wanted = F.avg_pool2d(pairs.fields, pool * fine) if pool * fine > 1 else pairs.fields
        loss = fields_loss(found, wanted, guess[:, :1])
        judged = None
        total = loss
        if self.adversary is not None:
            gan, judged = self.adversary.losses(found, guess, pool * fine, self.draw)
            total = loss + self.adversary.weight(loss, gan, self.net.leave.weight) * gan
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 2.0)
        self.optimizer.step()
        if self.adversary is not None and judged is not None:
            self.adversary.learn(judged)
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                self.mean[name].lerp_(value, change)
        return loss.detach()
