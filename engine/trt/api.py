"""What the builder and the backend share of TensorRT: finding it, its log, the machine it runs on.

There are two runtimes with one interface: `tensorrt`, whose plans are tuned on the GPU that they are built for, and
`rtx`, TensorRT for RTX, whose plans are portable and finished on the user's GPU within seconds.
"""

from __future__ import annotations

import importlib
import logging
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from engine.errors import BackendError
from engine.trt.cuda import CudaDevice

__all__ = [
    "MINIMUM",
    "RUNTIMES",
    "Machine",
    "lacks_memory",
    "load",
    "logger",
    "machine",
    "recent_errors",
    "started",
    "title",
]

log = logging.getLogger("engine.tensorrt")

RUNTIMES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx_bindings"}
"""Runtime -> the module with its bindings."""

MINIMUM = {"tensorrt": (10, 3), "rtx": (1, 7)}
"""Oldest version of each runtime whose bindings the contract test covers; 10.3 is that of JetPack 6.2."""

_errors: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a plan is made for."""

    gpu: str
    """Name of the GPU; of a portable plan, which GPUs."""
    capability: str
    """Its compute capability: ``8.9``; of a portable plan, all of them: ``8.0 8.6 8.9``."""
    tensorrt: str
    """Version of the runtime: ``10.9.0.34``."""

    def __str__(self) -> str:
        return f"{self.gpu} (compute capability {self.capability}), TensorRT {self.tensorrt}"


MISSING = {
    "tensorrt": "TensorRT is not installed: pip install tensorrt pycuda",
    "rtx": "TensorRT-RTX is not installed: pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings",
}
"""Runtime -> what is said where its module is not there."""


def title(runtime: str) -> str:
    """A runtime's name for people."""
    return "TensorRT-RTX" if runtime == "rtx" else "TensorRT"


def load(runtime: str = "tensorrt") -> Any:
    """The module of a runtime; BackendError if it is missing or older than `MINIMUM`."""
    name, module = title(runtime), RUNTIMES[runtime]
    try:
        if runtime == "rtx":
            importlib.import_module("tensorrt_rtx_libs")  # loads the library that the bindings need
        trt = importlib.import_module(module)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name in (module, "tensorrt_rtx_libs"):
            raise BackendError(MISSING[runtime]) from error
        raise BackendError(f"{name} cannot be loaded ({error}): install it again, for your CUDA version") from error
    parts = str(trt.__version__).split(".")
    if tuple(int(part) for part in parts[:2]) < MINIMUM[runtime]:
        oldest = ".".join(map(str, MINIMUM[runtime]))
        package = "tensorrt-rtx-cu13-bindings" if runtime == "rtx" else "tensorrt"
        raise BackendError(f"{name} {trt.__version__} is too old: pip install --upgrade '{package}>={oldest}'")
    return trt


@cache
def logger(runtime: str = "tensorrt") -> Any:
    """A logger of a runtime that writes to `engine.tensorrt`; it lives as long as the process."""
    trt = load(runtime)
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.WARNING,
        trt.ILogger.Severity.INFO: logging.DEBUG,
    }

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            level = levels.get(severity)
            if level == logging.ERROR:
                _errors[:] = [*_errors[-9:], msg]
            if level is not None:
                # Errors come back as exceptions with a remedy; here they are details.
                log.log(min(level, logging.WARNING), "%s", msg)

    return Log()


def recent_errors() -> str:
    """What TensorRT complained about since the last call, in one line."""
    text = "; ".join(" ".join(message.split()) for message in _errors)
    _errors.clear()
    return text[:600] or "TensorRT gave no reason"


def lacks_memory(reason: str) -> bool:
    """Whether a complaint of TensorRT is about too little memory (and not about an illegal access, say)."""
    return re.search(r"out ?of ?memory|(amount|lack) of (gpu )?memory|fail\w* to allocate", reason, re.I) is not None


def machine(device: CudaDevice, runtime: str = "tensorrt") -> Machine:
    """Of an entered device."""
    return Machine(gpu=device.name, capability=device.capability, tensorrt=str(load(runtime).__version__))


def started(factory: Any, *arguments: Any) -> Any:
    """Call a factory of TensorRT; BackendError where its library refuses to start."""
    try:
        result = factory(*arguments)
    except TypeError as error:  # pybind11: factory function returned nullptr
        raise BackendError(
            f"TensorRT does not start ({recent_errors()}): its CUDA version must be one that the driver supports"
        ) from error
    if result is None:
        raise BackendError(f"TensorRT does not start: {recent_errors()}")
    return result
