"""CUDA's driver by NVIDIA's cuda-bindings, under the names that `engine.trt.cuda` takes from pycuda.

cuda-bindings comes as wheels for Linux, Windows and aarch64, where pycuda has to be compiled.  Memory is given back
when the object that holds it goes, as with pycuda; the context must be current for that, or still alive.
"""

from __future__ import annotations

import ctypes
import weakref
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda.bindings import driver

from engine.errors import BackendError

__all__ = [
    "Context",
    "Device",
    "Error",
    "Event",
    "Memcpy2D",
    "MemoryError",
    "Stream",
    "get_driver_version",
    "init",
    "mem_alloc",
    "mem_get_info",
    "memcpy_dtoh_async",
    "memcpy_htod_async",
    "pagelocked_empty",
]

Array = npt.NDArray[Any]


class Error(Exception):
    """What the driver complained about."""


class MemoryError(Error):  # pycuda's name
    """There is no memory left."""


def _call(function: Any, *arguments: Any) -> Any:
    """The result of a driver's function: None, one value or a tuple; `Error` where it failed."""
    status, *values = function(*arguments)
    if status != driver.CUresult.CUDA_SUCCESS:
        kind = MemoryError if status == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY else Error
        raise kind(f"{function.__name__} failed: {getattr(status, 'name', status)}")
    return values[0] if len(values) == 1 else tuple(values) or None


def init() -> None:
    """Start the driver, before all else; BackendError where there is none."""
    try:
        driver.cuInit(0)
    except RuntimeError as error:  # what cuda-bindings raises when it finds no libcuda
        raise BackendError("no NVIDIA driver (libcuda.so.1 is missing): install one, then try again") from error
    _call(driver.cuInit, 0)


def get_driver_version() -> int:
    """CUDA version of the driver, 13000 for 13.0."""
    return int(_call(driver.cuDriverGetVersion))


def mem_get_info() -> tuple[int, int]:
    """Free and total bytes of the current device."""
    free, total = _call(driver.cuMemGetInfo)
    return int(free), int(total)


class Context:
    """A primary context that was retained."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._context = _call(driver.cuDevicePrimaryCtxRetain, device)

    def push(self) -> None:
        """Make it current in this thread."""
        _call(driver.cuCtxPushCurrent, self._context)

    @staticmethod
    def pop() -> None:
        """Make the one before it current again."""
        _call(driver.cuCtxPopCurrent)

    def detach(self) -> None:
        """Release it."""
        _call(driver.cuDevicePrimaryCtxRelease, self._device)


class Device:
    """A GPU, by its number."""

    def __init__(self, number: int) -> None:
        self._device = _call(driver.cuDeviceGet, number)

    @staticmethod
    def count() -> int:
        """GPUs of this machine."""
        return int(_call(driver.cuDeviceGetCount))

    def name(self) -> str:
        """As nvidia-smi has it."""
        name: bytes = _call(driver.cuDeviceGetName, 256, self._device)
        return name.partition(b"\0")[0].decode()  # what follows is filled up with spaces

    def compute_capability(self) -> tuple[int, int]:
        """Major and minor number."""
        kinds = driver.CUdevice_attribute
        parts = (kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
        major, minor = (int(_call(driver.cuDeviceGetAttribute, part, self._device)) for part in parts)
        return major, minor

    def retain_primary_context(self) -> Context:
        """The context that CUDA's runtime uses as well."""
        return Context(self._device)


def _quietly(function: Any, *arguments: Any) -> None:
    """Give something back whose context may be gone."""
    with suppress(Exception):
        function(*arguments)


class Stream:
    """A queue of work."""

    def __init__(self, flags: int = 0) -> None:
        self._stream = _call(driver.cuStreamCreate, flags)
        weakref.finalize(self, _quietly, driver.cuStreamDestroy, self._stream).atexit = False

    @property
    def handle(self) -> int:
        """The CUstream."""
        return int(self._stream)

    def synchronize(self) -> None:
        """Wait until all its work is done."""
        _call(driver.cuStreamSynchronize, self._stream)


class Event:
    """A place in a queue."""

    def __init__(self) -> None:
        self._event = _call(driver.cuEventCreate, 0)
        weakref.finalize(self, _quietly, driver.cuEventDestroy, self._event).atexit = False

    def record(self, stream: Stream) -> Event:
        """Put it behind what the stream has to do."""
        _call(driver.cuEventRecord, self._event, stream._stream)
        return self

    def synchronize(self) -> Event:
        """Wait until it has come."""
        _call(driver.cuEventSynchronize, self._event)
        return self

    def time_since(self, event: Event) -> float:
        """Milliseconds."""
        return float(_call(driver.cuEventElapsedTime, event._event, self._event))


class DeviceAllocation:
    """Device memory; its int is the address."""

    def __init__(self, size: int) -> None:
        self._address = _call(driver.cuMemAlloc, size)
        self._finalizer = weakref.finalize(self, _quietly, driver.cuMemFree, self._address)
        self._finalizer.atexit = False

    def __int__(self) -> int:
        return int(self._address)

    def free(self) -> None:
        """Give it back now."""
        if self._finalizer.detach() is not None:
            _call(driver.cuMemFree, self._address)


def mem_alloc(size: int) -> DeviceAllocation:
    """Memory on the current device."""
    return DeviceAllocation(size)


def pagelocked_empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """A page-locked array; its memory is given back when no view of it is left."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    address = int(_call(driver.cuMemHostAlloc, max(size, 1), 0))
    block = (ctypes.c_uint8 * size).from_address(address)
    weakref.finalize(block, _quietly, driver.cuMemFreeHost, address).atexit = False
    return np.frombuffer(block, kind).reshape(shape)


def memcpy_htod_async(target: int, source: Array, stream: Stream) -> None:
    """Queue a copy of a page-locked array to the device."""
    _call(driver.cuMemcpyHtoDAsync, target, source.ctypes.data, source.nbytes, stream._stream)


def memcpy_dtoh_async(target: Array, source: int, stream: Stream) -> None:
    """Queue a copy from the device to a page-locked array."""
    _call(driver.cuMemcpyDtoHAsync, target.ctypes.data, source, target.nbytes, stream._stream)


class Memcpy2D:
    """A copy of a rectangle between two places on the device."""

    def __init__(self) -> None:
        self._copy = driver.CUDA_MEMCPY2D()
        self._copy.srcMemoryType = self._copy.dstMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
        self.src_pitch = self.dst_pitch = self.width_in_bytes = self.height = 0

    def set_src_device(self, address: int) -> None:
        """Where it begins."""
        self._copy.srcDevice = address

    def set_dst_device(self, address: int) -> None:
        """Where it goes."""
        self._copy.dstDevice = address

    def __call__(self, stream: Stream) -> None:
        """Queue it."""
        self._copy.srcPitch, self._copy.dstPitch = self.src_pitch, self.dst_pitch
        self._copy.WidthInBytes, self._copy.Height = self.width_in_bytes, self.height
        _call(driver.cuMemcpy2DAsync, self._copy, stream._stream)
