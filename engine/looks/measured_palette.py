"""A palette measured on a picture: where its layout says sky, land, near and far."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from engine.errors import PaletteError
from engine.looks.palette import Palette, hexadecimal, to_oklab

__all__ = ["measured_palette"]

F64 = npt.NDArray[np.float64]

SKY_COLOURS, LAND_COLOURS = 5, 6
LEAST_SKY = 0.02
"""Share of a picture from which on its sky is measured; below it the land's colours are carried on."""
LEAST_CONTRAST = 0.02
"""Standard deviation of OKLab lightness and chroma together, below which a picture is of one colour."""
FAR = 0.35
"""How much depth counts beside lightness for the place of a land colour."""
LIT = 0.95
"""Lightness percentile of the land from which on it is lit."""
BRIGHT = 0.25
"""The horizon's share in the colour of a sun that is not seen."""


def measured_palette(view: npt.NDArray[np.uint8], layout: npt.NDArray[np.float32], glow_peak: float = 0.9) -> Palette:
    """The colours of a picture as a look of its own.

    Sky colours are medians over equally many cells from the top of the sky to its lower border; land colours
    run from near and dark to far and light, because tables run along both.

    Args:
        view: RGB uint8 ``(H, W, 3)``.
        layout: sky, depth, sky coordinate and glow, ``(4, h, w)``; see `engine.looks.layout.complete`.
        glow_peak: glow from which on a cell shows the sun.

    Raises:
        PaletteError: the picture is of one colour.
    """
    cells = layout.shape[2], layout.shape[1]
    lab = to_oklab(np.asarray(cv2.resize(view, cells, interpolation=cv2.INTER_AREA), np.float64) / 255)
    if np.sqrt(lab.reshape(-1, 3).var(axis=0).sum()) < LEAST_CONTRAST:
        raise PaletteError("the picture is of one colour, which makes no look: choose one with sky and land")
    sky, depth, v, glow = layout
    above, below = sky > 0.5, sky <= 0.5
    if below.mean() < LEAST_SKY:  # a picture of nothing but sky: its lower half stands for the land
        below = np.broadcast_to((np.arange(len(sky)) > len(sky) / 2)[:, None], sky.shape)
    land = _land(lab[below], depth[below])
    if above.mean() >= LEAST_SKY:
        colours = _by_order(lab[above & (glow < glow_peak)], v[above & (glow < glow_peak)], SKY_COLOURS)
    else:
        colours = _carried_on(land)
    light = lab[below]
    lit = light[light[:, 0] >= np.quantile(light[:, 0], LIT)].mean(axis=0)
    sun = np.array([1.0, 0.0, 0.0]) * (1 - BRIGHT) + colours[-1] * BRIGHT
    if (glow >= glow_peak).any():
        sun = lab[glow >= glow_peak].max(axis=0)
    return Palette(
        sky=hexadecimal(colours), land=hexadecimal(land), lit=hexadecimal(lit[None])[0], sun=hexadecimal(sun[None])[0]
    )


def _by_order(lab: F64, order: npt.NDArray[np.floating], count: int) -> F64:
    """Medians of equally large groups, in order."""
    groups = np.array_split(lab[np.argsort(order, kind="stable")], count)
    return np.array([np.median(g, axis=0) if len(g) else np.median(lab, axis=0) for g in groups])


def _land(lab: F64, depth: npt.NDArray[np.floating]) -> F64:
    """Colours at equal steps from near and dark to far and light, with rising lightness.

    Each is the mean of the cells around its step, so that a small light part counts beside large dark ones.
    """
    darkest, lightest = np.quantile(lab[:, 0], (0.02, 0.98))
    light = np.clip((lab[:, 0] - darkest) / max(lightest - darkest, 1e-3), 0, 1)
    far = np.argsort(np.argsort(depth)) / max(len(depth) - 1, 1)
    place = FAR * far + (1 - FAR) * light
    first, last = (float(np.quantile(place, share)) for share in (0.03, 0.97))
    steps = np.linspace(first, last, LAND_COLOURS)
    near = np.exp(-(((place - steps[:, None]) / (0.5 * max(steps[1] - steps[0], 1e-3))) ** 2) / 2) + 1e-9
    colours = near @ lab / near.sum(axis=1, keepdims=True)
    return np.asarray(colours[np.argsort(colours[:, 0], kind="stable")], np.float64)


def _carried_on(land: F64) -> F64:
    """A sky for land without one: its lighter half, towards white."""
    light = land[-1] + (np.array([1.0, 0.0, 0.0]) - land[-1]) * np.linspace(0, 0.6, SKY_COLOURS)[:, None]
    return np.asarray(light, np.float64)
