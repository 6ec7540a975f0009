"""A generator as a list of operations: the one description that every backend and exporter reads.

`Program.of(config)` turns the config that travels with a checkpoint into operations over named
tensors.  From them follow the ONNX graphs (`engine.graphs.export`), the torch reference
(`engine.backends.torch`), the receptive field, the size multiple and the FLOP count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from engine.errors import ModelError
from engine.program.cyclegan import cyclegan_operations
from engine.program.layers import layers_operations
from engine.program.operations import Op, OperationList

__all__ = ["Program"]

ARCHITECTURES = ("resnet9", "resnet9-skip", "light", "layers", "cyclegan")


@dataclass(frozen=True, kw_only=True)
class Program:
    """The operations of a generator, from the image ``x`` in -1..1 to its stylization."""

    ops: tuple[Op, ...]
    norm_channels: int
    """Length of the statistics vectors; 0 for `layers`."""
    multiple: int
    """Height and width must be multiples of this."""
    probe_ops: tuple[Op, ...] = ()
    """What the probe computes of the view where that is another network: the last one's output."""
    probe_multiple: int = 0
    """Height and width of the view must be multiples of this; 0: of `multiple`."""

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
            b = cyclegan_operations(config)
            return cls(ops=tuple(b.ops), norm_channels=b.channels, multiple=2 ** int(config["n_downsampling"]))
        if architecture == "layers":
            render, probe = layers_operations(config)
            return cls(ops=render, norm_channels=0, multiple=8, probe_ops=probe, probe_multiple=32)
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
            # What a name stands for that no operation makes is given with every tile, exactly.
            r, j = max(reach.get(i, Fraction(0)) for i in op.inputs), jump[op.inputs[0]]
            if op.kind == "conv":
                r, j = r + max(op.pad, op.dilation * (op.kernel - 1) - op.pad) * j, j * op.stride
            elif op.kind == "conv_transpose":
                r, j = r + (op.kernel // 2) * j, j / op.stride
            elif op.kind in ("unshuffle", "avg_pool", "planes"):
                r, j = r + (op.stride - 1) * j, j * op.stride
            elif op.kind in ("upsample", "shuffle", "shader"):
                if op.kind == "shader":  # bicubic, and the slope
                    r = r + 3 * j
                # The finer pixels of one coarse pixel lie up to a coarse pixel away from its corner.
                j = j / op.stride
                r = r + (op.stride - 1) * j
            reach[op.output], jump[op.output] = r, j
        return int(reach[self.ops[-1].output])

    def flops(self, height: int, width: int) -> int:
        """Floating-point operations of the convolutions of `render` for one image (a multiply-add counts as two)."""
        return sum(2 * macs for macs in self._macs(height, width))

    def _macs(self, height: int, width: int) -> Iterator[int]:
        area: dict[str, Fraction] = {"x": Fraction(height * width)}
        for op in self.ops:
            pixels = area[op.inputs[0]]
            if op.kind == "conv":
                pixels = pixels / op.stride**2
                yield int(pixels * op.cin * op.cout * op.kernel**2 / op.groups)
            elif op.kind == "conv_transpose":
                yield int(pixels * op.cin * op.cout * op.kernel**2)
                pixels = pixels * op.stride**2
            elif op.kind in ("unshuffle", "avg_pool", "planes"):
                pixels = pixels / op.stride**2
            elif op.kind in ("upsample", "shuffle", "shader"):
                pixels = pixels * op.stride**2
            area[op.output] = pixels

    def parameters(self, looks: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter that a checkpoint must hold."""
        shapes: dict[str, tuple[int, ...]] = {}
        for op in (*self.probe_ops, *self.ops):
            if op.kind in ("conv", "conv_transpose"):
                ends = (op.cout, op.cin // op.groups) if op.kind == "conv" else (op.cin, op.cout)
                shapes[f"{op.weight}.weight"] = (*ends, op.kernel, op.kernel)
                if op.bias:
                    shapes[f"{op.weight}.bias"] = (op.cout,)
            elif op.kind == "norm":
                shapes[f"{op.weight}.gamma"] = shapes[f"{op.weight}.beta"] = (looks, op.cout)
        return shapes


def _resnet(*, ngf: int, blocks: int, depth: int, transposed: bool, skip: bool) -> Program:
    b = OperationList()
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
    b = OperationList()
    x = b.add("unshuffle", "x", stride=4)
    kept = x = b.add("relu", b.conv(x, "stem.conv", 48, width, 3))
    for i in range(blocks):
        x = b.block(x, f"blocks.{i}", width)
    x = b.conv(x, "tail.conv", width, width, 3)
    x = b.add("add", b.add("leaky", b.norm(x, "tail.norm", width, instance=False)), kept)
    x = b.add("shuffle", b.conv(x, "head", width, 48, 3), stride=4)
    b.add("tanh", x)
    return Program(ops=tuple(b.ops), norm_channels=b.channels, multiple=4)
