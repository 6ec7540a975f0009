"""A stand-in for pycuda.driver that keeps the documented rules of CUDA and reports every breach.

Device memory is host memory at its true address.  Streams are lazy: what is queued runs when somebody
waits for it and not before, so work that relies on luck gives wrong pixels here every time.
"""

from __future__ import annotations

import ctypes
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np

ALIGNMENT = 256
"""Bytes: "suitably aligned for any kind of variable" in CUDA's words, 256 as a rule."""


class Error(Exception):
    pass


class MemoryError(Error):
    pass


class LogicError(Error):
    pass


class State:
    """Everything that the double keeps; `reset` before a test."""

    def __init__(self) -> None:
        self.reset()

    def reset(self, *, gpus: int = 1, limit: int = 1 << 40, gpu_name: str = "NVIDIA Double 4090") -> None:
        self.gpus, self.limit, self.gpu_name = gpus, limit, gpu_name
        self.live: dict[int, np.ndarray] = {}
        self.pinned: list[np.ndarray] = []
        self.streams: dict[int, Stream] = {}
        self.threads = threading.local()
        self.copied_to_device = 0
        self.used_gpus: list[int] = []
        self.executed: list[int] = []
        self.retained = self.detached = 0
        self.initialised = False
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.launches = 0
        self.refuse_capture = False

    @property
    def stack(self) -> list[int]:
        if not hasattr(self.threads, "stack"):
            self.threads.stack = []
        return self.threads.stack

    def used(self) -> int:
        return sum(array.size for array in self.live.values())

    def check_range(self, address: int, size: int) -> None:
        for start, array in self.live.items():
            if start <= address and address + size <= start + array.size:
                return
        raise LogicError(f"illegal address {address:#x} + {size}")

    def check_pinned(self, array: np.ndarray) -> None:
        if not array.flags.c_contiguous:
            raise LogicError("host array is not contiguous")
        start = array.__array_interface__["data"][0]
        for block in self.pinned:
            first = block.__array_interface__["data"][0]
            if first <= start and start + array.nbytes <= first + block.nbytes:
                return
        raise LogicError("host memory is not page-locked")


state = State()


def _current() -> int:
    if not state.stack:
        raise LogicError("invalid device context: no context is current in this thread")
    return state.stack[-1]


def init(flags: int = 0) -> None:
    if state.gpus == 0:
        raise LogicError("cuInit failed: no CUDA-capable device is detected")
    state.initialised = True


class Context:
    def __init__(self, gpu: int) -> None:
        self._gpu = gpu

    def push(self) -> None:
        state.stack.append(self._gpu)

    @staticmethod
    def pop() -> None:
        state.stack.pop()

    def detach(self) -> None:
        state.detached += 1


class Device:
    def __init__(self, number: int) -> None:
        if not state.initialised:
            raise LogicError("not initialized")
        self._number = number

    @staticmethod
    def count() -> int:
        return state.gpus

    def name(self) -> str:
        return state.gpu_name

    def compute_capability(self) -> tuple[int, int]:
        return 8, 9

    def retain_primary_context(self) -> Context:
        state.retained += 1
        return Context(self._number)


def get_driver_version() -> int:
    return 13000


def mem_get_info() -> tuple[int, int]:
    _current()
    return state.limit - state.used(), state.limit


class DeviceAllocation:
    def __init__(self, size: int) -> None:
        _current()
        if state.used() + size > state.limit:
            raise MemoryError("cuMemAlloc failed: out of memory")
        whole = np.full(size + ALIGNMENT, 0xCD, np.uint8)
        skip = -int(whole.__array_interface__["data"][0]) % ALIGNMENT
        self._array = whole[skip : skip + size]
        self._address = int(self._array.__array_interface__["data"][0])
        state.live[self._address] = self._array

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        _current()
        del state.live[self._address]


def mem_alloc(bytes: int) -> DeviceAllocation:
    return DeviceAllocation(bytes)


def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
    _current()
    array = np.full(shape, 0xAB, dtype, order=order)
    state.pinned.append(array)
    return array


class Stream:
    def __init__(self, flags: int = 0) -> None:
        assert flags == 1, "CU_STREAM_NON_BLOCKING: the default stream would serialise both lanes"
        self._gpu = _current()
        self._queue: list[Callable[[], None]] = []
        self.captured: list[Callable[[], None]] | None = None
        self.handle = id(self)
        state.streams[self.handle] = self
        state.used_gpus.append(self._gpu)

    def enqueue(self, work: Callable[[], None]) -> None:
        if _current() != self._gpu:
            raise LogicError("a stream of another context")
        (self._queue if self.captured is None else self.captured).append(work)

    def synchronize(self) -> None:
        if _current() != self._gpu:
            raise LogicError("a stream of another context")
        if self.captured is not None:
            raise LogicError("operation not permitted when stream is capturing")
        while self._queue:
            self._queue.pop(0)()


class Event:
    def __init__(self, flags: int = 0) -> None:
        _current()
        self._stream: Stream | None = None

    def record(self, stream: Stream | None = None) -> Event:
        self._stream = stream
        return self

    def synchronize(self) -> Event:
        assert self._stream is not None
        self._stream.synchronize()
        return self

    def time_since(self, event: Event) -> float:
        return 10.0


def memcpy_htod_async(dest: int, src: np.ndarray, stream: Stream | None = None) -> None:
    assert stream is not None and isinstance(dest, int)
    state.check_pinned(src)
    state.check_range(dest, src.nbytes)
    state.copied_to_device += src.nbytes

    def copy() -> None:
        state.check_range(dest, src.nbytes)
        ctypes.memmove(dest, src.__array_interface__["data"][0], src.nbytes)

    stream.enqueue(copy)


def memcpy_dtoh_async(dest: np.ndarray, src: int, stream: Stream | None = None) -> None:
    assert stream is not None and isinstance(src, int)
    state.check_pinned(dest)
    state.check_range(src, dest.nbytes)

    def copy() -> None:
        state.check_range(src, dest.nbytes)
        ctypes.memmove(dest.__array_interface__["data"][0], src, dest.nbytes)

    stream.enqueue(copy)


class Memcpy2D:
    def __init__(self) -> None:
        self.src_x_in_bytes = self.src_y = self.dst_x_in_bytes = self.dst_y = 0
        self.src_pitch = self.dst_pitch = self.width_in_bytes = self.height = 0

    def set_src_device(self, devptr: int) -> None:
        self._src = int(devptr)

    def set_dst_device(self, devptr: int) -> None:
        self._dst = int(devptr)

    def __call__(self, stream: Stream) -> None:
        source, target, width, height = self._src, self._dst, self.width_in_bytes, self.height
        pitches = self.src_pitch, self.dst_pitch
        if width > min(pitches):
            raise LogicError("a row is longer than its pitch")

        def copy() -> None:
            for base, pitch in zip((source, target), pitches, strict=True):
                state.check_range(base, pitch * (height - 1) + width)
            for row in range(height):
                ctypes.memmove(target + row * pitches[1], source + row * pitches[0], width)

        stream.enqueue(copy)


class Library:
    """What `engine.trt.cuda_graph` calls of libcuda itself; arguments come as ctypes objects."""

    @staticmethod
    def cuStreamBeginCapture_v2(stream: ctypes.c_void_p, mode: ctypes.c_int) -> int:
        _current()
        if state.refuse_capture:
            return 900  # CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        assert mode.value == 1
        state.streams[stream.value].captured = []
        return 0

    @staticmethod
    def cuStreamEndCapture(stream: ctypes.c_void_p, graph: Any) -> int:
        held = state.streams[stream.value]
        assert held.captured is not None
        graph._obj.value = 1 + max(state.graphs, default=0)
        state.graphs[graph._obj.value], held.captured = held.captured, None
        return 0

    @staticmethod
    def cuGraphInstantiateWithFlags(executable: Any, graph: ctypes.c_void_p, flags: ctypes.c_ulonglong) -> int:
        executable._obj.value = 1 + max(state.graphs)
        state.graphs[executable._obj.value] = state.graphs[graph.value]
        return 0

    @staticmethod
    def cuGraphLaunch(executable: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:
        state.launches += 1
        for work in state.graphs[executable.value]:
            state.streams[stream.value].enqueue(work)
        return 0

    @staticmethod
    def cuGraphDestroy(graph: ctypes.c_void_p) -> int:
        del state.graphs[graph.value]
        return 0

    cuGraphExecDestroy = cuGraphDestroy


PUBLIC = (
    Error, MemoryError, LogicError, init, Context, Device, get_driver_version, mem_get_info, DeviceAllocation,
    mem_alloc, pagelocked_empty, Stream, Event, memcpy_htod_async, memcpy_dtoh_async, Memcpy2D,
)  # fmt: skip


def module() -> types.ModuleType:
    """The double as the module pycuda.driver."""
    result = types.ModuleType("pycuda.driver")
    for item in PUBLIC:
        setattr(result, item.__name__, item)
    return result
