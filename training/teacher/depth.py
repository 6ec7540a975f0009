"""How far away the parts of a landscape are, 0 near to 1 far, without a label or a second view.

Four cues, of things and not of pixels alone: where a thing stands (the lowest rows of its region), the pixel's own
row, what things of such an appearance tend to be (`training.teacher.height`), and haze.  Their sum is smoothed
except across edges, so that depth steps at the borders of real things and is a gentle gradient inside.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from training.teacher.filters import F32, Image, lab, smooth

__all__ = ["depth_of"]

STANDS, OWN_ROW, APPEARANCE, HAZE = 0.42, 0.14, 0.24, 0.20
"""Weights of the four cues."""
CLASSES = 8
"""Colours that regions are made of."""
LEAST = 0.0008
"""Share of the picture below which a region joins its neighbour."""


def depth_of(image: Image, flat: Image, smoothed: Image, sky: F32, height: F32, evidence: F32) -> F32:
    """Depth ``(H, W)`` of the land, 0 near to 1 far; half of the way towards equal shares of all depths.

    Args:
        image: RGB uint8 ``(H, W, 3)``.
        flat: the picture after a strong `l0_smooth`, from which the regions are taken.
        smoothed: the picture after a weak one, whose edges depth keeps.
        sky: mask 0..1.
        height: appearance height (0 top, 1 bottom), of any size.
        evidence: `edge_evidence` of the picture.
    """
    land = sky < 0.5
    if land.mean() < 0.01:
        return np.zeros(sky.shape, np.float32)
    rows = np.repeat(np.linspace(0, 1, len(sky), dtype=np.float32)[:, None], sky.shape[1], 1)
    top = float(np.quantile(rows[land], 0.01))
    regions = _regions(flat, sky)

    def below(row: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        return np.asarray(np.clip((row - top) / (1 - top + 1e-3), 0, 1))

    colours = lab(flat)
    appearance = 1 - np.clip((cv2.resize(height.astype(np.float32), sky.shape[::-1]) - 0.25) / 0.5, 0, 1)
    chroma = np.hypot(colours[..., 1], colours[..., 2] + 6)
    haze = np.clip((colours[..., 0] / 100 - 0.15) / 0.7, 0, 1) * np.clip(1 - chroma / 45, 0, 1)
    depth = (
        STANDS * (1 - below(_stand(regions, rows, land)))
        + OWN_ROW * (1 - below(rows))
        + APPEARANCE * (appearance + _mean(regions, appearance)) / 2
        + HAZE * _mean(regions, haze)
    )
    guide = np.asarray(cv2.GaussianBlur(smoothed, (0, 0), 1.2 * max(sky.shape) / 640), np.uint8)
    depth = smooth(depth.astype(np.float32), guide, strength=3000, tolerance=6, regions=land, evidence=evidence)
    low, high = np.quantile(depth[land], [0.02, 0.98])
    depth = np.clip((depth - low) / (high - low + 1e-4), 0, 1)
    places = np.linspace(0, 1, 17)
    rank = np.interp(depth, np.quantile(depth[land], places) + np.arange(17) * 1e-6, places)
    return np.asarray(0.5 * depth + 0.5 * rank, np.float32)


def _regions(flat: Image, sky: F32) -> npt.NDArray[np.int32]:
    """Numbers of connected regions of one colour, int ``(H, W)``; small ones join the nearest large one."""
    height, width = sky.shape
    colours = (lab(flat) * np.array([1, 0.9, 0.9], np.float32)).reshape(-1, 3)
    cv2.setRNGSeed(1)
    sample = colours[np.random.default_rng(0).choice(len(colours), min(len(colours), 20000), False)]
    centres = cv2.kmeans(sample, CLASSES, None, (3, 20, 0.5), 2, cv2.KMEANS_PP_CENTERS)[2]  # type: ignore[call-overload]
    nearest = np.argmin(((colours[:, None] - centres[None]) ** 2).sum(2), 1).reshape(height, width)
    classes = cv2.medianBlur(nearest.astype(np.uint8), 5)
    classes[sky > 0.5] = CLASSES
    regions, count = np.zeros((height, width), np.int32), 0
    for value in range(CLASSES + 1):
        found, labels = cv2.connectedComponents((classes == value).astype(np.uint8))
        regions[labels > 0] = labels[labels > 0] + count
        count += found - 1
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    small = ((sizes[regions] < LEAST * height * width) | (regions == 0)).astype(np.uint8)
    if small.any() and not small.all():
        nearest = cv2.distanceTransformWithLabels(small, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)[1]
        of_pixel = np.zeros(nearest.max() + 1, np.int32)
        of_pixel[nearest[small == 0]] = regions[small == 0]
        regions = np.where(small == 1, of_pixel[nearest], regions)
    return regions


def _mean(regions: npt.NDArray[np.int32], values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Every pixel's region's mean."""
    sizes = np.maximum(np.bincount(regions.ravel()), 1)
    means = np.bincount(regions.ravel(), values.ravel().astype(np.float64)) / sizes
    return np.asarray(means[regions])


def _stand(regions: npt.NDArray[np.int32], rows: F32, land: npt.NDArray[np.bool_]) -> npt.NDArray[np.floating]:
    """The row that every pixel's region stands on: the 92nd percentile of its rows."""
    number, row = regions[land], rows[land]
    order = np.lexsort((row, number))
    number, row = number[order], row[order]
    every = np.arange(regions.max() + 1)
    start, stop = np.searchsorted(number, every), np.searchsorted(number, every, side="right")
    place = start + ((np.maximum(stop - start, 1) - 1) * 0.92).astype(np.int64)
    base = np.where(stop > start, row[np.minimum(place, len(row) - 1)], 0)
    return np.asarray(base[regions])
