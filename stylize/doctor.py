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
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.openvino_module import import_openvino
from stylize.errors import StylizeError

__all__ = ["Check", "examine"]

PACKAGE = "firewatch-stylizer"
NEEDED = ("numpy", "opencv-python-headless", "Pillow", "pillow-heif", "av", "ffmpeg-python", "onnx", "safetensors")
ENCODERS = {"libx264": "H.264", "libx265": "HEVC", "libsvtav1": "AV1", "prores_ks": "ProRes", "h264_nvenc": "NVENC"}
SELF_TEST_SECONDS = 2.0
SELF_TEST_SIDE = 256
PIXELS_1080P = 1920 * 1080


@dataclass(frozen=True, kw_only=True)
class Check:
    """What one look at the machine found."""

    group: str
    """Python, ffmpeg, OpenVINO, MNN, GPU, models, self-test."""
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


def examine(*, self_test: bool = True) -> Iterator[Check]:
    """All checks in turn; one that fails unexpectedly is reported as a fault and does not stop the rest."""
    checks: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("Python", _python),
        ("ffmpeg", _ffmpeg),
        ("OpenVINO", _openvino),
        ("MNN", _mnn),
        ("GPU", _torch),
        ("GPU", _tensorrt),
        ("cluster", _cluster),
        ("models", _models),
    ]
    if self_test:
        checks.append(("self-test", _self_test))
    for group, check in checks:
        try:
            yield from check()
        except Exception as error:  # a doctor must not die of what it finds
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"
            yield Check(group=group, name="check", status="fault", detail=what, fix="report this as a fault")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> Iterator[Check]:
    fits = sys.version_info >= (3, 10)
    yield Check(
        group="Python",
        name="Python",
        status="ok" if fits else "fault",
        detail=f"{platform.python_version()} on {platform.platform(terse=True)}, {os.cpu_count()} CPUs",
        fix="" if fits else "install Python 3.10 or newer",
    )
    missing = [name for name in NEEDED if _version(name) is None and not _also(name)]
    yield Check(
        group="Python",
        name="packages",
        status="fault" if missing else "ok",
        detail=f"missing: {', '.join(missing)}" if missing else f"all {len(NEEDED)} that are needed",
        fix=f"pip install {' '.join(missing)}" if missing else "",
    )


def _also(name: str) -> bool:
    """OpenCV has four packages that bring the same module."""
    return name.startswith("opencv") and importlib.util.find_spec("cv2") is not None


def _ffmpeg() -> Iterator[Check]:
    from stylize.media.ffmpeg import OVERRIDE, find_ffmpeg

    try:
        found = find_ffmpeg()
    except StylizeError as error:
        yield Check(group="ffmpeg", name="ffmpeg", status="fault", detail=str(error), fix="pip install imageio-ffmpeg")
        return
    bundled = "imageio_ffmpeg" in found.path
    source = OVERRIDE if os.environ.get(OVERRIDE) else "imageio-ffmpeg" if bundled else "the system's"
    yield Check(group="ffmpeg", name="ffmpeg", status="ok", detail=f"{found.version}, {source}: {found.path}")
    have = [f"{kind} ({name})" for name, kind in ENCODERS.items() if name in found.encoders]
    usual = "libx264" in found.encoders
    yield Check(
        group="ffmpeg",
        name="encoders",
        status="ok" if usual else "fault",
        detail=", ".join(have) or "none",
        fix="" if usual else "pip install imageio-ffmpeg, which brings a fuller ffmpeg",
    )


def _openvino() -> Iterator[Check]:
    version = _version("openvino")
    if version is None:
        yield Check(
            group="OpenVINO", name="OpenVINO", status="fault", detail="not installed", fix="pip install openvino"
        )
        return
    core = import_openvino().Core()
    for device in core.available_devices:
        name = str(core.get_property(device, "FULL_DEVICE_NAME")).strip()
        abilities = [a.lower() for a in core.get_property(device, "OPTIMIZATION_CAPABILITIES") if a in ("BF16", "FP16")]
        fast = f", fast in {' and '.join(abilities)}" if abilities else ""
        yield Check(group="OpenVINO", name=device, status="ok", detail=f"{name}{fast} (OpenVINO {version})")


def _mnn() -> Iterator[Check]:
    from engine.choice import cpu_has_bf16

    version = _version("mnn")
    better = cpu_has_bf16()
    usual = "OpenVINO is the faster one on this CPU" if better else "faster here for wide generators such as full"
    yield Check(
        group="MNN",
        name="MNN",
        status="ok" if version or better else "missing",
        detail=f"{version or 'not installed'}: {usual}",
        fix="" if version or better else f"pip install '{PACKAGE}[cpu]'",
    )


def _torch() -> Iterator[Check]:
    if importlib.util.find_spec("torch") is None:
        yield Check(
            group="GPU",
            name="torch",
            status="missing",
            detail="not installed: needed for training, and for AMD and Apple GPUs",
            fix=f"pip install '{PACKAGE}[torch]'",
        )
        return
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Check(group="GPU", name="torch", status="ok", detail=f"{torch.__version__}, CUDA: {names}")
    elif torch.backends.mps.is_available():
        yield Check(group="GPU", name="torch", status="ok", detail=f"{torch.__version__}, Apple GPU")
    else:
        built = torch.version.cuda
        why = f"built for CUDA {built}, but no device answers" if built else "built for the CPU alone"
        fix = "check the driver with nvidia-smi" if built else "on a machine with a GPU: see pytorch.org for its build"
        yield Check(group="GPU", name="torch", status="missing", detail=f"{torch.__version__}, {why}", fix=fix)


def _tensorrt() -> Iterator[Check]:
    extra = f"pip install '{PACKAGE}[tensorrt]'"
    for package, what in (("tensorrt", "TensorRT"), ("pycuda", "pycuda")):
        version = _version(package)
        yield Check(
            group="GPU",
            name=what,
            status="ok" if version else "missing",
            detail=version or "not installed: needed for full speed on NVIDIA GPUs",
            fix="" if version else extra,
        )
    if importlib.util.find_spec("pycuda") is not None:
        from engine.trt.cuda import CudaDevice, device_count

        try:
            for index in range(device_count()):
                with CudaDevice(index) as device:
                    detail = f"{device.name}, compute capability {device.capability}"
                yield Check(group="GPU", name=f"cuda:{index}", status="ok", detail=detail)
        except EngineError as error:
            yield Check(group="GPU", name="CUDA", status="missing", detail=str(error), fix="nvidia-smi")
    from engine.trt.plan import PlanCache

    cache = PlanCache()
    records = cache.records()
    for folder, record in records:
        detail = f"{record.model}: {record.machine} ({folder})"
        yield Check(group="GPU", name="plan", status="ok", detail=detail)
    if not records and _version("tensorrt"):
        detail = f"none in {cache.plans}: a model's first run builds one, which takes minutes"
        yield Check(group="GPU", name="plans", status="missing", detail=detail, fix="build-engine")


def _cluster() -> Iterator[Check]:
    version = _version("ray")
    detail = version or "not installed: needed for --ray alone"
    fix = "" if version else f"pip install '{PACKAGE}[ray]'"
    yield Check(group="cluster", name="Ray", status="ok" if version else "missing", detail=detail, fix=fix)


def _models() -> Iterator[Check]:
    from engine.model_store import all_models
    from engine.probing import look_names
    from engine.spec import ModelSpec

    entries = all_models()
    for entry in entries:
        try:
            spec = ModelSpec.load(entry.folder)
            spec.verify(entry.folder)
        except EngineError as error:
            again = f"pip install --force-reinstall {PACKAGE}" if entry.shipped else "stylize models import it again"
            yield Check(group="models", name=entry.name, status="fault", detail=str(error), fix=again)
            continue
        kind = "shipped" if entry.shipped else "yours"
        render = (spec.hashes or {}).get("render.onnx", "none")[:12]
        detail = f"{kind}, hashes right (render.onnx {render}), looks: {', '.join(look_names(spec))}"
        yield Check(group="models", name=entry.name, status="ok", detail=detail)
    if not entries:
        yield Check(
            group="models",
            name="models",
            status="fault",
            detail="none",
            fix=f"pip install --force-reinstall {PACKAGE}, or: stylize models import CHECKPOINT",
        )


def _self_test() -> Iterator[Check]:
    """Two seconds of rendering with every backend, with the smallest model there is."""
    from engine.choice import BACKENDS
    from engine.model_store import all_models
    from engine.spec import ModelSpec

    sizes: list[tuple[int, str, Path]] = []
    for entry in all_models():
        try:
            spec = ModelSpec.load(entry.folder)
        except EngineError:
            continue
        sizes.append((spec.program.flops(SELF_TEST_SIDE, SELF_TEST_SIDE), entry.name, entry.folder))
    if not sizes:
        yield Check(group="self-test", name="render", status="fault", detail="no model to test with", fix="see models")
        return
    _, name, folder = min(sizes)
    for backend in BACKENDS:
        yield _render_test(backend, name, folder)


def _render_test(backend: str, model: str, folder: Path) -> Check:
    import numpy as np

    from engine.choice import open_backend
    from engine.probing import usual_conditions

    needed = backend == "openvino"
    rng = np.random.default_rng(0)
    tile: Any = rng.integers(0, 256, (1, SELF_TEST_SIDE, SELF_TEST_SIDE, 3), dtype=np.uint8)
    try:
        with open_backend(folder, name=backend) as opened:
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
            group="self-test",
            name=backend,
            status="fault" if needed else "missing",
            detail=" ".join(str(error).split()),
            fix="pip install --force-reinstall openvino" if needed else "",
        )
    whole = rate * SELF_TEST_SIDE**2 / PIXELS_1080P
    detail = (
        f"{description}: {model} at {rate:.1f} tiles of {SELF_TEST_SIDE} px a second, about {whole:.2f} fps at 1080p"
    )
    return Check(group="self-test", name=backend, status="ok", detail=detail)
