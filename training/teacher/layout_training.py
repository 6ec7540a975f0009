"""Trains the head of the layout on the frozen features of photos."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.generator.layered_networks import LayoutNet

__all__ = ["LayoutExample", "fit_features", "layout_loss", "train_head"]

log = logging.getLogger(__name__)

BATCH = 6
LEARNING_RATE = 2e-3
CROPPED = 0.35
"""Share of the examples that are cropped, so that the border of the picture is no cue."""
DEPTH_WEIGHT = 2.5


@dataclass(frozen=True, kw_only=True, eq=False)
class LayoutExample:
    """A photo as the head sees it."""

    features: Tensor
    """What `LayoutNet.features` gives, ``(C, h, w)``, float16 or float32."""
    sky: Tensor
    """Share of sky in every cell, 0..1 ``(h, w)``."""
    depth: Tensor
    """0 near to 1 far ``(h, w)``; below 0 where it is not known."""


def fit_features(net: LayoutNet, examples: Sequence[LayoutExample]) -> None:
    """Set the mean and deviation that features are standardised with."""
    cells = torch.cat([e.features.reshape(len(e.features), -1)[:, ::97].float() for e in examples], 1)
    net.mean.copy_(cells.mean(1))
    net.deviation.copy_(cells.std(1) + 1e-4)


def layout_loss(found: Tensor, sky: Tensor, depth: Tensor) -> Tensor:
    """Cross entropy of the sky, and the distance of depths where there is land whose depth is known.

    Args:
        found: sky logit and depth ``(2, h, w)``.
        sky: share of sky ``(h, w)``.
        depth: see `LayoutExample`.
    """
    known = (1 - sky) * (depth >= 0)
    distance = ((found[1] - depth).abs() * known).sum() / (known.sum() + 8)
    return F.binary_cross_entropy_with_logits(found[0], sky) + DEPTH_WEIGHT * distance


def train_head(
    net: LayoutNet,
    examples: Sequence[LayoutExample],
    steps: int,
    *,
    seed: int = 0,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor] = layout_loss,
) -> None:
    """Train the head of a layout network; the trunk stays as it is.

    Raises ValueError without examples.
    """
    if not examples:
        raise ValueError("no example to train on: label some photos first")
    draw = np.random.default_rng(seed)
    head = [p for name, p in net.named_parameters() if not name.startswith("trunk.")]
    optimizer = torch.optim.AdamW(head, LEARNING_RATE, weight_decay=1e-2)
    total, warm_up = 0.0, max(1.0, min(200.0, steps / 4))
    for step in range(steps):
        left = 2 * (1 - step / steps)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, step / warm_up + 0.01, max(0.02, left))
        losses = []
        for index in draw.integers(len(examples), size=BATCH):
            features, sky, depth = _augmented(examples[index], draw)
            losses.append(loss(net.head(features[None])[0], sky, depth))
        mean = torch.stack(losses).mean()
        optimizer.zero_grad()
        mean.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(head, 2.0)
        optimizer.step()
        total += float(mean.detach())
        if (step + 1) % 200 == 0:
            log.info("layout: step %d, loss %.4f", step + 1, total / 200)
            total = 0.0


def _augmented(example: LayoutExample, draw: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    features, sky, depth = example.features.float(), example.sky, example.depth
    if draw.random() < CROPPED:
        height, width = sky.shape
        top, bottom = draw.integers(height // 4 + 1), height - draw.integers(height // 4 + 1)
        left, right = draw.integers(width // 3 + 1), width - draw.integers(width // 3 + 1)
        features, sky, depth = (x[..., top:bottom, left:right] for x in (features, sky, depth))
    if draw.random() < 0.5:
        features, sky, depth = (x.flip(-1) for x in (features, sky, depth))
    return features, sky, depth
