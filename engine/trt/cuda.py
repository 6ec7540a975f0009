"""All of CUDA's driver: devices, streams, memory, by pycuda or cuda-bindings, whichever is installed.

A thread that uses a device makes its primary context current for the length of each call
(`CudaDevice.current`); the context is the one that TensorRT and torch use as well.  Nothing here runs
at import: the driver is looked for when a device is opened.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import BackendError, OutOfMemoryError

__all__ = [
    "ALIGNMENT",
    "Buffer",
    "CudaDevice",
    "PinnedArray",
    "Stream",
    "aligned",
    "copy_rectangle",
    "device_count",
    "gpu_number",
    "of_capability",
]

Bytes = npt.NDArray[np.uint8]

ALIGNMENT = 256
"""Bytes that TensorRT wants every address of a tensor to be a multiple of (`setTensorAddress` in NvInferRuntime.h);
CUDA's allocations are."""

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: the stream does not wait for the default one, nor that for the stream."""


def aligned(size: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


_contexts: dict[int, Any] = {}
_lock = threading.Lock()


def _module() -> Any:
    """pycuda.driver, or what has its names on top of cuda-bindings where pycuda is not installed."""
    try:
        import pycuda.driver as cuda

        return cuda
    except ImportError as error:
        if "libcuda" in str(error):
            raise BackendError("no NVIDIA driver (libcuda.so.1 is missing): install one, then try again") from error
    try:
        from engine.trt import cuda_bindings
    except ImportError as error:
        raise BackendError("neither pycuda nor cuda-bindings is installed: pip install cuda-bindings") from error
    return cuda_bindings


def _driver() -> Any:
    """The driver's module, initialised."""
    cuda = _module()
    try:
        cuda.init()
    except cuda.Error as error:
        raise BackendError(f"the NVIDIA driver does not start ({error}): check it with nvidia-smi") from error
    return cuda


def device_count() -> int:
    """CUDA devices of this machine; BackendError says why there are none."""
    return int(_driver().Device.count())


def of_capability(index: int) -> str:
    """Compute capability of a GPU, ``8.9``; BackendError where there is no such one."""
    cuda = _driver()
    if not 0 <= index < cuda.Device.count():
        raise BackendError(f"there is no GPU {index}: this machine has {cuda.Device.count()}; see nvidia-smi")
    return ".".join(map(str, cuda.Device(index).compute_capability()))


def gpu_number(device: str | None) -> int:
    """0 for None and `cuda`, 1 for `cuda:1`, `gpu:1` and `1`; BackendError for what is no GPU of CUDA."""
    text = (device or "0").lower()
    for prefix in ("cuda:", "gpu:", "gpu.", "cuda", "gpu"):
        if text.startswith(prefix):
            text = text[len(prefix) :] or "0"
            break
    if not text.isdigit():
        raise BackendError(f"tensorrt runs on a GPU, got device {device!r}: choose cuda:0, cuda:1, ...")
    return int(text)


def _primary_context(cuda: Any, index: int) -> Any:
    """The primary context of a device, retained once and kept until the program ends, as CUDA's runtime does.

    pycuda must not destroy the object by itself: its destructor detaches a primary context as if it
    were one of its own making, and leaves it on the thread's stack.
    """
    with _lock:
        if index not in _contexts:
            if not _contexts:
                atexit.register(_release)
            _contexts[index] = cuda.Device(index).retain_primary_context()
        return _contexts[index]


def _release() -> None:
    while _contexts:
        _, context = _contexts.popitem()
        with suppress(Exception):  # the driver may have gone first
            context.detach()


class CudaDevice:
    """A GPU, by its number.  A context manager: entering retains its primary context."""

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self._cuda: Any = None
        self._device: Any = None
        self._context: Any = None

    def __enter__(self) -> CudaDevice:
        self._cuda = _driver()
        count = self._cuda.Device.count()
        if not 0 <= self.index < count:
            raise BackendError(f"there is no GPU {self.index}: this machine has {count}; see nvidia-smi")
        self._device = self._cuda.Device(self.index)
        with self._translated("a context"):
            self._context = _primary_context(self._cuda, self.index)
        return self

    def __exit__(self, *_: object) -> None:
        self._context = self._device = None

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread; CUDA's errors become ours."""
        self._context.push()
        try:
            with self._translated("this tile"):
                yield
        finally:
            self._cuda.Context.pop()

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._cuda.MemoryError as error:
            raise OutOfMemoryError(
                f"GPU {self.index} has no memory left for {what}: choose a smaller --tile or close other programs"
            ) from error
        except self._cuda.Error as error:
            raise BackendError(f"CUDA failed on GPU {self.index} ({error}): see nvidia-smi, then try again") from error

    @property
    def name(self) -> str:
        """As nvidia-smi has it: ``NVIDIA GeForce RTX 4090``."""
        return str(self._device.name())

    @property
    def capability(self) -> str:
        """Compute capability: ``8.9``."""
        major, minor = self._device.compute_capability()
        return f"{major}.{minor}"

    @property
    def driver(self) -> str:
        """CUDA version that the driver supports: ``13.0``."""
        version = int(self._cuda.get_driver_version())
        return f"{version // 1000}.{version % 1000 // 10}"

    def memory(self) -> tuple[int, int]:
        """Free and total bytes; the context must be current."""
        free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def stream(self) -> Stream:
        """A new stream; the context must be current."""
        return Stream(self._cuda)

    def buffer(self) -> Buffer:
        """An empty buffer on the device."""
        return Buffer(self._cuda)

    def pinned(self) -> PinnedArray:
        """An empty page-locked array."""
        return PinnedArray(self._cuda)


class Stream:
    """A queue of work on a device."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._stream = cuda.Stream(NON_BLOCKING)

    @property
    def handle(self) -> int:
        """The CUstream, for TensorRT."""
        return int(self._stream.handle)

    def synchronize(self) -> None:
        """Wait until all its work is done."""
        self._stream.synchronize()

    def upload(self, target: int, source: Bytes) -> None:
        """Queue a copy of a page-locked array to a device address."""
        self._cuda.memcpy_htod_async(target, source, self._stream)

    def download(self, target: Bytes, source: int) -> None:
        """Queue a copy from a device address to a page-locked array."""
        self._cuda.memcpy_dtoh_async(target, source, self._stream)

    def time(self) -> Any:
        """An event at this place of the queue; `Stream.elapsed` takes two."""
        event = self._cuda.Event()
        event.record(self._stream)
        return event

    @staticmethod
    def elapsed(start: Any, end: Any) -> float:
        """Seconds between two events; both must have come."""
        end.synchronize()
        return float(end.time_since(start)) / 1000.0


class Buffer:
    """Device memory that grows when more is asked for; what it held is lost then."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._allocation: Any = None
        self.size = 0

    def reserve(self, size: int) -> int:
        """Address of at least `size` bytes.  No queued work may use the buffer when it grows."""
        if size > self.size:
            self.free()
            self._allocation = self._cuda.mem_alloc(size)
            self.size = size
        return int(self._allocation)

    def free(self) -> None:
        """Give the memory back."""
        if self._allocation is not None:
            self._allocation.free()
        self._allocation, self.size = None, 0


class PinnedArray:
    """Page-locked host memory that grows when more is asked for."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._array: Bytes | None = None

    def reserve(self, size: int) -> Bytes:
        """A uint8 view of `size` bytes."""
        if self._array is None or self._array.size < size:
            self._array = self._cuda.pagelocked_empty((size,), np.uint8)
        return self._array[:size]

    def free(self) -> None:
        """Give the memory back; numpy holds it until no view is left."""
        self._array = None


def copy_rectangle(
    stream: Stream,
    source: int,
    source_pitch: int,
    target: int,
    target_pitch: int,
    *,
    width: int,
    height: int,
) -> None:
    """Queue a copy of `height` rows of `width` bytes between two device addresses."""
    copy = stream._cuda.Memcpy2D()
    copy.set_src_device(source)
    copy.src_pitch = source_pitch
    copy.set_dst_device(target)
    copy.dst_pitch = target_pitch
    copy.width_in_bytes = width
    copy.height = height
    copy(stream._stream)
