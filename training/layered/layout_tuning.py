"""Trains all of the layout network, its pretrained trunk included, on photos in many lights.

The head alone, on the frozen features of a photo as it is, knows what its trunk knows; this teaches the trunk where sky
ends and what is far.  On a GPU a few minutes do it; on a CPU it takes hours.
"""

from __future__ import annotations

import logging
import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.conditions import MAP_STRIDE
from training.generator.layered_networks import LayoutNet
from training.layered.crops import Photos
from training.teacher.layout_training import layout_loss

__all__ = ["tune_layout"]

log = logging.getLogger(__name__)

BATCH = 24
TRUNK_RATE, HEAD_RATE = 1e-4, 5e-4
SIDES = (224, 256, 288, 320)
"""Of the squares that the network sees in a step."""
WHOLE, LEAST = 0.35, 0.55
"""Share of the squares that are as large as a photo allows, and how small the others may be in relation to it."""


def tune_layout(net: LayoutNet, photos: Photos, seconds: float, *, batch: int = BATCH) -> None:
    """Train for so long; the network keeps the running mean of its weights, and its norms their statistics.

    Args:
        net: with a head that is trained already, on the device of the photos.
        photos: with the teacher's sky and depth.
        seconds: how long.
        batch: squares in a step.
    """
    net.eval().requires_grad_(True)
    named = list(net.named_parameters())
    parts = ([p for name, p in named if name.startswith("trunk.") == trunk] for trunk in (True, False))
    groups = [{"params": part, "lr": rate} for part, rate in zip(parts, (TRUNK_RATE, HEAD_RATE), strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-2)
    mean = [parameter.detach().clone() for _, parameter in named]
    draw, started, step, total = np.random.default_rng(0), time.monotonic(), 0, 0.0
    while (done := (time.monotonic() - started) / seconds) < 1:
        for group, rate in zip(optimizer.param_groups, (TRUNK_RATE, HEAD_RATE), strict=True):
            group["lr"] = rate * min(1.0, (step + 1) / 100) * (0.51 + 0.5 * math.cos(math.pi * done))
        x, wanted = _batch(photos, draw, batch)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.device.type == "cuda"):
            found = net.head(net.features(x, frozen=False))
        loss = torch.stack([layout_loss(f, w[0], w[1]) for f, w in zip(found.float(), wanted, strict=True)]).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimizer.step()
        step, total = step + 1, total + float(loss.detach())
        with torch.no_grad():
            for kept, (_, value) in zip(mean, named, strict=True):
                kept.lerp_(value, 1 - min(0.998, step / (step + 50)))
        if step % 200 == 0:
            log.info("layout, all of it: step %d, loss %.4f", step, total / 200)
            total = 0.0
    with torch.no_grad():
        for kept, (_, value) in zip(mean, named, strict=True):
            value.copy_(kept)
    net.requires_grad_(False)


def _batch(photos: Photos, draw: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Squares in -1..1 in random lights, and their sky and depth at stride 8, ``(N, 2, h, w)``."""
    side, whole = int(draw.choice(SIDES)), photos.canvases.side
    chosen = draw.integers(len(photos.sizes), size=count)
    boxes = np.empty((count, 4), np.float32)
    for box, (height, width) in zip(boxes, (photos.sizes[i] for i in chosen), strict=True):
        part = min(height, width) * (1 if draw.random() < WHOLE else draw.uniform(LEAST, 1))
        box[:] = draw.uniform(0, height - part), draw.uniform(0, width - part), part, 0
    boxes[:, :3] /= whole
    boxes[:, 3] = draw.random(count) < 0.5
    numbers, places = (torch.from_numpy(values).to(photos.device) for values in (chosen, boxes))
    cut = F.avg_pool2d(photos.canvases.cut(numbers, places, 7, size=2 * side, largest=whole), 2)
    return _relit(cut[:, :3]) * 2 - 1, F.avg_pool2d(cut[:, 3:5], MAP_STRIDE)


def _relit(images: Tensor) -> Tensor:
    """Images 0..1 with another gamma, saturation, contrast, brightness and white balance, and noise."""

    def drawn(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.empty(len(images), channels, 1, 1, device=images.device).uniform_(low, high)

    images = images.clamp(min=1e-3) ** torch.exp(drawn(-0.4, 0.4))
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * drawn(0.5, 1.4)
    images = (images - 0.5) * drawn(0.75, 1.2) + 0.5 + drawn(-0.08, 0.08)
    images = images * drawn(0.9, 1.1, 3)
    return (images + torch.randn_like(images) * drawn(0, 0.03)).clamp(0, 1)
