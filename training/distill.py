"""A teacher in place of pseudo-pairs: a small generator learns what a large one paints.

Knowledge distillation (Hinton et al. 2015, arXiv 1503.02531) for image to image networks: the student
sees the teacher's output on photos, so neither art nor pseudo-pairs are needed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from training.data.dataset import Batch
from training.errors import CheckpointError
from training.generator.checkpoint import load_generator
from training.generator.networks import set_views_first

__all__ = ["Teacher"]


class Teacher:
    """A finished generator that paints the targets of every step.

    Args:
        path: its generator.safetensors.
        looks: those of the student.
        views: whether batches hold views of whole pictures first (see `TrainConfig.views`).
        device: where it runs.

    Raises:
        CheckpointError: the file is no generator, or lacks one of the looks.
    """

    def __init__(self, path: Path, looks: tuple[str, ...], *, views: bool, device: torch.device) -> None:
        self.net = load_generator(path).to(device).requires_grad_(False)
        known = self.net.config.looks
        missing = [look for look in looks if look not in known]
        if missing:
            raise CheckpointError(f"{path} cannot teach the look {missing[0]!r}: it knows {', '.join(known)}")
        self.order = torch.zeros(len(looks), len(known), device=device)
        for i, look in enumerate(looks):
            self.order[i, known.index(look)] = 1.0
        set_views_first(self.net, views)
        self.net.train(views)  # nothing in it but the views depends on this

    @torch.no_grad()
    def teach(self, batch: Batch) -> Batch:
        """The batch with the teacher's output as pairs, and as the art that a discriminator knows."""
        pair_A = self.net(batch.real_A, batch.look_A @ self.order).float()
        return dataclasses.replace(batch, pair_A=pair_A, real_B=pair_A, look_B=batch.look_A)
