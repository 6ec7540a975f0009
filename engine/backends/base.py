"""What a backend has to do; `engine.choice` opens one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.conditions import Conditions, grid_shape
from engine.spec import F32, ModelSpec

__all__ = ["Backend", "BackendOptions", "Tiles", "check_conditions", "check_tiles", "check_view"]

Tiles = npt.NDArray[np.uint8]
"""RGB uint8 ``(N, H, W, 3)``, C-contiguous."""


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """Settings that every backend understands; each ignores what its device does not have."""

    device: str | None = None
    """`CPU`, `GPU`, `cuda:1`, ...; None: the backend's usual one."""
    precision: str = "auto"
    """`fp32`, `fp16`, `bf16`, or `auto`: what the device does fast."""
    threads: int = 0
    """CPU threads; 0: all."""
    cache: Path | None = None
    """Folder for compiled models; None: none are kept, and TensorRT plans go to `engine.trt.plan.default_cache`."""
    plan: Path | None = None
    """Plan folder for `tensorrt` or `tensorrt-rtx`; None: one that fits is taken from the cache, or built."""
    frame: tuple[int, int] | None = None
    """Height and width of a video's frames, as the network takes them: `tensorrt` builds a plan of just that shape."""
    graph: bool = True
    """On NVIDIA GPUs: record the kernels of a shape once and replay them (CUDA graph)."""


class Backend(Protocol):
    """Runs the two graphs of one model.  A context manager: construction does no work."""

    name: str
    spec: ModelSpec

    def __enter__(self) -> Backend: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def description(self) -> str:
        """Device and arithmetic, for people: ``OpenVINO on AMD EPYC, fp32``."""
        ...

    def probe(self, view: Tiles, look: F32) -> Conditions:
        """What the probe graph returns for a view: statistics, taken jointly over its batch, for look weights ``(K,)``.

        Models of `layers` return the map `layout` with sky and depth, of one view alone, whatever the look;
        `engine.looks.layout.complete` makes conditions for `render` of it.
        """
        ...

    def render(self, tiles: Tiles, conditions: Conditions) -> Tiles:
        """Stylize tiles; same shape.  OutOfMemoryError asks for smaller ones.

        Maps are those of the tiles' place, as `engine.conditions.window` cuts them, the same for the whole batch.
        """
        ...


def check_tiles(spec: ModelSpec, tiles: Tiles) -> Tiles:
    """The tiles, C-contiguous; ValueError if the graphs could not take them."""
    return _checked(tiles, spec.multiple, spec.min_side)


def check_view(spec: ModelSpec, view: Tiles) -> Tiles:
    """The view, C-contiguous; ValueError if the probe could not take it."""
    view = _checked(view, spec.view_multiple, spec.view_min_side)
    if spec.has_layout and len(view) != 1:
        raise ValueError(f"{spec.name} makes the layout of one view at a time, got {len(view)}")
    return view


def _checked(tiles: Tiles, multiple: int, least: int) -> Tiles:
    if tiles.ndim != 4 or tiles.shape[3] != 3 or tiles.dtype != np.uint8:
        raise ValueError(f"tiles are uint8 (N, H, W, 3), got {tiles.shape = }, {tiles.dtype = }")
    height, width = tiles.shape[1:3]
    if height % multiple or width % multiple or min(height, width) < least:
        raise ValueError(f"sides are multiples of {multiple} from {least} up, got {height} x {width}: pad the tile")
    return np.ascontiguousarray(tiles)


def check_conditions(spec: ModelSpec, conditions: Conditions, size: tuple[int, ...]) -> None:
    """ValueError for conditions that `render` of this model could not take for tiles (or a frame) of a size."""
    found = {name: values.shape for name, values in conditions.vectors.items()}
    if found != spec.render_vectors:
        raise ValueError(f"conditions of another model: {spec.name} takes {spec.render_vectors}, got {found}")
    grid = grid_shape(*size) if spec.has_layout else ()
    wanted = {name: (*channels, *grid) for name, channels in spec.render_maps.items()}
    maps = {name: values.shape for name, values in conditions.maps.items()}
    if maps != wanted:
        raise ValueError(
            f"{spec.name} takes maps {wanted or 'of no kind'} for {size[0]} x {size[1]} pixels, got {maps or 'none'}: "
            "complete them (engine.looks.layout) and bring them to the grid (engine.conditions.on_grid)"
        )
