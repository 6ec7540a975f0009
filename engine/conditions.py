"""What a frame is rendered with besides its pixels: vectors for all of it, and maps over it.

Models with instance norm have two vectors, `scale` and `shift`.  Models of the architecture `layers` have one
map, `layout`, and the vectors `tone`, `sky_lut`, `land_lut`, `controls` (see `engine.program.layers`).

A map is made over the whole picture, ``(C, h, w)`` of any resolution.  `on_grid` brings it to the frame that is
rendered: one cell for every `MAP_STRIDE` pixels, and one more all around, so that `window` can give every
tile the cells that a bilinear enlargement needs: a tile then gives the very pixels of the whole frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.tiling import Region

__all__ = ["MAP_STRIDE", "Conditions", "grid_shape", "mean_conditions", "on_grid", "window"]

F32 = npt.NDArray[np.float32]

MAP_STRIDE = 8
"""Pixels of the frame that one cell of a map on the grid stands for, in height and width."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditions:
    """Named float32 arrays; two with the same names and shapes can be averaged (`mean_conditions`)."""

    vectors: Mapping[str, F32]
    """The same for every tile, of any shape; graphs take each as ``(1, ...)``."""
    maps: Mapping[str, F32] = field(default_factory=dict)
    """``(C, h, w)`` over the whole picture or, behind `on_grid`, ``(C, H/8 + 2, W/8 + 2)``."""

    def __post_init__(self) -> None:
        for name, values in self.maps.items():
            if values.ndim != 3 or 0 in values.shape:
                raise ValueError(f"a map is (C, h, w), got {name} of {values.shape}")

    @classmethod
    def of_norm(cls, *, scale: F32, shift: F32) -> Conditions:
        """Statistics of instance norm: ``x * scale + shift``, each float32 ``(C,)``.

        Raises ValueError unless these are two vectors of one length.
        """
        if scale.ndim != 1 or scale.shape != shift.shape:
            raise ValueError(f"statistics are two vectors of one length, got {scale.shape}, {shift.shape}")
        return cls(vectors={"scale": scale, "shift": shift})

    @property
    def scale(self) -> F32:
        """``gamma / sqrt(var + eps)`` of a model with instance norm, ``(C,)``; KeyError for others."""
        return self.vectors["scale"]

    @property
    def shift(self) -> F32:
        """``beta - mean * scale`` of a model with instance norm, ``(C,)``; KeyError for others."""
        return self.vectors["shift"]

    def plus(self, **vectors: F32) -> Conditions:
        """The same with more vectors, or others."""
        return Conditions(vectors={**self.vectors, **vectors}, maps=self.maps)

    def feeds(self, count: int = 1) -> dict[str, F32]:
        """Inputs of the render graph: ``(1, ...)`` vectors, ``(count, C, h, w)`` maps for tiles at one place."""
        result = {name: np.ascontiguousarray(values[None], np.float32) for name, values in self.vectors.items()}
        for name, values in self.maps.items():
            result[name] = np.array(np.broadcast_to(values, (count, *values.shape)), np.float32)
        return result


def mean_conditions(parts: Sequence[Conditions], weights: Sequence[float]) -> Conditions:
    """Weighted mean of every array.

    Scales and shifts act linearly on a feature map, so theirs is the mean of what the frames' own statistics
    would have made of it.  Raises ValueError for parts of different models or shapes.
    """
    share = np.asarray(weights, np.float64)
    share = share / share.sum()

    def mean(arrays: Sequence[F32]) -> F32:
        flat = np.einsum("n,nc->c", share, np.stack([a.reshape(-1) for a in arrays]))
        return np.asarray(flat.reshape(arrays[0].shape), np.float32)

    first = parts[0]
    shapes = [{k: v.shape for k, v in [*p.vectors.items(), *p.maps.items()]} for p in parts]
    if any(found != shapes[0] for found in shapes):
        raise ValueError(
            f"no mean of different conditions: {shapes[0]} and {next(s for s in shapes if s != shapes[0])}"
        )
    return Conditions(
        vectors={name: mean([p.vectors[name] for p in parts]) for name in first.vectors},
        maps={name: mean([p.maps[name] for p in parts]) for name in first.maps},
    )


def grid_shape(height: int, width: int) -> tuple[int, int]:
    """Cells of a map for a tile of a size, the border included; ValueError for sides that it does not divide."""
    if height % MAP_STRIDE or width % MAP_STRIDE:
        raise ValueError(f"maps need sides that are multiples of {MAP_STRIDE}, got {height} x {width}")
    return height // MAP_STRIDE + 2, width // MAP_STRIDE + 2


def on_grid(conditions: Conditions, size: tuple[int, int], padded: tuple[int, int]) -> Conditions:
    """Maps over a picture brought to the grid of the frame that is rendered.

    Args:
        conditions: with maps over the whole picture.
        size: height and width of the picture in the frame, in pixels, at its upper left.
        padded: height and width of the frame, multiples of `MAP_STRIDE`; what lies beyond `size` mirrors it.

    Returns:
        Maps ``(C, padded[0] / 8 + 2, padded[1] / 8 + 2)``; the outermost cells repeat those beside them.
    """
    grid_shape(*padded)
    maps = {}
    for name, values in conditions.maps.items():
        for axis in (0, 1):
            values = _resampled(values, axis + 1, size[axis], padded[axis] // MAP_STRIDE)
        maps[name] = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="edge")
    return Conditions(vectors=conditions.vectors, maps=maps)


def _resampled(values: F32, axis: int, pixels: int, cells: int) -> F32:
    """Bilinear along one axis: the map covers `pixels` pixels, and every cell takes its middle's value."""
    count = values.shape[axis]
    middle = (np.arange(cells) + 0.5) * MAP_STRIDE
    middle = np.where(middle > pixels, 2 * pixels - middle, middle)
    place = np.clip(middle / pixels * count - 0.5, 0, count - 1)
    below = np.minimum(place.astype(np.int64), max(count - 2, 0))
    above = np.minimum(below + 1, count - 1)
    shape = [1, 1, 1]
    shape[axis] = cells
    share = (place - below).astype(np.float32).reshape(shape)
    low, high = np.take(values, below, axis), np.take(values, above, axis)
    return np.asarray(low + (high - low) * share, np.float32)


def window(conditions: Conditions, part: Region) -> Conditions:
    """What a tile at a place of the frame is rendered with; the maps are on the grid.

    Raises ValueError for a place that is not on the grid.
    """
    if not conditions.maps:
        return conditions
    height, width = grid_shape(part.height, part.width)
    if part.top % MAP_STRIDE or part.left % MAP_STRIDE:
        raise ValueError(f"tiles of models with maps begin at multiples of {MAP_STRIDE}, got {part.top}, {part.left}")
    top, left = part.top // MAP_STRIDE, part.left // MAP_STRIDE
    cut = {name: values[:, top : top + height, left : left + width] for name, values in conditions.maps.items()}
    return Conditions(vectors=conditions.vectors, maps=cut)
