"""Writes ONNX graphs node by node, in one precision; what `engine.graphs.export` and its like write with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.program.operations import Op
from engine.program.scaling import weight_powers

__all__ = ["EXACT", "PRECISIONS", "GraphWriter", "Weights"]

OPSET = 18
BF16_OPSET = 22  # the first whose convolutions know bfloat16
PRECISIONS = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
EXACT = "exact_"
"""Begins the names of convolutions that are float32 whatever the graph's precision."""

Weights = Mapping[str, npt.NDArray[Any]]


@dataclass
class GraphWriter:
    """Nodes, initialisers and the type that feature maps have."""

    weights: Weights
    precision: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    powers: dict[str, int] = field(default_factory=dict)
    """Convolution or norm -> k: the convolution's weights are stored times 2^-k; see `engine.program.scaling`."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision, got {self.precision!r}; allowed: {', '.join(PRECISIONS)}")
        self.type = PRECISIONS[self.precision]

    def scale_weights(self, ops: Iterable[Op]) -> None:
        """Choose the powers of two of a float16 graph."""
        if self.type == TensorProto.FLOAT16:
            self.powers = weight_powers(ops, self.weights)

    def power(self, op: Op, x: str, exponent: int = 1) -> str:
        """``x * 2^(k * exponent)`` for the k of a norm's convolution; x is float32."""
        k = self.powers.get(op.weight, 0) * exponent
        return self.node("Mul", [x, self.constant(f"power_{k}", 2.0**k)]) if k else x

    @property
    def opset(self) -> int:
        """Of the graph's precision."""
        return BF16_OPSET if self.type == TensorProto.BFLOAT16 else OPSET

    def node(self, kind: str, inputs: list[str], output: str = "", *, prefix: str = "", **attributes: Any) -> str:
        """Append a node; the name of its output."""
        output = output or f"{prefix}{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        """An initialiser; its name."""
        self.initializers[name] = numpy_helper.from_array(np.asarray(values, dtype), name)
        return name

    def number(self, value: float) -> str:
        """A float32 scalar."""
        return self.constant(f"number_{value}", value)

    def typed_number(self, value: float) -> str:
        """A scalar in the graph's precision."""
        if self.type == TensorProto.FLOAT:
            return self.number(value)
        name = f"typed_{value}"
        self.initializers[name] = helper.make_tensor(name, self.type, [], [value])
        return name

    def parameter(self, name: str, *, fp32: bool = False) -> str:
        """A weight in the graph's precision; float16 storage is widened by a Cast that backends fold."""
        values, target = self.weights[name], TensorProto.FLOAT if fp32 else self.type
        k = 0 if fp32 else self.powers.get(name.rpartition(".")[0], 0)
        key = f"{name}:f" if fp32 else name
        if target == TensorProto.FLOAT and values.dtype == np.float16:
            stored = self.constant(f"{name}:h", values, np.float16)
            return self.node("Cast", [stored], f"{key}_{len(self.nodes)}", to=target)
        if key not in self.initializers:
            flat = np.ldexp(values.astype(np.float32), -k)
            if target == TensorProto.BFLOAT16:
                self.initializers[key] = helper.make_tensor(key, target, flat.shape, flat.ravel())
            else:  # numpy has the other two, and is faster
                dtype = np.float16 if target == TensorProto.FLOAT16 else np.float32
                self.initializers[key] = numpy_helper.from_array(flat.astype(dtype), key)
        return key

    def image_input(self, name: str) -> str:
        """uint8 NHWC 0..255 -> NCHW -1..1 in the graph's precision."""
        return self.cast(self.exact_image_input(name), self.type)

    def exact_image_input(self, name: str) -> str:
        """uint8 NHWC 0..255 -> NCHW -1..1 in float32.

        TensorRT takes uint8 only at the very ends of a network, and casts it to and from float32 and
        float16 alone; and 8 bits of bfloat16 cannot tell all 256 levels apart.  So both ends are float32.
        """
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", "H", "W", 3]))
        x = self.node("Transpose", [self.node("Cast", [name], to=TensorProto.FLOAT)], perm=[0, 3, 1, 2])
        return self.node("Sub", [self.node("Mul", [x, self.number(1 / 127.5)]), self.number(1.0)])

    def cast(self, x: str, target: int) -> str:
        """To `target` from the other of float32 and the graph's precision; nothing where they are one."""
        return x if self.type == TensorProto.FLOAT else self.node("Cast", [x], to=target)

    def image_output(self, name: str, x: str) -> None:
        """NCHW -1..1 in float32 -> uint8 NHWC, rounded and clipped."""
        x = self.node("Add", [self.node("Mul", [x, self.number(127.5)]), self.number(127.5)])
        x = self.node("Round", [x])
        x = self.node("Clip", [x, self.number(0.0), self.number(255.0)])
        x = self.node("Transpose", [x], perm=[0, 2, 3, 1])
        self.node("Cast", [x], name, to=TensorProto.UINT8)
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", "H", "W", 3]))

    def affine(self, op: Op, x: str, scale: str, shift: str) -> str:
        """``x * scale + shift`` for float32 ``(1, c)`` vectors, in the graph's precision."""
        shape = self.constant(f"shape_{op.cout}", [1, op.cout, 1, 1], np.int64)
        parts = [self.cast(self.node("Reshape", [vector, shape]), self.type) for vector in (scale, shift)]
        return self.node("Add", [self.node("Mul", [x, parts[0]]), parts[1]])

    def vector_input(self, name: str, length: int) -> None:
        """A float32 input ``(1, length)``."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, length]))

    def model(self, name: str) -> onnx.ModelProto:
        """The whole graph under a name."""
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, list(self.initializers.values()))
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="firewatch")
        model.ir_version = 10 if self.opset > 20 else 9
        return model
