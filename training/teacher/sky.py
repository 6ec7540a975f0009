"""Where the sky is, pixel by pixel: from a coarse guess to a mask with leaves and branches cut out."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from training.teacher.filters import F32, Image, lab, masked_blur, unit

__all__ = ["fine_structure", "refine_sky"]

Mask = npt.NDArray[np.uint8]

ROUNDS = 3
"""Times that the colours of sky and land are taken anew from the mask."""
REACH = 70
"""Pixels away from the guessed sky that sky may still be found, behind leaves."""
SKY_NOISE, LAND_NOISE = 12.0, 60.0
"""Added to the variance of the colours (CIE Lab, squared)."""
DARKER = 18.0
"""Lightness below that of the sky around from which on a pixel tells nothing of the sky's colours."""
UNKNOWN = -0.5 * np.log(1200.0) * 3 - 1.0
"""Log density of land that is of no colour seen so far."""
TEXTURE = 2.6
"""Mean lightness contrast at the scale of a pixel from which on a region is no sky but a forest."""


def refine_sky(image: Image, probability: F32) -> F32:
    """Sky mask 0..1 ``(H, W)`` with borders about a pixel wide.

    Every pixel is judged by the colours of the sky and of the land around it (a Gaussian each), with the guess as
    prior; between dark leaves, where the guess is blind, a bright pixel in the colour of the sky is sky.

    Args:
        image: RGB uint8 ``(H, W, 3)``.
        probability: the guess, of any size.
    """
    height, width = image.shape[:2]
    s = unit(image)
    guess = cv2.resize(probability.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    colours = lab(image) * np.array([1, 1.3, 1.3], np.float32)
    sky, land = _eroded(guess > 0.85, 6 * s), _eroded(guess < 0.1, 14 * s)
    if not sky.any():
        return np.zeros((height, width), np.float32)
    # Branches that the guess has not seen would make every dark colour one of the sky's.
    sky = sky * (colours[..., 0] > masked_blur(colours[..., 0], sky, 18 * s) - DARKER).astype(np.uint8)
    reach = cv2.dilate((guess > 0.5).astype(np.uint8), _disc(REACH * s)) > 0
    deep = _eroded(guess > 0.97, 14 * s) > 0
    prior = np.clip(guess, 0.04 + 0.40 * _lace(colours[..., 0], guess, s), 0.96)
    for _ in range(ROUNDS):
        likelihood = _density(colours, sky, 14 * s, 70 * s, SKY_NOISE)
        likelihood -= np.maximum(_density(colours, land, 25 * s, 90 * s, LAND_NOISE), UNKNOWN)
        odds = np.clip(0.7 * likelihood + np.log(prior / (1 - prior)), -30, 30)
        found = np.where(deep, 1, np.where(reach, 1 / (1 + np.exp(-odds)), 0))
        sky, land = (found > 0.9).astype(np.uint8), ((found < 0.1) & (guess < 0.5)).astype(np.uint8)
    mask = _without_texture((found > 0.5).astype(np.uint8), colours[..., 0], s)
    return np.asarray(cv2.GaussianBlur(_without_specks(mask, s).astype(np.float32), (0, 0), 0.8 * s), np.float32)


def fine_structure(sky: F32) -> F32:
    """How densely sky and land alternate, 0..1: 0 at a ridge, 1 among leaves in front of the sky."""
    s = unit(sky)
    border = cv2.morphologyEx((sky > 0.5).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    density = cv2.GaussianBlur(border.astype(np.float32), (0, 0), 12 * s) * 12 * s  # the same for every straight line
    return np.asarray(np.clip((density - 1.1) / 1.6, 0, 1), np.float32)


def _disc(radius: float) -> Mask:
    side = 2 * max(1, int(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _eroded(mask: npt.NDArray[np.bool_], radius: float) -> Mask:
    return np.asarray(cv2.erode(mask.astype(np.uint8), _disc(radius)), np.uint8)


def _lace(lightness: F32, guess: F32, s: float) -> F32:
    """0..1: bright pixels with dark things close by, not far from the sky."""
    dark = cv2.GaussianBlur(cv2.erode(lightness, _disc(5 * s)), (0, 0), 4 * s)
    bright = cv2.GaussianBlur(cv2.dilate(lightness, _disc(5 * s)), (0, 0), 4 * s)
    contrast = np.clip((bright - dark - 25) / 20, 0, 1)
    place = np.clip(((lightness - dark) / (bright - dark + 1e-3) - 0.35) / 0.3, 0, 1)
    distance = cv2.distanceTransform((guess < 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(contrast * place * np.clip(1.3 - distance / (REACH * s), 0, 1), np.float32)


def _density(colours: F32, mask: Mask, near: float, far: float, noise: float) -> F32:
    """Log density of every pixel's colour among those under the mask close by, or further away where there are none."""
    mean, variance, share = _moments(colours, mask, near, 2)
    wide_mean, wide_variance, _ = _moments(colours, mask, far, 8)
    own = np.clip(20 * share, 0, 1)[..., None]
    middle, spread = own * mean + (1 - own) * wide_mean, own * variance + (1 - own) * wide_variance + noise
    return np.asarray(-0.5 * ((colours - middle) ** 2 / spread + np.log(spread)).sum(-1), np.float32)


def _moments(colours: F32, mask: Mask, sigma: float, shrink: int) -> tuple[F32, F32, F32]:
    """Local mean and variance of the colours under the mask, and how much of it there is."""
    height, width = mask.shape
    size = max(1, width // shrink), max(1, height // shrink)

    def blurred(values: F32) -> F32:
        small = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.GaussianBlur(small, (0, 0), sigma / shrink), np.float32)

    weight = mask.astype(np.float32)
    share = blurred(weight) + 1e-6
    mean = blurred(colours * weight[..., None]) / share[..., None]
    square = blurred(colours**2 * weight[..., None]) / share[..., None]
    results = mean, np.maximum(square - mean**2, 0), share
    large = [np.asarray(cv2.resize(r, (width, height), interpolation=cv2.INTER_LINEAR), np.float32) for r in results]
    return large[0], large[1], large[2]


def _without_texture(mask: Mask, lightness: F32, s: float) -> Mask:
    """The mask without regions that have a texture."""
    texture = np.abs(lightness - cv2.GaussianBlur(lightness, (0, 0), 1.2 * s))
    count, labels = cv2.connectedComponents(cv2.erode(mask, _disc(3 * s)))
    for region in range(1, count):
        inside = labels == region
        if texture[inside].mean() > TEXTURE:
            mask[cv2.dilate(inside.astype(np.uint8), _disc(4 * s)) > 0] = 0
    return mask


def _without_specks(mask: Mask, s: float) -> Mask:
    for value, least, connectivity in ((1, 8, 4), (0, 10, 8)):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(
            (mask == value).astype(np.uint8), connectivity=connectivity
        )
        small = stats[:, cv2.CC_STAT_AREA] < least * s * s
        small[0] = False
        mask[small[labels]] = 1 - value
    return mask
