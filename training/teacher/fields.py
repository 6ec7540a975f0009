"""The fields of a photo as the teacher sees them: what the layered generator is to make from it.

Sky and clouds, depth and tone are smooth maps; the steps come later, in the shader, as their isolines.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from engine.layout import TONES, tone_knots, view_luma
from training.teacher.depth import depth_of
from training.teacher.filters import F32, Image, edge_evidence, l0_smooth, lab, masked_blur, smooth, unit
from training.teacher.sky import fine_structure

__all__ = ["teach"]

BUSY, BUSY_RANGE, MOST_BUSY = 0.10, 0.14, 0.85
"""Share of pixels at a step from which on texture is merged, how much more merges all of it, and the limit."""


def teach(image: Image, sky: F32, height: F32) -> F32:
    """Fields of a photo, float32 ``(H, W, 4)`` in 0..1: sky, depth (0 near), tone, cloud (0.5: clear sky).

    Args:
        image: RGB uint8 ``(H, W, 3)``.
        sky: mask of `training.teacher.sky.refine_sky`.
        height: appearance height, of any size.
    """
    s = unit(image)
    land = sky < 0.5
    contrast = float(np.clip((lab(image)[..., 0].std() / 22) ** 2, 0.3, 1.5))
    smoothed, flat = l0_smooth(image, 0.02 * contrast), l0_smooth(image, 0.10 * contrast)
    evidence = edge_evidence(image)
    crowns = _crowns(image, sky)
    depth = depth_of(image, flat, smoothed, sky, height, evidence) * (1 - 0.6 * crowns)
    tone = _tone(smoothed, land, evidence) * (1 - 0.85 * crowns)
    tone = cv2.GaussianBlur(tone.astype(np.float32), (0, 0), 0.7 * s)
    return np.dstack([sky, depth, tone, _clouds(image, sky)]).clip(0, 1).astype(np.float32)


def _tone(smoothed: Image, land: npt.NDArray[np.bool_], evidence: F32) -> npt.NDArray[np.floating]:
    """Lightness of the land without texture, its classes spread evenly; see `engine.layout.tone_knots`."""
    s = unit(smoothed)

    def merged(values: F32, blur: float, strength: float, tolerance: float) -> F32:
        guide = np.asarray(cv2.GaussianBlur(smoothed, (0, 0), blur * s), np.uint8)
        return smooth(values, guide, strength=strength, tolerance=tolerance, regions=land, evidence=evidence)

    light = merged(view_luma(smoothed), 0.7, 120, 7)
    knots = tone_knots(light, land.astype(np.float32))
    tone = np.interp(light, knots, TONES)
    # Fine texture merges: where the steps would alternate too densely, a coarser smoothing takes over.
    step = np.round(tone * 3)
    alternates = (
        np.abs(np.diff(step, axis=1, append=step[:, -1:])) + np.abs(np.diff(step, axis=0, append=step[-1:]))
    ) > 0
    density = masked_blur(alternates.astype(np.float32), land, 18 * s)
    busy = np.clip((density - BUSY) / BUSY_RANGE, 0, MOST_BUSY)
    coarse = np.interp(merged(light, 1.0, 350, 13), knots, TONES)
    return np.asarray(tone * (1 - busy) + coarse * busy)


def _crowns(image: Image, sky: F32) -> F32:
    """0..1: leaves and branches in front of the sky, and the crowns that they belong to; they become silhouettes."""
    s = unit(image)
    land = sky < 0.5
    leaves = fine_structure(sky) * land
    colours = lab(image)
    light = colours[..., 0]
    texture = cv2.GaussianBlur(np.abs(light - cv2.GaussianBlur(light, (0, 0), 2 * s)), (0, 0), 5 * s)
    texture = np.clip((texture - 4) / 4, 0.3, 1)
    green = np.clip((12 - colours[..., 1]) / 10, 0, 1) * np.clip((70 - light) / 25, 0, 1)
    around = np.clip(2.2 * cv2.GaussianBlur(leaves, (0, 0), 8 * s), 0, 1)
    seen = np.maximum(leaves, around * texture * np.maximum(green, 0.3)).astype(np.float32)
    guide = np.asarray(cv2.GaussianBlur(image, (0, 0), 2.5 * s), np.uint8)
    grown = smooth(seen, guide, strength=2500, tolerance=9, regions=land)
    return np.asarray(np.clip(2.2 * grown - 0.1, 0, 1) * land, np.float32)


def _clouds(image: Image, sky: F32) -> F32:
    """0..1: how much lighter (1) or darker (0) than the sky's own gradient; 0.5 where it is clear."""
    s = unit(image)
    inside = cv2.erode((sky > 0.9).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if inside.sum() < 200:
        return np.full(sky.shape, 0.5, np.float32)
    light = masked_blur(view_luma(image), inside, 2 * s)
    above = light - _gradient(light, inside)
    above = np.where(inside, above, 0).astype(np.float32)
    above = above - 0.7 * masked_blur(above, inside, sky.shape[1] / 7)
    # A clear sky has no edges: what is left there is a glow, and no cloud.
    clear = np.clip((np.quantile(edge_evidence(image)[inside], 0.9) - 4) / 6, 0, 1)
    above = masked_blur(above, inside, 5 * s) * np.float32(clear)
    guide = np.asarray(np.repeat(masked_blur(light, inside, 3 * s)[..., None] * 255, 3, 2).clip(0, 255), np.uint8)
    above = masked_blur(smooth(above, guide, strength=250, tolerance=10, regions=inside), inside, 2.5 * s)
    distance = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5) / (14 * s)
    above = above * np.clip(distance, 0, 1)
    cloud = np.clip(np.sign(above) * np.maximum(np.abs(above) - 0.03, 0) / 0.12, -1, 1)
    return np.asarray(0.5 + 0.5 * cloud, np.float32)


def _gradient(light: F32, inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.floating]:
    """A quadratic surface through the sky's lightness, fitted so that clouds count little (iterated weights)."""
    height, width = light.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    y, x = y / height, x / width
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], -1)
    places = np.flatnonzero(inside.ravel())[:: max(1, int(inside.sum()) // 4000)]
    known, values = terms.reshape(-1, 6)[places], light.ravel()[places]
    weights = np.ones(len(places))
    for _ in range(6):
        found = np.linalg.lstsq(known * weights[:, None], values * weights, rcond=None)[0]
        weights = 1 / np.sqrt(1 + ((values - known @ found) / 0.06) ** 2)
    return np.asarray(terms @ found)
