"""Stylizations without a network, to judge a generator against."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from training.data.pseudo_pairs import F32, U8, PaletteMap, flatten, lab_to_rgb, nearest_palette, rgb_to_lab

__all__ = ["Reinhard", "classical", "opencv_stylization"]


class Reinhard:
    """Colour transfer by mean and deviation (Reinhard et al. 2001), in Lab, to the colours of all art."""

    def __init__(self, art: Sequence[U8]) -> None:
        small = [np.asarray(cv2.resize(a, (64, 64), interpolation=cv2.INTER_AREA), np.uint8) for a in art]
        pixels: F32 = np.concatenate([rgb_to_lab(a).reshape(-1, 3) for a in small])
        self.mean, self.deviation = pixels.mean(0), pixels.std(0)

    def __call__(self, photo: U8) -> U8:
        """The photo with the mean and deviation of the art, channel by channel."""
        lab = rgb_to_lab(photo)
        mean, deviation = lab.mean((0, 1)), np.maximum(lab.std((0, 1)), 1e-3)
        return lab_to_rgb(((lab - mean) * (self.deviation / deviation) + self.mean).astype(np.float32))


def opencv_stylization(photo: U8) -> U8:
    """OpenCV's `stylization` with its defaults (Gastal and Oliveira 2011)."""
    return np.asarray(cv2.stylization(photo, sigma_s=60, sigma_r=0.45), np.uint8)


def classical(photo: U8, palettes: Sequence[PaletteMap]) -> U8:
    """The strong baseline: plain mean shift, then the colours of the nearest art by lightness rank."""
    palette = palettes[nearest_palette(PaletteMap.of(photo), palettes)]
    return palette.apply(flatten(photo, smooth=False))
