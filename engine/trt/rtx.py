"""What is of TensorRT-RTX alone: the GPUs that a portable plan is built for, and how it is finished on one of them.

A plan of TensorRT-RTX holds kernels that are specialised for the GPU and the shapes when it is first run
(just in time).  They are kept in a *runtime cache*, a file for each plan and GPU, so that the next run starts at once.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from engine.errors import BackendError
from engine.files import new_file
from engine.trt import api as tensorrt_api
from engine.trt.api import Machine
from engine.trt.cuda import CudaDevice

__all__ = [
    "TARGETS",
    "RuntimeCache",
    "capabilities",
    "check_supported",
    "every_machine",
    "execution_context",
    "set_targets",
]

log = logging.getLogger(__name__)

TARGETS = ("7.5", "8.0", "8.6", "8.9", "12.0")
"""Compute capabilities of a portable plan, Turing to Blackwell.  TensorRT-RTX refuses the data-centre chip
9.0 (tried on an H100) and has no name for 10.0: both are TensorRT's."""


def capabilities(precision: str) -> tuple[str, ...]:
    """Compute capabilities that a plan in a precision is built for: Turing has no bf16."""
    return tuple(target for target in TARGETS if precision != "bf16" or target != "7.5")


def check_supported(device: CudaDevice) -> None:
    """BackendError for a GPU that TensorRT-RTX does not run on."""
    if device.capability not in TARGETS:
        raise BackendError(
            f"TensorRT-RTX does not run on {device.name} (compute capability {device.capability}): "
            "take --backend tensorrt, or torch"
        )


def every_machine(precision: str) -> Machine:
    """What a portable plan is made for."""
    version = str(tensorrt_api.load("rtx").__version__)
    return Machine(gpu="any GPU", capability=" ".join(capabilities(precision)), tensorrt=version)


def set_targets(settings: Any, targets: tuple[str, ...]) -> None:
    """Tell a builder's settings the GPUs; no GPU is needed on the machine that builds."""
    trt = tensorrt_api.load("rtx")
    settings.num_compute_capabilities = len(targets)
    for i, target in enumerate(targets):
        settings.set_compute_capability(getattr(trt.ComputeCapability, f"SM{target.replace('.', '')}"), i)


class RuntimeCache:
    """The kernels of one plan on one GPU.

    Args:
        path: where they are kept between runs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._raw: Any = None
        self._read = b""

    def attach(self, settings: Any) -> None:
        """Have an execution context with these settings use the cache; the first time it is read from its file."""
        if self._raw is None:
            raw = settings.create_runtime_cache()
            if self.path.is_file():
                data = self.path.read_bytes()
                if raw.deserialize(data):
                    self._read = data
                else:
                    log.info("%s was made by another driver or TensorRT-RTX: it is written anew", self.path)
            self._raw = raw
        settings.set_runtime_cache(self._raw)

    def save(self) -> None:
        """Write what has come to it; a warning where that cannot be."""
        if self._raw is None:
            return
        raw, self._raw = self._raw, None
        data = bytes(raw.serialize())
        if data == self._read:
            return
        try:
            with new_file(self.path, overwrite=True, several=True) as part:
                part.write_bytes(data)
        except OSError as error:
            log.warning("%s cannot be written (%s): the next run compiles its kernels again", self.path, error.strerror)


def execution_context(engine: Any, kernels: RuntimeCache, *, graph: bool) -> Any:
    """A context of an engine whose memory is the caller's; with `graph`, TensorRT-RTX records CUDA graphs by itself."""
    trt = tensorrt_api.load("rtx")
    settings = engine.create_runtime_config()
    settings.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if graph:
        settings.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    kernels.attach(settings)
    return engine.create_execution_context(settings)
