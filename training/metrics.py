"""Measures of a stylization that need no network."""

from __future__ import annotations

import cv2
import numpy as np

from training.pseudo_pairs import U8

__all__ = ["flatness"]

FLAT_BELOW = 4 / 255


def flatness(image: U8) -> float:
    """Share of pixels whose Scharr gradient of the luma is below 4/255 per pixel."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255.0
    # Scharr's weights add up to 32 over a step of one level per pixel.
    magnitude = np.hypot(cv2.Scharr(luma, cv2.CV_32F, 1, 0), cv2.Scharr(luma, cv2.CV_32F, 0, 1)) / 32.0
    return float((magnitude < FLAT_BELOW).mean())
