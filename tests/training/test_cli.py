from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from training.cli import main
from training.config import TrainConfig
from training.options import SECTIONS, field_help

ROOT = Path(__file__).parents[2]
TINY = [
    "--ngf", "4", "--n-blocks", "1", "--ndf", "4", "--scales", "1", "--crop", "32", "--looks", "auto,dusk",
    "--warmup-steps", "1", "--steps", "2", "--pool-size", "2", "--device", "cpu", "--precision", "fp32",
    "--threads", "1", "--workers", "1",
]  # fmt: skip


def run(*args: object):
    return CliRunner().invoke(main, [str(a) for a in args])


def fails(result, code: int = 1) -> str:
    """The one line of an error."""
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    (line,) = [text for text in result.output.splitlines() if text.startswith("Error: ")]
    assert "Traceback" not in result.output
    if code == 1:
        assert result.output.strip().endswith(line)
    return line


@pytest.fixture
def data(folders, tmp_path):
    return ["--photos", folders[0], "--art", folders[1], "--out", tmp_path / "runs", *TINY]


def test_help_needs_nothing_heavy():
    code = (
        "import sys\nfrom training.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'cv2', 'numpy', 'safetensors', 'av', 'PIL', 'tqdm'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in TrainConfig.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in done.stdout


def test_every_setting_has_an_option_a_heading_and_a_help_text():
    names = [f.name for f in dataclasses.fields(TrainConfig)]
    assert sorted(n for section in SECTIONS.values() for n in section) == sorted(names)
    assert set(field_help()) == set(names)
    assert "PatchGAN" in field_help()["scales"]


def test_options_have_the_defaults_of_the_config(folders, tmp_path):
    result = run("--photos", folders[0], "--art", folders[1], "--out", tmp_path / "x", "--dry-run")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.output[: result.output.rindex("}") + 1])
    expected = dataclasses.asdict(TrainConfig(photos=str(folders[0]), art=str(folders[1]), out=str(tmp_path / "x")))
    assert shown == json.loads(json.dumps(expected))
    assert "4 photos, 4 art images" in result.output
    assert not (tmp_path / "x").exists()


def test_train_and_resume_end_to_end(data, tmp_path):
    result = run(*data)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "runs" / "00000"
    assert f"done: {folder / 'generator.safetensors'}" in result.output
    assert {"options.json", "stats.jsonl", "last.json", "generator.safetensors", "samples-000003.png"} <= {
        p.name for p in folder.iterdir()
    }
    assert TrainConfig.load(folder / "options.json").looks == ("auto", "dusk")
    assert len((folder / "stats.jsonl").read_text().splitlines()) == 3

    result = run("--resume", folder, "--steps", 4)
    assert result.exit_code == 0, result.output
    assert [json.loads(x)["step"] for x in (folder / "stats.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5]
    assert TrainConfig.load(folder / "options.json").steps == 4
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["00000", "flat"]

    assert run("--resume", folder / "last.json", "--steps", 4).exit_code == 0  # nothing left to do
    assert "another architecture" in fails(run("--resume", folder, "--n-blocks", 2))
    part = next(folder.glob("state-*"))
    part.write_bytes(b"rubbish")
    assert "damaged" in fails(run("--resume", folder))


def test_a_time_limit_says_how_to_go_on(data, tmp_path):
    result = run(*data, "--minutes", 1e-6)
    assert result.exit_code == 0
    assert f"stopped at step 1; go on with: train-generator --resume {tmp_path / 'runs' / '00000'}" in result.output


def test_missing_options_are_usage_errors(folders, tmp_path):
    assert "Missing option --art, --out" in fails(run("--photos", folders[0]), 2)
    assert "No such option" in fails(run("--photoz", folders[0]), 2)
    assert "No such command" in fails(run("trane"), 2)
    assert "go before 'export'" in fails(run("--steps", 3, "export", "x"), 2)


def test_impossible_values_are_usage_errors(data):
    assert "multiple of 8" in fails(run(*data, "--crop", 33), 2)
    assert "unknown look" in fails(run(*data, "--looks", "auto,nowhere"), 2)
    assert "--decay-start" in fails(run(*data, "--decay-start", 2), 2)
    assert "--architecture" in fails(run(*data, "--architecture", "unet"), 2)


def test_bad_folders_are_one_line(data, folders, tmp_path, make_photo, make_art, write_image):
    (tmp_path / "empty").mkdir()
    assert "holds no image" in fails(run(*data, "--art", tmp_path / "empty"))
    assert "is not a folder" in fails(run(*data, "--photos", tmp_path / "nowhere"))
    assert "both photos and art" in fails(run(*data, "--art", folders[0]))
    assert "both photos and art" in fails(run(*data, "--art", folders[0].parent))
    assert "swapped" in fails(run(*data, "--art", folders[0], "--photos", folders[1]))
    assert "fewer than one batch of 5" in fails(run(*data, "--batch", 5))
    for i in range(3):
        write_image(tmp_path / "mixed" / f"{i}.png", make_photo(i))
    (tmp_path / "mixed" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    line = fails(run(*data, "--photos", tmp_path / "mixed"))
    assert "1 of 8 images cannot be read" in line
    assert "broken.jpg" in line
    assert "prepare" in line


def test_bad_places_are_one_line(data, tmp_path):
    (tmp_path / "file").write_text("")
    assert "--out" in fails(run(*data, "--out", tmp_path / "file" / "runs"))
    assert "options.json is missing" in fails(run("--resume", tmp_path))
    (tmp_path / "options.json").write_text("{")
    assert "cannot be read as options.json" in fails(run("--resume", tmp_path))


def test_run_without_a_checkpoint_cannot_be_resumed(data, tmp_path, tiny):
    tiny().save(tmp_path / "options.json")
    assert "start again without --resume" in fails(run("--resume", tmp_path))


def test_missing_torch_names_the_extra(data, monkeypatch):
    for name in [
        n for n in sys.modules if n.split(".")[0] == "training" and n not in ("training.errors", "training.cli")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install 'firewatch-stylizer[train]'" in fails(run(*data))


def test_interrupt_saves_and_says_how_to_resume(data, tmp_path):
    command = [sys.executable, "-m", "training.cli", *map(str, data), "--warmup-steps", "100000"]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as run:
        assert run.stdout is not None
        assert "run folder" in run.stdout.readline()
        stats = tmp_path / "runs" / "00000" / "stats.jsonl"
        while not stats.exists():
            assert run.poll() is None
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert "go on with: train-generator --resume" in out
    assert (tmp_path / "runs" / "00000" / "last.json").exists()


def test_export_writes_a_generator_of_some_looks(data, tmp_path):
    assert run(*data).exit_code == 0
    folder, out = tmp_path / "runs" / "00000", tmp_path / "g.safetensors"
    result = run("export", folder, "--out", out, "--looks", "dusk")
    assert result.exit_code == 0, result.output
    from training.generator.checkpoint import load_generator

    whole, part = load_generator(folder / "generator.safetensors"), load_generator(out)
    assert part.config.looks == ("dusk",)
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(part(x), whole(x, torch.tensor([[0.0, 1.0]])))
    before = out.read_bytes()
    assert "--overwrite" in fails(run("export", folder, "--out", out, "--last"))
    assert out.read_bytes() == before
    assert run("export", folder, "--out", out, "--last", "--overwrite").exit_code == 0
    assert not torch.equal(load_generator(out)(x), whole(x))
    assert run("export", folder / "generator.safetensors", "--out", out, "--overwrite").exit_code == 0
    assert torch.equal(load_generator(out)(x), whole(x))
    new = tmp_path / "new.safetensors"
    assert "no look 'fog'" in fails(run("export", folder, "--out", new, "--looks", "fog"))
    assert "averaged weights alone" in fails(run("export", folder / "generator.safetensors", "--out", new, "--last"))
    assert "no checkpoint" in fails(run("export", tmp_path, "--out", new))
    assert not new.exists()


def test_the_recipe_of_the_readme_works_as_written(folders, tmp_path, monkeypatch):
    """Train, export, stylize: the lines of README.md, the first with settings that make it short."""
    from stylize.cli import stylize

    pytest.importorskip("openvino")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"## Train on your own photos and art\n\n```sh\n(.*?)```", readme, re.DOTALL)
    train, export, use = (shlex.split(line) for line in recipe.splitlines()[1:])
    assert (train[0], export[:2], use[0]) == ("train-generator", ["train-generator", "export"], "stylize")
    monkeypatch.chdir(tmp_path)
    for source, name in zip(folders, ("photos", "art"), strict=True):
        shutil.copytree(source, tmp_path / name)
    assert run(*train[1:], *TINY).exit_code == 0
    result = run(*export[1:])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(stylize, use[1:])
    assert result.exit_code == 0, result.output
    made = sorted(path.name for path in (tmp_path / "photos" / "stylized").glob("*.png"))
    assert made == [f"p{number}.png" for number in range(4)]
    from PIL import Image

    with Image.open(tmp_path / "photos" / "stylized" / "p0.png") as picture:
        assert picture.size == (80, 64)


def test_a_model_folder_replaces_nothing_unasked(data, tmp_path):
    assert run(*data).exit_code == 0
    folder, out = tmp_path / "runs" / "00000", tmp_path / "look"
    assert run("export", folder, "--out", out).exit_code == 0
    before = (out / "spec.json").read_bytes()
    assert "--overwrite" in fails(run("export", folder, "--out", out, "--looks", "dusk"))
    assert (out / "spec.json").read_bytes() == before
    assert run("export", folder, "--out", out, "--looks", "dusk", "--overwrite").exit_code == 0
    assert json.loads((out / "spec.json").read_text())["looks"] == ["dusk"]
    other = tmp_path / "holiday"
    other.mkdir()
    (other / "diary.txt").write_text("day 1")
    assert "something else" in fails(run("export", folder, "--out", other, "--overwrite"))
    assert (other / "diary.txt").read_text() == "day 1"
    assert not list(tmp_path.glob(".export-*"))
