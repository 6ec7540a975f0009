"""Named looks: which colours a generator paints with, from shadow to light.

Each look has an anchor of five sRGB colours from shadow to light.  Its palette lies half way between
the anchor and the art images closest to it, so the same names follow any art folder.
`auto` has a palette like the others, but only tints with it: a picture keeps its own hues.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.data.poster import SHARES_OF_AUTO, ToneRank, paint
from training.data.pseudo_pairs import F32, RANKS, U8, PaletteMap, rgb_to_lab
from training.errors import DataError
from training.look_names import ANCHORS, AUTO

__all__ = ["ANCHORS", "AUTO", "LookPalettes"]


DEPTH = 1.2
"""Exponent on the lightness of every ramp; half of the pixels of art lie below L 37, of photos below 50."""


class LookPalettes:
    """The palette of every look, measured on a set of art images.

    Args:
        arts: palettes of the art images.
        looks: names, keys of `ANCHORS`.
        members: how many of the nearest art images make one look.
    """

    def __init__(self, arts: Sequence[PaletteMap], looks: Sequence[str], members: int = 4) -> None:
        unknown = [name for name in looks if name not in ANCHORS]
        if unknown:
            raise ValueError(f"unknown look {unknown[0]!r}; allowed: {', '.join(ANCHORS)}")
        if not arts:
            raise DataError("the art folder holds no readable image")
        self.looks = tuple(looks)
        calm = np.quantile([roughness(art) for art in arts], 0.6)
        self.calm = [art for art in arts if roughness(art) <= calm]
        self.palettes = {name: self._near_anchor(name, members) for name in looks}

    def _near_anchor(self, name: str, members: int) -> PaletteMap:
        anchor = anchor_palette(name)
        nearest = sorted(self.calm, key=lambda art: ramp_distance(art, anchor))[:members]
        return deepened(np.asarray((anchor.colors + mean_palette(nearest).colors) / 2, np.float32))

    def paint(self, flat: U8, look: str, rank: ToneRank) -> U8:
        """`flat` (or a crop of it) in the colours of `look`; `rank` is the whole picture's (see `poster.paint`)."""
        return paint(flat, self.palettes[look], rank, **(SHARES_OF_AUTO if look == AUTO else {}))

    def of_art(self, art: PaletteMap) -> str:
        """The look that an art image is closest to (`auto` where no named look exists)."""
        named = [name for name in self.looks if name != AUTO]
        return min(named, key=lambda name: ramp_distance(art, self.palettes[name])) if named else self.looks[0]


def mean_palette(palettes: Sequence[PaletteMap]) -> PaletteMap:
    """The mean ramp, with the mean chroma of its members (a plain mean of hues would be grey)."""
    ramps = np.stack([p.colors for p in palettes])
    mean = ramps.mean(0)
    chroma = np.linalg.norm(ramps[..., 1:], axis=-1).mean(0)
    gain = np.clip(chroma / np.maximum(np.linalg.norm(mean[:, 1:], axis=-1), 1e-3), 1.0, 1.6)
    mean[:, 1:] *= gain[:, None]
    return PaletteMap(colors=mean.astype(np.float32))


def deepened(colors: F32) -> PaletteMap:
    """The ramp with darker shadows and the same ends, as art has them: a mean of ramps is too light."""
    lightness = 100.0 * (np.clip(colors[:, :1], 0, 100) / 100) ** DEPTH
    return PaletteMap(colors=np.concatenate([lightness, colors[:, 1:]], axis=1).astype(np.float32))


def anchor_palette(name: str) -> PaletteMap:
    """The anchor colours of a look, joined in Lab to a full ramp."""
    hexes = ANCHORS[name]
    rgb = np.array([[[int(h[i : i + 2], 16) for i in (0, 2, 4)] for h in hexes]], np.uint8)
    lab = rgb_to_lab(rgb)[0]
    at, stops = np.linspace(0, len(hexes) - 1, RANKS), np.arange(len(hexes))
    return PaletteMap(colors=np.stack([np.interp(at, stops, lab[:, c]) for c in range(3)], -1).astype(np.float32))


def ramp_distance(a: PaletteMap, b: PaletteMap) -> float:
    """Mean Lab distance rank by rank, hue weighing more than lightness."""
    delta = (a.colors - b.colors) * np.array([1.0, 1.5, 1.5], np.float32)
    return float(np.linalg.norm(delta, axis=1).mean())


def roughness(palette: PaletteMap) -> float:
    """How often the hue turns back on the way from shadow to light; 0.5 is a straight line."""
    ab = palette.colors[:, 1:]
    path = np.linalg.norm(np.diff(ab, axis=0), axis=1).sum()
    reach = np.linalg.norm(ab - ab.mean(0), axis=1).max()
    return float(path / (2 * reach + 10))
