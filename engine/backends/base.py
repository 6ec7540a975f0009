"""What a backend has to do; `engine.choice` opens one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.spec import F32, ModelSpec, NormStatistics

__all__ = ["Backend", "BackendOptions", "Tiles", "check_statistics", "check_tiles"]

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

    def probe(self, view: Tiles, look: F32) -> NormStatistics:
        """Statistics of a view (taken jointly over its batch) for look weights ``(K,)``."""
        ...

    def render(self, tiles: Tiles, statistics: NormStatistics) -> Tiles:
        """Stylize tiles; same shape.  OutOfMemoryError asks for smaller ones."""
        ...


def check_tiles(spec: ModelSpec, tiles: Tiles) -> Tiles:
    """The tiles, C-contiguous; ValueError if the graphs could not take them."""
    if tiles.ndim != 4 or tiles.shape[3] != 3 or tiles.dtype != np.uint8:
        raise ValueError(f"tiles are uint8 (N, H, W, 3), got {tiles.shape = }, {tiles.dtype = }")
    height, width = tiles.shape[1:3]
    if height % spec.multiple or width % spec.multiple or min(height, width) < spec.min_side:
        raise ValueError(
            f"sides are multiples of {spec.multiple} from {spec.min_side} up, got {height} x {width}: pad the tile"
        )
    return np.ascontiguousarray(tiles)


def check_statistics(spec: ModelSpec, statistics: NormStatistics) -> None:
    """ValueError for statistics that `render` of this model could not take."""
    if len(statistics.scale) != spec.norm_channels:
        raise ValueError(
            f"statistics of another model: {spec.name} has {spec.norm_channels} channels, got {len(statistics.scale)}"
        )
