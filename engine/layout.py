"""From what the probe of a `layers` model returns to what its render takes: tone, sky coordinate, glow.

All of it is small: a view of some 384 pixels and its layout with one cell for every 8 x 8 of them.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from engine.conditions import MAP_STRIDE, Conditions

__all__ = ["TONES", "complete", "find_sun", "glow_around", "horizon", "sky_range", "tone_knots", "view_luma"]

F32 = npt.NDArray[np.float32]

TONES = (0.0, 1 / 6, 1 / 2, 5 / 6, 1.0)
"""Of the land at the five knots of its luma.  With three steps the borders fall on the three in the middle."""
LAND_SPAN = (0.02, 0.98)
"""Percentiles of the land's luma that are the first and the last knot."""
LAND_LEAST = 0.2
"""Between the first and the last knot, of luma."""
EVEN = 0.25
"""Share of evenly spaced knots in the land's: no two come too near to each other."""
ROUNDS = 12
"""Of k-means: few, and of a blurred histogram, because classes that settle fully change over at once."""
BLUR = 4.0
"""Standard deviation of that blur, in levels."""
DAMPING = 0.1
"""Of a class's middle in k-means: how much of the old one stays."""
LEVELS = 256
"""Of luma that are told apart."""
SKY_SPAN = (0.03, 0.97)
"""Percentiles of the sky's luma that become 0 and 1 of its tone."""
SKY_LEAST = 0.25
"""Of luma that the sky's tone spreads over 0..1."""
LOWEST = 0.995
"""Share of the sky's area that lies above the horizon."""
PRIOR = 0.001
"""Share of the picture's area that is taken to be of every luma and row alike: where there is hardly any sky, or
land, its numbers go over into those of nothing in particular, without a jump from frame to frame."""
GLOW_RADIUS = 0.35
"""Of the sun's glow, in long sides of the picture."""


def complete(view: npt.NDArray[np.uint8], found: Conditions) -> Conditions:
    """Conditions without a palette.

    Args:
        view: what the probe has seen, without its padding, RGB uint8 ``(H, W, 3)``, sides multiples of 8.
        found: what it has returned: the map `layout` with sky and depth; cells beyond the view are dropped.

    Returns:
        The vector `tone` ``(7,)``, five knots of the land and lo and hi of the sky; the map
        `layout` ``(4, H/8, W/8)``: sky, depth, sky coordinate, glow.

    Raises:
        ValueError: the view's sides are no multiples of 8.
    """
    height, width = view.shape[:2]
    if height % MAP_STRIDE or width % MAP_STRIDE:
        raise ValueError(f"a view has sides that are multiples of {MAP_STRIDE}, got {height} x {width}")
    layout = found.maps["layout"][:2, : height // MAP_STRIDE, : width // MAP_STRIDE]
    sky, luma = layout[0], view_luma(view)
    smooth = np.asarray(cv2.GaussianBlur(luma, (0, 0), 1.0), np.float32)  # grain is no tone
    share = _certain(np.asarray(cv2.resize(sky, (width, height)), np.float32))
    tone = np.array([*tone_knots(smooth, 1 - share), *sky_range(smooth, share)], np.float32)
    rows = (np.arange(len(sky)) + 0.5) / len(sky)
    v = np.clip(rows / horizon(sky), 0, 1)[:, None] * np.ones_like(sky)
    glow = glow_around(find_sun(luma, sky), (len(sky), sky.shape[1]))
    return Conditions(
        vectors={**found.vectors, "tone": tone},
        maps={"layout": np.concatenate([layout, np.stack([v, glow])]).astype(np.float32)},
    )


def view_luma(view: npt.NDArray[np.uint8]) -> F32:
    """Gamma-encoded luma of BT.601, ``(H, W)`` in 0..1."""
    return np.asarray(view.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255, np.float32)


def tone_knots(luma: F32, share: F32) -> F32:
    """Luma at which the land's tone takes the values of `TONES`, rising, ``(5,)``.

    The first and the last are percentiles.  Between them lie the borders of four classes of luma (k-means in one
    dimension, started evenly), so that steps of tone fall between the picture's own shades and cut no flat area in
    two.  Every border divides the counts of its level in proportion: knots move with the picture and never jump.

    Args:
        luma: in 0..1, of any shape.
        share: how much of every pixel is land, 0..1, of the same shape.
    """
    counts = _counts(luma, share)
    lo, hi = _quantiles(counts, LAND_SPAN)
    hi = max(hi, lo + LAND_LEAST)
    edges = np.linspace(0, 1, LEVELS + 1)
    levels = np.clip((edges[1:] + edges[:-1]) / 2, lo, hi)
    soft = cv2.GaussianBlur(counts[None], (0, 0), BLUR, borderType=cv2.BORDER_REFLECT)[0]
    below = [np.concatenate([[0.0], np.cumsum(c)]) for c in (soft, soft * levels)]
    classes = len(TONES) - 1
    middles = lo + (np.arange(classes) + 0.5) / classes * (hi - lo)
    for _ in range(ROUNDS):
        borders = np.concatenate([[0.0], (middles[1:] + middles[:-1]) / 2, [1.0]])
        count, total = (np.diff(np.interp(borders, edges, b)) for b in below)
        middles = (1 - DAMPING) * total / count + DAMPING * middles
    even = np.linspace(lo, hi, len(TONES))
    knots = np.concatenate([[lo], (middles[1:] + middles[:-1]) / 2, [hi]])
    return np.asarray((1 - EVEN) * knots + EVEN * even, np.float32)


def sky_range(luma: F32, share: F32) -> tuple[float, float]:
    """3rd and 97th percentile of luma, at least 0.25 apart; `share`: how much of every pixel is sky, 0..1."""
    low, high = _quantiles(_counts(luma, share), SKY_SPAN)
    return low, max(high, low + SKY_LEAST)


def _counts(luma: F32, share: F32) -> npt.NDArray[np.float64]:
    """Weighted histogram of luma, with a little of every level."""
    levels = np.clip(luma * LEVELS, 0, LEVELS - 1).astype(np.int64)
    counts = np.bincount(levels.reshape(-1), share.reshape(-1), minlength=LEVELS)
    return np.asarray(counts + PRIOR * luma.size / LEVELS, np.float64)


def horizon(sky: F32) -> float:
    """Where the sky ends, in heights of the picture: the 99.5th percentile of its rows."""
    rows = _certain(sky).sum(axis=1)
    return _quantiles(rows + PRIOR * sky.size / len(rows), (LOWEST,))[0]


def _certain(sky: F32) -> F32:
    """Shares of sky and land 0..1: what is uncertain all over the land is no sky, and the reverse."""
    return np.asarray(np.clip((sky - 0.3) / 0.4, 0, 1), np.float32)


def _spread(cells: F32) -> F32:
    """Cells as the pixels that they stand for."""
    return cells.repeat(MAP_STRIDE, 0).repeat(MAP_STRIDE, 1)


def _quantiles(counts: npt.NDArray[np.floating], shares: tuple[float, ...]) -> list[float]:
    """Quantiles of a histogram over 0..1."""
    total = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
    return [float(np.interp(share * total[-1], total, np.linspace(0, 1, len(total)))) for share in shares]


def find_sun(luma: F32, sky: F32) -> tuple[float, float] | None:
    """Row and column of the sun in heights and widths of the picture; None: there is none to be seen.

    A sun is what is clipped within the sky, if that is one compact blob: small, and not spread further than twice
    what a disc of its area would be.
    """
    mask = (luma >= 0.97) & (_spread(sky) > 0.5)
    rows, columns = np.nonzero(mask)
    if not 2e-4 * mask.size <= len(rows) <= 0.02 * mask.size:
        return None
    spread = rows.var() + columns.var()  # area / 2 pi for a disc
    if spread > 2 * len(rows) / (2 * np.pi):
        return None
    return (rows.mean() + 0.5) / mask.shape[0], (columns.mean() + 0.5) / mask.shape[1]


def glow_around(sun: tuple[float, float] | None, shape: tuple[int, int]) -> F32:
    """1 at the sun, falling evenly to 0 at `GLOW_RADIUS`; cells are square."""
    if sun is None:
        return np.zeros(shape, np.float32)
    y, x = ((np.arange(n) + 0.5) - place * n for n, place in zip(shape, sun, strict=True))
    distance = np.hypot(y[:, None], x) / (GLOW_RADIUS * max(shape))
    return np.asarray(np.clip(1 - distance, 0, 1), np.float32)
