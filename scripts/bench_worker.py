"""One case of the benchmark in a process of its own: `bench.py` starts it and reads one JSON line.

The first frame is not counted: it pays for buffers and kernels.  Then come `frames` counted ones, fewer
when the time is used up.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

# An older commit is measured by this file as well: `bench.py --against` names its checkout.
ROOT = Path(os.environ.get("BENCH_ROOT", Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(ROOT))

Sample = dict[str, float]


def measured(**stages: Callable[[], object]) -> Sample:
    """Seconds of each stage, of all, and of CPU time over all threads."""
    began, cpu, sample = time.perf_counter(), time.process_time(), {}
    for name, stage in stages.items():
        before = time.perf_counter()
        stage()
        sample[name] = time.perf_counter() - before
    return {**sample, "wall": time.perf_counter() - began, "cpu": time.process_time() - cpu}


def collect(samples: Iterable[Sample], frames: int, budget: float) -> dict[str, Any]:
    """Medians over the counted frames."""
    source = iter(samples)
    next(source)
    began = time.perf_counter()
    counted: list[Sample] = []
    for sample in source:
        counted.append(sample)
        if len(counted) >= frames or time.perf_counter() - began > budget:
            break
    assert counted, "the clip has fewer than two frames"
    return {"frames": len(counted), **{key: median(s[key] for s in counted) for key in counted[0]}}


def picture(case: dict[str, Any]) -> Any:
    """One frame of the sample landscape: RGB uint8 (H, W, 3)."""
    import make_sample

    return next(make_sample.render(case["width"], case["height"], 1, 7))


def engine(case: dict[str, Any]) -> Iterator[Sample]:
    """Probe and render of one frame through a backend, without files."""
    from stylize import Stylizer

    image = picture(case)
    with Stylizer(
        model=case["model"], backend=case["backend"], threads=case["threads"], tile=case["tile"], detail=0.0
    ) as stylizer:
        while True:
            statistics = stylizer.probe(image)
            yield measured(probe=lambda: stylizer.probe(image), render=lambda s=statistics: stylizer.render(image, s))


def onnxruntime(case: dict[str, Any]) -> Iterator[Sample]:
    """The same two graphs in onnxruntime."""
    import cv2
    import numpy as np
    import onnxruntime as ort

    from engine.spec import ModelSpec

    folder = Path(case["model"])
    spec = ModelSpec.load(folder)
    options = ort.SessionOptions()
    options.intra_op_num_threads = case["threads"]
    probe, render = (
        ort.InferenceSession(str(folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])
        for name in ("probe", "render")
    )
    frame = picture(case)
    height, width = (-(-side // spec.multiple) * spec.multiple for side in frame.shape[:2])
    tiles = cv2.copyMakeBorder(frame, 0, height - frame.shape[0], 0, width - frame.shape[1], cv2.BORDER_REFLECT)[None]
    scale = min(1.0, spec.probe_side / max(height, width))
    view = cv2.resize(tiles[0], [max(8, round(s * scale) // spec.multiple * spec.multiple) for s in (width, height)])
    given = {"view": view[None], "look": np.eye(len(spec.looks), dtype=np.float32)[:1]}
    vectors = dict(zip(("scale", "shift"), probe.run(None, given), strict=True))
    while True:
        yield measured(
            probe=lambda: probe.run(None, given), render=lambda: render.run(None, {"tiles": tiles, **vectors})
        )


def peer(case: dict[str, Any]) -> Iterator[Sample]:
    """The yardstick of `bench_peer`."""
    import torch

    if case["threads"]:
        torch.set_num_threads(case["threads"])
    from bench_peer import frames

    return frames(Path(case["clip"]), Path(case["target"]), case["filters"], case["blocks"])


class ZeroTime:
    """A backend that takes no time: a frame is its own stylization."""

    name = "zero"
    description = "no network"

    def __init__(self, folder: Path, spec: Any, options: Any) -> None:
        self.spec = spec

    def __enter__(self) -> ZeroTime:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def probe(self, view: Any, look: Any) -> Any:
        """Conditions that nobody looks at."""
        import numpy as np

        zeros = np.zeros(self.spec.norm_channels, np.float32)
        try:
            from engine.conditions import Conditions
        except ImportError:  # a checkout from before there were layouts
            from engine.spec import NormStatistics

            return NormStatistics(scale=zeros, shift=zeros)
        if not self.spec.has_layout:
            return Conditions.of_norm(scale=zeros, shift=zeros)
        height, width = view.shape[1:3]
        return Conditions(vectors={}, maps={"layout": np.zeros((2, height // 8, width // 8), np.float32)})

    def render(self, tiles: Any, statistics: Any) -> Any:
        """The tiles themselves."""
        return tiles


def feed(case: dict[str, Any]) -> dict[str, Any]:
    """Frames a second of all but the network: decoding, scene detection, thumbnails, and with `encode` the encoder.

    A GPU that is faster than this waits.
    """
    from engine import choice
    from stylize import Stylizer

    choice.BACKENDS["zero"] = ZeroTime
    clip = Path(case["clip"])
    with Stylizer(model=case["model"], backend="zero", threads=case["threads"], detail=0.0) as stylizer:
        began, cpu = time.perf_counter(), sum(os.times()[:4])
        if case["encode"]:
            count = stylizer.video(clip, Path(case["target"]), overwrite=True, restart=True).frames_out
        else:
            count = sum(1 for _ in stylizer.frames(clip))
        wall, spent = time.perf_counter() - began, sum(os.times()[:4]) - cpu
    return {"frames": count, "wall": wall / count, "cpu": spent / count}


def limit(case: dict[str, Any]) -> dict[str, Any]:
    """The machine's rate of floating-point operations: GFLOP/s of the kernels that libraries offer."""
    import numpy as np

    side, rates = case["side"], {}
    matrix = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    runs: dict[str, tuple[Callable[[], object], float]] = {
        "numpy matmul fp32": (lambda: matrix @ matrix, 2.0 * side**3)
    }
    try:
        import torch
    except ImportError:
        torch = None
    if torch is not None:
        torch.set_grad_enabled(False)
        if case["threads"]:
            torch.set_num_threads(case["threads"])
        dense = torch.from_numpy(matrix)
        image = torch.randn(1, 128, side // 8, side // 8).to(memory_format=torch.channels_last)
        kernel = torch.randn(128, 128, 3, 3).to(memory_format=torch.channels_last)
        macs = 128 * 128 * 9 * (side // 8 - 2) ** 2
        types = {"fp32": torch.float32, "bf16": torch.bfloat16}
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # it would be emulated, a hundred times as slow
            del types["bf16"]
        for name, dtype in types.items():
            a, x, w = dense.to(dtype), image.to(dtype), kernel.to(dtype)
            runs[f"torch matmul {name}"] = (lambda a=a: a @ a, 2.0 * side**3)
            runs[f"torch convolution {name}"] = (lambda x=x, w=w: torch.conv2d(x, w), 2.0 * macs)
    for name, (run, operations) in runs.items():
        run()
        samples, began = [], time.perf_counter()
        while not samples or (len(samples) < 5 and time.perf_counter() - began < case["budget"] / len(runs)):
            samples.append(measured(run=run))
        rates[name] = {
            "wall": operations / median(s["wall"] for s in samples) / 1e9,
            "cpu": operations / max(1e-9, median(s["cpu"] for s in samples)) / 1e9,
        }
    return rates


KINDS: dict[str, Callable[[dict[str, Any]], Iterator[Sample]]] = {
    "engine": engine,
    "onnxruntime": onnxruntime,
    "peer": peer,
}


def main() -> None:
    """Read the case from the command line, answer on standard output."""
    case = json.loads(sys.argv[1])
    if case["kind"] in ("limit", "feed"):
        answer = {"limit": limit, "feed": feed}[case["kind"]](case)
    else:
        answer = collect(KINDS[case["kind"]](case), case["frames"], case["budget"])
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
