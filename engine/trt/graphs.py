"""The graphs that TensorRT plans are built from, and the hashes by which a plan knows them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from engine.graphs.export import assert_precision, model_weights, probe_graph, render_graph
from engine.spec import ModelSpec

__all__ = ["graph_hashes", "onnx_graphs"]


def onnx_graphs(folder: Path, spec: ModelSpec, precision: str) -> dict[str, bytes]:
    """The ONNX graphs of a model in a precision, serialized; their feature maps' type is asserted."""
    weights = model_weights(folder, "TensorRT plans are built")
    graphs = {
        "probe": probe_graph(spec, weights, precision=precision),
        "render": render_graph(spec, weights, precision=precision),
    }
    for graph in graphs.values():
        assert_precision(graph, precision)
    return {name: graph.SerializeToString(deterministic=True) for name, graph in graphs.items()}


def graph_hashes(graphs: dict[str, bytes]) -> dict[str, str]:
    """sha256 by graph: what a plan is known by."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in graphs.items()}
