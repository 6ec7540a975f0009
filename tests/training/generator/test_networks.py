from __future__ import annotations

import pytest
import torch

from training.generator.networks import (
    GeneratorConfig,
    LookNorm,
    MultiScaleDiscriminator,
    PatchDiscriminator,
    build_generator,
    set_views_first,
)

VARIANTS = [
    {"architecture": "resnet9"},
    {"architecture": "resnet9-skip"},
    {"architecture": "light", "ngf": 8},
    {"n_downsampling": 3},
    {"n_downsampling": 1},
    {"upsample": "transposed"},
    {"architecture": "resnet9", "upsample": "transposed", "n_downsampling": 3},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_generators_keep_the_size_and_the_range(changes):
    config = GeneratorConfig(**{"ngf": 4, "n_blocks": 2, "looks": ("auto", "dusk"), **changes})
    net = build_generator(config)
    x = torch.rand(2, 3, 32, 48) * 2 - 1
    y = net(x, torch.eye(2))
    assert y.shape == x.shape
    assert y.abs().max() <= 1
    assert torch.equal(net(x)[0], net(x, torch.tensor([[1.0, 0], [1, 0]]))[0])
    y.sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    assert GeneratorConfig.from_dict(config.to_dict()) == config


def test_the_seed_generator_has_its_size():
    count = sum(p.numel() for n, p in build_generator(GeneratorConfig(architecture="resnet9")).named_parameters())
    assert 2.84e6 < count < 2.86e6
    norms = [m.gamma.shape[1] for m in build_generator(GeneratorConfig(architecture="resnet9")).modules()
             if isinstance(m, LookNorm)]  # fmt: skip
    assert len(norms) == 23
    assert sum(norms) == 2624


def test_a_look_changes_the_result_and_a_mix_lies_between():
    net = build_generator(GeneratorConfig(ngf=4, n_blocks=1, looks=("auto", "dusk")))
    with torch.no_grad():
        for module in net.modules():
            if hasattr(module, "gamma"):
                module.gamma[1] = 2.0
                module.beta[1] = 0.5
    x = torch.rand(1, 3, 16, 16)
    a, b, mixed = (net(x, torch.tensor([look])) for look in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5]))
    assert not torch.allclose(a, b)
    assert not torch.allclose(mixed, a)
    assert not torch.allclose(mixed, b)


def test_look_norm_is_instance_norm():
    x = torch.randn(2, 5, 8, 8)
    expected = torch.nn.functional.instance_norm(x, eps=1e-5)
    torch.testing.assert_close(LookNorm(5, 1)(x, torch.ones(2, 1)), expected)


def test_crops_take_the_statistics_of_their_views():
    norm = LookNorm(3, 1)
    set_views_first(norm, True)
    views, crops, look = torch.randn(2, 3, 8, 8) * 3 + 1, torch.randn(2, 3, 8, 8), torch.ones(4, 1)
    out = norm(torch.cat([views, crops]), look)
    torch.testing.assert_close(out[:2], torch.nn.functional.instance_norm(views, eps=1e-5))
    variance, mean = torch.var_mean(views, dim=(2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(out[2:], (crops - mean) * torch.rsqrt(variance + 1e-5))
    norm.eval()  # in use every image is its own view
    torch.testing.assert_close(norm(crops, look[:2]), torch.nn.functional.instance_norm(crops, eps=1e-5))


def test_look_norm_survives_values_whose_squares_overflow_half():
    x = (torch.randn(1, 2, 8, 8) * 300).half()
    out = LookNorm(2, 1)(x, torch.ones(1, 1))
    torch.testing.assert_close(out.float(), torch.nn.functional.instance_norm(x.float()), atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("changes", [{"architecture": "x"}, {"upsample": "x"}, {"looks": ()}, {"looks": ("a", "a")},
                                     {"n_downsampling": 4}, {"ngf": 0}])  # fmt: skip
def test_impossible_generators_are_refused(changes):
    with pytest.raises(ValueError):
        GeneratorConfig(**changes)


def test_discriminator_sees_70_pixels():
    net = PatchDiscriminator(4)
    # Instance norm looks at the whole map; without it the reach of one score is the patch.
    features = [m for m in net.features if not isinstance(m, torch.nn.InstanceNorm2d)]
    x = torch.zeros(1, 3, 256, 256, requires_grad=True)
    score = net.head(torch.nn.Sequential(*features)(x))
    assert score.shape == (1, 1, 30, 30)
    score[0, 0, 15, 15].backward()
    rows, columns = torch.nonzero(x.grad.abs().sum((0, 1)), as_tuple=True)
    assert rows.max() - rows.min() + 1 == 70
    assert columns.max() - columns.min() + 1 == 70


def test_discriminator_shapes():
    x = torch.rand(2, 3, 128, 96)
    assert [s.shape for s in MultiScaleDiscriminator(2, ndf=4)(x)] == [(2, 1, 14, 10), (2, 1, 6, 4)]
    assert [s.shape for s in MultiScaleDiscriminator(3, ndf=4, dense=True)(x)] == [(2, 1, 1, 1)] * 3
    convs = [m for m in PatchDiscriminator(64).modules() if isinstance(m, torch.nn.Conv2d)]
    assert [m.out_channels for m in convs] == [64, 128, 256, 512, 1]
    assert isinstance(PatchDiscriminator(64).features[1], torch.nn.LeakyReLU)  # no norm on the first layer
