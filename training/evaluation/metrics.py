"""Measures of a stylization that need no network, with the papers they come from.

Images are RGB uint8 ``(H, W, 3)``.  Distances compare two *sets* of images; the others take one
image, or an image and what it was made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from training.data.pseudo_pairs import F32, U8, rgb_to_lab

__all__ = [
    "LEVELS",
    "PATCHES",
    "PatchSet",
    "gradient_similarity",
    "laplacian_pyramid",
    "palette_distance",
    "palette_signature",
    "patch_set",
    "share_closed",
    "sliced_wasserstein",
    "swd_levels",
]

LEVELS = 5
"""Levels of the pyramid: 640 pixels down to 40; of smaller ones some twenty images give too few patches."""
PATCH = 7
PATCHES = 16_384
"""Patches of one set and level."""
DIRECTIONS = 512

PatchSet = list[F32]
"""Patches of a set of images, ``(PATCHES, 3, 7, 7)`` for each level, the finest first."""

GRADIENT_CONSTANT = 170.0
"""What keeps the similarity of small gradients near 1 (c of Xue et al. 2014, for lumas of 0..255)."""


def laplacian_pyramid(image: U8, levels: int = LEVELS) -> list[F32]:
    """Band-pass images from fine to coarse, and the low-pass rest (Burt and Adelson 1983); float32."""
    current = image.astype(np.float32)
    bands = []
    for _ in range(levels - 1):
        smaller = cv2.pyrDown(current)
        size = (current.shape[1], current.shape[0])
        bands.append(np.asarray(current - cv2.pyrUp(smaller, dstsize=size), np.float32))
        current = np.asarray(smaller, np.float32)
    return [*bands, current]


def patch_set(images: Sequence[U8], *, patches: int = PATCHES, levels: int = LEVELS, seed: int = 0) -> PatchSet:
    """Random 7x7 patches of every level, each image giving its equal share."""
    rng = np.random.default_rng(seed)
    shares = [len(part) for part in np.array_split(np.arange(patches), len(images))]
    found: list[list[F32]] = [[] for _ in range(levels)]
    for image, share in zip(images, shares, strict=True):
        for level, band in enumerate(laplacian_pyramid(image, levels)):
            found[level].append(_random_patches(band, share, rng))
    return [np.concatenate(parts) for parts in found]


def swd_levels(images: PatchSet, art: PatchSet, *, own_scale: bool = True) -> list[float]:
    """Sliced Wasserstein distance of two sets, level by level, times 1000.

    Karras et al. 2018 (ProGAN, arXiv 1710.10196, section 5).  As there, each set's channels are
    brought to zero mean and unit deviation first, so that the shape of structures counts and their
    contrast does not.  With ``own_scale=False`` both sets get the art's mean and deviation: contrast
    counts as well.
    """
    pairs = zip(images, art, strict=True)
    return [sliced_wasserstein(_normalised(a, a if own_scale else b), _normalised(b, b)) for a, b in pairs]


def _random_patches(band: F32, count: int, rng: np.random.Generator) -> F32:
    short = [max(0, PATCH - side) for side in band.shape[:2]]
    if any(short):
        band = np.pad(band, ((0, short[0]), (0, short[1]), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(band, (PATCH, PATCH), axis=(0, 1))
    y = rng.integers(windows.shape[0], size=count)
    x = rng.integers(windows.shape[1], size=count)
    return np.asarray(windows[y, x], np.float32)  # (count, 3, 7, 7)


def _normalised(patches: F32, by: F32) -> F32:
    mean, deviation = by.mean((0, 2, 3), keepdims=True), by.std((0, 2, 3), keepdims=True)
    return np.asarray((patches - mean) / np.maximum(deviation, 1e-6), np.float32).reshape(len(patches), -1)


def sliced_wasserstein(a: F32, b: F32, *, directions: int = DIRECTIONS, seed: int = 0) -> float:
    """Distance of two equally large sets of descriptors ``(N, D)``, times 1000.

    The mean over random directions of the one-dimensional Wasserstein distance (Rabin et al. 2011).
    ValueError where the sets differ in size.
    """
    if a.shape != b.shape:
        raise ValueError(f"two sets of one size are compared, got {a.shape = }, {b.shape = }")
    rng = np.random.default_rng(seed)
    total, chunk = 0.0, 64
    for _ in range(0, directions, chunk):
        axes = rng.normal(size=(a.shape[1], chunk)).astype(np.float32)
        axes /= np.linalg.norm(axes, axis=0)
        # Transposed, because sorting along the last axis is quicker.
        total += float(np.abs(np.sort((a @ axes).T) - np.sort((b @ axes).T)).mean())
    return total / len(range(0, directions, chunk)) * 1000.0


def palette_signature(images: Iterable[U8], *, pixels: int = 4096, cell: float = 10.0, seed: int = 0) -> F32:
    """The colours of a set of images as ``(K, 4)``: weight and mean Lab of every occupied cell.

    Signatures after Rubner et al. 2000; each image gives equally many pixels, drawn at random.
    """
    rng = np.random.default_rng(seed)
    lab = np.concatenate([_some_pixels(image, pixels, rng) for image in images])
    cells = np.floor(lab / np.array([cell, 1.2 * cell, 1.2 * cell], np.float32)).astype(np.int32)
    _, index, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    index = index.reshape(-1)
    means = np.stack([np.bincount(index, lab[:, c]) / counts for c in range(3)], -1)
    signature = np.column_stack([counts / counts.sum(), means]).astype(np.float32)
    kept = signature[np.argsort(-signature[:, 0], kind="stable")[:512]]  # the rare rest costs time, weighs little
    kept[:, 0] /= kept[:, 0].sum()
    return kept


def _some_pixels(image: U8, count: int, rng: np.random.Generator) -> F32:
    flat = image.reshape(-1, 1, 3)
    return rgb_to_lab(np.ascontiguousarray(flat[rng.integers(len(flat), size=count)])).reshape(-1, 3)


def palette_distance(a: F32, b: F32) -> float:
    """Earth mover's distance of two signatures in Lab units (Rubner et al. 2000)."""
    cost, _, _ = cv2.EMD(a, b, cv2.DIST_L2)
    return float(cost)


def share_closed(photo: float, output: float, art: float) -> float:
    """How much of the gap between photos and art a method closes: 0 as the photos, 1 as unseen art.

    All three are distances to the training art; the art's own is not zero, for art differs from art.
    """
    gap = photo - art
    return (photo - output) / gap if abs(gap) > 1e-9 else float("nan")


def gradient_similarity(image: U8, photo: U8) -> float:
    """Mean gradient-magnitude similarity of the lumas, 0..1 (Xue et al. 2014, arXiv 1308.3052)."""
    a, b = (_prewitt(_halved_luma(x)) for x in (image, photo))
    return float(((2 * a * b + GRADIENT_CONSTANT) / (a * a + b * b + GRADIENT_CONSTANT)).mean())


def _halved_luma(image: U8) -> F32:
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(cv2.blur(luma, (2, 2))[::2, ::2], np.float32)


def _prewitt(luma: F32) -> F32:
    step, mean = np.array([1.0, 0.0, -1.0]) / 3, np.ones(3)
    dx, dy = cv2.sepFilter2D(luma, -1, step, mean), cv2.sepFilter2D(luma, -1, mean, step)
    return np.asarray(np.hypot(dx, dy), np.float32)
