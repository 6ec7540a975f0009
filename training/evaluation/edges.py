"""Flat areas and crisp borders, measured on the lightness alone: no network, no colour, no contrast.

Images are RGB uint8 ``(H, W, 3)``; lightness is L* of CIE Lab, 0..100.  For numbers that can be compared, all
images have one size (640 pixels on the longer side in `train-generator evaluate`).
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from training.data.pseudo_pairs import F32, U8, rgb_to_lab

__all__ = ["edge_width", "flat_pixels", "gini", "gradient_gini"]

FLAT_BELOW = 1 / 64
"""A pixel is flat where lightness changes by less than this share of the picture's contrast per pixel."""
STRONG = 0.5
"""`edge_width` measures edges at least this steep, as a share of the 99th percentile of all edge pixels."""
MOST_EDGES = 4000
REACH = 24
"""Pixels to both sides of an edge within which its ends are looked for."""
STEP = 0.25
"""Distance of the samples across an edge, in pixels."""


def gini(values: npt.NDArray[np.generic]) -> float:
    """Gini coefficient of values >= 0 (Gini 1912): 0 where all are equal, towards 1 where a few hold everything.

    Half the mean absolute difference of two values, over the mean: ``sum((2i - n - 1) x_i) / (n sum(x))`` for
    values in rising order.  0 where all are zero.
    """
    x = np.sort(values, axis=None).astype(np.float64)
    n, total = len(x), x.sum()
    return float(((2 * np.arange(1, n + 1) - n - 1) * x).sum() / (n * total)) if total > 0 else 0.0


def gradient_gini(image: U8) -> float:
    """Gini of the gradient magnitudes of the lightness: near 1 where all change lies in a few lines.

    It does not see colours, and neither the contrast: a factor on all gradients takes itself out.
    """
    return gini(_magnitude(_lightness(image)))


def flat_pixels(image: U8) -> float:
    """Share of pixels whose gradient is below `FLAT_BELOW` of the contrast per pixel.

    The contrast is the distance of the 5th from the 95th percentile of the lightness.  1 for a picture without any.
    """
    lightness = _lightness(image)
    low, high = np.percentile(lightness, (5, 95))
    return float((_magnitude(lightness) < FLAT_BELOW * max(high - low, 1e-3)).mean())


def edge_width(image: U8) -> float:
    """Median width of the strongest edges in pixels: the way from 10 % to 90 % of the rise, straight across.

    Edge pixels are where the gradient is largest across the edge (Canny 1986); those half as steep as the steepest
    (their 99th percentile) and more count.
    Each edge reaches to the nearest extremum of the lightness on both sides (Marziliano et al. 2002).  A hard step
    between two pixels has 0.8, a straight ramp of w pixels 0.8 w, a step under a Gaussian blur 2.56 sigma.
    nan for a picture without edges.
    """
    lightness = _lightness(image)
    y, x, across = _strongest_edges(lightness)
    if not len(y):
        return float("nan")
    t = np.arange(-REACH, REACH + STEP / 2, STEP, dtype=np.float32)
    profiles = _sample(lightness, y[:, None] + t * across[0][:, None], x[:, None] + t * across[1][:, None])
    return float(np.median(_rise_widths(profiles) * STEP))


def _lightness(image: U8) -> F32:
    return np.ascontiguousarray(rgb_to_lab(image)[..., 0])


def _gradient(lightness: F32) -> tuple[F32, F32]:
    """Change per pixel in y and x (Scharr, whose weights add up to 32)."""
    dy, dx = (cv2.Scharr(lightness, cv2.CV_32F, *order) / 32 for order in ((0, 1), (1, 0)))
    return np.asarray(dy, np.float32), np.asarray(dx, np.float32)


def _magnitude(lightness: F32) -> F32:
    return np.asarray(np.hypot(*_gradient(lightness)), np.float32)


def _strongest_edges(lightness: F32) -> tuple[F32, F32, tuple[F32, F32]]:
    """y and x of the strongest edge pixels ``(N)``, and the unit vectors (y, x) in which the lightness rises."""
    dy, dx = _gradient(lightness)
    magnitude = np.hypot(dy, dx)
    y, x = np.nonzero(magnitude > 1e-3)
    here = magnitude[y, x]
    across = np.asarray(dy[y, x] / here, np.float32), np.asarray(dx[y, x] / here, np.float32)
    before, behind = (_sample(magnitude, y + s * across[0], x + s * across[1]) for s in (-1, 1))
    ridge = np.nonzero((here >= before) & (here > behind))[0]
    if len(ridge):
        ridge = ridge[here[ridge] >= STRONG * np.percentile(here[ridge], 99)]
    chosen = ridge[:: max(1, len(ridge) // MOST_EDGES)]
    return y[chosen].astype(np.float32), x[chosen].astype(np.float32), (across[0][chosen], across[1][chosen])


def _sample(image: F32, y: npt.NDArray[np.generic], x: npt.NDArray[np.generic]) -> F32:
    """Values between the pixels, bilinear; the border goes on outside.  Of the shape of `y`."""
    shape, rows = y.shape, (-1, 1 if y.ndim == 1 else y.shape[1])
    found = [
        cv2.remap(image, a.astype(np.float32), b.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for a, b in zip(_parts(x.reshape(rows)), _parts(y.reshape(rows)), strict=True)
    ]
    return np.asarray(np.concatenate(found) if found else np.zeros(0), np.float32).reshape(shape)


def _parts(values: npt.NDArray[np.generic], size: int = 32_000) -> list[npt.NDArray[np.generic]]:
    """Rows in pieces, because OpenCV maps no more than 32,767 at once."""
    return [values[i : i + size] for i in range(0, len(values), size)]


def _rise_widths(profiles: F32) -> F32:
    """Samples from 10 % to 90 % of the rise through the middle of each profile ``(N, K)``."""
    middle, rising = profiles.shape[1] // 2, np.diff(profiles, axis=1) > 0
    # The rise ends at the first step that is none, seen from the middle outwards.
    right = _first_false(rising[:, middle:]) + middle
    left = middle - _first_false(rising[:, :middle][:, ::-1])
    place, rows = np.arange(profiles.shape[1]), np.arange(len(profiles))
    low, high = profiles[rows, left], profiles[rows, right]
    inside = np.clip(profiles, low[:, None], high[:, None])
    inside = np.where(place < left[:, None], low[:, None], np.where(place > right[:, None], high[:, None], inside))
    begin, end = (_crossing(inside, low + share * (high - low)) for share in (0.1, 0.9))
    return end - begin


def _first_false(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Index of the first False of each row; the length of the row where there is none."""
    return np.asarray(np.where(flags.all(1), flags.shape[1], np.argmin(flags, axis=1)), np.intp)


def _crossing(rising: F32, level: F32) -> F32:
    """Where each row of rising values reaches its level, between the samples."""
    after = np.maximum(np.argmax(rising >= level[:, None], axis=1), 1)
    rows = np.arange(len(rising))
    low, high = rising[rows, after - 1], rising[rows, after]
    return np.asarray(after - 1 + (level - low) / np.maximum(high - low, 1e-6), np.float32)
