from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from training.errors import CheckpointError, DivergenceError, TrainingError
from training.generator.checkpoint import STATE, find_state, load_generator, load_state
from training.parallel import Parallel
from training.trainer import Trainer, run_folder


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    out = {f"ema.{k}": v for k, v in trainer.ema.items()}
    for name, net in trainer.nets.items():
        out |= {f"{name}.{k}": v for k, v in net.state_dict().items()}
    return out


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [k for k in a if not torch.equal(a[k], b[k])]
    assert not different


def trained(config, folder: Path, stop: int | None = None) -> Trainer:
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, folder)
    if stop is not None:
        trainer.total_steps = stop
    trainer.run()
    return trainer


@pytest.mark.parametrize("stop", [1, 4])
def test_resumed_run_equals_an_uninterrupted_one(tiny, tmp_path, stop):
    config = tiny(generator_steps=2, label_smoothing=0.1, lambda_flat=0.1, frame_every=2)
    whole = trained(config, tmp_path / "whole")
    trained(config, tmp_path / "cut", stop)
    resumed = Trainer(config, tmp_path / "cut")
    resumed.resume(find_state(tmp_path / "cut"))
    assert resumed.step == stop
    resumed.run()
    assert_same(weights(whole), weights(resumed))
    assert [torch.equal(a, b) for a, b in zip(whole.pool_A.images, resumed.pool_A.images, strict=True)] == [True] * 2
    loaded = load_generator(tmp_path / "cut" / "generator.safetensors")
    assert_same(dict(loaded.state_dict()), whole.ema)


def test_seeds_differ_and_repeat(tiny, tmp_path):
    a, b, c = (trained(tiny(seed=s, steps=1), tmp_path / str(i)) for i, s in enumerate([1, 1, 2]))
    assert_same(weights(a), weights(b))
    assert not torch.equal(a.netG_A.head.weight, c.netG_A.head.weight)


def test_learning_rate_falls_linearly_in_each_part(tiny, tmp_path):
    trainer = Trainer(tiny(warmup_steps=6, steps=10, decay_start=0.5, lr=1.0, warmup_lr=4.0), tmp_path)
    rates = []
    for trainer.step in range(16):
        rates.append(trainer.lr())
    assert rates[:6] == pytest.approx([4, 4, 4, 4, 4, 2])
    assert rates[6:] == pytest.approx([1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_epochs_count_passes_over_the_photos(tiny, tmp_path):
    assert Trainer(tiny(epochs=3, batch=2), tmp_path).adversarial_steps == 6


def test_ema_is_the_average_of_weights_and_copies_counters(tiny, tmp_path):
    trainer = Trainer(tiny(ema=0.9), tmp_path)
    trainer.netG_A.register_buffer("counter", torch.tensor(3))
    trainer.ema = {k: v.clone() for k, v in trainer.netG_A.state_dict().items()}
    before = trainer.ema["head.weight"].clone()
    with torch.no_grad():
        trainer.netG_A.head.weight.add_(1.0)
        trainer.netG_A.counter.add_(4)
    trainer.step = 1000
    trainer._average()
    torch.testing.assert_close(trainer.ema["head.weight"], before + 0.1)
    assert trainer.ema["counter"] == 7
    trainer.step = 0  # the average forgets the first steps quickly: decay 1/10
    trainer._average()
    torch.testing.assert_close(trainer.ema["head.weight"], before + 0.1 + 0.9 * 0.9)


def test_nan_loss_stops_and_keeps_the_last_good_checkpoint(tiny, tmp_path, monkeypatch):
    trainer = trained(tiny(), tmp_path / "run", 3)
    good = load_state(tmp_path / "run" / STATE)
    trainer.total_steps = 6
    step = trainer.train_step
    monkeypatch.setattr(
        trainer, "train_step", lambda b: {k: v * (math.nan if trainer.step == 4 else 1) for k, v in step(b).items()}
    )
    with pytest.raises(DivergenceError, match=r"step 5; the last good checkpoint is kept: .*--resume .*--lr"):
        trainer.run()
    kept = load_state(tmp_path / "run" / STATE)
    assert kept["step"] == good["step"] == 3
    torch.testing.assert_close(kept["nets"], good["nets"], rtol=0, atol=0)


def test_a_broken_weight_is_never_saved(tiny, tmp_path):
    trainer = trained(tiny(), tmp_path / "run", 2)
    with torch.no_grad():
        trainer.netD_B.scales[0].head.weight[0, 0, 0, 0] = math.inf
    with pytest.raises(DivergenceError, match="netD_B"):
        trainer.save()
    assert load_state(tmp_path / "run" / STATE)["step"] == 2
    trainer.nets = {}
    trainer.ema["head.bias"][0] = math.nan
    with pytest.raises(DivergenceError, match="averaged generator"):
        trainer.save()


def test_another_architecture_is_refused(tiny, tmp_path):
    trained(tiny(), tmp_path / "run", 1)
    with pytest.raises(CheckpointError, match="another architecture"):
        Trainer(tiny(n_blocks=2), tmp_path / "run").resume(tmp_path / "run" / STATE)
    with pytest.raises(CheckpointError, match="does not fit these options"):
        Trainer(tiny(ndf=8), tmp_path / "run").resume(tmp_path / "run" / STATE)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_and_resumes(tiny, tmp_path, precision):
    config = tiny(precision=precision, warmup_steps=1, steps=2)
    trained(config, tmp_path / "run", 2)
    resumed = Trainer(config, tmp_path / "run")
    resumed.resume(tmp_path / "run" / STATE)
    resumed.run()
    whole = trained(config, tmp_path / "whole")
    assert_same(weights(whole), weights(resumed))
    assert whole.netG_A.head.weight.dtype == torch.float32


def test_fp16_overflow_in_one_player_leaves_the_other_alone(tiny, tmp_path):
    trainer = Trainer(tiny(precision="fp16"), tmp_path)
    before = {k: v.clone() for k, v in trainer.netG_A.state_dict().items()}
    scale = {k: s.get_scale() for k, s in trainer.scalers.items()}
    overflow = trainer.netG_A.head.weight.sum() * 1e38  # times the scale: infinite
    trainer._update("G", {"loss": overflow})
    assert_same(before, dict(trainer.netG_A.state_dict()))
    assert trainer.scalers["G"].get_scale() == scale["G"] / 2
    assert trainer.scalers["D"].get_scale() == scale["D"]
    trainer._update("D", {"loss": trainer.netD_A.scales[0].head.weight.sum()})
    assert trainer.scalers["D"].get_scale() == scale["D"]


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "resnet9"},
        {"architecture": "light", "ngf": 8},
        {"n_downsampling": 3, "upsample": "transposed"},
        {"scales": 2, "crop": 48, "dense": True},
        {"lambda_cycle": 0.0, "lambda_pair": 0.0, "augment": False, "pool_size": 0},
        {"warmup": "content", "discriminator_steps": 2, "identity_every": 2, "batch": 2, "clip": 0.0},
        {"looks": ("auto",), "lambda_identity": 0.0},
        {"views": False, "lambda_detail": 1.0, "batch": 2},
    ],
)
def test_every_recipe_trains(tiny, tmp_path, changes):
    trainer = trained(tiny(warmup_steps=1, steps=2, **changes), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert {"pair_A", "seconds", "images_per_s", "memory_mib", "lr"} <= lines[0].keys()
    assert {"G_A", "D_A"} <= lines[-1].keys()
    assert ("cycle_A" in lines[-1]) == (trainer.config.lambda_cycle > 0)
    assert all(math.isfinite(v) for line in lines for v in line.values())


def test_warmup_on_pairs_learns_the_pair(tiny, tmp_path):
    trainer = trained(
        tiny(warmup_steps=90, steps=0, lambda_frame=0.0, lambda_cycle=0.0, ngf=8, looks=("dusk",), zoom=(0.5, 1.0)),
        tmp_path / "run",
    )
    lines = [json.loads(line) for line in (trainer.folder / "stats.jsonl").read_text().splitlines()]
    first, last = (sum(line["pair_A"] for line in part) / 10 for part in (lines[:10], lines[-10:]))
    assert last < 0.88 * first


def test_content_warmup_ignores_the_pair(tiny, tmp_path):
    trainer = Trainer(tiny(warmup="content"), tmp_path)
    batch = trainer.dataset.sample(0)
    losses = trainer.objective.warmup(batch, trainer._draws())
    other = trainer.objective.warmup(replace(batch, pair_A=-batch.pair_A), trainer._draws())
    assert torch.equal(losses["pair_A"], other["pair_A"])


def test_a_time_limit_stops_with_a_checkpoint(tiny, tmp_path):
    trainer = Trainer(tiny(), tmp_path)
    assert trainer.run(minutes=1e-9) is False
    assert load_state(tmp_path / STATE)["step"] == 1
    trainer.stopping = True
    assert trainer.run() is False
    assert trainer.step == 2
    trainer.stopping = False
    assert trainer.run() is True


def test_stats_of_steps_after_the_checkpoint_are_dropped(tiny, tmp_path):
    trained(tiny(), tmp_path, 2)
    with (tmp_path / "stats.jsonl").open("a") as file:
        file.write('{"step": 3}\n{"step": 4, "tor')
    trainer = Trainer(tiny(steps=1), tmp_path)
    trainer.resume(tmp_path / STATE)
    trainer.run()
    steps = [json.loads(line)["step"] for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]


def test_run_folders_are_numbered(tmp_path):
    assert [run_folder(tmp_path / "x").name for _ in range(3)] == ["00000", "00001", "00002"]
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="--out"):
        run_folder(tmp_path / "file")


def test_missing_device_is_a_clear_error(tiny, tmp_path):
    with pytest.raises(TrainingError, match="--device auto"):
        Trainer(tiny(device="nonsense"), tmp_path)


def test_rows_are_shared_evenly():
    assert [Parallel(rank=r, world=2).rows(6) for r in (0, 1)] == [slice(0, 3), slice(3, 6)]
    with pytest.raises(TrainingError, match="multiple"):
        Parallel(rank=0, world=4).rows(6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiled_networks_keep_their_names(tiny, tmp_path):
    # Compilation itself starts with the first call; here no compiler is needed.
    plain, compiled = Trainer(tiny(), tmp_path), Trainer(tiny(compile=True), tmp_path)
    assert plain.netG_A.state_dict().keys() == compiled.netG_A.state_dict().keys()
    assert compiled.netG_A._compiled_call_impl is not None


class Board:
    """What TensorBoard's writer is told."""

    def __init__(self, folder, purge_step):
        self.told, self.closed = [(str(folder), purge_step)], False
        Board.last = self

    def add_scalar(self, name, value, step):
        self.told.append((name, step))

    def add_image(self, name, image, step, dataformats):
        self.told.append((name, step, image.shape, dataformats))

    def flush(self):
        pass

    def close(self):
        self.closed = True


def test_tensorboard_gets_losses_and_grids(tiny, tmp_path, monkeypatch):
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Board
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    trained(tiny(tensorboard=True, warmup_steps=1, steps=1), tmp_path)
    told = Board.last.told
    assert told[0] == (str(tmp_path / "tensorboard"), 0)
    assert {("pair_A", 1), ("G_A", 2), ("D_A", 2)} <= set(told)
    assert any(t[0] == "samples" and t[1] == 2 and t[3] == "HWC" for t in told)
    assert Board.last.closed


def test_missing_tensorboard_names_the_extra(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match=r"pip install tensorboard"):
        trained(tiny(tensorboard=True), tmp_path)


def test_a_gradient_that_is_no_number_leaves_the_weights_alone(tiny, tmp_path):
    """A crop of one flat colour can overflow the backward pass though its loss is finite."""
    trainer = Trainer(tiny(), tmp_path)
    batch = trainer.dataset.sample(0)
    before = {k: v.clone() for k, v in trainer.netG_A.state_dict().items()}
    poison = trainer.netG_A.head.weight.register_hook(lambda grad: grad * float("inf"))
    trainer.train_step(batch)
    assert trainer.skipped == 1
    assert all(torch.equal(before[k], v) for k, v in trainer.netG_A.state_dict().items())
    poison.remove()
    trainer.train_step(batch)
    assert trainer.skipped == 0
    assert any(not torch.equal(before[k], v) for k, v in trainer.netG_A.state_dict().items())
