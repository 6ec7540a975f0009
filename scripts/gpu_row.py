"""One measurement of `check_gpu.py` in a process of its own: accuracy and speed of a backend at one size.

It reads a case as JSON from the command line and answers with a row as JSON on standard output, so that no
measurement meets the memory, the clocks or the crash of another.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.backends.base import Backend, BackendOptions
from engine.backends.frames import Planner, render_frames
from engine.builder import reference_picture
from engine.choice import open_backend
from engine.conditions import Conditions, on_grid
from engine.errors import EngineError, OutOfMemoryError
from engine.metrics import psnr
from engine.probing import usual_conditions
from engine.spec import ModelSpec
from engine.tiling import TilePlan

__all__ = ["BARS", "GPU_BACKENDS", "SIZES", "Row", "check", "device_memory", "peaks", "pictures"]

SIZES = {"360p": (360, 640), "720p": (720, 1280), "1080p": (1080, 1920), "4K": (2160, 3840)}
BARS = {
    "tensorrt": 45.0, "tensorrt-bf16": 32.0, "tensorrt-fp32": 70.0, "tensorrt-rtx": 45.0,
    "torch-fp16": 45.0, "torch-bf16": 32.0, "torch-fp32": 60.0, "openvino": 60.0,
}  # fmt: skip
"""Backend, with its precision where that is not the usual one -> PSNR in dB that it must reach."""
GPU_BACKENDS = tuple(name for name in BARS if name != "openvino")
LEAST_TILE = 512
"""Plans of more than one tile at a time take tiles at least as large as the photos that are compared."""

Images = npt.NDArray[np.uint8]
Reference = tuple[Images, Conditions, Images]
"""A picture ``(1, H, W, 3)``, its conditions, and its stylization in float32."""


@dataclasses.dataclass(kw_only=True)
class Row:
    """One line of the table."""

    backend: str
    size: str
    batch: int
    status: str
    """`ok`, `failed: ...` or `unchecked: ...`."""
    psnr: float | None = None
    """Of single tiles against float32, in dB; the least of all pictures."""
    stream_psnr: float | None = None
    """Of the same pictures as the program sends them: several under way, whole and in tiles."""
    fps: float | None = None
    """Frames a second by `Backend.render`: copied in, rendered and copied out, one batch after the other."""
    stream_fps: float | None = None
    """As the program does it: frame by frame, with the next one under way."""
    roofline: float | None = None
    """Share of the frame rate that the slower of arithmetic and memory allows, by the better of the two."""
    memory_mib: float | None = None
    plan: str | None = None
    """Shapes of the TensorRT plan that was timed, ``min..max``."""


def pictures(folder: Path | None, spec: ModelSpec, size: tuple[int, int] | None) -> list[Images]:
    """Pictures ``(1, H, W, 3)`` for the accuracy: photos of a folder, or a drawn one.

    Of `size`, one photo; of None, six of at most 512 pixels.
    """
    if folder is None:
        return [reference_picture(*(size or (256, 384)))]
    import cv2

    found = []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[
        : 1 if size else 6
    ]:
        photo = cv2.imread(str(path))
        if photo is not None:
            scale = 512 / max(photo.shape[:2])
            least, multiple = spec.min_side, spec.multiple
            height, width = size or (max(int(n * scale) // multiple * multiple, least) for n in photo.shape[:2])
            scaled = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
            found.append(np.ascontiguousarray(cv2.cvtColor(scaled, cv2.COLOR_BGR2RGB)[None], np.uint8))
    if not found:
        raise ValueError(f"no .jpg or .png photos in {folder}")
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


def options_of(name: str, case: dict[str, Any], frame: tuple[int, int] | None) -> tuple[str, BackendOptions]:
    """Backend name and options for a row of the table."""
    kind, _, precision = name.rpartition("-") if name.endswith(("fp16", "bf16", "fp32")) else (name, "", "")
    device = "cpu" if case["cpu"] and kind == "torch" else f"cuda:{case['gpu']}" if kind != "openvino" else None
    usual = "fp32" if kind == "openvino" else "auto"
    return kind, BackendOptions(device=device, precision=precision or usual, frame=frame)


@contextmanager
def opened(folder: Path, case: dict[str, Any], height: int, width: int) -> Iterator[Backend]:
    """An entered backend: as a video of that size has it, or with a plan for a batch."""
    batch = case["batch"]
    kind, options = options_of(case["backend"], case, (height, width) if batch == 1 else None)
    if kind.startswith("tensorrt") and batch > 1:
        from engine.builder import Builder
        from engine.trt.plan import PlanConfig, ShapeProfile

        spec = ModelSpec.load(folder)
        height, width = (-(-max(n, LEAST_TILE) // spec.multiple) * spec.multiple for n in (height, width))
        precision = "fp16" if options.precision == "auto" else options.precision
        runtime = "rtx" if kind == "tensorrt-rtx" else "tensorrt"
        profile = ShapeProfile.of_tile(spec, height, width, batch)
        config = PlanConfig(profile=profile, precision=precision, runtime=runtime)
        plan, _ = Builder(folder, config, gpu=case["gpu"]).build()
        options = dataclasses.replace(options, plan=plan)
    with open_backend(folder, name=kind, options=options) as backend:
        yield backend


def references(folder: Path, case: dict[str, Any], size: tuple[int, int] | None) -> list[Reference]:
    """The pictures in float32, by OpenVINO; kept in the case's folder for the rows that follow."""
    kept = Path(case["work"]) / f"{size}.pickle" if case["work"] else None
    if kept is not None and kept.is_file():
        found: list[Reference] = pickle.loads(kept.read_bytes())
        return found
    photos = Path(case["photos"]) if case["photos"] else None
    with open_backend(folder, name="openvino", options=BackendOptions(precision="fp32")) as slow:
        views = [(picture, usual_conditions(slow, picture)) for picture in pictures(photos, slow.spec, size)]
        result = [(picture, c, slow.render(picture, c)) for picture, c in views]
    if kept is not None:
        kept.write_bytes(pickle.dumps(result))
    return result


def stretched(conditions: Conditions, height: int, width: int) -> Conditions:
    """Those of one picture for a frame of another size."""
    inner = {name: values[:, 1:-1, 1:-1] for name, values in conditions.maps.items()}
    return on_grid(Conditions(vectors=conditions.vectors, maps=inner), (height, width), (height, width))


def check(case: dict[str, Any]) -> Row:
    """One row: speed on a frame of the size first, on the plan that users get, then accuracy on the pictures."""
    row = Row(backend=case["backend"], size=case["size"], batch=case["batch"], status="ok")
    folder = Path(case["folder"])
    spec = ModelSpec.load(folder)
    height, width = (-(-n // spec.multiple) * spec.multiple for n in SIZES[row.size])
    try:
        with opened(folder, case, height, width) as backend:
            record = getattr(backend, "record", None)
            fixed = record is not None and record.config.profile.is_fixed
            if record is not None:
                row.plan = "..".join(
                    "x".join(map(str, s)) for s in (record.config.profile.min, record.config.profile.max)
                )
            reference = references(folder, case, record.config.profile.opt[1:] if fixed else None)
            measure(row, backend, stretched(reference[0][1], height, width), (height, width), case)
            row.memory_mib = device_memory(case["gpu"])
            row.psnr = min(psnr(backend.render(p, s), expected) for p, s, expected in reference)
            row.stream_psnr = min(
                psnr(found, expected) for found, expected in streamed_pictures(backend, reference, fixed)
            )
        lowest = min(row.psnr, row.stream_psnr)
        if not lowest >= BARS[row.backend]:
            what = "streamed" if row.stream_psnr < row.psnr else "single"
            row.status = f"failed: {lowest:.1f} dB ({what}), {BARS[row.backend]:.0f} dB are needed"
    except OutOfMemoryError as error:
        row.status = f"unchecked: {error}"
    except EngineError as error:
        signs = ("is not installed", "driver", "cannot use device", "there is no GPU", "too old", "runs on GPUs of")
        missing = any(sign in str(error) for sign in signs)
        row.status = f"{'unchecked' if missing else 'failed'}: {error}"
    except Exception as error:  # one row must not hide the others
        row.status = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return row


def measure(
    row: Row, backend: Backend, conditions: Conditions, size: tuple[int, int], case: dict[str, Any]
) -> None:  # fmt: skip
    """Frames a second, and their share of what the device's arithmetic and memory allow."""
    height, width = size
    picture = reference_picture(height, width)
    planner = planner_of(backend)
    if len(planner(size, None)) == 1:
        frames = np.repeat(picture, row.batch, axis=0)
        row.fps = row.batch / seconds_of(lambda: backend.render(frames, conditions), case["seconds"])
    if row.batch == 1:
        count = max(3, min(200, round((row.fps or 10) * case["seconds"])))
        row.stream_fps = count / streamed(backend, picture[0], conditions, count, planner)
    limits, spec = case["limits"], backend.spec
    if limits is not None and row.backend in GPU_BACKENDS:
        bound = max(spec.program.flops(*size) / limits["flops"], traffic(spec, *size) / limits["bytes"])
        row.roofline = max(row.fps or 0.0, row.stream_fps or 0.0) * bound


def planner_of(backend: Backend, most: tuple[int, int] | None = None) -> Planner:
    """Tiles as the program cuts them: no larger than the plan takes, or than `most`."""

    def planner(size: tuple[int, int], limit: int | None) -> Sequence[Any]:
        spec, largest = backend.spec, most or getattr(backend, "largest_tile", None) or size
        if limit is None and size[0] <= largest[0] and size[1] <= largest[1]:
            return TilePlan.whole(*size).tiles
        plan = TilePlan.balanced(*size, most=largest, halo=spec.radius, multiple=spec.multiple, pixels=limit)
        return plan.tiles

    return planner


def streamed_pictures(
    backend: Backend, reference: Sequence[Reference], fixed: bool
) -> Iterator[tuple[Images, Images]]:  # fmt: skip
    """Each picture three times by way of the frame queue, whole and (unless the plan is fixed) in tiles.

    Found, expected.
    """
    for tiled in (False,) if fixed else (False, True):
        order = [picture for picture in reference for _ in range(3)]
        spec = backend.spec
        side = 2 * spec.radius + 8 * spec.multiple
        frames = [(picture[0], conditions) for picture, conditions, _ in order]
        fits = [not tiled or min(picture.shape[1:3]) >= side for picture, _, _ in order]
        given = [frame for frame, fit in zip(frames, fits, strict=True) if fit]
        wanted = [expected for (_, _, expected), fit in zip(order, fits, strict=True) if fit]
        largest = (side, max(side, 4 * spec.radius // spec.multiple * spec.multiple))
        planner = planner_of(backend, largest if tiled else None)
        yield from zip((found[None] for found in render_frames([backend], given, planner)), wanted, strict=True)


def streamed(
    backend: Backend, frame: npt.NDArray[np.uint8], conditions: Conditions, count: int, planner: Planner
) -> float:  # fmt: skip
    """Seconds for `count` frames, after two that warm up."""
    results = render_frames([backend], itertools.repeat((frame, conditions), count + 2), planner)
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


def main() -> None:
    """Answer one case: a row, or the device's peaks."""
    case = json.loads(sys.argv[1])
    if "peaks" in case:
        print(json.dumps(peaks(case["peaks"])))
        return
    row = check(case)
    print(json.dumps({key: str(value) if value == float("inf") else value for key, value in vars(row).items()}))


if __name__ == "__main__":
    main()
