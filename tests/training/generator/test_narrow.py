"""A wide `light` generator narrowed to its strongest channels."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from training.errors import CheckpointError
from training.generator.checkpoint import load_generator, save_generator
from training.generator.narrow import can_be_narrowed, narrowed
from training.generator.networks import GeneratorConfig, build_generator
from training.trainer import Trainer

LIGHT = GeneratorConfig(architecture="light", ngf=6, n_blocks=2, looks=("auto", "dusk"))


@pytest.fixture
def net():
    torch.manual_seed(3)
    net = build_generator(LIGHT)
    for value in net.parameters():
        torch.nn.init.normal_(value, std=0.3)
    return net


def widened(net, ngf):
    """The same function in a net of more channels: the old ones scattered among new ones that do nothing."""
    choose = torch.Generator().manual_seed(7)

    def places():
        return torch.sort(torch.randperm(ngf, generator=choose)[: net.config.ngf]).values

    outer, inner = places(), [places() for _ in range(net.config.n_blocks)]
    wide = build_generator(dataclasses.replace(net.config, ngf=ngf))
    state = {name: torch.zeros_like(value) for name, value in wide.state_dict().items()}

    def put(name, out, into=None):
        value = net.state_dict()[name]
        if into is not None:
            grid = torch.zeros(len(value), ngf, *value.shape[2:])
            grid[:, into] = value
            value = grid
        if name.endswith((".gamma", ".beta")):
            state[name][:, out] = value
        else:
            state[name][out] = value

    every = torch.arange(48)
    put("stem.conv.weight", outer)
    put("stem.conv.bias", outer)
    for i, inside in enumerate(inner):
        put(f"blocks.{i}.conv1.weight", inside, outer)
        put(f"blocks.{i}.conv2.weight", outer, inside)
        for part in ("gamma", "beta"):
            put(f"blocks.{i}.norm1.{part}", inside)
            put(f"blocks.{i}.norm2.{part}", outer)
    put("tail.conv.weight", outer, outer)
    put("tail.conv.bias", outer)
    put("tail.norm.gamma", outer)
    put("tail.norm.beta", outer)
    put("head.weight", every, outer)
    put("head.bias", every)
    wide.load_state_dict(state)
    return wide


def test_channels_that_do_nothing_go_first(net):
    wide = widened(net, 11)
    picture = torch.rand(2, 3, 24, 32) * 2 - 1
    look = torch.tensor([[0.3, 0.7], [1.0, 0.0]])
    with torch.no_grad():
        expected = net(picture, look)
        torch.testing.assert_close(wide(picture, look), expected, atol=1e-5, rtol=1e-4)
        back = build_generator(LIGHT)
        back.load_state_dict(narrowed(wide.state_dict(), wide.config, 6))
        torch.testing.assert_close(back(picture, look), expected, atol=1e-5, rtol=1e-4)
    for name, value in net.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


def test_a_run_starts_from_a_wider_generator(net, tiny, tmp_path):
    wide = widened(net, 9)
    file = tmp_path / "wide.safetensors"
    save_generator(file, wide.state_dict(), wide.config)
    given = {"architecture": "light", "n_blocks": 2, "init": str(file)}
    trainer = Trainer(tiny(ngf=6, **given), tmp_path / "run")
    expected = narrowed(load_generator(file).state_dict(), wide.config, 6)
    for weights in (trainer.netG_A.state_dict(), trainer.ema):
        assert all(torch.equal(weights[name], value) for name, value in expected.items())
    for wrong in ({"ngf": 12}, {"ngf": 6, "n_blocks": 1}, {"ngf": 6, "looks": ("auto", "night")}):
        with pytest.raises(CheckpointError, match="--init"):
            Trainer(tiny(**{**given, **wrong}), tmp_path / "other")


def test_other_nets_are_not_narrowed():
    plain = GeneratorConfig(ngf=8)
    assert not can_be_narrowed(plain, dataclasses.replace(plain, ngf=4))
    assert can_be_narrowed(LIGHT, dataclasses.replace(LIGHT, ngf=4))
    assert not can_be_narrowed(LIGHT, LIGHT)
