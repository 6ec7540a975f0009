from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parents[2]
TINY = {
    "ngf": 4, "n_blocks": 1, "ndf": 4, "scales": 1, "crop": 32, "batch": 1, "looks": ["auto"], "warmup_steps": 1,
    "pool_size": 2, "device": "cpu", "precision": "fp32", "threads": 1, "workers": 1,
}  # fmt: skip


def script(name: str):
    path = ROOT / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(folders, tmp_path):
    """The layout of the data folder: trainA, trainB, testA, testB."""
    root = tmp_path / "data"
    for name, source in (("trainA", folders[0]), ("trainB", folders[1]), ("testA", folders[0]), ("testB", folders[1])):
        shutil.copytree(source, root / name)
    return root


def test_train_default_packs_and_trains_in_pieces(data, tmp_path, monkeypatch):
    module = script("train_default")
    packed = CliRunner().invoke(module.main, ["pack", str(data), str(tmp_path / "packed"), "--long-side", "64"])
    assert packed.exit_code == 0, packed.output
    assert len(list((tmp_path / "packed").rglob("*.jpg"))) == 8

    monkeypatch.setattr(module, "CPU", {**TINY, "looks": ("auto",), "steps": 1})
    train = ["train", str(tmp_path / "packed"), str(tmp_path / "run"), "--recipe", "cpu"]
    piece = CliRunner().invoke(module.main, [*train, "--minutes", "1e-9", "--set", "steps=1000000"])
    assert piece.exit_code == 0, piece.output
    assert "stopped" in piece.output
    assert "images/s" in piece.output
    done = CliRunner().invoke(module.main, train)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "done"
    assert CliRunner().invoke(module.main, train).stdout.splitlines()[-1] == "done"
    assert len(list((tmp_path / "packed" / "flat").iterdir())) == 4

    bad = CliRunner().invoke(module.main, [*train, "--set", "crop=33"])
    assert bad.exit_code == 1
    assert "multiple of 8" in bad.output


def test_pack_refuses_to_grow_too_large(data, tmp_path, monkeypatch):
    module = script("train_default")
    monkeypatch.setattr(module, "PACK_LIMIT", 100)
    packed = CliRunner().invoke(module.main, ["pack", str(data), str(tmp_path / "packed")])
    assert packed.exit_code == 1
    assert "lower --quality" in packed.output


def test_recipes_are_compared_in_one_table(data, tmp_path, monkeypatch):
    module = script("compare_recipes")
    monkeypatch.setattr(module, "COMMON", {**TINY, "sample_every": 1000})
    monkeypatch.setattr(
        module, "RECIPES", {k: (text, {"architecture": v["architecture"]}) for k, (text, v) in module.RECIPES.items()}
    )
    result = CliRunner().invoke(
        module.main,
        [str(data), str(tmp_path / "out"), "--only", "seed,skips", "--minutes", "0.02", "--steps-per-minute", "100",
         "--limit", "1", "--patches", "128", "--size", "96"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    text = (tmp_path / "out" / "recipes.md").read_text()
    assert "`seed`: the plain generator" in text
    assert "| skips " in text
    config = json.loads((tmp_path / "out" / "seed" / "options.json").read_text())
    assert config["architecture"] == "resnet9"
    assert (tmp_path / "out" / "evaluation" / "sheet.jpg").exists()
    unknown = CliRunner().invoke(module.main, [str(data), str(tmp_path / "out"), "--only", "nonsense"])
    assert unknown.exit_code == 2


def test_the_recipes_are_possible():
    from training.config import TrainConfig

    default, compare = script("train_default"), script("compare_recipes")
    places = {"photos": "a", "art": "b", "out": "c"}
    for settings in (default.GPU, default.CPU):
        TrainConfig(**places, **settings)
    for _, changes in compare.RECIPES.values():
        values = {**compare.COMMON, **changes}
        TrainConfig(**places, **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
