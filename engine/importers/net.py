"""A generator that was trained elsewhere, as its file describes it, and what it computes.

The readers (`engine.importers.torch`, `engine.importers.keras`) fill a `ImportedNet`; `evaluate` is the
slow reference, written from the layers alone; `ImportedNet.config` and `ImportedNet.weights` are what
`engine.graphs.export` takes.  `engine.importers.check` binds the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from engine.errors import ModelError

__all__ = ["ImportedNet", "Layer", "Norm", "evaluate"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Norm:
    """Instance norm, or where `mean` and `variance` are given the batch norm of a trained net."""

    gamma: F32
    beta: F32
    mean: F32 | None = None
    variance: F32 | None = None
    eps: float = 1e-5
    """Added to the variance."""
    eps_outside: float = 0.0
    """Added to the deviation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A convolution with what stands before and behind it."""

    weight: F32
    """``(out, in, k, k)``; transposed ``(in, out, k, k)``."""
    bias: F32 | None
    norm: Norm | None
    pad: Literal["reflect", "zero", "same"]
    stride: int = 1
    transposed: bool = False
    doubled: bool = False
    """The input is first enlarged x2, nearest neighbour."""

    @property
    def channels(self) -> tuple[int, int]:
        """Of what goes in and what comes out."""
        first, second = self.weight.shape[:2]
        return (first, second) if self.transposed else (second, first)


@dataclass(frozen=True, kw_only=True, eq=False)
class ImportedNet:
    """A ResNet generator: stem, down, residual blocks, up, head."""

    kind: str
    """Where it comes from, in words."""
    stem: Layer
    down: tuple[Layer, ...]
    blocks: tuple[tuple[Layer, Layer], ...]
    up: tuple[Layer, ...]
    head: Layer
    notes: tuple[str, ...] = ()
    """What had to be assumed."""

    def __post_init__(self) -> None:
        if not self.down or len(self.down) != len(self.up):
            raise ModelError(f"{len(self.down)} halvings but {len(self.up)} doublings: this is no CycleGAN generator")
        for name, layer in (*self.normed(), ("head", self.head)):
            _check_arrays(name, layer)
        ends = self.stem.channels[0], self.head.channels[1]
        if ends != (3, 3):
            raise ModelError(f"a generator takes and gives RGB, this one has {ends[0]} channels in and {ends[1]} out")
        before, ngf = 3, self.stem.channels[1]
        widths = [ngf, *(ngf * 2 ** (i + 1) for i in range(len(self.down)))]
        widths += [widths[-1]] * (2 * len(self.blocks)) + widths[-2::-1]
        for (name, layer), width in zip((*self.normed(), ("head", self.head)), (*widths, 3), strict=True):
            if layer.channels != (before, width):
                found = " to ".join(map(str, layer.channels))
                raise ModelError(
                    f"{name} leads from {found} channels, expected {before} to {width}: is a layer missing?"
                )
            before = width

    def normed(self) -> Iterator[tuple[str, Layer]]:
        """Every layer but the head, with its name in a `cyclegan` checkpoint."""
        yield "stem", self.stem
        yield from ((f"down.{i}", layer) for i, layer in enumerate(self.down))
        for i, block in enumerate(self.blocks):
            yield from ((f"blocks.{i}.{j}", layer) for j, layer in enumerate(block))
        yield from ((f"up.{i}", layer) for i, layer in enumerate(self.up))

    def config(self, look: str) -> dict[str, Any]:
        """Config of `engine.program.cyclegan`."""
        norms = [layer.norm for _, layer in self.normed()]
        kinds = {"no" if norm is None else "instance" if norm.mean is None else "batch" for norm in norms}
        if len(kinds) > 1:
            raise ModelError(
                f"some layers have {' norm, some '.join(sorted(kinds))} norm: this mixture is not supported"
            )
        return {
            "architecture": "cyclegan",
            "ngf": int(self.stem.weight.shape[0]),
            "n_blocks": len(self.blocks),
            "n_downsampling": len(self.down),
            "upsample": "transposed" if self.up[0].transposed else "resize",
            "norm": "instance" if kinds == {"instance"} else "affine",
            "eps": norms[0].eps if norms[0] is not None else 1e-5,
            "eps_outside": norms[0].eps_outside if norms[0] is not None else 0.0,
            "pads": {
                "down": self.down[0].pad,
                "block": self.blocks[0][0].pad if self.blocks else "reflect",
                "up": self.up[0].pad,
            },
            "looks": [look],
        }

    def weights(self) -> dict[str, F32]:
        """Parameters by the names of `engine.program.cyclegan`, float32.

        Instance norm takes a bias before it out again, so it is left out; a fixed norm becomes a
        scale and shift that hold the bias.
        """
        result: dict[str, F32] = {}
        for name, layer in self.normed():
            channels = layer.weight.shape[1 if layer.transposed else 0]
            gamma, beta = np.ones(channels), np.zeros(channels)
            if layer.norm is not None:
                gamma, beta = layer.norm.gamma.astype(np.float64), layer.norm.beta.astype(np.float64)
                if layer.norm.mean is not None and layer.norm.variance is not None:
                    gamma = gamma / _deviation(layer.norm, layer.norm.variance.astype(np.float64))
                    beta = beta - layer.norm.mean * gamma
            if layer.bias is not None and (layer.norm is None or layer.norm.mean is not None):
                beta = beta + layer.bias * gamma
            result[f"{name}.conv.weight"] = np.ascontiguousarray(layer.weight, np.float32)
            result[f"{name}.norm.gamma"] = gamma[None].astype(np.float32)
            result[f"{name}.norm.beta"] = beta[None].astype(np.float32)
        result["head.weight"] = np.ascontiguousarray(self.head.weight, np.float32)
        bias = self.head.bias if self.head.bias is not None else np.zeros(3)
        result["head.bias"] = np.asarray(bias, np.float32)
        return result


def _check_arrays(name: str, layer: Layer) -> None:
    """ModelError where the arrays of a layer do not fit each other."""
    shape = layer.weight.shape
    if len(shape) != 4 or shape[2] != shape[3]:
        raise ModelError(f"{name} has a weight of shape {shape}: this is no convolution of a CycleGAN generator")
    arrays: dict[str, F32 | None] = {"bias": layer.bias}
    if (norm := layer.norm) is not None:
        if (norm.mean is None) != (norm.variance is None):
            raise ModelError(f"{name} has a norm with half of its statistics: the file is damaged")
        arrays |= {"gamma": norm.gamma, "beta": norm.beta, "mean": norm.mean, "variance": norm.variance}
    for key, array in arrays.items():
        if array is not None and array.shape != (layer.channels[1],):
            raise ModelError(f"{name} has {layer.channels[1]} channels, its {key} has the shape {array.shape}")


def evaluate(net: ImportedNet, x: F64) -> F64:
    """The net's own arithmetic, layer by layer in float64: ``(3, H, W)`` in -1..1 to the same.

    H and W are multiples of ``2 ** len(net.down)``.
    """
    x = np.maximum(_apply(net.stem, x), 0)
    for layer in net.down:
        x = np.maximum(_apply(layer, x), 0)
    for first, second in net.blocks:
        x = x + _apply(second, np.maximum(_apply(first, x), 0))
    for layer in net.up:
        x = np.maximum(_apply(layer, x), 0)
    return np.asarray(np.tanh(_apply(net.head, x)))


def _apply(layer: Layer, x: F64) -> F64:
    if layer.doubled:
        x = x.repeat(2, axis=1).repeat(2, axis=2)
    y = _transposed(layer, x) if layer.transposed else _convolved(layer, x)
    if layer.bias is not None:
        y = y + layer.bias.astype(np.float64)[:, None, None]
    if layer.norm is None:
        return y
    norm = layer.norm
    mean = y.mean((1, 2)) if norm.mean is None else norm.mean.astype(np.float64)
    variance = y.var((1, 2)) if norm.variance is None else norm.variance.astype(np.float64)
    scale = norm.gamma / _deviation(norm, variance)
    return np.asarray((y - mean[:, None, None]) * scale[:, None, None] + norm.beta[:, None, None])


def _deviation(norm: Norm, variance: F64) -> F64:
    return np.asarray(np.sqrt(variance + norm.eps) + norm.eps_outside)


def _convolved(layer: Layer, x: F64) -> F64:
    kernel, stride = layer.weight.shape[2], layer.stride
    before = after = kernel // 2
    if layer.pad == "same":  # as little as keeps ceil(size / stride), the smaller half first
        before, after = (kernel - stride) // 2, kernel - stride - (kernel - stride) // 2
    width = ((0, 0), (before, after), (before, after))
    x = np.pad(x, width, mode="reflect") if layer.pad == "reflect" else np.pad(x, width)
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
    return np.tensordot(layer.weight.astype(np.float64), windows, axes=((1, 2, 3), (0, 3, 4)))


def _transposed(layer: Layer, x: F64) -> F64:
    """Every input pixel adds its kernel, `stride` pixels apart; cut to `stride` times the size."""
    kernel, stride = layer.weight.shape[2], layer.stride
    height, width = x.shape[1:]
    start = 0 if layer.pad == "same" else kernel // 2
    room = start + stride  # more than the last kernel needs
    whole = np.zeros(
        (layer.weight.shape[1], (height - 1) * stride + kernel + room, (width - 1) * stride + kernel + room)
    )
    for i in range(kernel):
        for j in range(kernel):
            part = np.tensordot(layer.weight[:, :, i, j].astype(np.float64), x, axes=((0,), (0,)))
            whole[:, i : i + stride * height : stride, j : j + stride * width : stride] += part
    return whole[:, start : start + stride * height, start : start + stride * width]
