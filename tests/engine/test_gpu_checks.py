"""The checks for whoever has a GPU: the markers, and scripts/check_gpu.py over the doubles."""

from __future__ import annotations

import importlib.util
import json
import os
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
    spec = importlib.util.spec_from_file_location("check_gpu", ROOT / "scripts" / "check_gpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "check_gpu", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SIZES", {"tiny": (64, 96)})
    monkeypatch.setattr(module, "LEAST_TILE", 64)
    monkeypatch.setattr(module, "reference_picture", lambda *_: landscape(64, 96)[None])
    monkeypatch.setenv("FIREWATCH_CACHE", str(tmp_path / "cache"))
    return module


def check(script: Any, folder: Path, *arguments: str) -> tuple[Result, Any]:
    report = folder.parent / "report.json"
    report.unlink(missing_ok=True)
    fixed = ["--model", str(folder), "--sizes", "tiny", "--seconds", "0", "--json", str(report)]
    result = CliRunner().invoke(script.main, [*fixed, *arguments])
    return result, json.loads(report.read_text()) if report.exists() else None


def test_all_is_well(script: Any, doubles: Any, models: dict[str, Path]) -> None:
    result, report = check(script, models["light"], "--backends", "tensorrt", "--batches", "1,2")
    assert result.exit_code == report["exit_code"] == 0, result.output
    one, two = report["rows"]
    assert (one["status"], two["status"], one["batch"], two["batch"]) == ("ok", "ok", 1, 2)
    assert one["psnr"] >= 45 and one["fps"] > 0 and one["stream_fps"] > 0 and one["memory_mib"] >= 0
    assert two["stream_fps"] is None
    assert " ".join(result.output.split()).startswith("backend size batch PSNR dB fps stream roofline MiB status")


def test_a_failure_is_a_failure(script: Any, doubles: Any, models: dict[str, Path]) -> None:
    doubles.trt.damage = 0x10
    result, report = check(script, models["light"], "--backends", "tensorrt,openvino", "--batches", "1")
    assert result.exit_code == report["exit_code"] == 1
    assert report["rows"][0]["status"].startswith("failed: the plan is not accurate")
    assert report["rows"][1]["status"] == "ok"


def test_what_is_missing_is_not_passed(script: Any, models: dict[str, Path], monkeypatch: Any) -> None:
    for package in ("tensorrt", "pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(script, "peaks", lambda gpu: None)
    result, report = check(script, models["light"], "--backends", "tensorrt,torch-fp32", "--batches", "1", "--cpu")
    assert result.exit_code == report["exit_code"] == 3
    assert report["rows"][0]["status"].startswith("unchecked: TensorRT is not installed")
    assert report["rows"][1]["status"] == "ok"


def test_a_run_without_a_gpu_backend_is_not_complete(script: Any, doubles: Any, models: dict[str, Path]) -> None:
    result, report = check(script, models["light"], "--backends", "openvino", "--batches", "1")
    assert result.exit_code == report["exit_code"] == 3 and report["rows"][0]["status"] == "ok"


def test_an_unexpected_error_is_a_row(script: Any, doubles: Any, models: dict[str, Path], monkeypatch: Any) -> None:
    monkeypatch.setattr(script, "seconds_of", lambda *_: (_ for _ in ()).throw(RuntimeError("a kernel\nis missing")))
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
    whole = script.traffic(spec, 64, 96)
    assert whole == 4 * script.traffic(spec, 32, 48) > 2 * 64 * 96 * (3 + first.cout)


def test_the_image_is_made_of_what_is_tested() -> None:
    """The Dockerfile copies what is there, starts `stylize`, and takes a pycuda that setup.py allows."""
    import re

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
    (least,) = re.findall(r'"pycuda>=([\d.]+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert [int(n) for n in pinned.split(".")] >= [int(n) for n in least.split(".")]
