"""A look of a `layers` model as data: colours of sky and land, and the tables that the shader reads.

Colours are mixed in OKLab (Ottosson 2020, "A perceptual color space for image processing").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.layers import LAND_LUT, SKY_LUT

__all__ = ["PALETTES", "Palette", "Shading", "from_oklab", "palette_vectors", "to_oklab"]

F32 = npt.NDArray[np.float32]

HEX = re.compile(r"#[0-9a-fA-F]{6}")

TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


@dataclass(frozen=True, kw_only=True)
class Shading:
    """Settings of the shader that are no colours: the vector `controls`."""

    tone_levels: float = 3.0
    """Steps of the land's tone: three make four tones, and borders at the knots of `engine.layout.TONES`."""
    cloud_levels: float = 2.0
    """Steps of the clouds: two make three shades.  An even number keeps a clear sky, 0.5, off the borders."""
    glow: float = 0.35
    """How far the sky around the sun takes the colours of the horizon."""
    disc: float = 0.9
    """Glow from which on the sun's disc is seen, if the palette has a sun."""

    def __post_init__(self) -> None:
        if self.tone_levels < 1 or self.cloud_levels < 1:
            raise ValueError(f"at least one step, got {self.tone_levels = }, {self.cloud_levels = }")


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Colours of a look, each ``#rrggbb``; ValueError for what is no such colour, and for too few."""

    sky: tuple[str, ...]
    """From the top to the horizon, two or more."""
    land: tuple[str, ...]
    """From near to far, two or more."""
    lit: str
    """Of sunlit parts of the land."""
    sun: str = ""
    """Of the sun's disc; empty: there is none."""

    def __post_init__(self) -> None:
        for name in ("sky", "land"):
            if len(getattr(self, name)) < 2:
                raise ValueError(f"{name} takes two colours or more, got {len(getattr(self, name))}")
        for colour in (*self.sky, *self.land, self.lit, *([self.sun] if self.sun else [])):
            if not HEX.fullmatch(colour):
                raise ValueError(f"a colour is #rrggbb, got {colour!r}")

    def tables(self) -> tuple[F32, F32]:
        """The sky's and the land's table in OKLab, ``(S, V, 3)`` and ``(D, T, 3)``; see `engine.shader.shade`."""
        rows, columns = SKY_LUT[1:]
        cloud = (np.arange(rows) / (rows - 1))[:, None]
        v = np.arange(columns - 1) / (columns - 2)
        sky = _ramp(self.sky, v**1.15 + 0.34 * (cloud - 0.5))
        sun = np.broadcast_to(_colours([self.sun or self.sky[-1]]), (rows, 1, 3))
        depth = (np.arange(LAND_LUT[1]) / (LAND_LUT[1] - 1))[:, None]
        tone = np.arange(LAND_LUT[2]) / (LAND_LUT[2] - 1)
        land = _ramp(self.land, 0.60 * depth + 0.38 * tone + 0.02)
        share = (0.6 * np.clip((tone - 0.74) / 0.2, 0, 1) * np.clip(1.3 * depth, 0.2, 0.9))[..., None]
        land = land * (1 - share) + _colours([self.lit])[0] * share
        return np.concatenate([sky, sun], 1).astype(np.float32), land.astype(np.float32)


def palette_vectors(parts: Sequence[tuple[Palette, float]], shading: Shading | None = None) -> Mapping[str, F32]:
    """The vectors `sky_lut`, `land_lut` and `controls` of a mixture of palettes (weights that sum to one)."""
    shading = shading or Shading()
    tables = [palette.tables() for palette, _ in parts]
    weights = [weight for _, weight in parts]
    sky, land = (sum(w * pair[i] for w, pair in zip(weights, tables, strict=True)) for i in (0, 1))
    disc = shading.disc if any(palette.sun and weight for palette, weight in parts) else 2.0
    controls = np.array([shading.tone_levels, shading.cloud_levels, shading.glow, disc], np.float32)
    luts = [np.ascontiguousarray(from_oklab(np.asarray(table)).transpose(2, 0, 1)) for table in (sky, land)]
    return {"sky_lut": luts[0], "land_lut": luts[1], "controls": controls}


def _colours(names: Sequence[str]) -> npt.NDArray[np.float64]:
    """OKLab ``(n, 3)`` of ``#rrggbb``."""
    return to_oklab(np.array([[int(name[i : i + 2], 16) / 255 for i in (1, 3, 5)] for name in names]))


def _ramp(names: Sequence[str], place: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """OKLab ``(..., 3)`` at places in 0..1 along evenly spaced colours."""
    colours = _colours(names)
    at, knots = np.clip(place, 0, 1) * (len(names) - 1), np.arange(len(names))
    return np.stack([np.interp(at, knots, colours[:, c]) for c in range(3)], -1)


def to_oklab(rgb: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """sRGB ``(..., 3)`` in 0..1 -> OKLab."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((np.maximum(rgb, 0) + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(linear @ TO_LMS.T) @ TO_LAB.T)


def from_oklab(lab: npt.NDArray[np.floating]) -> F32:
    """OKLab -> sRGB ``(..., 3)``, clipped to 0..1."""
    linear = (lab.astype(np.float64) @ np.linalg.inv(TO_LAB).T) ** 3 @ np.linalg.inv(TO_LMS).T
    linear = np.clip(linear, 0, 1)
    rgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.clip(rgb, 0, 1), np.float32)


PALETTES: Mapping[str, Palette] = {
    "dusk": Palette(
        sky=("#33285a", "#8c3366", "#e0663f", "#ffb85c", "#ffe09a"),
        land=("#150c26", "#34163f", "#6d2a52", "#b54a58", "#e88a62", "#f7b27a"),
        lit="#ffc27a",
    ),
    "forest": Palette(
        sky=("#0a3346", "#17666f", "#63b39a", "#f4dc9c", "#ffeec2"),
        land=("#050f18", "#0b2534", "#174857", "#34777d", "#7ab3a4", "#b8d8b8"),
        lit="#ffe0a0",
    ),
    "day": Palette(
        sky=("#3f97d0", "#86c8e6", "#cdeae6", "#fdf1d0", "#fff6e2"),
        land=("#0e2b42", "#184e60", "#37837f", "#74b39c", "#b3d7b9", "#dcebd0"),
        lit="#fff2c0",
    ),
    "violet": Palette(
        sky=("#1d1b4b", "#4d2f86", "#a5509d", "#ee86a0", "#ffc7b0"),
        land=("#0c0a24", "#1f1645", "#43286f", "#7d4292", "#c06fa4", "#eda6ae"),
        lit="#ffd0b8",
    ),
}
