"""Is this machine ready?  Every check says what it found and, where something is missing, what installs it.

Nothing is installed or changed.  Checks of packages that are not there are no faults: what is optional is
reported as missing with the command that adds it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError
from engine.openvino_module import import_openvino
from stylize.errors import StylizeError

if TYPE_CHECKING:
    from engine.backends.base import Backend

__all__ = ["Check", "examine", "extra_command"]

PACKAGE = "firewatch-stylizer"
AGAIN = "pip install --force-reinstall --no-deps . in the program's folder"
"""Puts the models that come with the program back."""
ENCODERS = {"libx264": "H.264", "libx265": "HEVC", "libsvtav1": "AV1", "prores_ks": "ProRes", "h264_nvenc": "NVENC"}
SELF_TEST_SECONDS = 2.0
SELF_TEST_SIDE = 256
PIXELS_1080P = 1920 * 1080


@dataclass(frozen=True)
class Check:
    """What one look at the machine found."""

    group: str
    """Python, settings, ffmpeg, OpenVINO, MNN, GPU, models, self-test."""
    name: str
    status: str
    """``ok``; ``missing`` (optional, not there); ``fault`` (needed, and broken or not there)."""
    detail: str
    """What was found, in a line."""
    fix: str = ""
    """The command or step that helps; empty where nothing is to be done."""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def examine(*, self_test: bool = True, models: Collection[str] = ("auto",)) -> Iterator[Check]:
    """All checks in turn; one that fails unexpectedly is reported as a fault and does not stop the rest.

    `models` are those that the commands take where none is named: each has to be there.
    """
    checks: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("Python", _python),
        ("ffmpeg", _ffmpeg),
        ("OpenVINO", _openvino),
        ("MNN", _mnn),
        ("GPU", _torch),
        ("GPU", _tensorrt),
        ("cluster", _cluster),
        ("page", _page),
        ("models", lambda: _models(models)),
    ]
    if self_test:
        checks.append(("self-test", _self_test))
    for group, check in checks:
        try:
            yield from check()
        except Exception as error:  # a doctor must not die of what it finds
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"
            yield Check(group, "check", "fault", what, "report this as a fault")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> Iterator[Check]:
    fits = sys.version_info >= (3, 10)
    yield Check(
        "Python",
        "Python",
        "ok" if fits else "fault",
        f"{platform.python_version()} on {platform.platform(terse=True)}, {os.cpu_count()} CPUs",
        "" if fits else "install Python 3.10 or newer",
    )
    needed = _requirements()
    missing = [line for line in needed if _version(_name(line)) is None and not _also(line)]
    found = f"missing: {', '.join(missing)}" if missing else f"all {len(needed)} that are needed"
    yield Check(
        "Python",
        "packages",
        "ok" if needed and not missing else "fault",
        found if needed else "the program itself is not installed",
        _install(missing) if missing else "" if needed else "pip install . in the program's folder",
    )
    codecs = _version("imagecodecs")
    detail = codecs or "not installed: needed for TIFF in rarer compressions"
    yield Check("Python", "imagecodecs", "ok" if codecs else "missing", detail, "" if codecs else extra_command("tiff"))


def _requirements(extra: str = "") -> list[str]:
    """What setup.py asks for, or one of its extras, without what other systems need alone."""
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return []

    def here(line: str, asked: str) -> bool:
        marker = Requirement(line).marker
        return marker is None or marker.evaluate({"extra": asked})

    return [line.partition(";")[0].strip() for line in lines if here(line, extra) and not (extra and here(line, ""))]


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _install(requirements: Iterable[str]) -> str:
    """The command that installs them; works in any folder, and names nothing but what is published."""
    return " ".join(["pip install", *(shlex.quote(line) for line in requirements)])


def extra_command(name: str) -> str:
    """The command that installs an extra, from a checkout as well as from anywhere else."""
    return _install(_requirements(name)) if _requirements() else f"pip install '.[{name}]' in the program's folder"


def _also(name: str) -> bool:
    """OpenCV has four packages that bring the same module."""
    return name.startswith("opencv") and importlib.util.find_spec("cv2") is not None


def _ffmpeg() -> Iterator[Check]:
    from stylize.media.ffmpeg import OVERRIDE, find_ffmpeg

    try:
        found = find_ffmpeg()
    except StylizeError as error:
        yield Check("ffmpeg", "ffmpeg", "fault", str(error), "pip install imageio-ffmpeg")
        return
    bundled = "imageio_ffmpeg" in found.path
    source = OVERRIDE if os.environ.get(OVERRIDE) else "imageio-ffmpeg" if bundled else "the system's"
    yield Check("ffmpeg", "ffmpeg", "ok", f"{found.version}, {source}: {found.path}")
    have = [f"{kind} ({name})" for name, kind in ENCODERS.items() if name in found.encoders]
    usual = "libx264" in found.encoders
    yield Check(
        "ffmpeg",
        "encoders",
        "ok" if usual else "fault",
        ", ".join(have) or "none",
        "" if usual else "pip install imageio-ffmpeg, which brings a fuller ffmpeg",
    )


def _openvino() -> Iterator[Check]:
    version = _version("openvino")
    if version is None:
        yield Check("OpenVINO", "OpenVINO", "fault", "not installed", "pip install openvino")
        return
    core = import_openvino().Core()
    for device in core.available_devices:
        name = str(core.get_property(device, "FULL_DEVICE_NAME")).strip()
        abilities = [a.lower() for a in core.get_property(device, "OPTIMIZATION_CAPABILITIES") if a in ("BF16", "FP16")]
        fast = f", fast in {' and '.join(abilities)}" if abilities else ""
        yield Check("OpenVINO", device, "ok", f"{name}{fast} (OpenVINO {version})")


def _mnn() -> Iterator[Check]:
    from engine.choice import cpu_has_bf16

    version = _version("mnn")
    better = cpu_has_bf16()
    usual = "OpenVINO is the faster one on this CPU" if better else "faster here for wide generators such as classic"
    yield Check(
        "MNN",
        "MNN",
        "ok" if version or better else "missing",
        f"{version or 'not installed'}: {usual}",
        "" if version or better else extra_command("cpu"),
    )


def _torch() -> Iterator[Check]:
    if importlib.util.find_spec("torch") is None:
        yield Check(
            "GPU",
            "torch",
            "missing",
            "not installed: needed for training, and for AMD and Apple GPUs",
            extra_command("torch"),
        )
        return
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Check("GPU", "torch", "ok", f"{torch.__version__}, CUDA: {names}")
    elif torch.backends.mps.is_available():
        yield Check("GPU", "torch", "ok", f"{torch.__version__}, Apple GPU")
    else:
        built = torch.version.cuda
        why = f"built for CUDA {built}, but no device answers" if built else "built for the CPU alone"
        fix = "check the driver with nvidia-smi" if built else "on a machine with a GPU: see pytorch.org for its build"
        yield Check("GPU", "torch", "missing", f"{torch.__version__}, {why}", fix)


def _tensorrt() -> Iterator[Check]:
    extra = extra_command("tensorrt")
    binding = "cuda-bindings" if _version("cuda-bindings") and not _version("pycuda") else "pycuda"
    portable = _version("tensorrt-rtx-cu13-bindings")
    if portable:
        yield Check("GPU", "TensorRT-RTX", "ok", portable)
    for package, what in (("tensorrt", "TensorRT"), (binding, binding)):
        version = _version(package)
        yield Check(
            "GPU",
            what,
            "ok" if version else "missing",
            version or "not installed: needed for full speed on NVIDIA GPUs",
            "" if version else extra,
        )
    if _version(binding):
        from engine.trt.cuda import CudaDevice, device_count

        try:
            for index in range(device_count()):
                with CudaDevice(index) as device:
                    detail = f"{device.name}, compute capability {device.capability}"
                yield Check("GPU", f"cuda:{index}", "ok", detail)
        except EngineError as error:
            yield Check("GPU", "CUDA", "missing", str(error), "nvidia-smi")
    from engine.trt.plan import PlanCache

    cache = PlanCache()
    records = cache.records()
    for folder, record in records:
        detail = f"{record.model}: {record.machine} ({folder})"
        yield Check("GPU", "plan", "ok", detail)
    if not records and _version("tensorrt"):
        detail = f"none in {cache.plans}: a model's first run builds one, which takes minutes"
        yield Check("GPU", "plans", "missing", detail, "build-engine")


def _cluster() -> Iterator[Check]:
    version = _version("ray")
    detail = version or "not installed: needed for --ray alone"
    fix = "" if version else extra_command("ray")
    yield Check("cluster", "Ray", "ok" if version else "missing", detail, fix)


def _page() -> Iterator[Check]:
    version = _version("gradio")
    detail = version or "not installed: needed for stylize ui alone"
    yield Check("page", "Gradio", "ok" if version else "missing", detail, "" if version else extra_command("ui"))


def _models(needed: Collection[str]) -> Iterator[Check]:
    from engine.model_store import all_models, find_model
    from engine.probing import look_names
    from engine.spec import ModelSpec
    from stylize.model_choice import AUTO, CHOICES

    for name in sorted({each for model in needed for each in (CHOICES if model == AUTO else (model,))}):
        try:
            find_model(name)
        except EngineError as error:
            fix = AGAIN if name in CHOICES else "choose another: stylize models set-default NAME"
            yield Check("models", f"default {name}", "fault", str(error), fix)

    entries = all_models()
    for entry in entries:
        try:
            spec = ModelSpec.load(entry.folder)
            spec.verify(entry.folder)
        except EngineError as error:
            again = AGAIN if entry.shipped else "stylize models import it again"
            yield Check("models", entry.name, "fault", str(error), again)
            continue
        kind = "shipped" if entry.shipped else "yours"
        render = (spec.hashes or {}).get("render.onnx", "none")[:12]
        detail = f"{kind}, hashes right (render.onnx {render}), looks: {', '.join(look_names(spec))}"
        yield Check("models", entry.name, "ok", detail)
    if not entries:
        yield Check("models", "models", "fault", "none", f"{AGAIN}, or: stylize models import CHECKPOINT")


def _self_test() -> Iterator[Check]:
    """Two seconds of rendering with every backend, with the smallest model that it takes."""
    from engine.choice import BACKENDS
    from engine.model_store import all_models
    from engine.spec import ModelSpec

    sizes: list[tuple[bool, int, str, Path]] = []
    for entry in all_models():
        try:
            spec = ModelSpec.load(entry.folder)
        except EngineError:
            continue
        flops = spec.program.flops(SELF_TEST_SIDE, SELF_TEST_SIDE)
        sizes.append((spec.has_layout, flops, entry.name, entry.folder))
    if not sizes:
        yield Check("self-test", "render", "fault", "no model to test with", "see models")
        return
    for backend in BACKENDS:
        fitting = [size for size in sizes if not size[0]] if backend == "mnn" else sizes  # mnn has no shader
        _, _, name, folder = min(fitting or sizes, key=lambda size: size[1:3])
        yield _render_test(backend, name, folder)


def _render_test(backend: str, model: str, folder: Path) -> Check:
    import numpy as np

    from engine.backends.base import BackendOptions
    from engine.backends.tensorrt import TensorRtBackend
    from engine.choice import open_backend
    from engine.probing import usual_conditions
    from engine.spec import ModelSpec

    needed = backend == "openvino"
    rng = np.random.default_rng(0)
    tile: Any = rng.integers(0, 256, (1, SELF_TEST_SIDE, SELF_TEST_SIDE, 3), dtype=np.uint8)
    try:
        backends: AbstractContextManager[Backend] = (
            TensorRtBackend(folder, ModelSpec.load(folder), BackendOptions())  # builds no plan, which takes minutes
            if backend == "tensorrt"
            else open_backend(folder, name=backend)
        )
        with backends as opened:
            conditions = usual_conditions(opened, tile, opened.spec.usual_look)
            opened.render(tile, conditions)  # compiles
            count, began = 0, time.perf_counter()
            while time.perf_counter() - began < SELF_TEST_SECONDS:
                opened.render(tile, conditions)
                count += 1
            rate = count / (time.perf_counter() - began)
            description = opened.description
    except (EngineError, ImportError, RuntimeError) as error:
        return Check(
            "self-test",
            backend,
            "fault" if needed else "missing",
            " ".join(str(error).split()),
            "pip install --force-reinstall openvino" if needed else "",
        )
    whole = rate * SELF_TEST_SIDE**2 / PIXELS_1080P
    detail = (
        f"{description}: {model} at {rate:.1f} tiles of {SELF_TEST_SIDE} px a second, about {whole:.2f} fps at 1080p"
    )
    return Check("self-test", backend, "ok", detail)
