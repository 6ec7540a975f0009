"""Measures on pretrained features: KID, texture KID, and how much of a photo's structure is kept.

The features are those of EfficientNet-Lite1 (`training.generator.trunk`), which no part of training looks at, so that
what trained does not judge.  Images are RGB uint8 ``(H, W, 3)``; all are brought to one size first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from training.data.pseudo_pairs import F32, U8
from training.generator.trunk import Trunk

__all__ = ["DeepFeatures", "DeepTrunk", "kid", "structure_kept"]

F64 = npt.NDArray[np.float64]

SIDE = 256
"""Longer side of the images that the features are taken of, near the 240 pixels that Lite1 was trained on."""
STRIDES = (8, 16, 32)
"""Strides of the features: texture, structure, content."""
PLACES = 64
"""Texture features of one image, taken at random places."""
SUBSETS, SUBSET = 100, 256
"""How many subsets KID is the mean of, and the images (or places) in each."""


@dataclass(frozen=True, kw_only=True)
class DeepFeatures:
    """What the measures need of a set of images."""

    content: F32
    """Stride 32, the mean over the image: ``(N, 320)``."""
    texture: F32
    """Stride 8 at `PLACES` random places, each without the mean over its image: ``(N * PLACES, 40)``."""
    structure: list[F32]
    """Stride 16 of each image: ``(112, h, w)``."""


class DeepTrunk:
    """EfficientNet-Lite1 on one device; ImportError where the package of its weights is missing."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.net = Trunk("efficientnet-lite1", strides=STRIDES).to(device)

    @torch.no_grad()
    def __call__(self, images: Sequence[U8]) -> DeepFeatures:
        """The features of a set of images, which may differ in size."""
        rng = np.random.default_rng(0)
        content, texture, structure = [], [], []
        for image in images:
            fine, middle, coarse = (f[0].float().cpu().numpy() for f in self.net(self._input(image)))
            content.append(coarse.mean((1, 2)))
            places = fine.reshape(len(fine), -1).T
            places = places - places.mean(0)
            texture.append(places[rng.integers(len(places), size=PLACES)])
            structure.append(middle)
        return DeepFeatures(content=np.stack(content), texture=np.concatenate(texture), structure=structure)

    def _input(self, image: U8) -> torch.Tensor:
        """``(1, 3, h, w)`` in -1..1, sides multiples of the last stride, the longer one `SIDE`."""
        multiple, scale = STRIDES[-1], SIDE / max(image.shape[:2])
        height, width = (max(1, round(side * scale / multiple)) * multiple for side in image.shape[:2])
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        small = np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)
        return torch.from_numpy(small).to(self.device).permute(2, 0, 1)[None].float().div(127.5).sub(1)


def kid(a: F32, b: F32, *, subsets: int = SUBSETS, size: int = SUBSET, seed: int = 0) -> float:
    """Kernel inception distance of two sets of features ``(N, D)`` and ``(M, D)``, times 1000.

    Binkowski et al. 2018 (arXiv 1801.01401): the unbiased estimate of the squared MMD with the kernel
    ``(x.y / D + 1) ** 3``, the mean over random subsets drawn without replacement.  Each feature is first
    brought to the length ``sqrt(D)``, because these features, unlike Inception's, have no bound: the kernel then
    runs from 0 to 8.  Near 0, also below it, for sets of one distribution.  Subsets have `size` features, or as many
    as the smaller set has.

    ValueError for a set of fewer than two.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"KID compares sets of two and more, got {len(a)} and {len(b)}")
    x, y = _unit(a), _unit(b)
    rng, count = np.random.default_rng(seed), min(size, len(a), len(b))
    draws = (
        _mmd(x[rng.choice(len(x), count, replace=False)], y[rng.choice(len(y), count, replace=False)])
        for _ in range(subsets)
    )
    return 1000 * float(np.mean(list(draws)))


def _unit(features: F32) -> F64:
    values = features.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(lengths, 1e-12) * np.sqrt(values.shape[1]), np.float64)


def _mmd(x: F64, y: F64) -> float:
    """Unbiased squared maximum mean discrepancy of two sets of one size."""
    n, d = x.shape
    xx, yy, xy = ((p @ q.T / d + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
    # A feature is not compared with itself.
    within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (n * (n - 1))
    return float(within - 2 * xy.mean())


def structure_kept(results: DeepFeatures, photos: DeepFeatures) -> float:
    """Mean cosine of the mid-level features of results to those of their photos: 1 where all structure is kept.

    The features (stride 16) are standardised channel by channel with the mean and deviation that the photos have over
    all their places; the cosine is taken over the channels of each place, then the mean over places and pictures.
    """
    every = np.concatenate([maps.reshape(len(maps), -1) for maps in photos.structure], axis=1)
    mean, deviation = every.mean(1)[:, None, None], np.maximum(every.std(1), 1e-6)[:, None, None]
    cosines = []
    for result, photo in zip(results.structure, photos.structure, strict=True):
        a, b = (result - mean) / deviation, (photo - mean) / deviation
        lengths = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
        cosines.append(float(((a * b).sum(0) / np.maximum(lengths, 1e-12)).mean()))
    return float(np.mean(cosines))
