"""From a checkpoint to the ONNX pair: probe and render.

The graphs are written operation by operation from `engine.program.architecture.Program`, so that every
tensor's type is chosen here: weights and feature maps in the precision asked for, statistics always
in float32 (their squares overflow float16), uint8 NHWC at both ends.  TensorRT builds them as
strongly typed networks as they are.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from engine.errors import ModelError
from engine.graphs.emit import emit
from engine.graphs.export_layers import render_weights, write_layers_probe, write_layers_render
from engine.graphs.graph_writer import EXACT, PRECISIONS, GraphWriter, Weights
from engine.program.architecture import Program
from engine.program.fold import fold_upsampling, unfold_transposed
from engine.program.operations import Op
from engine.spec import ModelSpec, sha256

__all__ = [
    "PRECISIONS",
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

CHECKPOINT_FORMAT = "firewatch-generator-1"
LAYOUT_SIDE = 384  # long side of the view that a layout is made from


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
    try:
        config = json.loads(metadata["config"])
        expected = Program.of(config).parameters(len(config["looks"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} does not say what its generator looks like (metadata config: {error})") from error
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
    if spec.has_layout:
        spec = dataclasses.replace(spec, probe_side=LAYOUT_SIDE)
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
    """``tiles, scale, shift -> output``, or the inputs of `layers`; see `engine.spec`."""
    if spec.has_layout:
        return write_layers_render(GraphWriter(render_weights(spec, weights), precision), spec)
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
        names[op.output] = _external_norm(g, op, names) if op.kind == "norm" else emit(g, op, names)
    g.image_output("output", names[ops[-1].output])
    return g.model(f"{spec.name}-render")


def probe_graph(spec: ModelSpec, weights: Weights, *, precision: str = "fp32") -> onnx.ModelProto:
    """``view, look -> scale, shift``; see `engine.spec`.  Ends at the last normalised layer."""
    if spec.has_layout:
        return write_layers_probe(GraphWriter(weights, precision), spec)
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
            names[op.output] = emit(g, op, names)
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
        exact = node.name.startswith(EXACT)
        wanted = TensorProto.FLOAT if exact else PRECISIONS[precision]
        if node.op_type in ("Conv", "ConvTranspose") and types.get(node.input[1]) != wanted:
            raise ModelError(f"{node.name} of {model.graph.name} is not {precision}: export the checkpoint again")


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
