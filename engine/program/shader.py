"""From smooth fields to flat colours with crisp borders: the arithmetic at the end of a `layers` model.

The border between two levels of a smooth field is one of its isolines, and an isoline is sharp at any size, as
in distance-field fonts (Green 2007, "Improved alpha-tested magnification for vector textures and special
effects").  Fields are enlarged by bicubic convolution (Keys 1981, a = -0.75), stepped by their isolines with
borders `EDGE` pixels wide, by the slope of the small field there, and looked up in the two tables of a palette
(`engine.looks.palette`).

`shade` is the slow reference in numpy.  `engine.graphs.export_layers` writes the same as ONNX nodes,
`engine.looks.torch_shader` computes it with torch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = [
    "CONTROLS",
    "EDGE",
    "FLATTEST",
    "LUMA",
    "SUN_SLOPE",
    "enlarged",
    "phase_kernels",
    "sample",
    "shade",
    "sky_place",
    "slopes",
    "stepped",
]

F32 = npt.NDArray[np.float32]

CONTROLS = ("tone_levels", "cloud_levels", "glow", "disc", "depth_levels")
"""Names of the vector `controls`: steps of the land's tone and of the clouds; how far the sun's glow shifts the sky
towards the horizon's colours; the glow from which on there is the sun's disc (2: no disc); steps of the depth (0: it
is not stepped)."""

LUMA = (0.299, 0.587, 0.114)
"""Of BT.601, for gamma-encoded RGB."""

EDGE = 1.4
"""Width of a border in pixels."""

FLATTEST = 1e-3
"""Slope in levels a pixel below which a border is no longer that narrow."""

SUN_SLOPE = 120.0
"""Of the border of the sun's disc, by the glow: some three pixels at 1080p."""


def cubic_weight(x: float) -> float:
    """Keys' kernel with a = -0.75, as in torch, OpenCV and ONNX."""
    a, x = -0.75, abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def phase_kernels(factor: int) -> F32:
    """Bicubic enlargement as a convolution: kernels ``(factor**2, 5, 5)``.

    A field padded by two repeated pixels and convolved with them gives, as channels, the enlarged field's pixels at
    each of the ``factor**2`` places in an old pixel, row by row.
    """
    weights = np.array([[cubic_weight(j - 2 - ((p + 0.5) / factor - 0.5)) for j in range(5)] for p in range(factor)])
    return np.asarray(np.einsum("ai,bj->abij", weights, weights).reshape(factor**2, 5, 5), np.float32)


def slopes(field: F32) -> F32:
    """How fast a field ``(h, w)`` changes around each of its pixels, a pixel: the steeper of both sides."""
    wide = np.pad(field, 1, mode="edge")
    right, down = np.abs(np.diff(wide[1:-1], axis=1)), np.abs(np.diff(wide[:, 1:-1], axis=0))
    steepest = np.maximum(right[:, 1:], right[:, :-1]), np.maximum(down[1:], down[:-1])
    return np.asarray(np.hypot(*steepest), np.float32)


def enlarged(field: F32, factor: int) -> F32:
    """A field ``(h, w)`` by bicubic convolution, ``(h * factor, w * factor)``; beyond its border it repeats it."""
    for axis in (0, 1):
        count = field.shape[axis]
        places = (np.arange(count * factor) + 0.5) / factor - 0.5
        first = np.floor(places).astype(np.int64) - 1
        total = np.zeros_like(np.repeat(field, factor, axis), np.float64)
        for tap in range(4):
            weight = np.array([cubic_weight(p - (f + tap)) for p, f in zip(places, first, strict=True)])
            taken = np.take(field, np.clip(first + tap, 0, count - 1), axis)
            total += taken * (weight[:, None] if axis == 0 else weight)
        field = total.astype(np.float32)
    return field


def stepped(value: F32, levels: float, slope: F32) -> F32:
    """A field in 0..1 brought to ``levels`` steps, the borders `EDGE` pixels wide.

    `slope`: the field's change a pixel.  Where it is steeper than a level a pixel nothing changes, and with less than
    one level nowhere.
    """
    if levels < 1:
        return np.asarray(np.clip(value, 0, 1), np.float32)
    s = np.clip(value, 0, 1) * levels
    k = np.floor(s)
    width = np.clip(slope * levels * EDGE, FLATTEST * EDGE, 1)
    return np.asarray((k + np.clip((s - k - 0.5) / width + 0.5, 0, 1)) / levels, np.float32)


def sky_place(v: F32, glow: F32, controls: F32, columns: int) -> F32:
    """Place in 0..1 across the table of the sky: its last column is the sun's disc, those before run to the horizon."""
    place = np.clip(v + controls[2] * glow, 0, 1) * np.float32((columns - 2) / (columns - 1))
    disc = np.clip((glow - controls[3]) * np.float32(SUN_SLOPE), 0, 1)
    return np.asarray(place + disc * (1 - place), np.float32)


def sample(table: F32, row: F32, column: F32) -> F32:
    """Colours ``(h, w, 3)`` of a table ``(3, R, C)`` at places in 0..1, bilinear, at the border repeated."""
    y, x = (np.clip(p, 0, 1) * (n - 1) for p, n in zip((row, column), table.shape[1:], strict=True))
    top, left = (np.minimum(p.astype(np.int64), n - 2) for p, n in zip((y, x), table.shape[1:], strict=True))
    v, u = (y - top)[..., None], (x - left)[..., None]
    t = table.transpose(1, 2, 0)
    upper = t[top, left] * (1 - u) + t[top, left + 1] * u
    lower = t[top + 1, left] * (1 - u) + t[top + 1, left + 1] * u
    return np.asarray(upper * (1 - v) + lower * v, np.float32)


def shade(fields: F32, places: F32, sky_lut: F32, land_lut: F32, controls: F32, factor: int) -> F32:
    """Colours ``(h * factor, w * factor, 3)`` in 0..1.

    Args:
        fields: sky, depth, tone, cloud ``(4, h, w)``.
        places: `sky_place` of every cell, ``(h, w)``.
        sky_lut: the sky's colours by cloud (rows) and place (columns), ``(3, S, V)`` in 0..1.
        land_lut: the land's colours by depth (rows) and tone (columns), ``(3, D, T)`` in 0..1.
        controls: see `CONTROLS`.
        factor: the fields are enlarged by this.
    """
    sky, depth, tone, cloud, place = (enlarged(field, factor) for field in (*fields, places))

    def levelled(value: F32, field: F32, levels: float) -> F32:
        slope = slopes(field).repeat(factor, 0).repeat(factor, 1) / np.float32(factor)
        return stepped(value, levels, slope)

    mask = levelled(sky, fields[0], 1.0)[..., None]
    depth = levelled(depth, fields[1], float(controls[4]))
    land = sample(land_lut, depth, levelled(tone, fields[2], float(controls[0])))
    above = sample(sky_lut, levelled(cloud, fields[3], float(controls[1])), place)
    return np.asarray(land + mask * (above - land), np.float32)
