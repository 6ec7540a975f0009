"""Projected discriminators: what learns, what stays, and where the gradient goes."""

from __future__ import annotations

import math

import pytest
import torch

from training.config import TrainConfig
from training.generator.checkpoint import find_state
from training.generator.projected import ProjectedDiscriminator
from training.trainer import Trainer


@pytest.fixture(scope="module")
def net() -> ProjectedDiscriminator:
    torch.manual_seed(1)
    return ProjectedDiscriminator(8, strides=(4, 8, 16, 32))


def test_each_stride_gives_a_map_of_scores(net):
    assert [s.shape for s in net(torch.rand(2, 3, 64, 96) * 2 - 1)] == [(2, 1, 2, 3)] * 4
    assert [s.shape for s in net(torch.rand(1, 3, 32, 32))] == [(1, 1, 1, 1)] * 4
    assert [s.shape for s in ProjectedDiscriminator(4, strides=(8,))(torch.rand(1, 3, 160, 160))] == [(1, 1, 5, 5)]


def test_heads_learn_and_trunk_and_projections_do_not(net):
    learning = {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad}
    assert learning == {"heads"}
    x = (torch.rand(1, 3, 64, 64) * 2 - 1).requires_grad_()
    torch.stack([s.mean() for s in net(x)]).sum().backward()
    assert x.grad.abs().min() >= 0 and x.grad.abs().max() > 0
    assert all(p.grad is None for part in (net.trunk, net.projections) for p in part.parameters())
    assert all(p.grad is not None for p in net.heads.parameters())
    net.train()
    assert not net.trunk.training and net.heads.training


def test_projections_are_random_mixtures_of_all_channels(net):
    for projection, channels in zip(net.projections, (24, 40, 112, 320), strict=True):
        assert projection.weight.shape == (8, channels, 1, 1)
        # He et al. 2015 without a nonlinearity: variance 1 / fan in, so that features keep their scale.
        assert projection.weight.std().item() == pytest.approx(1 / math.sqrt(channels), rel=0.25)


def test_heads_are_bounded_by_spectral_norm(net):
    net.train()
    for _ in range(30):  # one power iteration a pass
        net(torch.rand(1, 3, 64, 64))
    for head in net.heads:
        for layer in head:
            if isinstance(layer, torch.nn.Conv2d):
                assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, rel=0.05)


PROJECTED = {
    "discriminator": "projected", "ndf": 8, "crop": 64, "warmup_steps": 1, "steps": 19, "looks": ("auto",),
    "architecture": "resnet9",
}  # fmt: skip


def test_the_seed_trains_with_projected_discriminators_and_resumes(tiny, tmp_path):
    (tmp_path / "run").mkdir()
    trainer = Trainer(tiny(**PROJECTED), tmp_path / "run")
    frozen = [p.clone() for net in (trainer.netD_A, trainer.netD_B)
              for p in (*net.trunk.parameters(), *net.projections.parameters())]  # fmt: skip
    heads = [p.clone() for p in trainer.netD_A.heads.parameters()]
    before = trainer.netG_A.head.weight.clone()
    trainer.total_steps = 10
    trainer.run()
    resumed = Trainer(tiny(**PROJECTED), tmp_path / "run")
    resumed.resume(find_state(tmp_path / "run"))
    resumed.run()
    assert resumed.step == 20
    after = [p for net in (resumed.netD_A, resumed.netD_B)
             for p in (*net.trunk.parameters(), *net.projections.parameters())]  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(frozen, after, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(heads, resumed.netD_A.heads.parameters(), strict=True))
    assert not torch.equal(before, resumed.netG_A.head.weight)

    (tmp_path / "whole").mkdir()
    whole = Trainer(tiny(**PROJECTED), tmp_path / "whole")
    whole.run()
    for name, net in whole.nets.items():
        for key, value in net.state_dict().items():
            assert torch.equal(value, resumed.nets[name].state_dict()[key]), (name, key)


def test_the_generator_follows_the_gradient_of_the_heads(tiny, tmp_path):
    trainer = Trainer(tiny(**PROJECTED, lambda_cycle=0.0, lambda_identity=0.0, lambda_pair=0.0), tmp_path)
    trainer.step = 1
    losses, _ = trainer.objective.generators(trainer.dataset.sample(1), trainer._draws())
    assert set(losses) <= {"G_A", "frame"}
    losses["G_A"].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in [trainer.netG_A.head.weight])
    assert all(p.grad is None for p in trainer.netD_A.parameters())
    assert any(p.requires_grad for p in trainer.netD_A.heads.parameters())  # they learn again afterwards
    assert not any(p.requires_grad for p in trainer.netD_A.trunk.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"discriminator": "none"}, "unknown discriminator"),
        ({"discriminator": "projected", "dense": True}, "settings of PatchGANs"),
        ({"discriminator": "projected", "label_smoothing": 0.1}, "settings of PatchGANs"),
        ({"feature_strides": ()}, "feature_strides"),
        ({"feature_strides": (8, 4)}, "in this order"),
        ({"feature_strides": (4, 5)}, "of 4, 8, 16, 32"),
        ({"lr": math.nan}, "lr is a finite number, got nan"),
        ({"lambda_gan": math.inf}, "lambda_gan is a finite number"),
        ({"zoom": (0.5, math.nan)}, "zoom is a finite number"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(photos="a", art="b", out="c", **changes)
