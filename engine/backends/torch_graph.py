"""CUDA graphs for backend `torch`: the kernels of one tile shape, recorded once and replayed.

A frame is some hundred small launches; replayed as one graph, the GPU no longer waits for Python.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.backends.shape_cache import ShapeCache

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GraphCache"]

Compute = Callable[..., "Tensor"]

WARM_UP = 3
"""Runs before recording, in which cuDNN chooses its kernels and memory is taken."""


_recording = threading.Lock()
"""torch takes one recording at a time, whatever the GPU."""


class GraphCache:
    """Calls `compute(tiles, *conditions)` by a recorded graph for each shape of tiles.

    Args:
        compute: tensors on the device in, one out; the same kernels for the same shapes.
    """

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self._recorded: ShapeCache[tuple[Any, tuple[Tensor, ...], Tensor]] = ShapeCache()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The result; it is overwritten by the next call with the same shape."""
        key = tuple(inputs[0].shape)
        graph, places, result = self._recorded.get_or_make(key, lambda: self._record(inputs))
        for place, value in zip(places, inputs, strict=True):
            place.copy_(value)
        graph.replay()
        return result

    def _record(self, inputs: tuple[Tensor, ...]) -> tuple[Any, tuple[Tensor, ...], Tensor]:
        import torch

        device = inputs[0].device
        with _recording, torch.cuda.device(device):
            places = tuple(value.clone() for value in inputs)
            side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self._compute(*places)
            torch.cuda.current_stream(device).wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads go on with other GPUs meanwhile; the stream of torch's own choice is the first GPU's.
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                result = self._compute(*places)
        return graph, places, result

    def clear(self) -> None:
        """Forget all graphs and give their memory back."""
        self._recorded.clear()
