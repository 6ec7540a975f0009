"""Check the GPU backends of this machine: accuracy, speed, share of what the GPU could do, memory, video engines.

    python scripts/check_gpu.py                          all that is installed
    python scripts/check_gpu.py --photos ./photos --json report.json
    python scripts/check_gpu.py --sizes 720p --backends torch-fp16

Every measurement is a process of its own (`gpu_row.py`).  TensorRT runs the plan that a video of the size is given,
built first where there is none; a batch of more than one has a plan for that.

Exit code: 0 every check ran on a GPU and passed; 1 a check failed; 3 something could not be checked
here (no GPU, no TensorRT, one that is too old); the table says what, and the last line is the verdict.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from gpu_row import BARS, GPU_BACKENDS, SIZES, Row, device_memory  # noqa: E402

from engine.errors import EngineError  # noqa: E402
from engine.model_store import find_model  # noqa: E402
from engine.spec import ModelSpec  # noqa: E402

FAILED, UNCHECKED = 1, 3
CRASHED = "failed: its process ended with"
VIDEO = ["-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=24", "-frames:v", "24", "-pix_fmt", "yuv420p"]


def isolated(case: dict[str, Any]) -> Row:
    """A row, measured in a process of its own."""
    code, values = in_own_process(case)
    if values is None:
        status = f"{CRASHED} exit code {code}"
        return Row(backend=case["backend"], size=case["size"], batch=case["batch"], status=status)
    return Row(**{key: math.inf if value == "inf" else value for key, value in values.items()})


def peaks(gpu: int) -> dict[str, float] | None:
    """What the GPU's arithmetic and memory allow; None where torch does not see it."""
    return in_own_process({"peaks": gpu})[1]


def in_own_process(case: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
    """Exit code and answer of `gpu_row.py`."""
    paths = [str(HERE.parent), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(HERE / "gpu_row.py"), json.dumps(case)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines and done.returncode == 0 else None


def feed(folder: Path, size: str, work: Path) -> float | None:
    """Frames a second that all but the network can do; see `bench.py`.  None where that could not be measured."""
    import make_sample

    height, width = SIZES[size]
    clip = work / f"{size}.mp4"
    make_sample.write(clip, width, height, 2, 24, 7)
    case = {"kind": "feed", "clip": str(clip), "target": str(work / f"{size}-out.mp4"), "model": str(folder)}
    told = json.dumps({**case, "threads": 0, "encode": True})
    done = subprocess.run(
        [sys.executable, str(HERE / "bench_worker.py"), told], stdout=subprocess.PIPE, text=True, check=False
    )  # fmt: skip
    return 1 / float(json.loads(done.stdout.splitlines()[-1])["wall"]) if done.returncode == 0 else None


def video_engines(work: Path) -> dict[str, str]:
    """What ffmpeg says of the GPU's decoder and encoder: ``ok`` or why not, each tried on a second of video."""
    from stylize.media.ffmpeg import find_ffmpeg

    program, plain = find_ffmpeg().path, work / "plain.mp4"
    base = [program, "-hide_banner", "-nostdin", "-loglevel", "error", "-y"]
    tries = {
        "": [*VIDEO, "-c:v", "libx264", str(plain)],
        "nvdec": ["-hwaccel", "cuda", "-hwaccel_output_format", "cuda", "-i", str(plain), "-f", "null", "-"],
        "nvenc": [*VIDEO, "-c:v", "h264_nvenc", str(work / "nvenc.mp4")],
    }
    found = {}
    for name, arguments in tries.items():
        done = subprocess.run([*base, *arguments], capture_output=True, text=True, check=False, timeout=120)
        complaint = next((line for line in done.stderr.splitlines() if line.strip()), f"exit code {done.returncode}")
        found[name] = "ok" if done.returncode == 0 else complaint.strip()[:160]
    found.pop("")
    return found


def environment() -> dict[str, Any]:
    """Versions of all that takes part."""
    import importlib.metadata

    found: dict[str, Any] = {"python": platform.python_version(), "system": platform.platform()}
    for package in (
        "tensorrt",
        "tensorrt-rtx-cu13-bindings",
        "pycuda",
        "cuda-bindings",
        "torch",
        "openvino",
        "onnx",
        "numpy",
    ):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def show(rows: list[Row]) -> None:
    """The table."""
    heads = f"{'PSNR dB':>8} {'streamed':>8} {'fps':>8} {'stream':>8} {'roofline':>9} {'MiB':>8}"
    click.echo(f"{'backend':<14} {'size':<6} {'batch':>5} {heads}  status")
    for row in rows:
        decibels = " ".join(
            f"{'-' if value is None else 'equal' if math.isinf(value) else f'{value:.1f}':>8}"
            for value in (row.psnr, row.stream_psnr)
        )
        numbers = [
            "-" if value is None else form.format(value)
            for value, form in (
                (row.fps, "{:.2f}"),
                (row.stream_fps, "{:.2f}"),
                (row.roofline, "{:.0%}"),
                (row.memory_mib, "{:.0f}"),
            )
        ]
        cells = f"{decibels} {numbers[0]:>8} {numbers[1]:>8} {numbers[2]:>9} {numbers[3]:>8}"
        click.echo(f"{row.backend:<14} {row.size:<6} {row.batch:>5} {cells}  {row.status}")


def verdict(rows: list[Row], code: int, fed: dict[str, float]) -> str:
    """All of it in one line."""
    failed = [row for row in rows if row.status.startswith("failed")]
    if failed:
        return f"FAILED: {len(failed)} of {len(rows)} checks, the first is {failed[0].backend} at {failed[0].size}"
    passed = [row for row in rows if row.status == "ok" and row.stream_fps and row.backend in GPU_BACKENDS]
    best = max(passed, key=lambda row: (list(SIZES).index(row.size), row.stream_fps or 0.0), default=None)
    text = "every check passed" if code == 0 else f"{sum(row.status != 'ok' for row in rows)} checks could not be made"
    if best is not None and best.stream_fps is not None:
        text += f"; {best.backend} makes {best.stream_fps:.1f} frames of {best.size} a second"
        if best.size in fed:
            share = min(1.0, fed[best.size] / best.stream_fps)
            text += f", and the rest of the program can keep it busy for {share:.0%} of the time"
    return f"{'GOOD' if code == 0 else 'INCOMPLETE'}: {text}"


@click.command(context_settings={"show_default": True})
@click.option("--model", default=None, help="Shipped model or model folder.")
@click.option(
    "--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Photos for the accuracy."
)
@click.option("--backends", default=",".join(GPU_BACKENDS), help="Comma-separated; also openvino.")
@click.option("--sizes", default="720p,1080p,4K", help=f"Comma-separated, of {', '.join(SIZES)}.")
@click.option("--batches", default="1,4", help="Comma-separated.")
@click.option("--gpu", default=0, type=click.IntRange(0), help="Number of the GPU.")
@click.option("--seconds", default=3.0, help="Time for each measurement of speed.")
@click.option("--cpu", is_flag=True, help="Run torch on the CPU, to try this script; the exit code stays 3.")
@click.option("--without-video", is_flag=True, help="Leave out the rate of decoding and encoding, and NVDEC and NVENC.")
@click.option("--json", "report", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
def main(
    model: str | None,
    photos: Path | None,
    backends: str,
    sizes: str,
    batches: str,
    without_video: bool,
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
    except EngineError as error:
        raise click.ClickException(str(error)) from error
    if photos is not None and not any(p.suffix.lower() in (".jpg", ".jpeg", ".png") for p in photos.iterdir()):
        raise click.UsageError(f"no .jpg or .png photos in {photos}")
    limits, rows, fed = peaks(settings["gpu"]), [], {}
    with tempfile.TemporaryDirectory(prefix="check-gpu-") as folder_name:
        work = Path(folder_name)
        common = {"folder": str(folder), "photos": photos and str(photos), "limits": limits, "work": str(work)}
        for name, size, batch in itertools.product(names, chosen, counts):
            case = {"backend": name, "size": size, "batch": int(batch), **common, **settings}
            rows.append(isolated(case))
        if not without_video:
            fed = {size: rate for size in chosen if (rate := feed(folder, size, work)) is not None}
        engines = {} if without_video else video_engines(work)
    show(rows)
    on_gpu = limits is not None or device_memory(settings["gpu"]) is not None
    failed = any(row.status.startswith("failed") for row in rows)
    complete = on_gpu and set(names) & {*GPU_BACKENDS} and not settings["cpu"] and all(r.status == "ok" for r in rows)
    code = FAILED if failed else 0 if complete else UNCHECKED
    if limits:
        click.echo(f"peak: {limits['flops'] / 1e12:.1f} TFLOP/s float16, {limits['bytes'] / 1e9:.0f} GB/s")
    for size, rate in fed.items():
        click.echo(f"all but the network at {size}: {rate:.1f} fps")
    for name, found in engines.items():
        click.echo(f"{name}: {found}")
    if not on_gpu:
        click.echo("no CUDA device: nothing was checked on a GPU")
    line = verdict(rows, code, fed)
    click.echo(line)
    if report is not None:
        values = {"model": spec.name, "environment": environment(), "peak": limits, "exit_code": code}
        values |= {"verdict": line, "feed_fps": fed, "video_engines": engines}
        lines = [{k: None if v == math.inf else v for k, v in dataclasses.asdict(row).items()} for row in rows]
        report.write_text(json.dumps({**values, "rows": lines}, indent=2) + "\n", encoding="utf-8")
    sys.exit(code)


if __name__ == "__main__":
    main()
