"""The ONNX graphs in onnxruntime, with float16 storage made real."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from engine.backends.base import BackendOptions, Tiles, check_tiles, check_view
from engine.conditions import Conditions
from engine.graphs.export import probe_graph, read_checkpoint, render_graph
from engine.spec import F32, ModelSpec

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def session(model: onnx.ModelProto | Path) -> ort.InferenceSession:
    """One thread, no rewriting of the graph."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, **inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    return session(model).run(None, inputs)


def stored_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, with every 16-bit tensor really rounded to 16 bits in onnxruntime on a CPU.

    onnxruntime computes float16 nodes in float32 and drops the pairs of casts between them, so nothing
    would be rounded at all; bfloat16 nodes it does not know.  Here all nodes compute in float32, and
    every 16-bit result goes through a 16-bit Transpose that changes nothing: casts around it stay.
    """
    result = onnx.ModelProto()
    result.CopyFrom(onnx.shape_inference.infer_shapes(model))
    kinds = {v.name: v.type.tensor_type for v in result.graph.value_info}
    nodes = []
    for node in result.graph.node:
        kind = kinds.get(node.output[0])
        if node.op_type == "Cast" and node.attribute[0].i in HALVES:
            node.attribute[0].i = TensorProto.FLOAT
        nodes.append(node)
        if kind is None or kind.elem_type not in HALVES:
            continue
        name, node.output[0] = node.output[0], f"{node.output[0]}:exact"
        perm = list(range(len(kind.shape.dim)))
        nodes += [
            helper.make_node("Cast", [f"{name}:exact"], [f"{name}:half"], to=kind.elem_type),
            helper.make_node("Transpose", [f"{name}:half"], [f"{name}:kept"], perm=perm),
            helper.make_node("Cast", [f"{name}:kept"], [name], to=TensorProto.FLOAT),
        ]
    for i, tensor in enumerate(result.graph.initializer):
        if tensor.data_type in HALVES:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            result.graph.initializer[i].CopyFrom(numpy_helper.from_array(values, tensor.name))
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    del result.graph.value_info[:]
    return result


def unrounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The render graph with its float32 NCHW picture in 0..255 as output, before it is rounded."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    (last,) = [node for node in result.graph.node if node.op_type == "Round"]
    del result.graph.output[:]
    result.graph.output.append(helper.make_tensor_value_info(last.input[0], TensorProto.FLOAT, None))
    return result


def graphs(folder: Path, precision: str) -> tuple[ModelSpec, onnx.ModelProto, onnx.ModelProto]:
    """Spec, probe and render graph of a model folder in a precision."""
    spec = ModelSpec.load(folder)
    weights, _ = read_checkpoint(folder / "generator.safetensors")
    return spec, probe_graph(spec, weights, precision=precision), render_graph(spec, weights, precision=precision)


class OnnxBackend:
    """The slow reference of the contract suite: the shipped files in onnxruntime."""

    name = "onnxruntime"

    def __init__(self, folder: Path, spec: ModelSpec, options: BackendOptions) -> None:
        self.folder, self.spec = folder, spec

    def __enter__(self) -> OnnxBackend:
        self._probe, self._render = session(self.folder / "probe.onnx"), session(self.folder / "render.onnx")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._probe, self._render

    @property
    def description(self) -> str:
        return "onnxruntime, fp32"

    def probe(self, view: Tiles, look: F32) -> Conditions:
        view = check_view(self.spec, view)
        if self.spec.has_layout:
            return Conditions(vectors={}, maps={"layout": self._probe.run(None, {"view": view})[0][0]})
        scale, shift = self._probe.run(None, {"view": view, "look": look.reshape(1, -1)})
        return Conditions.of_norm(scale=scale[0], shift=shift[0])

    def render(self, tiles: Tiles, conditions: Conditions) -> Tiles:
        given = conditions.feeds(len(tiles))
        return np.asarray(self._render.run(None, {"tiles": check_tiles(self.spec, tiles), **given})[0])
