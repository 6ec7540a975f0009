"""The checks for whoever has a GPU: the markers, and scripts/check_gpu.py over the doubles."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from engine_models import landscape

from engine.choice import gpu_in_sight

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(gpu_in_sight(), reason="a GPU driver is installed")
@pytest.mark.parametrize(("required", "outcome"), [("0", "2 skipped"), ("1", "2 errors")])
def test_a_missing_gpu_skips_or_fails(required: str, outcome: str) -> None:
    """Skipped as a rule; with REQUIRE_GPU=1 the same tests fail."""
    one_of_each = ["-k", "layers_are or by_way_of", "-m", "gpu or tensorrt"]
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", "tests/engine/trt/test_real_gpu.py"]
    environment = {**os.environ, "REQUIRE_GPU": required, "PYTEST_ADDOPTS": "-v"}
    done = subprocess.run(
        [*command, *one_of_each], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert (done.returncode != 0) == (required == "1"), done.stdout
    assert outcome in done.stdout.strip().splitlines()[-1], done.stdout
    assert done.stdout.count("REQUIRE_GPU=1, but ") == (2 if required == "1" else 0)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """check_gpu.py with its rows measured here, where the doubles are."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    for name in ("gpu_row", "check_gpu"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    row, module = importlib.import_module("gpu_row"), importlib.import_module("check_gpu")
    monkeypatch.setattr(module, "isolated", lambda case: row.check(json.loads(json.dumps(case))))
    monkeypatch.setattr(module, "peaks", lambda gpu: None)
    monkeypatch.setitem(row.SIZES, "tiny", (64, 96))
    monkeypatch.setattr(row, "LEAST_TILE", 64)
    monkeypatch.setattr(
        row, "reference_picture", lambda height, width: landscape(min(height, 64), min(width, 96))[None]
    )
    monkeypatch.setenv("FIREWATCH_CACHE", str(tmp_path / "cache"))
    return module


def check(script: Any, folder: Path, *arguments: str, video: bool = False) -> tuple[Result, Any]:
    report = folder.parent / "report.json"
    report.unlink(missing_ok=True)
    fixed = ["--model", str(folder), "--sizes", "tiny", "--seconds", "0", "--json", str(report)]
    fixed += [] if video else ["--without-video"]
    result = CliRunner().invoke(script.main, [*fixed, *arguments])
    return result, json.loads(report.read_text()) if report.exists() else None


def test_all_is_well(script: Any, doubles: Any, models: dict[str, Path]) -> None:
    result, report = check(script, models["light"], "--backends", "tensorrt", "--batches", "1,2")
    assert result.exit_code == report["exit_code"] == 0, result.output
    one, two = report["rows"]
    assert (one["status"], two["status"], one["batch"], two["batch"]) == ("ok", "ok", 1, 2)
    assert one["psnr"] >= 45 and one["fps"] > 0 and one["stream_fps"] > 0 and one["memory_mib"] >= 0
    assert two["stream_fps"] is None
    assert one["stream_psnr"] >= 45 and two["stream_psnr"] >= 45
    assert one["plan"] == "1x64x96..1x64x96", "what a video of that size is given"
    assert two["plan"] == "1x8x8..2x64x96"
    assert " ".join(result.output.split()).startswith(
        "backend size batch PSNR dB streamed fps stream roofline MiB status"
    )
    assert re.search(r"GOOD: every check passed; tensorrt makes [\d.]+ frames of tiny a second$", result.output.strip())


def test_precisions_and_the_other_runtime(script: Any, rtx: Any, models: dict[str, Path]) -> None:
    names = "tensorrt-fp32,tensorrt-rtx"
    result, report = check(script, models["light"], "--backends", names, "--batches", "1")
    assert result.exit_code == 0, result.output
    assert [(row["backend"], row["status"]) for row in report["rows"]] == [(n, "ok") for n in names.split(",")]
    assert report["rows"][1]["plan"] == "1x8x8..1x1088x1920"


def test_frames_that_come_out_wrong_only_in_the_stream(
    script: Any, doubles: Any, models: dict[str, Path], monkeypatch: Any
) -> None:
    from engine.backends.tensorrt import TensorRtBackend

    real = TensorRtBackend.collect
    monkeypatch.setattr(TensorRtBackend, "collect", lambda self: real(self)[::-1].copy())
    result, report = check(script, models["light"], "--backends", "tensorrt", "--batches", "1")
    assert result.exit_code == 1 and "(streamed), 45 dB are needed" in report["rows"][0]["status"]
    assert result.output.strip().splitlines()[-1] == "FAILED: 1 of 1 checks, the first is tensorrt at tiny"


def test_too_old_is_not_failed(script: Any, doubles: Any, models: dict[str, Path], monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", doubles.module("10.2.0.19"))
    result, report = check(script, models["light"], "--backends", "tensorrt", "--batches", "1")
    assert result.exit_code == 3 and report["rows"][0]["status"].startswith("unchecked: TensorRT 10.2.0.19 is too old")
    assert "INCOMPLETE: 1 checks could not be made" in result.output


def test_a_row_is_a_process_of_its_own(models: dict[str, Path]) -> None:
    """On the CPU, as it is on a GPU; with what all but the network can do, and the GPU's video engines."""
    command = [sys.executable, str(ROOT / "scripts" / "check_gpu.py"), "--model", str(models["light"]), "--cpu"]
    report = models["light"].parent / "own.json"
    arguments = ["--backends", "torch-fp32", "--sizes", "360p", "--batches", "1", "--seconds", "0"]
    done = subprocess.run([*command, *arguments, "--json", str(report)], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr + done.stdout
    found = json.loads(report.read_text())
    assert found["rows"][0]["status"] == "ok" and found["rows"][0]["stream_psnr"] >= 60
    assert found["feed_fps"]["360p"] > 0 and set(found["video_engines"]) == {"nvdec", "nvenc"}
    assert found["verdict"].startswith("INCOMPLETE: ")


def test_a_crash_is_a_row(script: Any, models: dict[str, Path], monkeypatch: Any) -> None:
    monkeypatch.undo()
    module = importlib.import_module("check_gpu")
    case = {"backend": "no such", "size": "1080p", "batch": 1, "folder": "nowhere"}
    assert module.isolated(case).status == "failed: its process ended with exit code 1"


def test_a_failure_is_a_failure(script: Any, doubles: Any, models: dict[str, Path]) -> None:
    doubles.trt.damage = 0x10
    result, report = check(script, models["light"], "--backends", "tensorrt,openvino", "--batches", "1")
    assert result.exit_code == report["exit_code"] == 1
    assert report["rows"][0]["status"].startswith("failed: the plan is not accurate")
    assert report["rows"][1]["status"] == "ok"


def test_what_is_missing_is_not_passed(script: Any, models: dict[str, Path], monkeypatch: Any) -> None:
    for package in ("tensorrt", "pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, package, None)
    result, report = check(script, models["light"], "--backends", "tensorrt,torch-fp32", "--batches", "1", "--cpu")
    assert result.exit_code == report["exit_code"] == 3
    assert report["rows"][0]["status"].startswith("unchecked: TensorRT is not installed")
    assert report["rows"][1]["status"] == "ok"


def test_a_run_without_a_gpu_backend_is_not_complete(script: Any, doubles: Any, models: dict[str, Path]) -> None:
    result, report = check(script, models["light"], "--backends", "openvino", "--batches", "1")
    assert result.exit_code == report["exit_code"] == 3 and report["rows"][0]["status"] == "ok"


def test_an_unexpected_error_is_a_row(script: Any, doubles: Any, models: dict[str, Path], monkeypatch: Any) -> None:
    monkeypatch.setattr(
        sys.modules["gpu_row"], "seconds_of", lambda *_: (_ for _ in ()).throw(RuntimeError("a kernel\nis missing"))
    )
    result, report = check(script, models["light"], "--backends", "openvino", "--batches", "1")
    assert result.exit_code == 1 and report["rows"][0]["status"] == "failed: RuntimeError: a kernel is missing"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batches", "x"], "--batches are numbers such as 1,4"),
        (["--backends", "abacus"], "unknown: abacus; allowed: tensorrt, "),
        (["--model", "nowhere"], "no model 'nowhere'"),
    ],
)
def test_wrong_use(script: Any, models: dict[str, Path], arguments: list[str], message: str) -> None:
    result, _ = check(script, models["light"], *arguments)
    assert result.exit_code in (1, 2) and message in result.output and "Traceback" not in result.output


def test_bytes_are_counted_from_the_graph(script: Any, models: dict[str, Path]) -> None:
    """By hand for one convolution: its input and output, two bytes each."""
    from engine.spec import ModelSpec

    spec = ModelSpec.load(models["plain"])
    first = next(op for op in spec.program.ops if op.kind == "conv")
    assert first.cin == 3
    traffic = sys.modules["gpu_row"].traffic
    whole = traffic(spec, 64, 96)
    assert whole == 4 * traffic(spec, 32, 48) > 2 * 64 * 96 * (3 + first.cout)


def test_the_image_is_made_of_what_is_tested() -> None:
    """The Dockerfile copies what is there, starts `stylize`, and takes a pycuda that setup.py allows."""
    text = (ROOT / "docs" / "docker" / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"(?m)^COPY (.*)$", text):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources)
    for needed in ("setup.py", "pyproject.toml", "README.md", "engine", "stylize", "training"):
        assert re.search(rf"(?m)^COPY .*\b{re.escape(needed)}", text), f"setup.py needs {needed}"
    assert 'ENTRYPOINT ["stylize"]' in text and re.search(
        r"(?m)^ARG IMAGE=nvcr\.io/nvidia/tensorrt:\d\d\.\d\d-py3$", text
    )
    (pinned,) = re.findall(r"(?m)^ARG PYCUDA=([\d.]+)$", text)
    (least,) = re.findall(r"pycuda>=([\d.]+)", (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert [int(n) for n in pinned.split(".")] >= [int(n) for n in least.split(".")]
