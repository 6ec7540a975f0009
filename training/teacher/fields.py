"""The fields of a photo as the teacher sees them: what the layered generator is to make from it.

Sky and clouds, depth and tone are smooth maps; the steps come later, in the shader, as their isolines.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from engine.looks.layout import TONES, tone_knots, view_luma
from training.teacher.depth import depth_of
from training.teacher.filters import F32, Image, edge_evidence, l0_smooth, lab, masked_blur, smooth, unit
from training.teacher.sky import fine_structure

__all__ = ["teach"]

BUSY, BUSY_RANGE, MOST_BUSY = 0.10, 0.14, 0.85
"""Share of pixels at a step from which on texture is merged, how much more merges all of it, and the limit."""

BLUE = 0.005
"""Of luma that a unit of blue (CIE Lab, b below zero) takes from the lightness of a sky."""
CLOUD_LEAST, CLOUD_FULL = 0.02, 0.09
"""Of luma: what is no cloud yet, and how much more is a cloud in full."""
CLOUD_SMOOTHING = 60.0

SPECK = 20
"""Pixels of the smallest spot of one tone."""
FINE, COARSE = 25.0, 60.0
"""Smoothing of the tone (`training.teacher.filters.smooth`), and where texture merges."""
LOCAL, LOCAL_SIDE, LOCAL_MOST = 0.35, 30, 0.25
"""How far, at what scale and up to what difference of luma things are set off from what is around them."""
WARM, WARMEST = 0.12, 60
"""Of luma that a thing gains by being as red as this (CIE Lab, a): what is coloured looks lighter than its luma (the
Helmholtz-Kohlrausch effect), and a red jacket stands out from a grey wall."""


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
    smoothed, flat = l0_smooth(image, 0.01 * contrast), l0_smooth(image, 0.10 * contrast)
    evidence = edge_evidence(image)
    crowns = _crowns(image, sky)
    depth = depth_of(image, flat, smoothed, sky, height, evidence) * (1 - 0.6 * crowns)
    tone = cv2.GaussianBlur(_tone(smoothed, land, evidence) * (1 - np.float32(0.85) * crowns), (0, 0), 0.5 * s)
    return np.dstack([sky, depth, tone, _clouds(image, sky)]).clip(0, 1).astype(np.float32)


def _tone(smoothed: Image, land: npt.NDArray[np.bool_], evidence: F32) -> F32:
    """Lightness of the land without texture, its classes spread evenly; see `engine.looks.layout.tone_knots`."""
    s = unit(smoothed)

    def merged(values: F32, blur: float, strength: float, tolerance: float) -> F32:
        guide = np.asarray(cv2.GaussianBlur(smoothed, (0, 0), blur * s), np.uint8)
        return smooth(values, guide, strength=strength, tolerance=tolerance, regions=land, evidence=evidence)

    luma = np.asarray(view_luma(smoothed) + WARM / WARMEST * lab(smoothed)[..., 1].clip(0, WARMEST), np.float32)
    around = luma - masked_blur(luma, land, LOCAL_SIDE * s)
    luma += np.float32(LOCAL) * around.clip(-LOCAL_MOST, LOCAL_MOST)
    light = merged(luma, 0.7, FINE, 7)
    knots = tone_knots(light, land.astype(np.float32))
    tone = np.interp(light, knots, TONES)
    # Fine texture merges: where the steps would alternate too densely, a coarser smoothing takes over.
    step = np.round(tone * 3)
    alternates = (
        np.abs(np.diff(step, axis=1, append=step[:, -1:])) + np.abs(np.diff(step, axis=0, append=step[-1:]))
    ) > 0
    density = masked_blur(alternates.astype(np.float32), land, 18 * s)
    busy = np.clip((density - BUSY) / BUSY_RANGE, 0, MOST_BUSY)
    coarse = np.interp(merged(light, 1.0, COARSE, 13), knots, TONES)
    return _without_specks(np.asarray(tone * (1 - busy) + coarse * busy, np.float32), s)


def _without_specks(tone: F32, s: float) -> F32:
    """A tone whose steps have no spots smaller than `SPECK`: each takes the median of what is around it."""
    step = np.round(tone * 3).astype(np.uint8)
    around = cv2.medianBlur((tone * 255).astype(np.uint8), 2 * round(3 * s) + 1).astype(np.float32) / 255
    specks = np.zeros(tone.shape, bool)
    for value in range(4):
        _, labels, facts, _ = cv2.connectedComponentsWithStats((step == value).astype(np.uint8))
        small = facts[:, cv2.CC_STAT_AREA] < SPECK * s * s
        specks |= small[labels] & (labels > 0)
    return np.where(specks, around, tone)


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
    leaves = leaves * np.clip(np.maximum(green, (52 - light) / 20), 0, 1)  # towers of stone are none
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
    # In a blue sky a cloud is white, which tells more than its lightness.
    light = np.asarray(view_luma(image) + BLUE * np.minimum(lab(image)[..., 2], 0), np.float32)
    light = masked_blur(light, inside, 0.8 * s)
    above = np.where(inside, light - _gradient(light, inside), 0).astype(np.float32)
    above = above - np.float32(0.4) * masked_blur(above, inside, sky.shape[1] / 5)
    # A clear sky has no edges: what is left there is a glow, and no cloud.
    clear = np.clip((np.quantile(edge_evidence(image)[inside], 0.9) - 2.5) / 4, 0, 1)
    guide = np.asarray(np.repeat(masked_blur(light, inside, 1.0 * s)[..., None] * 255, 3, 2).clip(0, 255), np.uint8)
    above = smooth(above * np.float32(clear), guide, strength=CLOUD_SMOOTHING, tolerance=8, regions=inside)
    distance = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5) / (6 * s)
    above = masked_blur(above, inside, 1.2 * s) * np.clip(distance, 0, 1)
    cloud = np.clip(np.sign(above) * np.maximum(np.abs(above) - CLOUD_LEAST, 0) / CLOUD_FULL, -1, 1)
    return np.asarray(0.5 + 0.5 * cloud, np.float32)


def _gradient(light: F32, inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.floating]:
    """A surface through the lightness of the sky, quadratic across and quartic down, to which clouds count little."""
    height, width = light.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    y, x = y / height, x / width
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y, y**3, y**4], -1)
    places = np.flatnonzero(inside.ravel())[:: max(1, int(inside.sum()) // 4000)]
    known, values = terms.reshape(-1, 8)[places], light.ravel()[places]
    weights = np.ones(len(places))
    for _ in range(6):
        found = np.linalg.lstsq(known * weights[:, None], values * weights, rcond=None)[0]
        weights = 1 / np.sqrt(1 + ((values - known @ found) / 0.06) ** 2)
    return np.asarray(terms @ found)
