"""A look of a `layers` model as data: colours of sky and land, and the tables that the shader reads.

Colours are mixed in OKLab (Ottosson 2020, "A perceptual color space for image processing").
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.program.layers import LAND_LUT, SKY_LUT

__all__ = [
    "KEYS",
    "ColourError",
    "Palette",
    "Shading",
    "from_oklab",
    "hexadecimal",
    "mixed_palette",
    "palette_vectors",
    "to_oklab",
]

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
    """Steps of the land's tone: three make four tones, and borders at the knots of `engine.looks.layout.TONES`."""
    cloud_levels: float = 2.0
    """Steps of the clouds: two make three shades.  An even number keeps a clear sky, 0.5, off the borders."""
    glow: float = 0.24
    """How far the sky around the sun takes the colours of the horizon."""
    disc: float = 0.87
    """Glow from which on the sun's disc is seen, if the palette has a sun."""
    layers: int = 0
    """Into how many layers the land is cut by its depth, and into no more tones than that; 0: depth is not cut."""
    haze: float = 0.0
    """How far the land that is furthest away takes the colour of the horizon, 0..1."""

    def __post_init__(self) -> None:
        if self.tone_levels < 1 or self.cloud_levels < 1 or self.layers < 0:
            raise ValueError(f"at least one step, got {self.tone_levels = }, {self.cloud_levels = }, {self.layers = }")
        if not 0 <= self.haze <= 1:
            raise ValueError(f"haze lies between 0 and 1, got {self.haze}")

    def controls(self, sun: bool) -> F32:
        """The vector `controls` (`engine.program.shader.CONTROLS`); `sun`: the palette has one."""
        tones = min(self.tone_levels, self.layers) if self.layers else self.tone_levels
        disc = self.disc if sun else 2.0
        return np.array([tones, self.cloud_levels, self.glow, disc, max(self.layers - 1, 0)], np.float32)


KEYS = ("sky", "land", "lit", "sun")
"""Names of the fields of `Palette`."""

MOST = 16
"""Colours of sky or land."""


class ColourError(ValueError):
    """What is wrong with a palette, and where.

    `key` is the field, `value` the colour, or None where it is their number.
    """

    def __init__(self, key: str, value: object, message: str) -> None:
        super().__init__(message)
        self.key, self.value = key, value


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Colours of a look, each ``#rrggbb``; ColourError for what is no such colour, and for too few or too many."""

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
            count = len(getattr(self, name))
            if not 2 <= count <= MOST:
                raise ColourError(name, None, f"{name} takes 2 to {MOST} colours, got {count}")
        for name in KEYS:
            value = getattr(self, name)
            for colour in [value] if isinstance(value, str) else value:
                if not (isinstance(colour, str) and HEX.fullmatch(colour)) and (name, colour) != ("sun", ""):
                    raise ColourError(name, colour, f"{name}: a colour is #rrggbb, got {colour!r}")

    def tables(self, *, haze: float = 0.0, flat: bool = False) -> tuple[F32, F32]:
        """The sky's and the land's table in OKLab, ``(S, V, 3)`` and ``(D, T, 3)``; see `engine.program.shader.shade`.

        Args:
            haze: how far the furthest land takes the horizon's colour, 0..1.
            flat: all land has the colours of that half way to the horizon.
        """
        rows, columns = SKY_LUT[1:]
        cloud = (np.arange(rows) / (rows - 1))[:, None]
        v = np.arange(columns - 1) / (columns - 2)
        sky = _ramp(self.sky, v**1.15 + 0.32 * (cloud - 0.5))
        sun = np.broadcast_to(_colours([self.sun or self.sky[-1]]), (rows, 1, 3))
        depth = (np.arange(LAND_LUT[1]) / (LAND_LUT[1] - 1))[:, None]
        depth = np.full_like(depth, 0.5) if flat else depth
        tone = np.arange(LAND_LUT[2]) / (LAND_LUT[2] - 1)
        land = _ramp(self.land, 0.52 * depth + tone * (0.42 + 0.06 * depth))
        lit = 0.75 * np.clip((tone - 0.8) / 0.2, 0, 1) * np.clip(0.25 + 0.8 * depth, 0.25, 0.75)
        land = _mixed(land, self.lit, lit)
        land = _mixed(land, self.sky[-1], haze * depth**1.5 * np.ones_like(tone))
        return np.concatenate([sky, sun], 1).astype(np.float32), land.astype(np.float32)


def palette_vectors(parts: Sequence[tuple[Palette, float]], shading: Shading | None = None) -> Mapping[str, F32]:
    """The vectors `sky_lut`, `land_lut` and `controls` of a mixture of palettes (weights that sum to one)."""
    shading = shading or Shading()
    tables = [_tables(palette, shading.haze, shading.layers == 1) for palette, _ in parts]
    weights = [weight for _, weight in parts]
    sky, land = (sum(w * pair[i] for w, pair in zip(weights, tables, strict=True)) for i in (0, 1))
    controls = shading.controls(any(palette.sun and weight for palette, weight in parts))
    luts = [np.ascontiguousarray(from_oklab(np.asarray(table)).transpose(2, 0, 1)) for table in (sky, land)]
    return {"sky_lut": luts[0], "land_lut": luts[1], "controls": controls}


def mixed_palette(parts: Sequence[tuple[Palette, float]]) -> Palette:
    """A mixture as a palette, its colours mixed in OKLab: those in the same places of the ramps, weights sum to one."""

    def ramp(name: str) -> tuple[str, ...]:
        count = max(len(getattr(palette, name)) for palette, _ in parts)
        places = np.arange(count) / (count - 1)
        return hexadecimal(np.sum([w * _ramp(getattr(palette, name), places) for palette, w in parts], axis=0))

    def single(name: str) -> str:
        given = [(getattr(palette, name), w) for palette, w in parts if getattr(palette, name)]
        total = sum(w for _, w in given)
        return hexadecimal(np.sum([w / total * _colours([colour]) for colour, w in given], axis=0))[0] if total else ""

    return Palette(sky=ramp("sky"), land=ramp("land"), lit=single("lit"), sun=single("sun"))


def hexadecimal(lab: npt.NDArray[np.floating]) -> tuple[str, ...]:
    """OKLab ``(n, 3)`` as ``#rrggbb``."""
    return tuple("#" + bytes(colour).hex() for colour in np.rint(from_oklab(lab) * 255).astype(np.uint8))


@functools.lru_cache(maxsize=64)
def _tables(palette: Palette, haze: float, flat: bool) -> tuple[F32, F32]:
    return palette.tables(haze=haze, flat=flat)


def _mixed(colours: npt.NDArray[np.float64], other: str, share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(colours + (_colours([other])[0] - colours) * share[..., None], np.float64)


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
