"""Generators and discriminators of the CycleGAN (Zhu et al. 2017, arXiv 1703.10593).

Images are float ``(N, 3, H, W)`` in -1..1.  ``look`` is float ``(N, K)``: one weight per look of the
generator, each row summing to one; a mixed row gives a mixed look.

The parameter names are a file format: `engine.program.architecture` reads checkpoints by them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.generator.config import GeneratorConfig

__all__ = [
    "GeneratorConfig",
    "LightGenerator",
    "LookAffine",
    "LookNorm",
    "MultiScaleDiscriminator",
    "PatchDiscriminator",
    "ResnetGenerator",
    "build_generator",
    "init_generator",
    "init_weights",
    "set_views_first",
]

NORM_EPS = 1e-5
SLOPE = 0.2
"""Of the leaky ReLU behind layers without instance norm."""


class LookNorm(nn.Module):
    """Instance norm whose scale and shift are chosen by the look.

    Conditional instance normalization, Dumoulin et al. 2017 (arXiv 1610.07629).  With one look it is
    the affine instance norm of Ulyanov et al. 2016.

    With `views_first`, in training only, the batch is N views of whole pictures and then a crop of each:
    a crop takes the statistics of its view, as the tiles of a picture take those of the probe.
    """

    def __init__(self, channels: int, looks: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(looks, channels))
        self.beta = nn.Parameter(torch.zeros(looks, channels))
        self.views_first = False

    def forward(self, x: Tensor, look: Tensor) -> Tensor:
        """Normalise ``(N, C, H, W)``, then scale and shift as `look` ``(N, K)`` says."""
        seen = x[: len(x) // 2] if self.views_first and self.training else x
        # Statistics in float32 whatever autocast says: their squares overflow float16.
        variance, mean = torch.var_mean(seen.float(), dim=(2, 3), correction=0)
        if len(seen) < len(x):
            variance, mean = variance.repeat(2, 1), mean.repeat(2, 1)
        scale = (look @ self.gamma.float()) * torch.rsqrt(variance + NORM_EPS)
        shift = (look @ self.beta.float()) - mean * scale
        return x * scale[:, :, None, None].to(x.dtype) + shift[:, :, None, None].to(x.dtype)


class LookAffine(nn.Module):
    """Scale and shift chosen by the look, without normalisation."""

    def __init__(self, channels: int, looks: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(looks, channels))
        self.beta = nn.Parameter(torch.zeros(looks, channels))

    def forward(self, x: Tensor, look: Tensor) -> Tensor:
        """Scale and shift ``(N, C, H, W)`` as `look` ``(N, K)`` says."""
        scale, shift = look @ self.gamma.float(), look @ self.beta.float()
        return x * scale[:, :, None, None].to(x.dtype) + shift[:, :, None, None].to(x.dtype)


class Convolution(nn.Module):
    """Reflection pad, convolution, norm, ReLU: the c7s1-k and dk of the paper."""

    def __init__(
        self, cin: int, cout: int, kernel: int, stride: int, norm: nn.Module | None, slope: float = 0.0
    ) -> None:
        super().__init__()
        self.pad = kernel // 2
        # A bias in front of instance norm is taken out again by the mean.
        self.conv = nn.Conv2d(cin, cout, kernel, stride, bias=not isinstance(norm, LookNorm))
        self.norm = norm
        self.slope = slope

    def forward(self, x: Tensor, look: Tensor) -> Tensor:
        x = self.conv(F.pad(x, (self.pad,) * 4, mode="reflect"))
        if self.norm is not None:
            x = self.norm(x, look)
        return F.leaky_relu(x, self.slope)


class Upsampling(nn.Module):
    """x2 in height and width: transposed, or nearest and convolution (Odena et al. 2016)."""

    def __init__(self, cin: int, cout: int, mode: str, norm: nn.Module | None) -> None:
        super().__init__()
        bias = not isinstance(norm, LookNorm)
        self.mode = mode
        self.conv: nn.Module
        if mode == "transposed":
            self.conv = nn.ConvTranspose2d(cin, cout, 3, stride=2, padding=1, output_padding=1, bias=bias)
        else:
            self.conv = nn.Conv2d(cin, cout, 3, bias=bias)
        self.norm = norm
        # Nothing brings a ReLU back that a shift without normalisation has put to sleep.
        self.slope = 0.0 if isinstance(norm, LookNorm) else SLOPE

    def forward(self, x: Tensor, look: Tensor) -> Tensor:
        if self.mode == "resize":
            x = F.pad(F.interpolate(x, scale_factor=2, mode="nearest"), (1,) * 4, mode="reflect")
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x, look)
        return F.leaky_relu(x, self.slope)


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), reflection padded (He et al. 2016)."""

    def __init__(self, channels: int, looks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, bias=False)
        self.norm1 = LookNorm(channels, looks)
        self.conv2 = nn.Conv2d(channels, channels, 3, bias=False)
        self.norm2 = LookNorm(channels, looks)

    def forward(self, x: Tensor, look: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(F.pad(x, (1,) * 4, mode="reflect")), look))
        y = self.norm2(self.conv2(F.pad(y, (1,) * 4, mode="reflect")), look)
        return torch.add(x, y)


class ResnetGenerator(nn.Module):
    """c7s1-32, d64, d128, n x R128, u64, u32, c7s1-3, tanh; with skips in `resnet9-skip`.

    Height and width must be multiples of ``2 ** n_downsampling``.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        looks, skip = len(config.looks), config.architecture == "resnet9-skip"
        widths = [config.ngf * 2**i for i in range(config.n_downsampling + 1)]
        self.skip = skip
        self.stem = Convolution(3, widths[0], 7, 1, None if skip else LookNorm(widths[0], looks))
        self.down = nn.ModuleList(Convolution(a, b, 3, 2, LookNorm(b, looks)) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(ResidualBlock(widths[-1], looks) for _ in range(config.n_blocks))
        self.up = nn.ModuleList(
            Upsampling(a, b, config.upsample, LookAffine(b, looks) if skip else LookNorm(b, looks))
            for a, b in zip(widths[::-1], widths[-2::-1], strict=False)
        )
        self.head = nn.Conv2d(widths[0], 3, 7)

    def forward(self, x: Tensor, look: Tensor | None = None) -> Tensor:
        """Stylize ``(N, 3, H, W)`` in -1..1; without `look` in the first look."""
        look = default_look(x, len(self.config.looks)) if look is None else look
        x = self.stem(x, look)
        kept = [x]
        for layer in self.down:
            x = layer(x, look)
            kept.append(x)
        kept.pop()  # the residual blocks carry the deepest features themselves
        for block in self.blocks:
            x = block(x, look)
        for layer in self.up:
            x = layer(x, look)
            if self.skip:
                x = x + kept.pop()
        return torch.tanh(self.head(F.pad(x, (3,) * 4, mode="reflect")))


class LightGenerator(nn.Module):
    """Pixel unshuffle by 4, residual blocks, pixel shuffle (Shi et al. 2016, arXiv 1609.05158).

    A few per cent of `ResnetGenerator`'s work; height and width must be multiples of 4.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        looks = len(config.looks)
        self.stem = Convolution(48, config.ngf, 3, 1, None)
        self.blocks = nn.ModuleList(ResidualBlock(config.ngf, looks) for _ in range(config.n_blocks))
        self.tail = Convolution(config.ngf, config.ngf, 3, 1, LookAffine(config.ngf, looks), SLOPE)
        self.head = nn.Conv2d(config.ngf, 48, 3)

    def forward(self, x: Tensor, look: Tensor | None = None) -> Tensor:
        """Stylize ``(N, 3, H, W)`` in -1..1; without `look` in the first look."""
        look = default_look(x, len(self.config.looks)) if look is None else look
        x = self.stem(F.pixel_unshuffle(x, 4), look)
        kept = x
        for block in self.blocks:
            x = block(x, look)
        x = self.tail(x, look) + kept
        x = self.head(F.pad(x, (1,) * 4, mode="reflect"))
        return torch.tanh(F.pixel_shuffle(x, 4))


def default_look(x: Tensor, looks: int) -> Tensor:
    """The first look for every image of the batch: ``(N, looks)``."""
    return F.one_hot(torch.zeros(len(x), dtype=torch.long, device=x.device), looks).float()


def build_generator(config: GeneratorConfig) -> ResnetGenerator | LightGenerator:
    """The generator that a config describes, with fresh weights."""
    net = LightGenerator(config) if config.architecture == "light" else ResnetGenerator(config)
    init_generator(net)
    return net


class PatchDiscriminator(nn.Module):
    """70x70 PatchGAN C64-C128-C256-C512 (Isola et al. 2017); no norm on its first layer.

    Returns ``(N, 1, h, w)`` scores, one per patch; `dense` ends in one score per image instead.
    """

    def __init__(self, ndf: int = 64, n_layers: int = 3, dense: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, ndf, 4, 2, 1), nn.LeakyReLU(0.2)]
        width = ndf
        for i in range(1, n_layers + 1):
            wider = ndf * min(2**i, 8)
            stride = 2 if i < n_layers else 1
            layers += [nn.Conv2d(width, wider, 4, stride, 1, bias=False), nn.InstanceNorm2d(wider), nn.LeakyReLU(0.2)]
            width = wider
        self.features = nn.Sequential(*layers)
        self.head: nn.Module = (
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, 1, 1)) if dense else nn.Conv2d(width, 1, 4, 1, 1)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """The score map of ``(N, 3, H, W)``, alone in a list."""
        return [self.head(self.features(x))]


class MultiScaleDiscriminator(nn.Module):
    """The same discriminator at full and half size (pix2pixHD, arXiv 1711.11585); a score map each."""

    def __init__(self, scales: int = 2, **kwargs: Any) -> None:
        super().__init__()
        self.scales = nn.ModuleList(PatchDiscriminator(**kwargs) for _ in range(scales))

    def forward(self, x: Tensor) -> list[Tensor]:
        """One score map per scale, the full size first."""
        scores: list[Tensor] = []
        for i, net in enumerate(self.scales):
            if i:
                x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
            scores += net(x)
        return scores


def set_views_first(net: nn.Module, value: bool) -> None:
    """Whether batches of training are views and then crops of them (see `LookNorm`)."""
    for module in net.modules():
        if isinstance(module, LookNorm):
            module.views_first = value


def init_weights(net: nn.Module, gain: float = 0.02) -> None:
    """Normal(0, gain) convolutions and zero biases, as in the CycleGAN paper."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_generator(net: nn.Module) -> None:
    """He et al. 2015 (arXiv 1502.01852); the parts behind the deepest features start quietly.

    Features of the residual blocks are several times as strong as the skips.  At full strength the
    net first learns to switch them off and ends as its skips alone.  Several looks start apart, so
    that the convolutions can tell them from the first step on.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if name == "head" else "relu")
            if name == "head" or name.startswith(("up.", "tail.")):
                module.weight.data.mul_(0.3)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, LookNorm | LookAffine) and len(module.gamma) > 1:
            nn.init.normal_(module.gamma, 1.0, 0.1)
            nn.init.normal_(module.beta, 0.0, 0.3)
