"""Measure the speed of this program beside other ways to do the same, in one run.

    python scripts/bench.py                                  720p and 1080p, everything
    python scripts/bench.py --quick                          a small picture, about a minute
    python scripts/bench.py --sizes 1920x1080 --parts command,engine --json bench.json
    python scripts/bench.py --sizes 1920x1080 --parts feed --against ../older-checkout

Parts: `command` is the whole `stylize video`; `feed` the same with a network that takes no time, with and without
the encoder: a GPU that is faster than that waits; `engine` the two graphs of a model in each backend; `onnxruntime` the
same graphs there; `peer` a plain PyTorch CycleGAN runner (see bench_peer.py); `limit` the machine's rate of matrix
products and convolutions.  Every measurement is a process of its own; the cases take turns (A B C, A B C, ...) so that
a disturbance of the machine meets all of them, and medians are shown.  CPU seconds are given beside wall seconds: on a
machine that is busy with other things they are the steadier number.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import make_sample  # noqa: E402
from bench_models import CONFIGS, peer_flops, random_model  # noqa: E402

from engine.model_store import shipped_models  # noqa: E402
from engine.spec import ModelSpec  # noqa: E402
from stylize.settings import BASE_SIDE  # noqa: E402

PARTS = ("command", "feed", "engine", "onnxruntime", "peer", "limit")
STAGES = ("decode", "probe", "render", "transform", "encode", "join")


@dataclass(kw_only=True)
class Case:
    """One way to stylize frames of one size."""

    kind: str
    """One of `PARTS`."""
    name: str
    """What the table calls it."""
    size: tuple[int, int]
    """Width and height; (0, 0) for the limit."""
    values: dict[str, Any] = field(default_factory=dict)
    """What the worker is told."""
    flops: int = 0
    """Operations of one frame's convolutions in `render`."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """One per run."""
    error: str = ""
    """Why it could not run here."""


def main() -> int:
    """Run the benchmark; exit code 1 if a case failed."""
    args = parse()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        cases = plan(args, Path(folder))
        for number in range(args.runs):
            for case in cases:
                say(f"run {number + 1} of {args.runs}: {case.name} {shown(case.size)}")
                measure(case, args, Path(folder))
    result = {"machine": machine(args), "settings": {k: v for k, v in vars(args).items() if k != "json"}}
    result |= summarize(cases)
    print(table(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2, default=str) + "\n", encoding="utf-8")
    return 1 if any(case.error for case in cases) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shipped = list(shipped_models()) or ["random-full", "random-light"]
    parser.add_argument("--sizes", default="1280x720,1920x1080", help="WIDTHxHEIGHT,... (default: %(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), help="of %(default)s")
    models = f"names, model folders, or {', '.join(CONFIGS)} (default: %(default)s)"
    parser.add_argument("--models", default=",".join(shipped), help=models)
    parser.add_argument("--backends", default="mnn,openvino,torch", help="for the engine (default: %(default)s)")
    parser.add_argument("--filters", default="32,64", help="of the peer's network (default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=9, help="of the peer's network (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=4, help="counted frames of a run (default: %(default)s)")
    parser.add_argument("--length", type=int, default=24, help="frames of the clip (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="runs of every case (default: %(default)s)")
    parser.add_argument("--budget", type=float, default=20, help="seconds after which a run stops counting")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all")
    parser.add_argument("--tile", type=int, help="side of the tiles (default: by free memory)")
    parser.add_argument("--against", type=Path, help="another checkout, whose `feed` takes turns with this one's")
    parser.add_argument("--matrix", type=int, default=2048, help="side of the limit's matrices (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="320x180, two frames, two runs")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.frames, args.runs, args.budget = "320x180", 2, 2, 2.0
        args.matrix, args.length = 1024, 12
    args.parts = args.parts.split(",")
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"unknown part {unknown.pop()!r}: choose of {', '.join(PARTS)}")
    return args


def plan(args: argparse.Namespace, folder: Path) -> list[Case]:
    """Every case, in the order in which they take turns."""
    models = {name: find_model(name, folder) for name in args.models.split(",")}
    common = {"threads": args.threads, "frames": args.frames, "budget": args.budget, "tile": args.tile}
    cases = []
    if "limit" in args.parts:
        cases.append(Case(kind="limit", name="limit", size=(0, 0), values={**common, "side": args.matrix}))
    for size in (tuple(int(v) for v in text.split("x")) for text in args.sizes.split(",")):
        width, height = size
        common |= {"width": width, "height": height, "clip": str(folder / f"{width}x{height}.mp4")}
        if {"command", "feed", "peer"} & set(args.parts):
            say(f"making a sample clip of {width}x{height}")
            make_sample.write(Path(common["clip"]), width, height, args.length / 24, 24, 7)
        for part in (part for part in PARTS if part in args.parts):
            for case in cases_of(part, models, args):
                case.size = (width, height)
                case.values |= {**common, "target": str(folder / f"out-{len(cases)}.mp4")}
                case.flops = flops_of(case)
                cases.append(case)
    return cases


def cases_of(part: str, models: dict[str, Path], args: argparse.Namespace) -> list[Case]:
    """The cases of one part at one size, still without the size."""
    if part == "peer":
        return [
            Case(kind=part, name=f"peer ngf {n}", size=(0, 0), values={"filters": int(n), "blocks": args.blocks})
            for n in args.filters.split(",")
        ]
    if part == "feed":
        path = next(iter(models.values()))  # no model is run
        roots = {"": HERE.parent, **({" of the other": args.against.resolve()} if args.against else {})}
        return [
            Case(kind=part, name=f"feed{', encoded' * encode}{of}", size=(0, 0),
                 values={"model": str(path), "encode": encode, "root": str(root)})
            for encode in (False, True)
            for of, root in roots.items()
        ]  # fmt: skip
    cases = []
    for name, path in models.items():
        values: dict[str, Any] = {"model": str(path)}
        if part == "engine":
            has_layout = ModelSpec.load(path).has_layout
            for backend in args.backends.split(","):
                if backend == "mnn" and has_layout:  # it has no shader
                    continue
                label = f"engine {name} {backend}"
                cases.append(Case(kind=part, name=label, size=(0, 0), values={**values, "backend": backend}))
        elif part != "limit":
            cases.append(Case(kind=part, name=f"{part} {name}", size=(0, 0), values=values))
    return cases


def find_model(name: str, folder: Path) -> Path:
    """Folder of a model by name; random ones are made."""
    if name in CONFIGS:
        return random_model(folder / name, CONFIGS[name])
    path = shipped_models().get(name, Path(name))
    if not path.joinpath("spec.json").is_file():
        raise SystemExit(
            f"Error: no model {name!r}: give a model folder, or {', '.join([*shipped_models(), *CONFIGS])}"
        )
    return path


def flops_of(case: Case) -> int:
    """Operations for one frame at the size at which the network works."""
    width, height = case.size
    if case.kind == "peer":
        return peer_flops(case.values["filters"], height, width)
    if case.kind == "feed":
        return 0
    scale = min(1.0, BASE_SIDE / max(width, height)) if case.kind == "command" else 1.0
    return ModelSpec.load(Path(case.values["model"])).program.flops(round(height * scale), round(width * scale))


def measure(case: Case, args: argparse.Namespace, folder: Path) -> None:
    """One run of a case; what goes wrong is kept as its error."""
    if case.error:
        return
    try:
        case.samples.append(command(case) if case.kind == "command" else worker(case))
    except subprocess.CalledProcessError as error:
        lines = [line for line in (error.stderr or "").splitlines() if line.strip()]
        case.error = lines[-1] if lines else f"exit code {error.returncode}"
        say(f"failed: {case.error}")


def worker(case: Case) -> dict[str, Any]:
    """A run of bench_worker.py."""
    root = case.values.get("root")
    told = json.dumps({"kind": case.kind, **case.values})
    done = watched([sys.executable, str(HERE / "bench_worker.py"), told], {"BENCH_ROOT": root} if root else {})
    sample: dict[str, Any] = json.loads(done["stdout"].splitlines()[-1])
    if case.kind != "limit":
        sample |= {"memory": done["memory"], "startup": None}
    return sample


def command(case: Case) -> dict[str, Any]:
    """A run of ``stylize video``; seconds are per frame, decode to encode, start-up apart."""
    values = case.values
    arguments = [sys.executable, "-m", "stylize", "video", values["clip"], "-o", values["target"], "--json"]
    arguments += ["--model", values["model"], "--overwrite", "--restart", "--threads", str(values["threads"])]
    if values["tile"] is not None:
        arguments += ["--tile", str(values["tile"])]
    done = watched(arguments)
    report = json.loads(done["stdout"].splitlines()[-1])
    count = report["frames_out"]
    split = {name: seconds / count for name, seconds in report["split"].items()}
    startup = done["wall"] - report["seconds"]
    times = {"wall": report["seconds"] / count, "whole": done["wall"] / count, "cpu": done["cpu"] / count}
    return {"frames": count, **times, "startup": startup, "memory": done["memory"], **split}


def watched(arguments: list[str], more: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a program to its end: output, wall and CPU seconds, and the peak of resident memory of its process tree.

    Raises subprocess.CalledProcessError where it fails.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]), **(more or {})}
    before, began = children_seconds(), time.perf_counter()
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=HERE.parent
    )
    peak = Peak(process.pid)
    peak.start()
    stdout, stderr = process.communicate()
    wall = time.perf_counter() - began
    peak.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments, stdout, stderr)
    return {"stdout": stdout, "wall": wall, "cpu": children_seconds() - before, "memory": peak.bytes}


class Peak(threading.Thread):
    """Watches the resident memory of a process and all below it until the process ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root = psutil.Process(pid)
        self.bytes = 0

    def run(self) -> None:
        """Look every 50 ms."""
        while True:
            try:
                if self.root.status() == psutil.STATUS_ZOMBIE:
                    return
                members = [self.root, *self.root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            self.bytes = max(self.bytes, sum(resident(member) for member in members))
            time.sleep(0.05)


def resident(process: psutil.Process) -> int:
    """Bytes in memory; 0 for a process that has just ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def children_seconds() -> float:
    """CPU seconds of all processes that this one has waited for."""
    times = os.times()
    return times.children_user + times.children_system


def summarize(cases: list[Case]) -> dict[str, Any]:
    """Medians over the runs, shares of the limit, and ratios to the peer at each size."""
    limits = best_rates(next((case.samples for case in cases if case.kind == "limit"), []))
    rows = [row(case, limits) for case in cases if case.kind != "limit"]
    ratios: dict[str, dict[str, float]] = defaultdict(dict)
    for base in (r for r in rows if r["kind"] == "peer" and "wall" in r):
        for other in (r for r in rows if r["size"] == base["size"] and r["kind"] != "peer" and "wall" in r):
            key = f"{other['name']} over {base['name']}, {base['size']}"
            ratios[key] = {"wall": base["wall"] / other["wall"], "cpu": base["cpu"] / other["cpu"]}
    return {"limit": limits, "rows": rows, "ratios": dict(ratios)}


def best_rates(samples: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Median GFLOP/s of every kernel, in wall time and per CPU second."""
    names = samples[0] if samples else {}
    return {name: {kind: median(s[name][kind] for s in samples) for kind in ("wall", "cpu")} for name in names}


def row(case: Case, limits: dict[str, dict[str, float]]) -> dict[str, Any]:
    """All numbers of one case."""
    values: dict[str, Any] = {"name": case.name, "kind": case.kind, "size": shown(case.size), "error": case.error}
    if not case.samples:
        return values
    keys = [key for key, value in case.samples[0].items() if value is not None]
    values |= {key: median(s[key] for s in case.samples) for key in keys}
    values |= {"runs": len(case.samples), "fps": 1 / values["wall"], "flops": case.flops}
    values["gflops"] = case.flops / values["wall"] / 1e9
    float32 = [rates for name, rates in limits.items() if name.endswith("fp32")]
    if float32 and case.flops:
        values["share"] = values["gflops"] / max(r["wall"] for r in float32)
        values["share_cpu"] = case.flops / values["cpu"] / 1e9 / max(r["cpu"] for r in float32)
    return values


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """What the numbers were measured on."""
    cores = args.threads or os.cpu_count()
    load = psutil.getloadavg()[0]
    memory = psutil.virtual_memory().total
    return {
        "processor": processor(),
        "cores": cores,
        "load": load,
        "memory": memory,
        "python": platform.python_version(),
    }


def processor() -> str:
    """The processor's name and the vector arithmetic it has."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    values = {key.strip(): value.strip() for key, value in fields.items()}
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return f"{values.get('model name', platform.machine())} ({', '.join(f for f in known if f in text)})"


def table(result: dict[str, Any]) -> str:
    """All results for people."""
    about = result["machine"]
    lines = [f"{about['processor']}, {about['cores']} cores, load {about['load']:.1f}", ""]
    lines += [f"{name:<26}{r['wall']:8.1f} GFLOP/s{r['cpu']:8.1f} per core" for name, r in result["limit"].items()]
    lines += [
        "",
        f"{'case':<32}{'size':>10}{'fps':>8}{'s/frame':>9}{'cpu s':>8}{'share':>7}{'(cpu)':>7}{'MB':>7}"
        "  split, ms a frame",
    ]
    for r in result["rows"]:
        head = f"{r['name'][-32:]:<32}{r['size']:>10}"
        if "wall" not in r:
            lines.append(f"{head}  {r['error']}")
            continue
        share = f"{r['share']:7.0%}{r['share_cpu']:7.0%}" if "share" in r else f"{'':14}"
        split = "  ".join(f"{stage} {1000 * r[stage]:.0f}" for stage in STAGES if stage in r)
        if r.get("startup"):
            split += f"  start-up {r['startup']:.1f} s"
        numbers = f"{r['fps']:8.2f}{r['wall']:9.3f}{r['cpu']:8.3f}{share}{r['memory'] / 2**20:7.0f}"
        lines.append(f"{head}{numbers}  {split}")
    lines += ["", "times as fast (wall, CPU seconds):"] if result["ratios"] else []
    lines += [f"{name:<70}{ratio['wall']:7.2f}{ratio['cpu']:7.2f}" for name, ratio in result["ratios"].items()]
    return "\n".join(lines)


def shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}" if size[0] else ""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
