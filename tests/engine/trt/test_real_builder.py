"""The real builder of TensorRT-RTX, which needs no GPU: every model builds, and its layers are those that we want.

TensorRT and TensorRT-RTX share their parser, their types and their compiler; kernels are chosen on the GPU.  What was
built is read from the builder's own list of layers, which it logs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine_models import CONFIGS, LAYERS, make_model

from engine.errors import PlanError
from engine.memory import GPU_RESERVE, bytes_per_pixel
from engine.model_store import find_model, shipped_models
from engine.spec import ModelSpec
from engine.trt import api as tensorrt_api
from engine.trt import rtx
from engine.trt.graphs import onnx_graphs
from engine.trt.plan import PlanConfig, ShapeProfile
from engine.trt.serialize import Serializer

pytest.importorskip("tensorrt_rtx_libs")

TYPES = {"fp16": "Half", "bf16": "BFloat16", "fp32": "Float"}
CONVOLUTIONS = ("correlation", "runtime_fusion", "deconv")
MOVES = re.compile(r"__myl_(Tran|Move|Resh|Cast)+_myl")
"""A kernel that does nothing but bring numbers into another order or type."""
FRAME = (1088, 1920)


@dataclass(frozen=True)
class Layer:
    """One kernel of a plan."""

    name: str
    kind: str
    tensors: tuple[tuple[str, str, tuple[str, ...]], ...]
    """Of its inputs and outputs: name, type and dimensions (numbers, or names of what is dynamic)."""

    @classmethod
    def of(cls, line: str) -> Layer:
        """From a line of the builder's log."""
        ends = re.sub(r"Constants: \[.*?\], Outputs", "Outputs", line)
        tensors = re.findall(r"\{ Name: (\S+), Dimensions: \[(.*?)\].*?Datatype: (\w+)", ends)
        kind = re.search(r"LayerType: (\w+)", line)
        assert kind is not None
        found = tuple((name, dtype, tuple(shape.split(","))) for name, shape, dtype in tensors)
        return cls(line[len("Name: ") : line.index(",")], kind[1], found)


class Log:
    """What the builder says."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def layers(self) -> list[Layer]:
        """Of the last plan."""
        text = next(message for message in reversed(self.messages) if message.startswith("Layers:"))
        return [Layer.of(line) for line in text.splitlines() if line.startswith("Name: ")]

    def activation_memory(self) -> int:
        """Bytes, of the last plan."""
        found = [re.match(r"Total Activation Memory: (\d+) bytes", message) for message in self.messages]
        return int(next(match for match in reversed(found) if match is not None)[1])


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    trt = tensorrt_api.load("rtx")
    kept = Log()

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            kept.messages.append(msg)

    logger = Logger()
    monkeypatch.setattr(tensorrt_api, "logger", lambda runtime: logger)
    yield kept


def serializer(precision: str, profile: ShapeProfile) -> Serializer:
    return Serializer(PlanConfig(profile=profile, precision=precision, runtime="rtx"), None, Path("unused"))


@pytest.fixture
def folder(request: pytest.FixtureRequest, models: dict[str, Path]) -> Path:
    name: str = request.param
    return models[name] if name in models else find_model(name)


SHIPPED = sorted(name for name, folder in shipped_models().items() if not ModelSpec.load(folder).has_layout)
SHIPPED_LAYERS = sorted(set(shipped_models()) - set(SHIPPED))


@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize("folder", [*SHIPPED, *CONFIGS], indirect=True)
def test_a_plan_of_many_shapes(folder: Path, precision: str, log: Log) -> None:
    """For all GPUs from Turing (bf16: Ampere) to Blackwell at once."""
    spec = ModelSpec.load(folder)
    profile = ShapeProfile.of_tile(spec, *FRAME, 1)
    graphs = onnx_graphs(folder, spec, precision)
    for graph, shapes in (("render", profile), ("probe", ShapeProfile.of_probe(spec))):
        maps = spec.render_maps if graph == "render" else {}
        assert serializer(precision, profile).plan(graph, graphs[graph], shapes, maps)
        targets = [m for m in log.messages if m.startswith("Number of target compute capabilities: ")]
        assert targets[-1].endswith(str(len(rtx.capabilities(precision))))
        check_layers(spec, log.layers(), graph, TYPES[precision])


@pytest.mark.parametrize("kind", [*LAYERS, *SHIPPED_LAYERS])
def test_models_with_a_layout_build(kind: str, tmp_path: Path, log: Log) -> None:
    """Their shader is float32 on purpose; the maps follow the shape of the tiles."""
    if kind in SHIPPED_LAYERS:
        folder = find_model(kind)
        spec = ModelSpec.load(folder)
    else:
        folder = tmp_path / kind
        spec = make_model(folder, kind)
    profile = ShapeProfile.of_tile(spec, *FRAME, 1)
    graphs = onnx_graphs(folder, spec, "fp16")
    assert serializer("fp16", profile).plan("render", graphs["render"], profile, spec.render_maps)
    assert serializer("fp16", profile).plan("probe", graphs["probe"], ShapeProfile.of_probe(spec))
    assert any("Half" in {dtype for _, dtype, _ in layer.tensors} for layer in log.layers())


@pytest.mark.parametrize("folder", SHIPPED, indirect=True)
def test_a_plan_for_a_video(folder: Path, log: Log) -> None:
    spec = ModelSpec.load(folder)
    profile = ShapeProfile.fixed(*FRAME)
    model = onnx_graphs(folder, spec, "fp16")["render"]
    assert serializer("fp16", profile).plan("render", model, profile, spec.render_maps)
    layers = log.layers()
    check_layers(spec, layers, "render", "Half")
    assert not [layer for layer in layers if layer.kind == "shape_call"], "nothing of the shape is left open"
    pixels = FRAME[0] * FRAME[1]
    assert log.activation_memory() <= GPU_RESERVE * bytes_per_pixel(spec.program) / 2 * pixels


def check_layers(spec: ModelSpec, layers: list[Layer], graph: str, dtype: str) -> None:
    """No feature map in float32 that is none of the two ends, no convolution apart from its norm, few other kernels."""
    convolutions = [op for op in spec.program.ops if op.kind in ("conv", "conv_transpose")]
    computing = [layer for layer in layers if layer.kind in CONVOLUTIONS]
    assert 0 < len(computing) <= len(convolutions) + 1, "one kernel for each, one more where a border is cut apart"
    for layer in computing:
        assert {kind for _, kind, _ in layer.tensors} == {dtype}, layer
    if graph == "probe":
        return  # its statistics are taken in float32
    islands = [
        (layer.name, name)
        for layer in layers
        for name, kind, shape in layer.tensors
        if kind == "Float" != dtype and len(shape) == 4 and shape[1] != "3" and shape[2:] != ("1", "1")
    ]
    assert not islands
    padded = [op for op in convolutions if op.pad]
    padding = [layer for layer in layers if layer.kind == "kgen" and re.search(r"Repl", layer.name)]
    assert len(padding) <= len(padded) + 1, "a reflected border is one kernel, often with what stands before it"
    moves = [layer for layer in layers if MOVES.match(layer.name) and any(len(t[2]) == 4 for t in layer.tensors)]
    assert len(moves) <= 2, f"reformats: {moves}"


def test_what_does_not_build_says_so(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 does not exist on Turing: TensorRT-RTX's own reason reaches the user."""
    monkeypatch.setattr(rtx, "capabilities", lambda precision: rtx.TARGETS)
    spec = ModelSpec.load(models["light"])
    profile = ShapeProfile.of_tile(spec, 64, 64, 1)
    graphs = onnx_graphs(models["light"], spec, "bf16")
    with pytest.raises(PlanError, match=r"TensorRT cannot build the render plan: .*sm75.*b16"):
        serializer("bf16", profile).plan("render", graphs["render"], profile)
