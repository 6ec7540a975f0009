"""A training step as a CUDA graph: some hundred small kernels, started at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Replayed"]

WARM_UP = 3
"""Steps before the recording, in which cuDNN chooses its kernels and the optimizer makes its state."""


class Replayed:
    """Calls `step(*inputs)`; on CUDA, after some calls, by a recorded graph.

    Args:
        step: tensors on the device in, one without gradient out; no shape and no kernel depends on values.
        device: on any other than CUDA every call is an ordinary one.
        plain: so is it on CUDA, for a step that cannot be recorded.
    """

    def __init__(self, step: Callable[..., Tensor], device: torch.device, *, plain: bool = False) -> None:
        self._step, self._device, self._calls = step, device, 0
        self._plain = plain or device.type != "cuda"
        self._graph: torch.cuda.CUDAGraph | None = None
        self._places: tuple[Tensor, ...] = ()
        self._result: Tensor | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The result; the next call may overwrite it."""
        on_device = tuple(value.to(self._device, non_blocking=True) for value in inputs)
        if self._plain:
            return self._step(*on_device)
        self._calls += 1
        if self._calls <= WARM_UP:
            return self._aside(on_device)
        if self._graph is None:
            self._places = tuple(value.clone() for value in on_device)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._result = self._step(*self._places)
        for place, value in zip(self._places, on_device, strict=True):
            place.copy_(value)
        self._graph.replay()
        assert self._result is not None
        return self._result

    def _aside(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """On a stream of its own, as recording wants it of what comes before."""
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            result = self._step(*inputs)
        torch.cuda.current_stream(self._device).wait_stream(side)
        return result
