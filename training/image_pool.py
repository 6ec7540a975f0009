"""The pool of earlier fakes that the discriminators also see (Shrivastava et al. 2017, arXiv 1612.07828)."""

from __future__ import annotations

import random

import torch
from torch import Tensor

__all__ = ["ImagePool"]


class ImagePool:
    """Half of the time a fake is exchanged for an earlier one, so that D does not chase the last G.

    Args:
        size: how many images are kept; 0 hands every fake straight through.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def query(self, fakes: Tensor, rng: random.Random) -> Tensor:
        """For each fake ``(N, 3, H, W)``: itself, or an earlier one that it replaces in the pool."""
        if self.size == 0:
            return fakes
        out = []
        for fake in fakes.detach():
            if len(self.images) < self.size:
                self.images.append(fake.clone())
                out.append(fake)
            elif rng.random() < 0.5:
                i = rng.randrange(self.size)
                out.append(self.images[i])
                self.images[i] = fake.clone()
            else:
                out.append(fake)
        return torch.stack(out)
