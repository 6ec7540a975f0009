"""The operations that a generator is made of, over named tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["SLOPE", "Op", "OperationList"]

Kind = Literal[
    "conv", "conv_transpose", "upsample", "norm", "relu", "leaky", "tanh", "add", "unshuffle", "shuffle",
    "relu6", "sigmoid", "clip", "concat", "slice", "avg_pool", "resize", "planes", "fields", "shader",
]  # fmt: skip
"""`clip` is to 0..1, `resize` bilinear; what the last three do is said in `engine.program.layers`."""

SLOPE = 0.2
"""Of `leaky`, the ReLU behind layers without instance norm."""


@dataclass(frozen=True, kw_only=True)
class Op:
    """One operation; tensors are NCHW."""

    kind: Kind
    inputs: tuple[str, ...]
    output: str
    weight: str = ""
    """Prefix of the parameters: `X.weight` and `X.bias`, or `X.gamma` and `X.beta`."""
    cin: int = 0
    cout: int = 0
    kernel: int = 1
    stride: int = 1
    """Of a convolution; the factor of `upsample`, `unshuffle`, `shuffle`, `avg_pool`, `resize` and `shader`; of
    `planes` what they are shrunk by, of `fields` the same once more."""
    dilation: int = 1
    """Of a convolution."""
    groups: int = 1
    """Of a convolution; `cin` is of all groups together."""
    pad: int = 0
    """Pixels of padding on each side, before a convolution."""
    pad_end: int | None = None
    """The same below and to the right where it differs; of `conv_transpose`, what is cut off there."""
    pad_mode: Literal["reflect", "constant", "edge"] = "reflect"
    """Of `conv_transpose`, `edge` is what `engine.program.fold` makes."""
    bias: bool = True
    instance: bool = True
    """`norm` only: normalise by the statistics of the image; else scale and shift alone."""
    offset: int = 0
    """`norm`: first place in the statistics vectors; it takes `cout` places.  `slice`: first of `cout` channels."""
    eps: float = 1e-5
    """`norm` only: added to the variance."""
    eps_outside: float = 0.0
    """`norm` only: added to the deviation, the square root of that."""

    @property
    def pads(self) -> tuple[int, int]:
        """Padding above and left, and below and right."""
        return self.pad, self.pad if self.pad_end is None else self.pad_end


@dataclass
class OperationList:
    """Collects operations; every method returns the name of the tensor it makes."""

    ops: list[Op] = field(default_factory=list)
    channels: int = 0
    """Places that the norms take in the statistics vectors so far."""

    def add(self, kind: Kind, *inputs: str, **values: Any) -> str:
        """Append an operation with a new tensor as its output."""
        output = f"t{len(self.ops)}"
        self.ops.append(Op(kind=kind, inputs=inputs, output=output, **values))
        return output

    def conv(self, x: str, weight: str, cin: int, cout: int, kernel: int, *, stride: int = 1, bias: bool = True) -> str:
        """A convolution that keeps the size but for its stride."""
        return self.add(
            "conv", x, weight=weight, cin=cin, cout=cout, kernel=kernel, stride=stride, pad=kernel // 2, bias=bias
        )

    def norm(self, x: str, weight: str, channels: int, *, instance: bool = True) -> str:
        """A norm on the next free places of the statistics vectors."""
        x = self.add("norm", x, weight=weight, cout=channels, offset=self.channels, instance=instance)
        self.channels += channels
        return x

    def block(self, x: str, prefix: str, channels: int) -> str:
        """A residual block of two convolutions."""
        y = self.conv(x, f"{prefix}.conv1", channels, channels, 3, bias=False)
        y = self.add("relu", self.norm(y, f"{prefix}.norm1", channels))
        y = self.conv(y, f"{prefix}.conv2", channels, channels, 3, bias=False)
        return self.add("add", x, self.norm(y, f"{prefix}.norm2", channels))
