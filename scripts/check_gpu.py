"""Check the GPU backends of this machine: accuracy, speed, share of what the GPU could do, memory.

    python scripts/check_gpu.py                          all that is installed
    python scripts/check_gpu.py --photos ./photos --json report.json
    python scripts/check_gpu.py --sizes 720p --backends torch-fp16

Exit code: 0 every check ran on a GPU and passed; 1 a check failed; 3 something could not be checked
here (no GPU, no TensorRT); the table says what.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from engine.backends.base import Backend, BackendOptions
from engine.backends.frames import render_frames
from engine.builder import reference_picture
from engine.choice import open_backend
from engine.conditions import Conditions, on_grid
from engine.errors import BackendError, EngineError, OutOfMemoryError
from engine.metrics import psnr
from engine.model_store import find_model
from engine.probing import usual_conditions
from engine.spec import ModelSpec
from engine.tiling import Region, Tile

SIZES = {"360p": (360, 640), "720p": (720, 1280), "1080p": (1080, 1920), "4K": (2160, 3840)}
BARS = {"tensorrt": 45.0, "torch-fp16": 45.0, "torch-bf16": 32.0, "torch-fp32": 60.0, "openvino": 60.0}
GPU_BACKENDS = ("tensorrt", "torch-fp16", "torch-bf16")
FAILED, UNCHECKED = 1, 3
LEAST_TILE = 512
"""Plans take tiles at least as large as the photos that are compared."""

Images = npt.NDArray[np.uint8]


@dataclasses.dataclass(kw_only=True)
class Row:
    """One line of the table."""

    backend: str
    size: str
    batch: int
    status: str
    """`ok`, `failed: ...` or `unchecked: ...`."""
    psnr: float | None = None
    fps: float | None = None
    """Frames a second by `Backend.render`: copied in, rendered and copied out, one batch after the other."""
    stream_fps: float | None = None
    """As the program does it: frame by frame, with the next one under way."""
    roofline: float | None = None
    """Share of the frame rate that the slower of arithmetic and memory allows, by the better of the two."""
    memory_mib: float | None = None


def pictures(folder: Path | None, spec: ModelSpec) -> list[Images]:
    """Pictures ``(1, H, W, 3)`` for the accuracy: photos of a folder, at most 512 pixels, or a drawn one."""
    if folder is None:
        return [reference_picture(256, 384)]
    import cv2

    found = []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[:6]:
        photo = cv2.imread(str(path))
        if photo is not None:
            scale = 512 / max(photo.shape[:2])
            size = [max(int(n * scale) // spec.multiple * spec.multiple, spec.min_side) for n in photo.shape[:2]]
            small = cv2.resize(photo, (size[1], size[0]), interpolation=cv2.INTER_AREA)
            found.append(np.ascontiguousarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB)[None], np.uint8))
    if not found:
        raise click.UsageError(f"no .jpg or .png photos in {folder}")
    return found


def traffic(spec: ModelSpec, height: int, width: int, size: int = 2) -> int:
    """Bytes that the feature maps of one frame move when every operation but conv is fused into one."""
    area, total = {"x": height * width * 1.0}, 0.0
    channels = {"x": 3}
    for op in spec.program.ops:
        factor = {"conv": 1 / op.stride**2, "unshuffle": 1 / op.stride**2}.get(op.kind, 1.0)
        if op.kind in ("conv_transpose", "upsample", "shuffle"):
            factor = op.stride**2
        source = op.inputs[0]
        area[op.output] = area[source] * factor
        channels[op.output] = op.cout or round(channels[source] / factor if "shuffle" in op.kind else channels[source])
        if op.kind in ("conv", "conv_transpose"):
            total += size * (area[source] * channels[source] + area[op.output] * channels[op.output])
        elif op.kind == "add":
            total += size * area[op.output] * channels[op.output]
    return int(total)


def peaks(gpu: int) -> dict[str, float] | None:
    """Measured FLOP/s of a float16 matrix product and bytes/s of a device copy; None without torch on CUDA."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available() or gpu >= torch.cuda.device_count():
        return None
    torch.cuda.set_device(gpu)
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    source = torch.empty(1 << 29, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)

    def timed(work: Callable[[], Any], repetitions: int) -> float:
        for _ in range(3):
            work()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        for _ in range(repetitions):
            work()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000 / repetitions

    return {
        "flops": 2 * 8192**3 / timed(lambda: a @ a, 20),
        "bytes": 2 * source.numel() / timed(lambda: target.copy_(source), 20),
    }


def options_of(name: str, gpu: int, cpu: bool) -> tuple[str, BackendOptions]:
    """Backend name and options for a row of the table."""
    kind, _, precision = name.partition("-")
    device = "cpu" if cpu and kind == "torch" else f"cuda:{gpu}" if kind != "openvino" else None
    return kind, BackendOptions(device=device, precision=precision or ("fp32" if kind == "openvino" else "auto"))


@contextmanager
def opened(folder: Path, name: str, gpu: int, cpu: bool, tile: tuple[int, int, int]) -> Iterator[Backend]:
    """An entered backend; for TensorRT with a plan for this tile."""
    kind, options = options_of(name, gpu, cpu)
    if kind == "tensorrt":
        from engine.builder import Builder
        from engine.trt.plan import PlanConfig, ShapeProfile

        spec = ModelSpec.load(folder)
        batch, height, width = tile
        height, width = (-(-max(n, LEAST_TILE) // spec.multiple) * spec.multiple for n in (height, width))
        config = PlanConfig(profile=ShapeProfile.of_tile(spec, height, width, batch))
        plan, _ = Builder(folder, config, gpu=gpu).build()
        options = dataclasses.replace(options, plan=plan)
    with open_backend(folder, name=kind, options=options) as backend:
        yield backend


def check(folder: Path, name: str, size: str, batch: int, reference: list[Any], limits: Any, settings: Any) -> Row:
    """One row: accuracy on the pictures, speed on a frame of the size."""
    row = Row(backend=name, size=size, batch=batch, status="ok")
    spec = ModelSpec.load(folder)
    height, width = (-(-n // spec.multiple) * spec.multiple for n in SIZES[size])
    try:
        with opened(folder, name, settings["gpu"], settings["cpu"], (batch, height, width)) as backend:
            row.psnr = min(psnr(backend.render(p, s), expected) for p, s, expected in reference)
            if not row.psnr >= BARS[name]:
                row.status = f"failed: {row.psnr:.1f} dB, {BARS[name]:.0f} dB are needed"
            frames = np.repeat(reference_picture(height, width), batch, axis=0)
            conditions = _stretched(reference[0][1], height, width)
            row.fps = batch / seconds_of(lambda: backend.render(frames, conditions), settings["seconds"])
            if batch == 1:
                count = max(3, min(200, round(row.fps * settings["seconds"])))
                row.stream_fps = count / streamed(backend, frames[0], conditions, count)
            if limits is not None and name in GPU_BACKENDS:
                bound = max(
                    spec.program.flops(height, width) / limits["flops"], traffic(spec, height, width) / limits["bytes"]
                )
                row.roofline = max(row.fps, row.stream_fps or 0.0) * bound
            row.memory_mib = device_memory(settings["gpu"])
    except OutOfMemoryError as error:
        row.status = f"unchecked: {error}"
    except EngineError as error:
        signs = ("is not installed", "driver", "cannot use device", "there is no GPU")
        missing = isinstance(error, BackendError) and any(sign in str(error) for sign in signs)
        row.status = f"{'unchecked' if missing else 'failed'}: {error}"
    except Exception as error:  # one row must not hide the others
        row.status = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return row


def _stretched(conditions: Conditions, height: int, width: int) -> Conditions:
    """Those of one picture for a frame of another size."""
    inner = {name: values[:, 1:-1, 1:-1] for name, values in conditions.maps.items()}
    return on_grid(Conditions(vectors=conditions.vectors, maps=inner), (height, width), (height, width))


def streamed(backend: Backend, frame: npt.NDArray[np.uint8], conditions: Conditions, count: int) -> float:
    """Seconds for `count` frames, after two that warm up."""
    whole = Tile(Region(0, 0, *frame.shape[:2]), Region(0, 0, *frame.shape[:2]))
    results = render_frames([backend], itertools.repeat((frame, conditions), count + 2), lambda size, limit: [whole])
    next(results)
    next(results)
    start = time.perf_counter()
    for _ in results:
        pass
    return time.perf_counter() - start


def seconds_of(work: Callable[[], Any], seconds: float) -> float:
    """Mean time of a call, by at least three calls after a first one."""
    work()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < 200):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.mean(times))


def device_memory(gpu: int) -> float | None:
    """MiB in use on the device, by all programs."""
    from engine.trt.cuda import CudaDevice

    try:
        with CudaDevice(gpu) as device, device.current():
            free, total = device.memory()
            return round((total - free) / 2**20, 1)
    except EngineError:
        try:
            import torch
        except ImportError:
            return None
        if not torch.cuda.is_available():
            return None
        free, total = torch.cuda.mem_get_info(gpu)
        return round((total - free) / 2**20, 1)


def environment() -> dict[str, Any]:
    """Versions of all that takes part."""
    import importlib.metadata

    found: dict[str, Any] = {"python": platform.python_version(), "system": platform.platform()}
    for package in ("tensorrt", "pycuda", "torch", "openvino", "onnx", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def show(rows: list[Row]) -> None:
    """The table."""
    heads = f"{'PSNR dB':>8} {'fps':>8} {'stream':>8} {'roofline':>9} {'MiB':>8}"
    click.echo(f"{'backend':<12} {'size':<6} {'batch':>5} {heads}  status")
    for row in rows:
        psnr_text = "-" if row.psnr is None else "equal" if math.isinf(row.psnr) else f"{row.psnr:.1f}"
        numbers = [
            "-" if value is None else form.format(value)
            for value, form in (
                (row.fps, "{:.2f}"),
                (row.stream_fps, "{:.2f}"),
                (row.roofline, "{:.0%}"),
                (row.memory_mib, "{:.0f}"),
            )
        ]
        cells = f"{psnr_text:>8} {numbers[0]:>8} {numbers[1]:>8} {numbers[2]:>9} {numbers[3]:>8}"
        click.echo(f"{row.backend:<12} {row.size:<6} {row.batch:>5} {cells}  {row.status}")


@click.command(context_settings={"show_default": True})
@click.option("--model", default=None, help="Shipped model or model folder.")
@click.option(
    "--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Photos for the accuracy."
)
@click.option("--backends", default=",".join(GPU_BACKENDS), help="Comma-separated; also torch-fp32, openvino.")
@click.option("--sizes", default="720p,1080p,4K", help=f"Comma-separated, of {', '.join(SIZES)}.")
@click.option("--batches", default="1,4", help="Comma-separated.")
@click.option("--gpu", default=0, type=click.IntRange(0), help="Number of the GPU.")
@click.option("--seconds", default=3.0, help="Time for each measurement of speed.")
@click.option("--cpu", is_flag=True, help="Run torch on the CPU, to try this script; the exit code stays 3.")
@click.option("--json", "report", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
def main(
    model: str | None,
    photos: Path | None,
    backends: str,
    sizes: str,
    batches: str,
    report: Path | None,
    **settings: Any,
) -> None:
    """Compare the GPU backends with the float32 reference, and measure them."""
    names, chosen, counts = backends.split(","), sizes.split(","), batches.split(",")
    if not all(count.isdigit() and int(count) for count in counts):
        raise click.UsageError(f"--batches are numbers such as 1,4, got {batches}")
    for given, known in ((names, BARS), (chosen, SIZES)):
        if unknown := set(given) - set(known):
            raise click.UsageError(f"unknown: {', '.join(sorted(unknown))}; allowed: {', '.join(known)}")
    try:
        folder = find_model(model or "full")
        spec = ModelSpec.load(folder)
        with open_backend(folder, name="openvino", options=BackendOptions(precision="fp32")) as slow:
            views = [(picture, usual_conditions(slow, picture)) for picture in pictures(photos, spec)]
            reference = [(picture, s, slow.render(picture, s)) for picture, s in views]
    except EngineError as error:
        raise click.ClickException(str(error)) from error
    limits = peaks(settings["gpu"])
    rows = [
        check(folder, name, size, int(batch), reference, limits, settings)
        for name in names
        for size in chosen
        for batch in counts
    ]
    show(rows)
    on_gpu = limits is not None or device_memory(settings["gpu"]) is not None
    failed = any(row.status.startswith("failed") for row in rows)
    used = set(names) & {*GPU_BACKENDS, "torch-fp32"}
    complete = on_gpu and used and not settings["cpu"] and all(row.status == "ok" for row in rows)
    code = FAILED if failed else 0 if complete else UNCHECKED
    if limits:
        click.echo(f"peak: {limits['flops'] / 1e12:.1f} TFLOP/s float16, {limits['bytes'] / 1e9:.0f} GB/s")
    if not on_gpu:
        click.echo("no CUDA device: nothing was checked on a GPU")
    if report is not None:
        values = {"model": spec.name, "environment": environment(), "peak": limits, "exit_code": code}
        lines = [{k: None if v == math.inf else v for k, v in dataclasses.asdict(row).items()} for row in rows]
        report.write_text(json.dumps({**values, "rows": lines}, indent=2) + "\n", encoding="utf-8")
    sys.exit(code)


if __name__ == "__main__":
    main()
