"""The operations of generators that were trained elsewhere: architecture ``cyclegan``.

The ResNet generator of Zhu et al. 2017 (arXiv 1703.10593) as other programs wrote it down.  They
differ in how they pad, and in what they normalise with; the config says which:

``ngf``, ``n_blocks``, ``n_downsampling``
    width of the first layer, residual blocks, halvings of the size.
``upsample``
    ``transposed``, or ``resize``: nearest neighbour, then a convolution.
``norm``
    ``instance``; or ``affine``, a scale and shift that were fixed in training (batch norm).
``eps``, ``eps_outside``
    what instance norm adds to the variance, and to its square root.
``pads``
    of ``down``, ``block`` and ``up``: ``reflect``, ``zero`` (as much on all sides), or ``same``
    (zeros, TensorFlow's way: with stride 2 only below and to the right).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import ModelError
from engine.program.operations import OperationList

__all__ = ["PADS", "cyclegan_operations"]

PADS = ("reflect", "zero", "same")


def cyclegan_operations(config: Mapping[str, Any]) -> OperationList:
    """The operations of a `cyclegan` config; ModelError for a kind of padding that does not exist."""
    pads = {group: str(config["pads"][group]) for group in ("down", "block", "up")}
    if unknown := set(pads.values()) - set(PADS):
        raise ModelError(f"unknown padding {', '.join(sorted(unknown))}; this version knows {', '.join(PADS)}")
    b = _CycleGan(
        instance=config["norm"] == "instance", eps=float(config["eps"]), eps_outside=float(config["eps_outside"])
    )
    depth = int(config["n_downsampling"])
    widths = [int(config["ngf"]) * 2**i for i in range(depth + 1)]
    x = b.layer("x", "stem", 3, widths[0], kernel=7, pad="reflect")
    for i in range(depth):
        x = b.layer(x, f"down.{i}", widths[i], widths[i + 1], stride=2, pad=pads["down"])
    for i in range(int(config["n_blocks"])):
        x = b.residual(x, f"blocks.{i}", widths[-1], pads["block"])
    for i in range(depth):
        x = b.up(x, f"up.{i}", widths[depth - i], widths[depth - i - 1], str(config["upsample"]), pads["up"])
    b.add("tanh", b.add("conv", x, weight="head", cin=widths[0], cout=3, kernel=7, pad=3))
    return b


class _CycleGan(OperationList):
    """Layers of convolution, norm and ReLU; biases are part of the norm's shift."""

    def __init__(self, **norm: Any) -> None:
        super().__init__()
        self.norm_values = norm

    def layer(
        self, x: str, prefix: str, cin: int, cout: int, *, kernel: int = 3, stride: int = 1, pad: str, relu: bool = True
    ) -> str:
        """Pad, convolve, normalise; a ReLU unless told otherwise."""
        same = pad == "same"
        x = self.add(
            "conv",
            x,
            weight=f"{prefix}.conv",
            cin=cin,
            cout=cout,
            kernel=kernel,
            stride=stride,
            pad=(kernel - stride) // 2 if same else kernel // 2,
            pad_end=kernel - stride - (kernel - stride) // 2 if same else None,
            pad_mode="reflect" if pad == "reflect" else "constant",
            bias=False,
        )
        return self.normed(x, f"{prefix}.norm", cout, relu=relu)

    def normed(self, x: str, weight: str, channels: int, *, relu: bool = True) -> str:
        x = self.add("norm", x, weight=weight, cout=channels, offset=self.channels, **self.norm_values)
        self.channels += channels
        return self.add("relu", x) if relu else x

    def residual(self, x: str, prefix: str, channels: int, pad: str) -> str:
        y = self.layer(x, f"{prefix}.0", channels, channels, pad=pad)
        return self.add("add", x, self.layer(y, f"{prefix}.1", channels, channels, pad=pad, relu=False))

    def up(self, x: str, prefix: str, cin: int, cout: int, mode: str, pad: str) -> str:
        """Twice the height and width."""
        if mode == "resize":
            return self.layer(self.add("upsample", x, stride=2), prefix, cin, cout, pad=pad)
        same = pad == "same"
        x = self.add(
            "conv_transpose",
            x,
            weight=f"{prefix}.conv",
            cin=cin,
            cout=cout,
            kernel=3,
            stride=2,
            pad=0 if same else 1,
            pad_end=1 if same else None,
            bias=False,
        )
        return self.normed(x, f"{prefix}.norm", cout)
