"""A classical photo -> flat-art transfer, the baseline to beat; and the colours it shares with `poster`.

No network is involved.  `flatten` removes texture while it keeps edges (mean shift, Comaniciu and
Meer 2002, followed by a domain-transform filter, Gastal and Oliveira 2011, which takes the bands
out of smooth skies).  `PaletteMap` then repaints the flat picture with the colours of one art
image: a pixel at lightness rank q receives the mean Lab colour that the art has at rank q.

Arrays are RGB uint8 ``(H, W, 3)`` unless a name says Lab: float32 ``(H, W, 3)`` with L in 0..100.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "LightnessRank",
    "PaletteMap",
    "flatten",
    "lab_to_rgb",
    "nearest_palette",
    "rgb_to_lab",
]

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

RANKS = 64


def rgb_to_lab(rgb: U8) -> F32:
    """CIE Lab (D65) of an RGB uint8 image: float32 ``(H, W, 3)``, L in 0..100."""
    return np.asarray(cv2.cvtColor(rgb.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB), np.float32)


def lab_to_rgb(lab: F32) -> U8:
    """Inverse of `rgb_to_lab`, clipped to the sRGB gamut."""
    rgb = cv2.cvtColor(np.ascontiguousarray(lab, np.float32), cv2.COLOR_LAB2RGB)
    return np.asarray(np.clip(np.rint(rgb * 255.0), 0, 255), np.uint8)


def flatten(rgb: U8, *, spatial: float = 8.0, color: float = 24.0, smooth: bool = True) -> U8:
    """Flat areas with sharp borders: mean shift, then a domain-transform filter over its bands.

    Args:
        rgb: uint8 ``(H, W, 3)``.
        spatial: spatial radius of the mean shift, in pixels.
        color: colour radius, in 8-bit levels.
        smooth: run the second filter; without it this is the plain mean-shift baseline.
    """
    # OpenCV is indifferent to the channel order here.
    flat = cv2.pyrMeanShiftFiltering(np.ascontiguousarray(rgb), spatial, color, maxLevel=1)
    if smooth:
        flat = cv2.edgePreservingFilter(flat, flags=cv2.RECURS_FILTER, sigma_s=12, sigma_r=0.12)
    return np.asarray(flat, np.uint8)


@dataclass(frozen=True, kw_only=True)
class LightnessRank:
    """The share of a picture's pixels that are darker than a given lightness."""

    table: F32
    """Share at L = 0, 0.1, ... 100, ``(1001,)``, rising from 0 to 1."""

    @classmethod
    def of(cls, rgb: U8) -> LightnessRank:
        """Measure a picture; equal pixels share the middle of their range, so flat areas stay flat."""
        counts = np.bincount(_levels(rgb_to_lab(rgb)[..., 0]).ravel(), minlength=1001).astype(np.float64)
        # A floor under the histogram limits the slope where noise would turn into contrast.
        counts += counts.sum() * 0.15 / 1001
        return cls(table=((np.cumsum(counts) - counts / 2) / counts.sum()).astype(np.float32))

    def __call__(self, lightness: F32) -> F32:
        """Rank 0..1 of each lightness value."""
        return np.asarray(self.table[_levels(lightness)], np.float32)


def _levels(lightness: F32) -> npt.NDArray[np.int32]:
    return np.clip(np.rint(lightness * 10), 0, 1000).astype(np.int32)


@dataclass(frozen=True, kw_only=True)
class PaletteMap:
    """The colours of one art image, ordered by lightness rank."""

    colors: F32
    """Mean Lab of the art's pixels in each of 64 equal slices of its lightness order, ``(64, 3)``."""

    @classmethod
    def of(cls, art: U8, *, smoothing: float = 1.5) -> PaletteMap:
        """Measure an art image; `smoothing` is the Gaussian sigma, in ranks, that joins the slices."""
        lab = rgb_to_lab(art).reshape(-1, 3)
        order = np.argsort(lab[:, 0], kind="stable")
        means = np.stack([part.mean(0) for part in np.array_split(lab[order], RANKS)])
        if smoothing > 0:
            means = _smooth(means, smoothing)
        return cls(colors=means.astype(np.float32))

    def apply(
        self, flat: U8, *, rank: LightnessRank | None = None, lightness: float = 0.65, chroma: float = 0.75
    ) -> U8:
        """Repaint `flat`: L is mixed by `lightness`, a and b by `chroma` (0 keeps, 1 replaces).

        `rank` is measured on `flat` itself unless given (a crop wants the rank of its whole picture).
        """
        lab = rgb_to_lab(flat)
        ranks = (rank or LightnessRank.of(flat))(lab[..., 0]) * (RANKS - 1)
        steps = np.arange(RANKS)
        mapped = np.stack([np.interp(ranks, steps, self.colors[:, c]) for c in range(3)], -1)
        mix = np.array([lightness, chroma, chroma], np.float32)
        return lab_to_rgb((lab * (1 - mix) + mapped * mix).astype(np.float32))

    def distance(self, other: PaletteMap) -> float:
        """How unlike two palettes are: sorted-L profile plus mean chroma, in Lab units."""
        profile = np.abs(self.colors[:, 0] - other.colors[:, 0]).mean()
        hue = np.linalg.norm(self.colors[:, 1:].mean(0) - other.colors[:, 1:].mean(0))
        return float(profile + hue)


def _smooth(values: F32, sigma: float) -> F32:
    """Gaussian smoothing along axis 0 with replicated ends."""
    radius = int(3 * sigma + 1)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(values, ((radius, radius), (0, 0)), mode="edge")
    return np.stack([np.convolve(padded[:, c], kernel, mode="valid") for c in range(3)], -1)


def nearest_palette(own: PaletteMap, palettes: Sequence[PaletteMap]) -> int:
    """Index of the palette closest to a photo's `own`; ValueError if there is none."""
    if not palettes:
        raise ValueError("got no palettes: the art folder is empty")
    return int(np.argmin([own.distance(p) for p in palettes]))
