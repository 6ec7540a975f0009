"""Projected discriminators: small heads on pretrained features (Sauer et al. 2021, arXiv 2111.01007).

A frozen trunk sees the image; its features at several strides pass through fixed random 1x1 convolutions,
which mix the channels so that no head can rest on a few of them, and a small head at each stride learns to
tell art from fakes.  Real and fake images are to be augmented differentiably before they come here
(`training.losses.diff_augment`, Zhao et al. 2020, arXiv 2006.10738).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from training.generator.trunk import FEATURES, Trunk

__all__ = ["STRIDES", "ProjectedDiscriminator"]

STRIDES = (4, 8, 16)
"""Where the features are taken unless told otherwise; 32 can be added."""
SCORE_STRIDE = 32
"""Pixels from one score of a head to the next."""


class ProjectedDiscriminator(nn.Module):
    """RGB ``(N, 3, H, W)`` in -1..1 -> a map of scores ``(N, 1, h, w)`` for each stride, the finest first.

    Any size from 32 pixels up; a score stands for about 32 x 32 pixels.  Only the heads are trained: trunk and
    projections take no gradient of their own, and pass it on to the image.

    Args:
        ndf: channels of the projections and the heads.
        strides: strides of the features, of 4, 8, 16 and 32.
        pretrained: take the trunk's ImageNet weights; False is for tests.
    """

    def __init__(self, ndf: int = 64, *, strides: tuple[int, ...] = STRIDES, pretrained: bool = True) -> None:
        super().__init__()
        self.trunk = Trunk(strides=strides, pretrained=pretrained)
        self.projections = nn.ModuleList(nn.Conv2d(FEATURES[s][1], ndf, 1, bias=False) for s in strides)
        for projection in self.projections:
            assert isinstance(projection, nn.Conv2d)
            nn.init.kaiming_normal_(projection.weight, nonlinearity="linear")
            projection.requires_grad_(False)
        self.heads = nn.ModuleList(_head(ndf, s) for s in strides)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The score maps; positive means art."""
        features = self.trunk(x)
        return [head(mix(f)) for f, mix, head in zip(features, self.projections, self.heads, strict=True)]

    def train(self, mode: bool = True) -> ProjectedDiscriminator:
        """As of any module, but the trunk stays in eval mode."""
        super().train(mode)
        self.trunk.eval()
        return self


def _head(ndf: int, stride: int) -> nn.Sequential:
    """Stride-2 convolutions down to `SCORE_STRIDE`, then one score a place; spectral norm bounds their slope."""
    layers: list[nn.Module] = []
    while stride < SCORE_STRIDE:
        layers += [spectral_norm(nn.Conv2d(ndf, ndf, 4, 2, 1)), nn.LeakyReLU(0.2)]
        stride *= 2
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(ndf, 1, 3, 1, 1)))
