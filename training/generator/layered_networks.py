"""The two networks of the architecture `layers`: layout (sky and depth of a picture) and fields.

Images are float ``(N, 3, H, W)`` in -1..1.  What the fields become, and what they are made
from, is in `engine.looks.torch_shader`.

The parameter names are a file format: `engine.program.layers` reads checkpoints by them, as `checkpoint_weights`
writes them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.looks.torch_shader import add_planes, fields_planes
from training.generator.config import LayersConfig
from training.generator.trunk import FEATURES, Trunk

__all__ = ["FieldsNet", "LayeredGenerator", "LayoutNet", "checkpoint_weights", "fields_planes"]

SLOPE = 0.2
"""Of the leaky ReLUs."""
FEATURE_SCALES = {4: 1 / 12, 8: 1 / 9, 16: 1 / 6}
"""Stride -> what the trunk's features are multiplied with, so that all have about the same size."""
N_FEATURES = 3 + sum(FEATURES[stride][1] for stride in FEATURE_SCALES)
DILATIONS = (1, 2, 4, 8, 1)
N_PLANES = 7
N_FIELDS = 4


class LayoutNet(nn.Module):
    """RGB ``(N, 3, H, W)``, sides multiples of 32 -> sky logit and depth (0 near, 1 far), ``(N, 2, H/8, W/8)``.

    A frozen trunk and a small head with dilated convolutions.  `features` can be computed once for a whole
    data set: `head` takes them as they are; set `mean` and `deviation` (each of `N_FEATURES`) before training.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: LayersConfig, *, pretrained: bool = True) -> None:
        super().__init__()
        self.trunk = Trunk(config.trunk, pretrained=pretrained)
        self.register_buffer("mean", torch.zeros(N_FEATURES))
        self.register_buffer("deviation", torch.ones(N_FEATURES))
        self.enter = nn.Conv2d(N_FEATURES, config.head, 1)
        self.blocks = nn.ModuleList(
            nn.Conv2d(config.head, config.head, 3, padding=d, dilation=d, padding_mode="replicate") for d in DILATIONS
        )
        self.leave = nn.Conv2d(config.head, 2, 1)

    def features(self, x: Tensor, *, frozen: bool = True) -> Tensor:
        """The trunk's features and the colours at stride 8, ``(N, N_FEATURES, H/8, W/8)``, not yet standardised."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            fine, middle, coarse = self.trunk(x)
        size = middle.shape[2:]
        resized = (
            F.avg_pool2d(fine, 2) * FEATURE_SCALES[4],  # what bilinear interpolation by one half is
            middle * FEATURE_SCALES[8],
            F.interpolate(coarse, size, mode="bilinear", align_corners=False) * FEATURE_SCALES[16],
        )
        return torch.cat([*resized, F.avg_pool2d(x, 8)], 1)

    def head(self, features: Tensor) -> Tensor:
        """Features as `features` gives them -> sky logit and unclipped depth."""
        x = (features - self.mean[:, None, None]) / self.deviation[:, None, None]
        x = F.relu(self.enter(x))
        for block in self.blocks:
            x = torch.add(x, F.relu(block(x)))
        return torch.as_tensor(self.leave(x))

    def head_state(self) -> dict[str, Tensor]:
        """All that is trained, and what features are standardised with: the state without the frozen trunk."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("trunk.")}

    def forward(self, x: Tensor) -> Tensor:
        """Sky logit and unclipped depth."""
        return self.head(self.features(x))

    def layout(self, x: Tensor) -> Tensor:
        """What the probe returns: sky probability and depth, both in 0..1."""
        y = self(x)
        return torch.cat([torch.sigmoid(y[:, :1]), y[:, 1:].clamp(0, 1)], 1)


class ReflectConv(nn.Conv2d):
    """A 3x3 convolution that keeps the size by reflection at the border."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(cin, cout, 3, padding=1, padding_mode="reflect")


class FieldsBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ReflectConv(channels, channels)
        self.conv2 = ReflectConv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.conv2(F.relu(self.conv1(x))))


class FieldsNet(nn.Module):
    """Planes ``(N, 7, H, W)`` of `fields_planes` -> fields sky, depth, tone, cloud ``(N, 4, h, w)``.

    ``h = H * 2 / stride``: with stride 4 half the size of the planes.  Sides are multiples of the stride.
    """

    def __init__(self, config: LayersConfig) -> None:
        super().__init__()
        ngf, fine = config.ngf, config.stride // 2
        self.stride = config.stride
        self.stem = ReflectConv(N_PLANES * config.stride**2, ngf)
        self.blocks = nn.ModuleList(FieldsBlock(ngf) for _ in range(config.n_blocks))
        self.up = ReflectConv(ngf, 2 * ngf)  # 2 x 2 places of ngf / 2 channels
        self.skip = ReflectConv(N_PLANES * fine**2, ngf // 2)
        width = max(8, ngf * 2 // 3 // 8 * 8)
        self.tail = ReflectConv(ngf, width)
        self.leave = ReflectConv(width, N_FIELDS)
        for module in self.modules():
            if isinstance(module, ReflectConv):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        for name, module in self.named_modules():
            if isinstance(module, ReflectConv) and (name == "leave" or name.endswith("conv2")):
                module.weight.data.mul_(0.1)  # begins near the planes themselves

    def forward(self, planes: Tensor) -> Tensor:
        """The four fields."""
        fine = self.stride // 2
        x = F.relu(self.stem(F.pixel_unshuffle(planes, self.stride)))
        for block in self.blocks:
            x = block(x)
        skip = self.skip(F.pixel_unshuffle(planes, fine))
        x = F.leaky_relu(torch.cat([F.pixel_shuffle(self.up(x), 2), skip], 1), SLOPE)
        x = self.leave(F.leaky_relu(self.tail(x), SLOPE))
        return add_planes(x, planes, fine)


class LayeredGenerator(nn.Module):
    """Both networks of a checkpoint; how they make a picture is in `training.evaluation.layered`."""

    def __init__(self, config: LayersConfig) -> None:
        super().__init__()
        self.config = config
        self.layout, self.fields = LayoutNet(config, pretrained=False), FieldsNet(config)

    @classmethod
    def of_weights(cls, weights: Mapping[str, Tensor], config: LayersConfig) -> LayeredGenerator:
        """Inverse of `checkpoint_weights`; KeyError or RuntimeError for weights of another network."""
        net = cls(config)
        enter = weights["layout.enter.weight"] / _feature_scales()[None, :, None, None]
        unit = {f"layout.{name}": getattr(net.layout, name) for name in ("mean", "deviation")}
        net.load_state_dict({**weights, **unit, "layout.enter.weight": enter})
        return net


def _feature_scales() -> Tensor:
    """What each feature of the trunk is multiplied with, ``(N_FEATURES,)``."""
    parts = [torch.full((FEATURES[stride][1],), factor) for stride, factor in FEATURE_SCALES.items()]
    return torch.cat([*parts, torch.ones(3)])


def checkpoint_weights(layout: LayoutNet, fields: FieldsNet) -> dict[str, Tensor]:
    """Weights of both networks as a checkpoint holds them.

    The standardisation of the features and their scales are folded into the head's first convolution.
    """
    state = {f"layout.{name}": value for name, value in layout.state_dict().items()}
    mean, deviation = state.pop("layout.mean"), state.pop("layout.deviation")
    weight = state["layout.enter.weight"]
    state["layout.enter.bias"] = state["layout.enter.bias"] - weight[:, :, 0, 0] @ (mean / deviation)
    state["layout.enter.weight"] = weight * (_feature_scales() / deviation)[None, :, None, None]
    return state | {f"fields.{name}": value for name, value in fields.state_dict().items()}
