"""From a checkpoint to the ONNX pair: probe and render.

The graphs are written operation by operation from `engine.architecture.Program`, so that every
tensor's type is chosen here: weights and feature maps in the precision asked for, statistics always
in float32 (their squares overflow float16), uint8 NHWC at both ends.  TensorRT builds them as
strongly typed networks as they are.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.architecture import Op, Program
from engine.errors import ModelError
from engine.spec import ModelSpec, sha256

__all__ = ["Weights", "export_model", "probe_graph", "read_checkpoint", "render_graph"]

OPSET = 18
NORM_EPS = 1e-5
CHECKPOINT_FORMAT = "firewatch-generator-1"
PRECISIONS = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}

Weights = Mapping[str, npt.NDArray[Any]]


def read_checkpoint(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Weights (float32) and generator config of a safetensors checkpoint.

    Raises ModelError when the file is unreadable, foreign, or does not fit its own config.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read as safetensors ({error})") from error
    if metadata.get("format") != CHECKPOINT_FORMAT:
        raise ModelError(f"{path} was not written by train-generator: it lacks the {CHECKPOINT_FORMAT} metadata")
    config = json.loads(metadata["config"])
    expected = Program.of(config).parameters(len(config["looks"]))
    for name, shape in expected.items():
        if name not in weights or weights[name].shape != shape:
            found = weights[name].shape if name in weights else "nothing"
            raise ModelError(f"{path} does not fit its config: {name} should be {shape}, found {found}")
    return weights, config


def export_model(checkpoint: Path, folder: Path, *, name: str | None = None) -> ModelSpec:
    """Write a model folder: generator.safetensors, probe.onnx, render.onnx, spec.json.

    Weights are stored in float16; the graphs compute in float32.  The three files hold the same
    numbers, so every backend renders the same picture.
    """
    from safetensors.numpy import save_file

    weights, config = read_checkpoint(checkpoint)
    rounded = {k: v.astype(np.float16) for k, v in weights.items()}
    if not all(np.isfinite(v).all() for v in rounded.values()):
        raise ModelError(f"{checkpoint} holds weights beyond the range of float16: train with --clip, or shorter")
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": CHECKPOINT_FORMAT, "config": json.dumps(config)}
    save_file(rounded, folder / "generator.safetensors", metadata=metadata)
    spec = ModelSpec(name=name or folder.name, config=config, looks=tuple(config["looks"]))
    _save(render_graph(spec, rounded), folder / "render.onnx")
    _save(probe_graph(spec, rounded), folder / "probe.onnx")
    files = ("generator.safetensors", "probe.onnx", "render.onnx")
    spec = dataclasses.replace(spec, hashes={f: sha256(folder / f) for f in files})
    spec.save(folder)
    return spec


def _save(model: onnx.ModelProto, path: Path) -> None:
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def render_graph(spec: ModelSpec, weights: Weights, *, precision: str = "fp32") -> onnx.ModelProto:
    """``tiles, scale, shift -> output``; see `engine.spec`."""
    g = _Graph(weights, precision)
    g.vector_input("scale", spec.norm_channels)
    g.vector_input("shift", spec.norm_channels)
    names = {"x": g.image_input("tiles")}
    for op in spec.program.ops:
        names[op.output] = _external_norm(g, op, names) if op.kind == "norm" else _emit(g, op, names)
    g.image_output("output", names[spec.program.ops[-1].output])
    return g.model(f"{spec.name}-render")


def probe_graph(spec: ModelSpec, weights: Weights, *, precision: str = "fp32") -> onnx.ModelProto:
    """``view, look -> scale, shift``; see `engine.spec`.  Ends at the last normalised layer."""
    g = _Graph(weights, precision)
    g.vector_input("look", len(spec.looks))
    names = {"x": g.image_input("view")}
    ops = spec.program.ops
    last = max((i for i, op in enumerate(ops) if op.kind == "norm" and op.instance), default=-1)
    scales, shifts = [], []
    for i, op in enumerate(ops):
        if op.kind == "norm":
            scale, shift = _statistics(g, op, names)
            scales.append(scale)
            shifts.append(shift)
            names[op.output] = _affine(g, op, names[op.inputs[0]], scale, shift) if i < last else ""
        elif i < last:
            names[op.output] = _emit(g, op, names)
    for name, parts in (("scale", scales), ("shift", shifts)):
        g.node("Concat", parts, name, axis=1)
        g.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, spec.norm_channels]))
    return g.model(f"{spec.name}-probe")


@dataclass
class _Graph:
    """Nodes, initialisers and the type that feature maps have."""

    weights: Weights
    precision: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision, got {self.precision!r}; allowed: {', '.join(PRECISIONS)}")
        self.type = PRECISIONS[self.precision]

    def node(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        self.initializers[name] = numpy_helper.from_array(np.asarray(values, dtype), name)
        return name

    def number(self, value: float) -> str:
        """A scalar of the feature maps' type."""
        name = f"number_{value}"
        if name not in self.initializers:
            self.initializers[name] = helper.make_tensor(name, self.type, [], [value])
        return name

    def parameter(self, name: str, *, fp32: bool = False) -> str:
        """A weight in the graph's precision; float16 storage is widened by a Cast that backends fold."""
        values, target = self.weights[name], TensorProto.FLOAT if fp32 else self.type
        key = f"{name}:f" if fp32 else name
        if target == TensorProto.FLOAT and values.dtype == np.float16:
            stored = self.constant(f"{name}:h", values, np.float16)
            return self.node("Cast", [stored], f"{key}_{len(self.nodes)}", to=target)
        if key not in self.initializers:
            flat = values.astype(np.float32)
            self.initializers[key] = (
                numpy_helper.from_array(flat.astype(np.float16), key)
                if target == TensorProto.FLOAT16
                else helper.make_tensor(key, target, flat.shape, flat.ravel())
            )
        return key

    def image_input(self, name: str) -> str:
        """uint8 NHWC 0..255 -> NCHW -1..1 in the graph's precision."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", "H", "W", 3]))
        x = self.node("Transpose", [name], perm=[0, 3, 1, 2])
        x = self.node("Cast", [x], to=self.type)
        return self.node("Sub", [self.node("Mul", [x, self.number(1 / 127.5)]), self.number(1.0)])

    def image_output(self, name: str, x: str) -> None:
        """NCHW -1..1 -> uint8 NHWC, rounded and clipped."""
        x = self.node("Add", [self.node("Mul", [x, self.number(127.5)]), self.number(127.5)])
        x = self.node("Round", [x])
        x = self.node("Clip", [x, self.number(0.0), self.number(255.0)])
        x = self.node("Cast", [x], to=TensorProto.UINT8)
        self.node("Transpose", [x], name, perm=[0, 2, 3, 1])
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", "H", "W", 3]))

    def vector_input(self, name: str, length: int) -> None:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, length]))

    def model(self, name: str) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, list(self.initializers.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="firewatch")
        model.ir_version = 9
        return model


def _emit(g: _Graph, op: Op, names: Mapping[str, str]) -> str:
    """Any operation but `norm`."""
    x = names[op.inputs[0]]
    if op.kind == "conv":
        return _conv(g, op, x)
    if op.kind == "conv_transpose":
        # output_padding brings the size to exactly twice the input's.
        attributes: dict[str, Any] = {"strides": [op.stride] * 2, "pads": [op.pad] * 4, "output_padding": [1, 1]}
        return g.node("ConvTranspose", [x, *_parameters(g, op)], kernel_shape=[op.kernel] * 2, **attributes)
    if op.kind == "upsample":
        scales = g.constant(f"scales_{op.stride}", [1, 1, op.stride, op.stride])
        mode = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        return g.node("Resize", [x, "", scales], **mode)
    if op.kind == "unshuffle":
        return _unshuffle(g, x, op.stride)
    if op.kind == "shuffle":
        return g.node("DepthToSpace", [x], blocksize=op.stride, mode="CRD")
    if op.kind == "add":
        return g.node("Add", [names[i] for i in op.inputs])
    return g.node({"relu": "Relu", "tanh": "Tanh"}[op.kind], [x])


def _conv(g: _Graph, op: Op, x: str) -> str:
    pads = [0] * 4
    if op.pad and op.pad_mode == "reflect":
        amounts = g.constant(f"pads_{op.pad}", [0, 0, op.pad, op.pad] * 2, np.int64)
        x = g.node("Pad", [x, amounts], mode="reflect")
    elif op.pad:
        pads = [op.pad] * 4
    return g.node(
        "Conv", [x, *_parameters(g, op)], kernel_shape=[op.kernel] * 2, strides=[op.stride] * 2, pads=pads
    )


def _parameters(g: _Graph, op: Op) -> list[str]:
    bias = [g.parameter(f"{op.weight}.bias")] if op.bias else []
    return [g.parameter(f"{op.weight}.weight"), *bias]


def _unshuffle(g: _Graph, x: str, r: int) -> str:
    """torch's pixel_unshuffle: channel c, then row and column within the block.

    ONNX's SpaceToDepth puts the block first, so its channels are put in order by a transpose of
    ``(r * r, 3)`` to ``(3, r * r)``; three image channels are assumed.
    """
    x = g.node("SpaceToDepth", [x], blocksize=r)
    order = np.arange(3 * r * r).reshape(r * r, 3).T.ravel()
    return g.node("Gather", [x, g.constant(f"unshuffle_{r}", order, np.int64)], axis=1)


def _external_norm(g: _Graph, op: Op, names: Mapping[str, str]) -> str:
    """``x * scale[slice] + shift[slice]``: the render side of a normalised layer."""
    starts = g.constant(f"start_{op.offset}", [op.offset], np.int64)
    ends = g.constant(f"end_{op.offset}", [op.offset + op.cout], np.int64)
    axis = g.constant("axis_1", [1], np.int64)
    scale, shift = (g.node("Slice", [name, starts, ends, axis]) for name in ("scale", "shift"))
    return _affine(g, op, names[op.inputs[0]], scale, shift)


def _affine(g: _Graph, op: Op, x: str, scale: str, shift: str) -> str:
    """``x * scale + shift`` for float32 ``(1, c)`` vectors, in the graph's precision."""
    shape = g.constant(f"shape_{op.cout}", [1, op.cout, 1, 1], np.int64)
    parts = []
    for vector in (scale, shift):
        part = g.node("Reshape", [vector, shape])
        parts.append(part if g.type == TensorProto.FLOAT else g.node("Cast", [part], to=g.type))
    return g.node("Add", [g.node("Mul", [x, parts[0]]), parts[1]])


def _statistics(g: _Graph, op: Op, names: Mapping[str, str]) -> tuple[str, str]:
    """Scale and shift ``(1, c)`` of a normalised layer in float32: the probe side."""
    gamma = g.node("MatMul", ["look", g.parameter(f"{op.weight}.gamma", fp32=True)])
    beta = g.node("MatMul", ["look", g.parameter(f"{op.weight}.beta", fp32=True)])
    if not op.instance:
        return gamma, beta
    x = names[op.inputs[0]]
    if g.type != TensorProto.FLOAT:
        x = g.node("Cast", [x], to=TensorProto.FLOAT)
    axes = g.constant("axes_nhw", [0, 2, 3], np.int64)
    mean = g.node("ReduceMean", [x, axes], keepdims=1)
    centred = g.node("Sub", [x, mean])
    variance = g.node("ReduceMean", [g.node("Mul", [centred, centred]), axes], keepdims=1)
    flat = g.constant(f"flat_{op.cout}", [1, op.cout], np.int64)
    deviation = g.node("Sqrt", [g.node("Add", [variance, g.constant("norm_eps", NORM_EPS)])])
    scale = g.node("Div", [gamma, g.node("Reshape", [deviation, flat])])
    shift = g.node("Sub", [beta, g.node("Mul", [g.node("Reshape", [mean, flat]), scale])])
    return scale, shift
