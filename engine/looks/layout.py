"""From what the probe of a `layers` model returns to what its render takes: tone, sky coordinate, glow.

All of it is small: a view of some 384 pixels and its layout with one cell for every 8 x 8 of them.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from engine.conditions import MAP_STRIDE, Conditions
from engine.program.shader import LUMA

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
LOWEST = 0.99
"""Share of the sky's area that lies above the horizon."""
PRIOR = 0.001
"""Share of the picture's area that is taken to be of every luma and row alike: where there is hardly any sky, or
land, its numbers go over into those of nothing in particular, without a jump from frame to frame."""
HORIZON_PRIOR = 0.0001
"""The same for the horizon, smaller: a strip of sky above a forest has its whole gradient."""
FINER = 2
"""Cells of a completed layout for one of the probe's, a side: of larger ones the sun would have corners."""
DIMMEST_SUN = 0.6
"""Luma that the brightest spot of a sky has if it is a sun."""
SUN_DROPS = (0.02, 0.05, 0.1)
"""Luma below the brightest down to which a spot is tried to be the sun."""
SUN_AREA = (5e-5, 0.012)
"""Of a picture."""
SUN_RINGS = ((1.6, 2.4), (2.8, 4.0), (5.0, 8.0))
"""Inner and outer radii of the rings around a sun, in radii of the spot."""
GLOW_RADIUS = 0.45
"""Of the sun's glow, in long sides of the picture."""


def complete(view: npt.NDArray[np.uint8], found: Conditions) -> Conditions:
    """Conditions without a palette.

    Args:
        view: what the probe has seen, without its padding, RGB uint8 ``(H, W, 3)``, sides multiples of 8.
        found: what it has returned: the map `layout` with sky and depth; cells beyond the view are dropped.

    Returns:
        The vector `tone` ``(7,)``, five knots of the land and lo and hi of the sky; the map
        `layout` ``(4, H/4, W/4)``: sky, depth, sky coordinate, glow.

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
    size = FINER * len(sky), FINER * sky.shape[1]
    rows = (np.arange(size[0]) + 0.5) / size[0]
    v = np.clip(rows / horizon(sky), 0, 1)[:, None] * np.ones(size)
    glow = glow_around(find_sun(view, sky), size)
    layout = np.stack([cv2.resize(channel, size[::-1]) for channel in layout])
    return Conditions(
        vectors={**found.vectors, "tone": tone},
        maps={"layout": np.concatenate([layout, np.stack([v, glow])]).astype(np.float32)},
    )


def view_luma(view: npt.NDArray[np.uint8]) -> F32:
    """Gamma-encoded luma of BT.601, ``(H, W)`` in 0..1."""
    return np.asarray(view.astype(np.float32) @ np.array(LUMA, np.float32) / 255, np.float32)


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
    """Where the sky ends, in heights of the picture: the 99th percentile of its rows."""
    rows = _certain(sky).sum(axis=1)
    return _quantiles(rows + HORIZON_PRIOR * sky.size / len(rows), (LOWEST,))[0]


def _certain(sky: F32) -> F32:
    """Shares of sky and land 0..1: what is uncertain all over the land is no sky, and the reverse."""
    return np.asarray(np.clip((sky - 0.3) / 0.4, 0, 1), np.float32)


def _quantiles(counts: npt.NDArray[np.floating], shares: tuple[float, ...]) -> list[float]:
    """Quantiles of a histogram over 0..1."""
    total = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
    return [float(np.interp(share * total[-1], total, np.linspace(0, 1, len(total)))) for share in shares]


def find_sun(view: npt.NDArray[np.uint8], sky: F32) -> tuple[float, float] | None:
    """Row and column of the sun in heights and widths of the picture; None: there is none to be seen.

    A sun is the brightest spot of the sky, if that is small, compact and alone, the sky around falls off evenly to
    all sides, and is warm: white spots in a blue or grey sky are clouds far more often than suns.

    Args:
        view: RGB uint8 ``(H, W, 3)``.
        sky: probability of sky, ``(H/8, W/8)``.
    """
    height, width = view.shape[:2]
    luma = np.asarray(cv2.GaussianBlur(view_luma(view), (0, 0), 1.0), np.float32)
    seen = cv2.resize(sky, (width, height)) > 0.5
    peak = float(np.where(seen, luma, 0).max())
    if peak < DIMMEST_SUN:
        return None
    for drop in SUN_DROPS:
        spot = _largest_spot(seen & (luma >= peak - drop))
        glare = float((luma[seen] > peak - drop - 0.12).mean())
        if spot is not None and _shines(view, luma, seen, spot, glare):
            row, column, _ = spot
            return (row + 0.5) / height, (column + 0.5) / width
    return None


def _largest_spot(mask: npt.NDArray[np.bool_]) -> tuple[float, float, float] | None:
    """Row, column and radius in pixels of the largest spot, if it is small, compact and the only large one."""
    least, most = (share * mask.size for share in SUN_AREA)
    if not least <= np.count_nonzero(mask) <= 1.5 * most:
        return None
    _, labels, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = facts[1:, cv2.CC_STAT_AREA]
    area = int(areas.max())
    if not least <= area <= most or areas.sum() > 1.5 * area:
        return None
    rows, columns = np.nonzero(labels == 1 + areas.argmax())
    if rows.var() + columns.var() > 1.8 * area / (2 * np.pi):  # of a disc: its area / 2 pi
        return None
    return float(rows.mean()), float(columns.mean()), float(np.sqrt(area / np.pi))


def _shines(
    view: npt.NDArray[np.uint8],
    luma: F32,
    seen: npt.NDArray[np.bool_],
    spot: tuple[float, float, float],
    glare: float,
) -> bool:
    """Whether the sky around a spot is like the sky around a sun: three rings, each in eight sectors.

    `glare`: share of the sky that is nearly as light.
    """
    row, column, radius = spot
    reach = int(SUN_RINGS[-1][1] * radius) + 3
    top, left = max(0, int(row) - reach), max(0, int(column) - reach)
    around = slice(top, int(row) + reach), slice(left, int(column) + reach)
    view, luma, seen = view[around], luma[around], seen[around]
    row, column = row - top, column - left
    y, x = np.ogrid[: luma.shape[0], : luma.shape[1]]
    distance = np.hypot(y - row, x - column)
    sector = ((np.arctan2(y - row, x - column) / np.pi + 1) * 4).astype(np.int64) % 8
    rings = [seen & (distance >= a * radius + 1) & (distance < b * radius + 2) for a, b in SUN_RINGS]
    parts = [
        [luma[ring & (sector == i)].mean() for i in range(8) if (ring & (sector == i)).sum() >= 4] for ring in rings
    ]
    if min(len(parts[0]), len(parts[1])) < 3:
        return False
    near, middle = float(np.mean(parts[0])), float(np.mean(parts[1]))
    far = float(np.mean(parts[2])) if parts[2] else middle
    core = luma[seen & (distance < max(radius, 1.5))]
    if not core.size:
        return False
    light = float(core.max())
    falls = light - middle > 0.07 and light - far > 0.12 and near >= middle - 0.01 and middle >= far - 0.02
    if not falls or light - max(parts[1]) <= 0.02:
        return False
    white = light > 0.92 and _warmth(view[rings[0]]) > 0.15 and glare < 0.15
    red = light - middle > 0.12 and _warmth(view[rings[2] if parts[2] else rings[1]]) > 0.25 and glare < 0.06
    return white or red


def _warmth(pixels: npt.NDArray[np.uint8]) -> float:
    """Red less blue, -1..1, in the mean."""
    return float(pixels[:, 0].astype(np.float64).mean() - pixels[:, 2].astype(np.float64).mean()) / 255


def glow_around(sun: tuple[float, float] | None, shape: tuple[int, int]) -> F32:
    """1 at the sun, falling ever more slowly to 0 at `GLOW_RADIUS`; cells are square."""
    if sun is None:
        return np.zeros(shape, np.float32)
    y, x = ((np.arange(n) + 0.5) - place * n for n, place in zip(shape, sun, strict=True))
    distance = np.hypot(y[:, None], x) / (GLOW_RADIUS * max(shape))
    return np.asarray(np.clip(1 - distance, 0, 1) ** 2, np.float32)
