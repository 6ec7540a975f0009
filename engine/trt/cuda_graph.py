"""CUDA graphs: what a stream was told once, recorded, and given to the GPU again in one call.

pycuda does not wrap this part of the driver, so its own C interface is called.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any

from engine.errors import BackendError, OutOfMemoryError

__all__ = ["CudaGraph", "Replay", "record"]

log = logging.getLogger(__name__)

THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on with other GPUs meanwhile."""


@cache
def library() -> Any:
    """The driver's library."""
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


class CudaGraph:
    """Recorded work, ready to be launched on the stream's device.  `free` gives it back."""

    def __init__(self, executable: ctypes.c_void_p) -> None:
        self._executable = executable

    def launch(self, stream: int) -> None:
        """Queue all of it on a stream, given by its handle; the context must be current."""
        _call("cuGraphLaunch", self._executable, ctypes.c_void_p(stream))

    def free(self) -> None:
        """Forget it; nothing of it may be under way."""
        _call("cuGraphExecDestroy", self._executable)


def record(stream: int, work: Callable[[], None]) -> CudaGraph:
    """Record what `work` queues on a stream, given by its handle; none of it is done.

    Raises BackendError where something in it cannot be recorded.  The stream is as before then.
    """
    handle, graph, executable = ctypes.c_void_p(stream), ctypes.c_void_p(), ctypes.c_void_p()
    _call("cuStreamBeginCapture_v2", handle, ctypes.c_int(THREAD_LOCAL))
    try:
        work()
    except BaseException:
        library().cuStreamEndCapture(handle, ctypes.byref(graph))
        if graph:
            _call("cuGraphDestroy", graph)
        raise
    _call("cuStreamEndCapture", handle, ctypes.byref(graph))
    try:
        _call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    finally:
        _call("cuGraphDestroy", graph)
    return CudaGraph(executable)


class Replay:
    """Work on a stream that comes again and again: queued plainly at first, recorded the second time, then replayed.

    Only the last kind of work is kept: TensorRT wants a context that was recorded to stay as it was.
    """

    def __init__(self, stream: int) -> None:
        self._stream = stream
        self._key: Hashable = None
        self._graph: CudaGraph | None = None
        self._refused = False

    def __call__(self, key: Hashable, work: Callable[[], None]) -> None:
        """Queue `work`; the same key means the same kernels at the same addresses."""
        if key != self._key:
            self.clear()
            self._key = key
        elif self._graph is None and not self._refused:
            try:
                self._graph = record(self._stream, work)
            except OutOfMemoryError:
                raise
            except BackendError as error:
                self._refused = True
                log.warning("no CUDA graph can be recorded (%s): kernels are launched one by one", error)
        if self._graph is None:
            work()
        else:
            self._graph.launch(self._stream)

    def clear(self) -> None:
        """Forget what was recorded; the driver frees it when it is no longer under way."""
        if self._graph is not None:
            self._graph.free()
        self._graph = self._key = None


def _call(name: str, *arguments: Any) -> None:
    status = getattr(library(), name)(*arguments)
    if status:
        raise BackendError(f"{name} failed with CUDA error {status}")
