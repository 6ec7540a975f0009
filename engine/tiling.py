"""Tiles as pure geometry: which part of a picture a tile shows, and which part of it is kept.

A tile is rendered with a halo of context around the part that is kept.  Where a halo would leave the
picture the tile lies flush with the border instead, so all tiles of a plan have one size and the
network pads the picture's border exactly as it would in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
import numpy.typing as npt

__all__ = ["Region", "Tile", "TilePlan", "batches", "usual_tile"]

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

    @classmethod
    @lru_cache(maxsize=64)
    def balanced(
        cls, height: int, width: int, *, most: tuple[int, int], halo: int, multiple: int, pixels: int | None = None
    ) -> TilePlan:
        """The tiles that render the fewest pixels, halos counted; of several such cuts the one with the fewest tiles.

        Rows (and columns) share a picture's height evenly, so that none is rendered twice because a last one would
        have stood out.  Raises ValueError where no tile is that small.

        Args:
            height: of the picture; like all sizes a multiple of `multiple`.
            width: of the picture.
            most: height and width that a tile may have.
            halo: context on each side.
            multiple: what all tile borders are aligned to.
            pixels: how many a tile may have; None: any.
        """
        best: tuple[int, int, int, int] | None = None
        columns = _even_cuts(width, most[1], halo, multiple)
        for rows, tile_height in _even_cuts(height, most[0], halo, multiple):
            for count, tile_width in columns:
                if pixels is None or tile_height * tile_width <= pixels:
                    found = (rows * count * tile_height * tile_width, rows * count, tile_height, tile_width)
                    best = min(best or found, found)
        if best is None:
            raise ValueError(
                f"a tile within {most[0]} x {most[1]} pixels{'' if pixels is None else f' and {pixels} in all'} leaves "
                f"nothing between two halos of {halo}: choose at least {2 * halo + multiple}"
            )
        return cls(
            height=height, width=width, tile_height=best[2], tile_width=best[3], halo=halo, multiple=multiple
        )  # fmt: skip

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


def _even_cuts(length: int, most: int, halo: int, multiple: int) -> list[tuple[int, int]]:
    """How often an axis may be cut, and the size of its tiles then: the fewest first, sizes at most `most`."""
    found: list[tuple[int, int]] = []
    inner = length - 2 * halo  # what the tiles share: the first and the last lie flush with the border
    for count in range(1, max(1, inner // multiple) + 1):
        size = length if count == 1 else -(-inner // (count * multiple)) * multiple + 2 * halo
        if size <= most and (not found or size < found[-1][1]):
            found.append((count, size))
    return found


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


TILES = ((1088, 1920), (1440, 2560), (2048, 3072))
"""Height and width of tiles that plans are made for, smallest first: the wider a halo, the larger they have to be."""
PHOTO = (4000, 6000)
"""Of a large photo."""
MOST_RENDERED = 1.25
"""Pixels that are rendered for one of the picture."""


def usual_tile(halo: int, multiple: int) -> tuple[int, int]:
    """The smallest of `TILES` that keep `MOST_RENDERED` for a large photo, upright or not; else the largest."""

    def rendered(height: int, width: int, most: tuple[int, int]) -> float:
        plan = TilePlan.balanced(height, width, most=most, halo=halo, multiple=multiple)
        return len(plan.tiles) * plan.tile_height * plan.tile_width / (height * width)

    for tile in TILES[:-1]:
        if max(rendered(*PHOTO, tile), rendered(*PHOTO[::-1], tile)) <= MOST_RENDERED:
            return tile
    return TILES[-1]
