"""`build-engine` as the user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from engine.cli import main
from engine.spec import ModelSpec
from engine.trt.plan import PlanCache, ShapeProfile, parse_size

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIREWATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_help_is_light() -> None:
    """Nothing heavy is imported to print help, for the group and for every command."""
    code = (
        "import sys, runpy\n"
        "try: runpy.run_module('engine.cli', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'openvino', 'onnx', 'onnxruntime', 'tensorrt', 'pycuda', 'cv2', 'numpy', 'tqdm'}\n"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)\n"
    )
    for arguments in (["--help"], ["list", "--help"], ["clean", "--help"], ["inspect", "--help"]):
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=os.environ,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith("Usage")


def test_build_list_inspect_clean(doubles: Any, cache: Path, models: dict[str, Path]) -> None:
    built = call("--model", models["light"], "--tile", "64x64", "--json")
    assert built.exit_code == 0, built.output
    record = json.loads(built.stdout)
    assert record["psnr"] >= 45 and Path(record["folder"]).parent == cache / "plans"
    assert record["machine"]["gpu"] == "NVIDIA Double 4090"

    again = call("build", "--model", models["light"], "--tile", "64x64")
    assert again.exit_code == 0 and record["folder"] in again.stdout and doubles.trt.builds == 2

    listed = call("list")
    assert listed.exit_code == 0 and record["key"] in listed.stdout and "fp16 1x64x64" in listed.stdout
    assert [r["key"] for r in json.loads(call("list", "--json").stdout)] == [record["key"]]

    looked_at = call("inspect", record["folder"])
    assert looked_at.exit_code == 0, looked_at.output
    assert "1 of them fused from several" in looked_at.stdout and "conv_0 + relu_1" in looked_at.stdout
    one = call("inspect", Path(record["folder"]) / "probe.plan", "--json")
    assert list(json.loads(one.stdout)) == ["probe"]

    assert call("clean").exit_code == 2
    assert call("clean", "nothing").exit_code == 2
    assert "deleted" in call("clean", record["key"]).stdout
    assert "no plans" in call("list").stdout


def test_dry_run(doubles: Any, cache: Path, models: dict[str, Path]) -> None:
    arguments = ("--model", models["light"], "--tile", "64x96", "--batch", 2, "--dry-run")
    facts = json.loads(call(*arguments, "--json").stdout)
    assert facts["machine"].startswith("NVIDIA Double 4090") and facts["render"]["max"] == "2x64x96"
    assert not facts["exists"] and doubles.trt.builds == 0 and not cache.exists()
    doubles.cuda.gpus = 0
    result = call(*arguments)
    assert result.exit_code == 0 and "cannot build here: the NVIDIA driver does not start" in result.stdout


def test_shapes_one_by_one(doubles: Any, cache: Path, models: dict[str, Path]) -> None:
    shapes = ("--min", "1x32x32", "--opt", "1x64x64", "--max", "2x96x96")
    facts = json.loads(call("--model", models["light"], *shapes, "--dry-run", "--json").stdout)
    assert facts["render"] == {"min": "1x32x32", "opt": "1x64x64", "max": "2x96x96"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tile", "10x10"], "takes sides that are multiples of 4 from 8 up, got 10x10"),
        (["--tile", "64"], "write it like 1088x1920"),
        (["--min", "1x64x64"], "--min, --opt and --max belong together"),
        (["--tile", "64x64", "--max", "1x64x64"], "give either --tile, --fixed and --batch, or"),
        (["--min", "2x64x64", "--opt", "1x64x64", "--max", "1x64x64"], "a profile grows from min over opt to max"),
        (["--workspace", "lots"], "a size is like 4GiB"),
        (["--workspace", "1K"], "at least 1 MiB"),
        (["--model", "nowhere"], "no model 'nowhere'"),
        (["--gpu", "7"], "there is no GPU 7: this machine has 1"),
        (["--precision", "int8"], "'int8' is not one of"),
    ],
)
def test_bad_arguments(doubles: Any, cache: Path, models: dict[str, Path], arguments: list[str], message: str) -> None:
    given = arguments if "--model" in arguments else ["--model", str(models["light"]), *arguments]
    result = call(*given)
    assert result.exit_code in (1, 2) and message in " ".join(result.output.split())
    assert "Traceback" not in result.output and doubles.trt.builds == 0


def test_errors_are_one_line(doubles: Any, cache: Path, models: dict[str, Path]) -> None:
    doubles.trt.parser_fails = True
    result = call("--model", models["light"], "--tile", "64x64")
    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert "Resize 'resize_7'" in line


def test_without_tensorrt(cache: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    result = call("--model", models["light"])
    assert result.exit_code == 1 and "TensorRT is not installed: pip install" in result.output


def test_sizes() -> None:
    assert [parse_size(s) for s in ("4GiB", "512 MB", "1.5g", "10")] == [4 << 30, 512 << 20, 3 << 29, 10]
    for bad in ("", "GiB", "4 apples", "inf", "nan"):
        with pytest.raises(ValueError, match="like 4GiB"):
            parse_size(bad)


def test_profiles(models: dict[str, Path]) -> None:
    spec = ModelSpec.load(models["skip"])
    profile = ShapeProfile.of_tile(spec, 64, 96, 4)
    assert profile.holds((1, 8, 8)) and profile.holds((4, 64, 96))
    assert not profile.holds((5, 64, 96)) and not profile.holds((1, 96, 64)) and not profile.holds((1, 4, 8))
    probe = ShapeProfile.of_probe(spec)
    assert probe.holds((1, spec.probe_side, spec.probe_side)) and probe.holds((1, 288, 512))


def test_stray_files_in_the_cache(cache: Path) -> None:
    (cache / "plans" / "half").mkdir(parents=True)
    (cache / "plans" / "half" / "plan.json").write_text("{")
    assert PlanCache(cache).records() == []
    assert call("list").exit_code == 0
