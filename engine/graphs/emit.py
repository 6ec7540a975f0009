"""Operations as ONNX nodes: all but norms and those that a `layers` model has around its convolutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from engine.graphs.graph_writer import GraphWriter
from engine.program.operations import SLOPE, Op

__all__ = ["emit"]


def emit(g: GraphWriter, op: Op, names: Mapping[str, str]) -> str:
    """Append an operation's nodes; the name of its output."""
    x = names[op.inputs[0]]
    nearest = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    emitters: dict[str, Callable[[], str]] = {
        "conv": lambda: _conv(g, op, x),
        "conv_transpose": lambda: _conv_transpose(g, op, x),
        "upsample": lambda: g.node(
            "Resize", [x, "", g.constant(f"scales_{op.stride}", [1, 1, op.stride, op.stride])], **nearest
        ),
        "unshuffle": lambda: g.node("SpaceToDepth", [x], blocksize=op.stride),
        "shuffle": lambda: g.node("DepthToSpace", [x], blocksize=op.stride, mode="CRD"),
        "add": lambda: g.node("Add", [names[i] for i in op.inputs]),
        "relu": lambda: g.node("Relu", [x]),
        "leaky": lambda: g.node("LeakyRelu", [x], alpha=SLOPE),
        "tanh": lambda: g.node("Tanh", [g.cast(x, TensorProto.FLOAT)]),
        "relu6": lambda: _clip(g, x, 6.0),
        "clip": lambda: _clip(g, x, 1.0),
        "sigmoid": lambda: g.node("Sigmoid", [x]),
        "concat": lambda: g.node("Concat", [names[i] for i in op.inputs], axis=1),
        "slice": lambda: _channels(g, op, x),
        "avg_pool": lambda: g.node("AveragePool", [x], kernel_shape=[op.stride] * 2, strides=[op.stride] * 2),
        "resize": lambda: g.node(
            "Resize",
            [x, "", g.constant(f"scales_{op.stride}", [1, 1, op.stride, op.stride])],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        ),
    }
    return emitters[op.kind]()


def _clip(g: GraphWriter, x: str, most: float) -> str:
    """To 0..most, in the graph's precision."""
    return g.node("Clip", [x, g.typed_number(0.0), g.typed_number(most)])


def _channels(g: GraphWriter, op: Op, x: str) -> str:
    places = [g.constant(f"place_{i}", [i], np.int64) for i in (op.offset, op.offset + op.cout, 1)]
    return g.node("Slice", [x, *places])


def _conv(g: GraphWriter, op: Op, x: str) -> str:
    pads = [0] * 4
    if op.pad and op.pad_mode != "constant":
        amounts = g.constant(f"pads_{op.pad}", [0, 0, op.pad, op.pad] * 2, np.int64)
        x = g.node("Pad", [x, amounts], mode=op.pad_mode)
    else:
        before, after = op.pads
        pads = [before, before, after, after]
    shape: dict[str, Any] = {"kernel_shape": [op.kernel] * 2, "strides": [op.stride] * 2, "pads": pads}
    if op.dilation > 1:
        shape["dilations"] = [op.dilation] * 2
    if op.groups > 1:
        shape["group"] = op.groups
    return g.node("Conv", [x, *_parameters(g, op)], **shape)


def _conv_transpose(g: GraphWriter, op: Op, x: str) -> str:
    before, after = op.pads
    # output_padding brings the size to exactly twice the input's.
    rest = op.stride - op.kernel + before + after
    if op.pad_mode == "edge":
        x = g.node("Pad", [x, g.constant("pads_edge", [0, 0, 1, 1] * 2, np.int64)], mode="edge")
        rest -= 2 * op.stride
    shape: dict[str, Any] = {"kernel_shape": [op.kernel] * 2, "strides": [op.stride] * 2, "output_padding": [rest] * 2}
    return g.node("ConvTranspose", [x, *_parameters(g, op)], pads=[before, before, after, after], **shape)


def _parameters(g: GraphWriter, op: Op) -> list[str]:
    bias = [g.parameter(f"{op.weight}.bias")] if op.bias else []
    return [g.parameter(f"{op.weight}.weight"), *bias]
