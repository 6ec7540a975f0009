"""Which backend runs a model on this machine: opened by name, or the first that works."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import platform
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from types import TracebackType

from engine.backends.base import Backend, BackendOptions
from engine.errors import BackendError, BuildCancelled, EngineError
from engine.openvino_module import import_openvino
from engine.spec import ModelSpec

__all__ = [
    "BACKENDS",
    "CPU_BACKENDS",
    "candidates",
    "choose_backend",
    "cpu_has_bf16",
    "gpu_in_sight",
    "open_backend",
]

log = logging.getLogger(__name__)


def _mnn(folder: Path, spec: ModelSpec, options: BackendOptions) -> Backend:
    from engine.backends.mnn import MnnBackend

    return MnnBackend(folder, spec, options)


def _openvino(folder: Path, spec: ModelSpec, options: BackendOptions) -> Backend:
    from engine.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(folder, spec, options)


def _torch(folder: Path, spec: ModelSpec, options: BackendOptions) -> Backend:
    from engine.backends.torch import TorchBackend

    return TorchBackend(folder, spec, options)


def _tensorrt(folder: Path, spec: ModelSpec, options: BackendOptions) -> Backend:
    from engine.backends.tensorrt import TensorRtBackend
    from engine.builder import build_plan

    return TensorRtBackend(folder, spec, options, build=build_plan)


def _tensorrt_rtx(folder: Path, spec: ModelSpec, options: BackendOptions) -> Backend:
    from engine.backends.tensorrt import TensorRtBackend
    from engine.builder import build_plan

    return TensorRtBackend(folder, spec, options, build=build_plan, runtime="rtx")


BACKENDS: dict[str, Callable[[Path, ModelSpec, BackendOptions], Backend]] = {
    "mnn": _mnn,
    "openvino": _openvino,
    "torch": _torch,
    "tensorrt": _tensorrt,
    "tensorrt-rtx": _tensorrt_rtx,
}


CPU_BACKENDS = ("mnn", "openvino")
"""Those that compute on a CPU wherever `auto` takes them."""


WIDE = 64
"""Channels into and out of a generator's widest 3x3 convolution from which on `mnn` is faster (docs/adr/0007)."""


def candidates(
    device: str | None = None, *, precision: str = "auto", model: tuple[Path, ModelSpec] | None = None
) -> Iterator[tuple[str, str]]:
    """Backends for a device that seem to run on this machine, the fastest first, each with the reason, in words.

    A device of CUDA (`cuda`, `cuda:1`) leaves out what has no NVIDIA GPU, `cpu` what needs a GPU; a model (its
    folder and descriptor) what cannot run it, or not as fast.
    """
    kind = (device or "").lower().partition(":")[0]
    if kind == "cpu":
        yield from _on_cpu("for the CPU", precision, model)
        return
    elsewhere = "another device was asked for" if kind == "mps" else None
    refusal = elsewhere or _why_not_tensorrt()
    if refusal is None:
        yield "tensorrt", "TensorRT and an NVIDIA GPU are there"
    behind = f"; not tensorrt: {refusal}" if refusal else ""
    portable = elsewhere or _why_not_tensorrt_rtx(device)
    if portable is None:
        yield "tensorrt-rtx", f"TensorRT-RTX and an NVIDIA GPU that it supports are there{behind}"
    elif importlib.util.find_spec("tensorrt_rtx_bindings") is not None:
        behind += f"; not tensorrt-rtx: {portable}"
    if gpu_in_sight() and importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available() and kind != "mps":
            yield "torch", f"CUDA device {torch.cuda.get_device_name()}{behind}"
        elif torch.backends.mps.is_available() and kind != "cuda":
            yield "torch", "Apple GPU"
    if not kind:
        yield from _on_cpu(f"no torch with a CUDA or Apple GPU{behind}", precision, model)
    elif kind not in ("cuda", "mps"):
        yield "openvino", f"no torch with a CUDA or Apple GPU{behind}"


def _on_cpu(reason: str, precision: str, model: tuple[Path, ModelSpec] | None) -> Iterator[tuple[str, str]]:
    """The backends of the CPU."""
    refusal = _why_not_mnn(precision) or (_why_not_by_mnn(*model) if model else None)
    if refusal is None:
        yield "mnn", f"{reason}; the CPU has no arithmetic in bf16"
    yield "openvino", f"{reason}; not mnn: {refusal}" if refusal else reason


def choose_backend(device: str | None = None) -> tuple[str, str]:
    """The backend that `auto` tries first on this machine, and why, in words.

    Raises BackendError where none runs on the device.
    """
    for choice in candidates(device):
        return choice
    raise BackendError(
        f"no backend for device {device!r} here (tensorrt: {_why_not_tensorrt()}; torch: "
        f"{'sees no such GPU' if importlib.util.find_spec('torch') else 'is not installed'}): take another device"
    )


def gpu_in_sight() -> bool:
    """Whether a driver is there that torch could use: asked first, as importing torch takes seconds."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if Path("/dev/kfd").exists():  # ROCm
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _why_not_mnn(precision: str) -> str | None:
    """Why `mnn` is not the fastest on this CPU; None if it is."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return "it was compared on x86-64 alone"
    if importlib.util.find_spec("MNN") is None:
        return "it is not installed"
    if precision not in ("auto", "fp32"):
        return f"it does not compute in {precision}"
    if precision == "auto" and cpu_has_bf16():
        return "the CPU computes in bf16"
    return None


def _why_not_by_mnn(folder: Path, spec: ModelSpec) -> str | None:
    """Why `mnn` is not the fastest for this model; None if it is."""
    if spec.has_layout:
        return "the model paints in layers"
    if not (folder / "generator.safetensors").is_file():
        return "the model has no generator.safetensors"
    if max(min(op.cin, op.cout) for op in spec.program.ops if op.kind == "conv" and op.kernel == 3) < WIDE:
        return f"the model is narrower than {WIDE} channels"
    return None


@cache
def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies matrices in bfloat16, which OpenVINO makes use of."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        try:
            return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        except (ImportError, RuntimeError):
            return False
    return re.search(r"^flags\s*:.*\b(amx|avx512)_bf16\b", flags, re.MULTILINE) is not None


def _why_not_tensorrt() -> str | None:
    """Why `tensorrt` cannot run here; None if it can."""
    return _why_not_runtime("tensorrt")


def _why_not_tensorrt_rtx(device: str | None) -> str | None:
    """Why `tensorrt-rtx` cannot run here; None if it can."""
    refusal = _why_not_runtime("rtx")
    if refusal is not None:
        return refusal
    from engine.trt.cuda import gpu_number, of_capability
    from engine.trt.rtx import TARGETS

    try:
        capability = of_capability(gpu_number(device))
    except BackendError as error:
        return str(error)
    return None if capability in TARGETS else f"it does not support GPUs of compute capability {capability}"


def _why_not_runtime(runtime: str) -> str | None:
    """Why a runtime of TensorRT cannot run here; None if it can."""
    from engine.trt import api as tensorrt_api
    from engine.trt.cuda import device_count

    if importlib.util.find_spec(tensorrt_api.RUNTIMES[runtime]) is None:
        return f"{tensorrt_api.RUNTIMES[runtime]} is not installed"
    try:
        if not device_count():
            return "no CUDA device"
        tensorrt_api.load(runtime)
        return None
    except BackendError as error:
        return str(error)


class _Auto:
    """The first of the `candidates` that opens; what the others complained about is logged."""

    def __init__(self, folder: Path, spec: ModelSpec, options: BackendOptions) -> None:
        self._folder, self._spec, self._options = folder, spec, options
        self._opened: Backend | None = None

    def __enter__(self) -> Backend:
        failed: tuple[str, EngineError] | None = None
        options, model = self._options, (self._folder, self._spec)
        for name, reason in candidates(options.device, precision=options.precision, model=model):
            if failed is not None:
                log.warning("backend %s does not work here: %s. Going on with %s", *failed, name)
            backend = BACKENDS[name](self._folder, self._spec, self._options)
            try:
                entered = backend.__enter__()
            except EngineError as error:
                if isinstance(error, BuildCancelled):
                    raise
                failed = name, error
                continue
            log.info("backend %s: %s", name, reason)
            self._opened = backend
            return entered
        if failed is not None:
            raise failed[1]
        raise BackendError(choose_backend(self._options.device)[1])  # which raises by itself: there is no choice

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.__exit__(kind, error, trace)


def open_backend(
    folder: Path, *, name: str = "auto", options: BackendOptions | None = None
) -> AbstractContextManager[Backend]:
    """A backend for a model folder, not yet entered: ``with open_backend(...) as backend``.

    `auto` tries the `candidates` in turn when it is entered.  Raises BackendError for a name that does not
    exist, ModelError for a folder that is no model.
    """
    spec, options = ModelSpec.load(folder), options or BackendOptions()
    if name == "auto":
        return _Auto(folder, spec, options)
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}; allowed: auto, {', '.join(BACKENDS)}")
    return BACKENDS[name](folder, spec, options)
