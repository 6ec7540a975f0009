"""A generator as a list of operations: the one description that every backend and exporter reads.

`Program.of(config)` turns the config that travels with a checkpoint into operations over named
tensors.  From them follow the ONNX graphs (`engine.export`), the torch reference
(`engine.backends.torch`), the receptive field, the size multiple and the FLOP count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from engine.errors import ModelError

__all__ = ["SLOPE", "Op", "Program"]

Kind = Literal["conv", "conv_transpose", "upsample", "norm", "relu", "leaky", "tanh", "add", "unshuffle", "shuffle"]

SLOPE = 0.2
"""Of `leaky`, the ReLU behind layers without instance norm."""

ARCHITECTURES = ("resnet9", "resnet9-skip", "light", "cyclegan")


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
    """Of a convolution; the factor of `upsample`, `unshuffle` and `shuffle`."""
    pad: int = 0
    """Pixels of padding on each side, before a convolution."""
    pad_end: int | None = None
    """The same below and to the right where it differs; of `conv_transpose`, what is cut off there."""
    pad_mode: Literal["reflect", "constant", "edge"] = "reflect"
    """`edge` is of `conv_transpose` alone; see `engine.fold`."""
    bias: bool = True
    instance: bool = True
    """`norm` only: normalise by the statistics of the image; else scale and shift alone."""
    offset: int = 0
    """`norm` only: first place in the statistics vectors; it takes `cout` places."""
    eps: float = 1e-5
    """`norm` only: added to the variance."""
    eps_outside: float = 0.0
    """`norm` only: added to the deviation, the square root of that."""

    @property
    def pads(self) -> tuple[int, int]:
        """Padding above and left, and below and right."""
        return self.pad, self.pad if self.pad_end is None else self.pad_end


@dataclass
class _Builder:
    """Collects operations; every method returns the name of the tensor it makes."""

    ops: list[Op] = field(default_factory=list)
    channels: int = 0

    def add(self, kind: Kind, *inputs: str, **values: Any) -> str:
        output = f"t{len(self.ops)}"
        self.ops.append(Op(kind=kind, inputs=inputs, output=output, **values))
        return output

    def conv(self, x: str, weight: str, cin: int, cout: int, kernel: int, *, stride: int = 1, bias: bool = True) -> str:
        return self.add(
            "conv", x, weight=weight, cin=cin, cout=cout, kernel=kernel, stride=stride, pad=kernel // 2, bias=bias
        )

    def norm(self, x: str, weight: str, channels: int, *, instance: bool = True) -> str:
        x = self.add("norm", x, weight=weight, cout=channels, offset=self.channels, instance=instance)
        self.channels += channels
        return x

    def block(self, x: str, prefix: str, channels: int) -> str:
        y = self.conv(x, f"{prefix}.conv1", channels, channels, 3, bias=False)
        y = self.add("relu", self.norm(y, f"{prefix}.norm1", channels))
        y = self.conv(y, f"{prefix}.conv2", channels, channels, 3, bias=False)
        return self.add("add", x, self.norm(y, f"{prefix}.norm2", channels))


@dataclass(frozen=True, kw_only=True)
class Program:
    """The operations of a generator, from the image ``x`` in -1..1 to its stylization."""

    ops: tuple[Op, ...]
    norm_channels: int
    """Length of the statistics vectors."""
    multiple: int
    """Height and width must be multiples of this."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Program:
        """The program of a generator config (`training.generator.networks.GeneratorConfig.to_dict`).

        Raises ModelError for an architecture that this version does not know.
        """
        architecture = config.get("architecture")
        if architecture not in ARCHITECTURES:
            raise ModelError(f"unknown architecture {architecture!r}; this version knows {', '.join(ARCHITECTURES)}")
        if architecture == "light":
            return _light(int(config["ngf"]), int(config["n_blocks"]))
        if architecture == "cyclegan":
            from engine.cyclegan import foreign_program

            return foreign_program(config)
        return _resnet(
            ngf=int(config["ngf"]),
            blocks=int(config["n_blocks"]),
            depth=int(config.get("n_downsampling", 2)),
            transposed=config.get("upsample", "resize") == "transposed",
            skip=architecture == "resnet9-skip",
        )

    @property
    def radius(self) -> int:
        """Receptive-field radius in pixels: what lies further away cannot change a pixel of `render`."""
        reach: dict[str, Fraction] = {"x": Fraction(0)}
        jump: dict[str, Fraction] = {"x": Fraction(1)}
        for op in self.ops:
            r, j = max(reach[i] for i in op.inputs), jump[op.inputs[0]]
            if op.kind == "conv":
                r, j = r + max(op.pad, op.kernel - 1 - op.pad) * j, j * op.stride
            elif op.kind == "conv_transpose":
                r, j = r + (op.kernel // 2) * j, j / op.stride
            elif op.kind == "unshuffle":
                r, j = r + (op.stride - 1) * j, j * op.stride
            elif op.kind in ("upsample", "shuffle"):
                # The finer pixels of one coarse pixel lie up to a coarse pixel away from its corner.
                j = j / op.stride
                r = r + (op.stride - 1) * j
            reach[op.output], jump[op.output] = r, j
        return int(reach[self.ops[-1].output])

    def flops(self, height: int, width: int) -> int:
        """Floating-point operations of the convolutions for one image (a multiply-add counts as two)."""
        return sum(2 * macs for macs in self._macs(height, width))

    def _macs(self, height: int, width: int) -> Iterator[int]:
        area: dict[str, Fraction] = {"x": Fraction(height * width)}
        for op in self.ops:
            pixels = area[op.inputs[0]]
            if op.kind == "conv":
                pixels = pixels / op.stride**2
                yield int(pixels * op.cin * op.cout * op.kernel**2)
            elif op.kind == "conv_transpose":
                yield int(pixels * op.cin * op.cout * op.kernel**2)
                pixels = pixels * op.stride**2
            elif op.kind == "unshuffle":
                pixels = pixels / op.stride**2
            elif op.kind in ("upsample", "shuffle"):
                pixels = pixels * op.stride**2
            area[op.output] = pixels

    def parameters(self, looks: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter that a checkpoint must hold."""
        shapes: dict[str, tuple[int, ...]] = {}
        for op in self.ops:
            if op.kind in ("conv", "conv_transpose"):
                ends = (op.cout, op.cin) if op.kind == "conv" else (op.cin, op.cout)
                shapes[f"{op.weight}.weight"] = (*ends, op.kernel, op.kernel)
                if op.bias:
                    shapes[f"{op.weight}.bias"] = (op.cout,)
            elif op.kind == "norm":
                shapes[f"{op.weight}.gamma"] = shapes[f"{op.weight}.beta"] = (looks, op.cout)
        return shapes


def _resnet(*, ngf: int, blocks: int, depth: int, transposed: bool, skip: bool) -> Program:
    b = _Builder()
    widths = [ngf * 2**i for i in range(depth + 1)]
    x = b.conv("x", "stem.conv", 3, widths[0], 7, bias=skip)
    x = b.add("relu", x if skip else b.norm(x, "stem.norm", widths[0]))
    kept = [x]
    for i in range(depth):
        x = b.conv(x, f"down.{i}.conv", widths[i], widths[i + 1], 3, stride=2, bias=False)
        x = b.add("relu", b.norm(x, f"down.{i}.norm", widths[i + 1]))
        kept.append(x)
    kept.pop()
    for i in range(blocks):
        x = b.block(x, f"blocks.{i}", widths[-1])
    for i in range(depth):
        cin, cout = widths[depth - i], widths[depth - i - 1]
        if transposed:
            x = b.add(
                "conv_transpose", x, weight=f"up.{i}.conv", cin=cin, cout=cout, kernel=3, stride=2, pad=1, bias=skip
            )
        else:
            x = b.add("upsample", x, stride=2)
            x = b.conv(x, f"up.{i}.conv", cin, cout, 3, bias=skip)
        x = b.add("leaky" if skip else "relu", b.norm(x, f"up.{i}.norm", cout, instance=not skip))
        if skip:
            x = b.add("add", x, kept.pop())
    b.add("tanh", b.conv(x, "head", widths[0], 3, 7))
    return Program(ops=tuple(b.ops), norm_channels=b.channels, multiple=2**depth)


def _light(width: int, blocks: int) -> Program:
    b = _Builder()
    x = b.add("unshuffle", "x", stride=4)
    kept = x = b.add("relu", b.conv(x, "stem.conv", 48, width, 3))
    for i in range(blocks):
        x = b.block(x, f"blocks.{i}", width)
    x = b.conv(x, "tail.conv", width, width, 3)
    x = b.add("add", b.add("leaky", b.norm(x, "tail.norm", width, instance=False)), kept)
    x = b.add("shuffle", b.conv(x, "head", width, 48, 3), stride=4)
    b.add("tanh", x)
    return Program(ops=tuple(b.ops), norm_channels=b.channels, multiple=4)
