"""What the builder and the backend share of TensorRT: finding it, its log, the machine it runs on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from engine.errors import BackendError
from engine.trt.cuda import CudaDevice

__all__ = ["MINIMUM", "Machine", "load", "logger", "machine", "recent_errors", "started"]

log = logging.getLogger("engine.tensorrt")

MINIMUM = (10, 9)
"""Oldest TensorRT whose bindings the contract test covers."""

_errors: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a plan is made for."""

    gpu: str
    """Name of the GPU."""
    capability: str
    """Its compute capability: ``8.9``."""
    tensorrt: str
    """Version of TensorRT: ``10.9.0.34``."""

    def __str__(self) -> str:
        return f"{self.gpu} (compute capability {self.capability}), TensorRT {self.tensorrt}"


def load() -> Any:
    """The module tensorrt; BackendError if it is missing or older than `MINIMUM`."""
    try:
        import tensorrt as trt
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "tensorrt":
            raise BackendError("TensorRT is not installed: pip install tensorrt pycuda") from error
        raise BackendError(f"TensorRT cannot be loaded ({error}): install it again, for your CUDA version") from error
    parts = str(trt.__version__).split(".")
    if tuple(int(part) for part in parts[:2]) < MINIMUM:
        oldest = ".".join(map(str, MINIMUM))
        raise BackendError(f"TensorRT {trt.__version__} is too old: pip install --upgrade 'tensorrt>={oldest}'")
    return trt


@lru_cache(maxsize=1)
def logger() -> Any:
    """A TensorRT logger that writes to `engine.tensorrt`; it lives as long as the process."""
    trt = load()
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


def machine(device: CudaDevice) -> Machine:
    """Of an entered device."""
    return Machine(gpu=device.name, capability=device.capability, tensorrt=str(load().__version__))


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
