"""From a checkpoint to the ONNX pair: probe and render.

The graphs are written operation by operation from `engine.architecture.Program`, so that every
tensor's type is chosen here: weights and feature maps in the precision asked for, statistics always
in float32 (their squares overflow float16), uint8 NHWC at both ends.  TensorRT builds them as
strongly typed networks as they are.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.architecture import Program
from engine.errors import ModelError
from engine.fold import fold_upsampling, unfold_transposed
from engine.operations import SLOPE, Op
from engine.scaling import weight_powers
from engine.spec import ModelSpec, sha256

__all__ = [
    "GraphWriter",
    "Weights",
    "assert_precision",
    "block_first",
    "export_model",
    "model_weights",
    "probe_graph",
    "read_checkpoint",
    "render_graph",
    "write_probe",
    "write_render",
]

OPSET = 18
BF16_OPSET = 22  # the first whose convolutions know bfloat16
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


def model_weights(folder: Path, purpose: str) -> Weights:
    """Weights of a model folder; ModelError, with the purpose, for a model that came as its ONNX pair alone."""
    checkpoint = folder / "generator.safetensors"
    if not checkpoint.is_file():
        raise ModelError(
            f"{checkpoint} is missing: {purpose} from the weights; "
            "import the checkpoint instead of its ONNX pair, or use --backend openvino"
        )
    return read_checkpoint(checkpoint)[0]


def export_model(checkpoint: Path, folder: Path, *, name: str | None = None, default_look: str = "") -> ModelSpec:
    """Write a model folder: generator.safetensors, probe.onnx, render.onnx, spec.json.

    Raises ModelError for a checkpoint that cannot be read or does not fit float16, ValueError for a
    `default_look` that it does not have.

    Weights are stored in float16; the graphs compute in float32.  The three files hold the same
    numbers, so every backend renders the same picture.
    """
    from safetensors.numpy import save_file

    weights, config = read_checkpoint(checkpoint)
    with np.errstate(over="ignore"):
        rounded = {k: v.astype(np.float16) for k, v in weights.items()}
    if not all(np.isfinite(v).all() for v in rounded.values()):
        raise ModelError(f"{checkpoint} holds weights beyond the range of float16: train with --clip, or shorter")
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": CHECKPOINT_FORMAT, "config": json.dumps(config)}
    save_file(rounded, folder / "generator.safetensors", metadata=metadata)
    spec = ModelSpec(name=name or folder.name, config=config, looks=tuple(config["looks"]), default_look=default_look)
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
    ops, weights = _enlarging(spec, weights, precision)
    return write_render(GraphWriter(block_first(ops, weights), precision), spec, ops)


def _enlarging(spec: ModelSpec, weights: Weights, precision: str) -> tuple[Sequence[Op], Weights]:
    """Operations and weights as a precision has them: TensorRT builds no transposed convolutions in bf16."""
    rewrite = unfold_transposed if precision == "bf16" else fold_upsampling
    return rewrite(spec.program.ops, weights)


def write_render(g: GraphWriter, spec: ModelSpec, ops: Sequence[Op]) -> onnx.ModelProto:
    """The render graph of a model, of operations that lead to the same picture as its program's."""
    g.vector_input("scale", spec.norm_channels)
    g.vector_input("shift", spec.norm_channels)
    g.scale_weights(ops)
    names = {"x": g.image_input("tiles")}
    for op in ops:
        names[op.output] = _external_norm(g, op, names) if op.kind == "norm" else _emit(g, op, names)
    g.image_output("output", names[ops[-1].output])
    return g.model(f"{spec.name}-render")


def probe_graph(spec: ModelSpec, weights: Weights, *, precision: str = "fp32") -> onnx.ModelProto:
    """``view, look -> scale, shift``; see `engine.spec`.  Ends at the last normalised layer."""
    ops, weights = _enlarging(spec, weights, precision)
    return write_probe(GraphWriter(block_first(ops, weights), precision), spec, ops)


def write_probe(g: GraphWriter, spec: ModelSpec, ops: Sequence[Op]) -> onnx.ModelProto:
    """The probe graph of a model, of operations that lead to the same feature maps as its program's."""
    g.vector_input("look", len(spec.looks))
    g.scale_weights(ops)
    names = {"x": g.image_input("view")}
    last = max((i for i, op in enumerate(ops) if op.kind == "norm" and op.instance), default=-1)
    scales, shifts = [], []
    for i, op in enumerate(ops):
        if op.kind == "norm":
            scale, shift = _statistics(g, op, names)
            scales.append(scale)
            shifts.append(shift)
            names[op.output] = g.affine(op, names[op.inputs[0]], g.power(op, scale), shift) if i < last else ""
        elif i < last:
            names[op.output] = _emit(g, op, names)
    for name, parts in (("scale", scales), ("shift", shifts)):
        g.node("Concat", parts, name, axis=1)
        g.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, spec.norm_channels]))
    return g.model(f"{spec.name}-probe")


def assert_precision(model: onnx.ModelProto, precision: str) -> None:
    """ModelError unless every convolution's weights have the type of the precision.

    A strongly typed network computes in the types of its graph, whatever the builder is told.
    """
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose") and types.get(node.input[1]) != PRECISIONS[precision]:
            raise ModelError(f"{node.name} of {model.graph.name} is not {precision}: export the checkpoint again")


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
    """Convolution or norm -> k: the convolution's weights are stored times 2^-k; see `engine.scaling`."""

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

    def node(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Append a node; the name of its output."""
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        """An initialiser; its name."""
        self.initializers[name] = numpy_helper.from_array(np.asarray(values, dtype), name)
        return name

    def number(self, value: float) -> str:
        """A float32 scalar."""
        return self.constant(f"number_{value}", value)

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
        """uint8 NHWC 0..255 -> NCHW -1..1 in the graph's precision.

        TensorRT takes uint8 only at the very ends of a network, and casts it to and from float32 and
        float16 alone; and 8 bits of bfloat16 cannot tell all 256 levels apart.  So both ends are float32.
        """
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", "H", "W", 3]))
        x = self.node("Transpose", [self.node("Cast", [name], to=TensorProto.FLOAT)], perm=[0, 3, 1, 2])
        x = self.node("Sub", [self.node("Mul", [x, self.number(1 / 127.5)]), self.number(1.0)])
        return self.cast(x, self.type)

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
        opset = BF16_OPSET if self.type == TensorProto.BFLOAT16 else OPSET
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="firewatch")
        model.ir_version = 10 if opset > 20 else 9
        return model


def _emit(g: GraphWriter, op: Op, names: Mapping[str, str]) -> str:
    """Any operation but `norm`."""
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
    }
    return emitters[op.kind]()


def _conv(g: GraphWriter, op: Op, x: str) -> str:
    pads = [0] * 4
    if op.pad and op.pad_mode == "reflect":
        amounts = g.constant(f"pads_{op.pad}", [0, 0, op.pad, op.pad] * 2, np.int64)
        x = g.node("Pad", [x, amounts], mode="reflect")
    else:
        before, after = op.pads
        pads = [before, before, after, after]
    return g.node("Conv", [x, *_parameters(g, op)], kernel_shape=[op.kernel] * 2, strides=[op.stride] * 2, pads=pads)


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


def block_first(ops: Iterable[Op], weights: Weights) -> Weights:
    """Weights for feature maps that come from SpaceToDepth instead of torch's pixel_unshuffle.

    torch orders the channels by image channel, then place in the block; ONNX the other way round.  The
    convolution behind takes the difference up: a Gather in between would cost time, and OpenVINO 2026.4
    gets it wrong when it fuses it.
    """
    unshuffled = {op.output: op.stride**2 for op in ops if op.kind == "unshuffle"}
    result = dict(weights)
    for op in ops:
        if op.kind == "conv" and op.inputs[0] in unshuffled:
            places = unshuffled[op.inputs[0]]
            w = weights[f"{op.weight}.weight"]
            split = w.reshape(op.cout, op.cin // places, places, op.kernel, op.kernel)
            result[f"{op.weight}.weight"] = np.ascontiguousarray(split.swapaxes(1, 2)).reshape(w.shape)
    return result


def _external_norm(g: GraphWriter, op: Op, names: Mapping[str, str]) -> str:
    """``x * scale[slice] + shift[slice]``: the render side of a normalised layer."""
    starts = g.constant(f"start_{op.offset}", [op.offset], np.int64)
    ends = g.constant(f"end_{op.offset}", [op.offset + op.cout], np.int64)
    axis = g.constant("axis_1", [1], np.int64)
    scale, shift = (g.node("Slice", [name, starts, ends, axis]) for name in ("scale", "shift"))
    scale = g.power(op, scale)
    return g.affine(op, names[op.inputs[0]], scale, shift)


def _of_look(g: GraphWriter, name: str) -> str:
    """``look @ parameter``, ``(1, c)``, written as a sum: TensorRT-RTX has no float32 matrix product on Turing."""
    column = g.node("Transpose", ["look"], perm=[1, 0])
    weighted = g.node("Mul", [column, g.parameter(name, fp32=True)])
    return g.node("ReduceSum", [weighted, g.constant("axes_looks", [0], np.int64)], keepdims=1)


def _statistics(g: GraphWriter, op: Op, names: Mapping[str, str]) -> tuple[str, str]:
    """Scale and shift ``(1, c)`` of a normalised layer in float32: the probe side."""
    gamma, beta = (_of_look(g, f"{op.weight}.{part}") for part in ("gamma", "beta"))
    if not op.instance:
        return gamma, beta
    x = names[op.inputs[0]]
    if g.type != TensorProto.FLOAT:
        x = g.node("Cast", [x], to=TensorProto.FLOAT)
    axes = g.constant("axes_nhw", [0, 2, 3], np.int64)
    mean = g.node("ReduceMean", [x, axes], keepdims=1)
    centred = g.node("Sub", [x, mean])
    variance = g.power(op, g.node("ReduceMean", [g.node("Mul", [centred, centred]), axes], keepdims=1), 2)
    mean = g.power(op, mean)
    flat = g.constant(f"flat_{op.cout}", [1, op.cout], np.int64)
    deviation = g.node("Sqrt", [g.node("Add", [variance, g.number(op.eps)])])
    if op.eps_outside:
        deviation = g.node("Add", [deviation, g.number(op.eps_outside)])
    scale = g.node("Div", [gamma, g.node("Reshape", [deviation, flat])])
    shift = g.node("Sub", [beta, g.node("Mul", [g.node("Reshape", [mean, flat]), scale])])
    return scale, shift
