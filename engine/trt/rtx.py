"""What is of TensorRT-RTX alone: the GPUs that a portable plan is built for, and how it is finished on one of them.

A plan of TensorRT-RTX holds kernels that are specialised for the GPU and the shapes when it is first run
(just in time).  They are kept in a *runtime cache*, a file for each plan and GPU, so that the next run starts at once.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from engine.files import new_file
from engine.trt import api as tensorrt_api
from engine.trt.api import Machine
from engine.trt.cuda import CudaDevice

__all__ = ["TARGETS", "RuntimeCache", "capabilities", "execution_context", "made_for", "set_targets"]

log = logging.getLogger(__name__)

TARGETS = ("7.5", "8.0", "8.6", "8.9", "12.0")
"""Compute capabilities of a portable plan, Turing to Blackwell.  The data-centre chips 9.0 and 10.0 are TensorRT's."""


def capabilities(precision: str) -> tuple[str, ...]:
    """Compute capabilities that a portable plan in a precision is built for: Turing has no bf16."""
    return tuple(target for target in TARGETS if precision != "bf16" or target != "7.5")


def made_for(precision: str, device: CudaDevice | None) -> Machine:
    """What a plan in a precision is made for: every GPU of `TARGETS`, or the one of this machine that is none of them."""
    if device is not None and device.capability not in TARGETS:
        return tensorrt_api.machine(device, "rtx")
    version = str(tensorrt_api.load("rtx").__version__)
    return Machine(gpu="any GPU", capability=" ".join(capabilities(precision)), tensorrt=version)


def set_targets(settings: Any, machine: Machine) -> None:
    """Tell a builder's settings the GPUs; where all are of `TARGETS`, none is needed on the machine that builds."""
    kinds = tensorrt_api.load("rtx").ComputeCapability
    targets = machine.capability.split()
    settings.num_compute_capabilities = len(targets)
    for i, target in enumerate(targets):
        name = f"SM{target.replace('.', '')}" if target in TARGETS else "CURRENT"
        settings.set_compute_capability(getattr(kinds, name), i)


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
