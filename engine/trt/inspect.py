"""What is inside a plan: layers, types, fusions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.errors import PlanError
from engine.trt import api as tensorrt_api
from engine.trt.cuda import CudaDevice
from engine.trt.plan import GRAPHS, PlanRecord

__all__ = ["describe", "layers_of"]


def layers_of(plan: Path, gpu: int) -> dict[str, list[dict[str, Any]]]:
    """Layers by graph: name, kind, types of inputs and outputs, the ONNX nodes that it does.

    Raises PlanError for a folder that holds no plan, or one of another machine.
    """
    folder, graphs = (plan.parent, (plan.stem,)) if plan.suffix == ".plan" else (plan, GRAPHS)
    record = PlanRecord.load(folder)
    runtime = record.config.runtime
    tensorrt_api.load(runtime)
    result = {}
    with CudaDevice(gpu) as device:
        reason = record.mismatch(tensorrt_api.machine(device, runtime), runtime)
        if reason is not None:
            raise PlanError(f"{folder} {reason}: {record.rebuild()}")
        record.verify(folder)
        with device.current():
            for graph in graphs:
                text = _information(folder / f"{graph}.plan", record)
                result[graph] = [_layer(values) for values in json.loads(text).get("Layers", [])]
    return result


def _information(path: Path, record: PlanRecord) -> str:
    """What TensorRT says of a plan; its objects are gone before the context is."""
    trt = tensorrt_api.load(record.config.runtime)
    runtime = tensorrt_api.started(trt.Runtime, tensorrt_api.logger(record.config.runtime))
    if record.config.version_compatible:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise PlanError(f"{path} cannot be loaded ({tensorrt_api.recent_errors()}): {record.rebuild()} --force")
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _layer(values: Any) -> dict[str, Any]:
    if isinstance(values, str):  # built without detailed verbosity
        return {"name": values, "kind": "", "types": [], "nodes": []}
    ends = [*values.get("Inputs", []), *values.get("Outputs", [])]
    metadata = str(values.get("Metadata", ""))
    nodes = [part.split("[ONNX Layer: ")[-1].rstrip("]") for part in metadata.split("\x1e") if part]
    return {
        "name": values.get("Name", ""),
        "kind": values.get("LayerType", ""),
        "types": sorted({str(end.get("Format/Datatype", end.get("Datatype", ""))) for end in ends}),
        "nodes": nodes,
    }


def describe(graphs: dict[str, list[dict[str, Any]]]) -> str:
    """A table for people."""
    lines = []
    for graph, layers in graphs.items():
        fused = sum(len(layer["nodes"]) > 1 for layer in layers)
        lines.append(f"{graph}: {len(layers)} layers, {fused} of them fused from several")
        for layer in layers:
            nodes = f" = {' + '.join(layer['nodes'])}" if len(layer["nodes"]) > 1 else ""
            lines.append(f"  {layer['kind']:<16} {', '.join(layer['types'])}  {layer['name'][:60]}{nodes[:200]}")
    return "\n".join(lines)
