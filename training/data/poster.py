"""The pseudo-pair of a photo: flat shapes with hard borders, painted along one ramp of colours.

`flat_shapes` leaves few gradients (L0 smoothing, Xu et al. 2011).  `ToneRank` orders its colours
from foreground to sky, and `paint` gives each place in that order the colour that a palette has
there.  It is what a generator learns in its warm-up; no network is involved.

Arrays are RGB uint8 ``(H, W, 3)`` unless a name says Lab: float32 ``(H, W, 3)`` with L in 0..100.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from training.data.pseudo_pairs import F32, RANKS, U8, PaletteMap, lab_to_rgb, rgb_to_lab

__all__ = ["SHARES_OF_AUTO", "ToneRank", "flat_shapes", "l0_smooth", "paint"]

WORKING_SIDE = 320
"""Longer side, in pixels, at which shapes are made: it decides how small the smallest are."""
SHARES_OF_AUTO = {"lightness": 0.7, "chroma": 0.35, "own": 1.3}
"""How `auto` paints (see `paint`): the lightness of art, and the picture's own colours, more vivid and tinted."""
TYPICAL_CONTRAST = 22.0
"""Deviation of the lightness of an ordinary photo; in flatter ones smaller steps count as edges."""


def l0_smooth(rgb: U8, weight: float = 0.02, *, growth: float = 2.0) -> U8:
    """The picture with the fewest gradients that still resembles `rgb`.

    L0 gradient minimization (Xu, Lu, Xu and Jia 2011), solved as in the paper by half-quadratic
    splitting: a threshold on the gradients and a Poisson problem in turns, the second by FFT.

    Args:
        rgb: uint8 ``(H, W, 3)``.
        weight: lambda of the paper, what a gradient costs; 0.02 leaves the large shapes.
        growth: kappa of the paper, by which the coupling of the two problems rises each turn.
    """
    h, w = rgb.shape[:2]
    # Reflected, because an FFT joins opposite borders; to a size that it does quickly.
    size = [cv2.getOptimalDFTSize(side + 16) for side in (h, w)]
    padded = cv2.copyMakeBorder(rgb, 0, size[0] - h, 0, size[1] - w, cv2.BORDER_REFLECT_101)
    image = torch.from_numpy(padded).permute(2, 0, 1).float().div(255)
    along_x, along_y = torch.fft.rfftfreq(size[1]), torch.fft.fftfreq(size[0])
    laplacian = 4 - 2 * torch.cos(2 * torch.pi * along_x)[None] - 2 * torch.cos(2 * torch.pi * along_y)[:, None]
    source = torch.fft.rfft2(image)
    coupling = 2 * weight
    while coupling < 1e5:
        dx, dy = torch.roll(image, -1, 2) - image, torch.roll(image, -1, 1) - image
        kept = (dx.square() + dy.square()).sum(0) >= weight / coupling
        dx, dy = dx * kept, dy * kept
        divergence = torch.roll(dx, 1, 2) - dx + torch.roll(dy, 1, 1) - dy
        spectrum = (source + coupling * torch.fft.rfft2(divergence)) / (1 + coupling * laplacian)
        image = torch.fft.irfft2(spectrum, s=size)
        coupling *= growth
    smooth = image[:, :h, :w].permute(1, 2, 0).mul(255).round().clamp(0, 255)
    return np.ascontiguousarray(smooth.byte().numpy())


def flat_shapes(photo: U8) -> U8:
    """The photo as flat shapes with hard borders, at its own size.

    Made at 320 pixels, so that leaves and pebbles join; a photo with little contrast keeps smaller steps.
    """
    h, w = photo.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(h, w))
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    small = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8)
    contrast = float(rgb_to_lab(small)[..., 0].std()) / TYPICAL_CONTRAST
    flat = l0_smooth(small, 0.02 * float(np.clip(contrast**2, 0.25, 1.5)))
    return np.asarray(cv2.resize(flat, (w, h), interpolation=cv2.INTER_CUBIC), np.uint8)


@dataclass(frozen=True, kw_only=True)
class ToneRank:
    """Where a colour of one picture stands between its foreground (0) and its sky (1)."""

    table: F32
    """Rank at tone 0, 0.1, ... 100, ``(1001,)``, rising from 0 to 1."""

    @classmethod
    def of(cls, rgb: U8) -> ToneRank:
        """Measure a picture.

        Half way between its own histogram and a straight line over a range that is wider than the
        picture's own: a large sky does not take half of the palette, and a dark forest stays dark.
        """
        tones = tone(rgb_to_lab(rgb))
        counts = np.bincount(_levels(tones).ravel(), minlength=1001).astype(np.float64)
        smooth = cv2.GaussianBlur(counts[:, None], (1, 91), 15, borderType=cv2.BORDER_REPLICATE)[:, 0]
        counts = np.asarray(smooth / smooth.sum(), np.float64)
        low, high = np.searchsorted(np.cumsum(counts), [0.003, 0.997])
        line = np.zeros(1001)
        line[int(0.5 * low) : int(high + 0.35 * (1000 - high)) + 1] = 1.0
        counts = 0.6 * counts + 0.4 * line / line.sum()
        return cls(table=(np.cumsum(counts) - counts / 2).astype(np.float32))

    def __call__(self, lab: F32) -> F32:
        """Rank 0..1 of each pixel of a Lab image, ``(H, W)``."""
        return np.asarray(self.table[_levels(tone(lab))], np.float32)


def tone(lab: F32) -> F32:
    """Lightness 0..100 as a painter of layers sees it: blue (sky, haze, water) is lighter, green darker."""
    light, a, b = lab[..., 0], lab[..., 1], lab[..., 2]
    green = np.minimum(a, 0) * np.clip(1 + b / 10, 0, 1)
    return np.asarray(np.clip(light + 0.7 * np.maximum(-b, 0) + 0.35 * green, 0, 100), np.float32)


def _levels(tones: F32) -> npt.NDArray[np.int32]:
    return np.clip(np.rint(tones * 10), 0, 1000).astype(np.int32)


def paint(
    flat: U8, palette: PaletteMap, rank: ToneRank, *, lightness: float = 0.85, chroma: float = 0.9, own: float = 0.1
) -> U8:
    """`flat` in the colours of `palette`.

    Args:
        flat: uint8 ``(H, W, 3)``, or a crop of it.
        palette: colours from foreground to sky.
        rank: measured on the whole picture.
        lightness: share of the palette in L; the rest stays the picture's.
        chroma: the same for a and b.
        own: share of its own a and b that the picture keeps; more than the rest makes it more vivid.
    """
    lab = rgb_to_lab(flat)
    ranks, steps = rank(lab) * (RANKS - 1), np.arange(RANKS)
    painted = np.stack([np.interp(ranks, steps, palette.colors[:, c]) for c in range(3)], -1)
    kept, taken = np.array([1 - lightness, own, own]), np.array([lightness, chroma, chroma])
    return lab_to_rgb((lab * kept + painted * taken).astype(np.float32))
