"""A small generator taught by a large one, and generators that start from given weights."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from training.cli import main
from training.config import TrainConfig
from training.distill import Teacher
from training.errors import CheckpointError
from training.generator.checkpoint import load_generator, save_generator
from training.generator.networks import GeneratorConfig, build_generator
from training.trainer import Trainer


@pytest.fixture
def teacher(tmp_path):
    torch.manual_seed(5)
    config = GeneratorConfig(architecture="resnet9", ngf=4, n_blocks=1, looks=("auto", "dusk", "night"))
    save_generator(tmp_path / "teacher.safetensors", build_generator(config).state_dict(), config)
    return tmp_path / "teacher.safetensors"


def test_targets_are_the_output_of_the_teacher_in_the_same_look(teacher, tiny):
    config = tiny(looks=("night", "auto"), views=False, batch=2, teacher=str(teacher), art="")
    trainer = Trainer(config, teacher.parent / "run")
    batch = trainer.teacher.teach(trainer.dataset.sample(0))
    net = load_generator(teacher)
    for i in range(2):
        name = config.looks[int(batch.look_A[i].argmax())]
        look = torch.eye(3)[net.config.looks.index(name)][None]
        expected = net(batch.real_A[i : i + 1], look)
        torch.testing.assert_close(batch.pair_A[i : i + 1], expected, atol=1e-5, rtol=1e-4)
    assert batch.real_B is batch.pair_A


def test_crops_are_taught_with_the_statistics_of_their_views(teacher, tiny):
    trainer = Trainer(tiny(looks=("auto",), teacher=str(teacher), art=""), teacher.parent / "run")
    batch = trainer.teacher.teach(trainer.dataset.sample(0))
    net = load_generator(teacher)
    alone = net(batch.real_A[1:], torch.eye(3)[:1])
    torch.testing.assert_close(batch.pair_A[:1], net(batch.real_A[:1], torch.eye(3)[:1]), atol=1e-5, rtol=1e-4)
    assert (alone - batch.pair_A[1:]).abs().mean() > 0.01


def test_a_look_that_the_teacher_lacks_is_named(teacher):
    with pytest.raises(CheckpointError, match="cannot teach the look 'fog': it knows auto, dusk, night"):
        Teacher(teacher, ("auto", "fog"), views=True, device=torch.device("cpu"))


def test_distill_comes_closer_to_the_teacher_and_resumes(teacher, folders, tmp_path):
    command = [
        "distill", str(teacher), "--photos", str(folders[0]), "--out", str(tmp_path / "runs"), "--ngf", "8",
        "--n-blocks", "1", "--steps", "60", "--adversarial-steps", "2", "--batch", "1", "--crop", "48",
        "--device", "cpu", "--threads", "1",
    ]  # fmt: skip
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    run = tmp_path / "runs" / "00000"
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    first, last = (sum(line["pair_A"] for line in part) / 15 for part in (lines[:15], lines[45:60]))
    assert last < 0.8 * first
    assert {"G_A", "D_A", "detail_A"} <= lines[-1].keys()
    assert load_generator(run / "generator.safetensors").config.looks == ("auto", "dusk", "night")
    assert TrainConfig.load(run / "options.json").teacher == str(teacher)
    more = CliRunner().invoke(main, ["--resume", str(run), "--steps", "3"])
    assert more.exit_code == 0, more.output


def test_distill_without_a_teacher_is_one_line(folders, tmp_path):
    command = ["distill", str(tmp_path / "none"), "--photos", str(folders[0]), "--out", str(tmp_path)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1


def test_a_run_starts_from_given_weights(tiny, tmp_path):
    config = tiny()
    save_generator(tmp_path / "g.safetensors", build_generator(config.generator).state_dict(), config.generator)
    start = load_generator(tmp_path / "g.safetensors").state_dict()
    trainer = Trainer(tiny(init=str(tmp_path / "g.safetensors")), tmp_path / "run")
    for weights in (trainer.netG_A.state_dict(), trainer.ema):
        assert all(torch.equal(weights[name], value) for name, value in start.items())
    with pytest.raises(CheckpointError, match="--init"):
        Trainer(tiny(ngf=8, init=str(tmp_path / "g.safetensors")), tmp_path / "other")
