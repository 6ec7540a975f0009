"""Tiles as pure geometry: which part of a picture a tile shows, and which part of it is kept.

A tile is rendered with a halo of context around the part that is kept.  Where a halo would leave the
picture the tile lies flush with the border instead, so all tiles of a plan have one size and the
network pads the picture's border exactly as it would in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

__all__ = ["Region", "Tile", "TilePlan", "batches"]

Image = npt.NDArray[np.uint8]
"""RGB uint8 ``(H, W, 3)``."""


@dataclass(frozen=True)
class Region:
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the rectangle in an array ``(H, W, ...)``."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def inside(self, outer: Region) -> Region:
        """The same rectangle in the coordinates of `outer`."""
        return Region(self.top - outer.top, self.left - outer.left, self.height, self.width)


@dataclass(frozen=True)
class Tile:
    """One tile: `padded` is rendered, `region` is kept."""

    region: Region
    padded: Region


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """How a picture of `height` x `width` is cut; all in pixels, multiples of `multiple`.

    Raises ValueError when the sizes are no multiples, or a tile is no larger than its two halos.
    """

    height: int
    width: int
    tile_height: int
    """Height of every rendered tile, halo included."""
    tile_width: int
    """Width of every rendered tile, halo included."""
    halo: int
    """Context on each side."""
    multiple: int = 1
    """What all tile borders are aligned to: the stride of the network."""

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in ("height", "width", "tile_height", "tile_width", "halo")}
        for name, value in sizes.items():
            if value % self.multiple or value < (0 if name == "halo" else 1):
                raise ValueError(f"{name} is a positive multiple of {self.multiple}, got {value}")
        for side, tile in ((self.height, self.tile_height), (self.width, self.tile_width)):
            if tile < side and tile <= 2 * self.halo:
                raise ValueError(
                    f"a tile of {tile} pixels leaves nothing between two halos of {self.halo}: "
                    f"choose at least {2 * self.halo + self.multiple}"
                )

    @classmethod
    def whole(cls, height: int, width: int) -> TilePlan:
        """The picture in one piece."""
        return cls(height=height, width=width, tile_height=height, tile_width=width, halo=0)

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """Row by row."""
        rows = list(_cut(self.height, self.tile_height, self.halo))
        columns = list(_cut(self.width, self.tile_width, self.halo))
        return tuple(
            Tile(Region(y.keep, x.keep, y.kept, x.kept), Region(y.start, x.start, y.size, x.size))
            for y in rows
            for x in columns
        )

    def apply(self, image: Image, render: Callable[[Image], Image]) -> Image:
        """Render every tile of `image` ``(height, width, 3)`` and put the kept parts together."""
        if image.shape[:2] != (self.height, self.width):
            raise ValueError(f"this plan is for {self.height} x {self.width}, got {image.shape = }")
        tiles = self.tiles
        if len(tiles) == 1:
            return render(image)
        out = np.empty_like(image)
        for tile in tiles:
            result = render(np.ascontiguousarray(image[tile.padded.slices]))
            out[tile.region.slices] = result[tile.region.inside(tile.padded).slices]
        return out


def batches(tiles: Sequence[Tile], size: int) -> Iterator[list[Tile]]:
    """Tiles of one shape, at most `size` at a time."""

    def shape(tile: Tile) -> tuple[int, int]:
        return tile.padded.height, tile.padded.width

    for _, group in groupby(sorted(tiles, key=shape), key=shape):
        same = list(group)
        for i in range(0, len(same), size):
            yield same[i : i + size]


@dataclass(frozen=True)
class _Span:
    start: int
    size: int
    keep: int
    kept: int


def _cut(length: int, tile: int, halo: int) -> Iterator[_Span]:
    """Spans of one axis: equal sizes, kept parts side by side without gap or overlap."""
    if tile >= length:
        yield _Span(0, length, 0, length)
        return
    step = tile - 2 * halo
    done = start = 0
    while done < length:
        start = min(start, length - tile)
        end = length if start + tile == length else start + tile - halo
        yield _Span(start, tile, done, end - done)
        done, start = end, start + step
