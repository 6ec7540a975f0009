"""Models that were made elsewhere become model folders: checkpoints, and ONNX pairs.

Whatever is read, the exported graphs are run against a direct evaluation of the original layers
before a folder gets its name.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from engine.errors import BackendError, ModelError
from engine.files import new_folder
from engine.graphs.export import CHECKPOINT_FORMAT, Weights, export_model, probe_graph, render_graph
from engine.importers.net import ImportedNet, evaluate
from engine.metrics import psnr
from engine.openvino_module import import_openvino
from engine.program.architecture import Program
from engine.spec import ModelSpec, sha256

__all__ = ["TOLERANCE", "ImportReport", "float_error", "import_model"]

TOLERANCE = 1e-4
"""Largest difference of a float32 graph from the original's arithmetic, on the scale -1..1."""

CHECK_SIZE = (64, 96)
"""Height and width of the picture they are compared on."""

Shape = list[int | None]

OPSETS = range(13, 23)
"""Opsets of an ONNX pair that every backend reads."""


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import found."""

    spec: ModelSpec
    kind: str
    """Where the model comes from, in words."""
    error: float | None
    """Largest difference of the float32 graphs from the original, on the scale -1..1; None: no original layers."""
    psnr: float | None
    """Of the finished model (weights in float16) to the original, in dB; None: no original layers."""
    notes: tuple[str, ...] = ()
    """What had to be assumed, or is missing."""


def import_model(
    source: Path, folder: Path, *, name: str, look: str = "auto", generator: str | None = None
) -> ImportReport:
    """Make the model folder `folder` out of a checkpoint or a folder with an ONNX pair.

    Known are checkpoints of train-generator (.safetensors), of the PyTorch CycleGAN (.pth, .pt), of
    CycleGAN-Keras (.hdf5, .h5) and of CycleGAN-tensorflow (.index or the folder), and model folders.
    `look` names the one look of an imported generator, `generator` the one to take of a TensorFlow
    checkpoint.  The folder appears whole or not at all.

    Raises ModelError when the source cannot be read, is no generator, or does not come out the same, or when the
    folder cannot be written.
    """
    from safetensors import SafetensorError

    from engine.importers.tensorflow import checkpoint_prefix

    prefix = None if (source / "spec.json").is_file() else checkpoint_prefix(source)
    if prefix is None and not source.exists():
        raise ModelError(f"{source} does not exist: check the name")
    if prefix is None and generator is not None:
        raise ModelError(f"{source} holds one model: a generator can be chosen of a TensorFlow checkpoint alone")
    try:
        with new_folder(folder, overwrite=True) as work:
            if prefix is None:
                return _import(source, work, name, look)
            return _import_tensorflow(prefix, work, name, look, generator)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(
            f"{folder} cannot be written ({reason}): free some space, or keep your models in another folder "
            "(environment variable STYLIZE_MODELS)"
        ) from error


def _import(source: Path, work: Path, name: str, look: str) -> ImportReport:
    if source.is_dir():
        return _import_pair(source, work, name)
    suffix = source.suffix.lower()
    if suffix == ".safetensors":
        return ImportReport(spec=export_model(source, work, name=name), kind="train-generator", error=None, psnr=None)
    if suffix in (".pth", ".pt"):
        from engine.importers.torch import read_torch

        return _import_net(read_torch(source), work, name, look)
    if suffix in (".hdf5", ".h5"):
        from engine.importers.keras import read_keras

        return _import_net(read_keras(source), work, name, look)
    raise ModelError(
        f"{source}: unknown kind of model {suffix!r}; known are .safetensors, .pth, .hdf5, TensorFlow's .index, "
        "or a folder with spec.json, probe.onnx and render.onnx"
    )


def _import_tensorflow(prefix: Path, work: Path, name: str, look: str, generator: str | None) -> ImportReport:
    from engine.importers.tensorflow import read_tensorflow

    return _import_net(read_tensorflow(prefix, generator), work, name, look)


def _import_net(net: ImportedNet, work: Path, name: str, look: str) -> ImportReport:
    """Export an imported generator and compare it with itself."""
    from safetensors.numpy import save_file

    config, weights = net.config(look), net.weights()
    if bad := sorted(key for key, value in weights.items() if not np.isfinite(value).all()):
        raise ModelError(f"the checkpoint holds numbers that are not finite ({bad[0]}): take an earlier one")
    for key, shape in Program.of(config).parameters(1).items():
        if weights[key].shape != shape:
            raise ModelError(
                f"{key} has the shape {weights[key].shape}, expected {shape}: this is no CycleGAN generator"
            )
    view = check_picture()
    expected = evaluate(net, (view.astype(np.float64) / 127.5 - 1).transpose(2, 0, 1)).transpose(1, 2, 0)
    error = float_error(config, weights, view, expected)
    if not error <= TOLERANCE:
        raise ModelError(f"the exported graphs differ from the original by {error:.1e}, more than {TOLERANCE:.0e}")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "checkpoint.safetensors"
        save_file(weights, path, metadata={"format": CHECKPOINT_FORMAT, "config": json.dumps(config)})
        spec = export_model(path, work, name=name)
    original = np.clip(np.rint(expected * 127.5 + 127.5), 0, 255).astype(np.uint8)
    return ImportReport(
        spec=spec, kind=net.kind, error=error, psnr=psnr(rendered(work, spec, view), original), notes=net.notes
    )


def check_picture() -> npt.NDArray[np.uint8]:
    """RGB uint8 ``(64, 96, 3)``: gradients, edges and grain."""
    height, width = CHECK_SIZE
    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    picture = np.stack([255 - 2 * y, 90 + x, 120 + 60 * np.sin(x / 9)], -1)
    picture[y > 36 + 9 * np.sin(x / 11)] = (70, 60, 110)
    return np.clip(picture + rng.normal(0, 12, picture.shape), 0, 255).astype(np.uint8)


def float_error(
    config: Mapping[str, Any], weights: Weights, view: npt.NDArray[np.uint8], expected: npt.NDArray[np.float64]
) -> float:
    """Largest difference between the graphs in float32, before rounding, and ``(H, W, 3)`` in -1..1."""
    spec = ModelSpec(name="check", config=config, looks=tuple(config["looks"]))
    render = render_graph(spec, weights)
    tanh = next(node.output[0] for node in reversed(render.graph.node) if node.op_type == "Tanh")
    del render.graph.output[:]
    render.graph.output.append(helper.make_tensor_value_info(tanh, TensorProto.FLOAT, ["N", 3, "H", "W"]))
    look = np.ones((1, 1), np.float32)
    scale, shift = _run(probe_graph(spec, weights), {"view": view[None], "look": look})
    output = _run(render, {"tiles": view[None], "scale": scale, "shift": shift})[0]
    return float(np.abs(output[0].transpose(1, 2, 0) - expected).max())


def _run(model: onnx.ModelProto, inputs: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """The outputs of a graph on the CPU, in float32."""
    try:
        ov = import_openvino()
    except ImportError as error:
        raise BackendError("OpenVINO is not installed: pip install openvino") from error
    core = ov.Core()
    network = core.read_model(model.SerializeToString())
    network.reshape({key: list(value.shape) for key, value in inputs.items()})
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(value) for value in compiled(dict(inputs)).values()]


def rendered(folder: Path, spec: ModelSpec, view: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """What the ONNX pair of a model folder makes of a picture, first look."""
    look = np.zeros((1, len(spec.looks)), np.float32)
    look[0, 0] = 1
    try:
        probe, render = (onnx.load(folder / f"{graph}.onnx") for graph in ("probe", "render"))
        scale, shift = _run(probe, {"view": view[None], "look": look})
        output = _run(render, {"tiles": view[None], "scale": scale, "shift": shift})[0]
    except RuntimeError as error:
        raise ModelError(f"the ONNX pair in {folder} does not run: {str(error).splitlines()[-1].strip()}") from error
    return np.asarray(output[0], np.uint8)


FILES = ("probe.onnx", "render.onnx")
OPTIONAL = ("generator.safetensors", "card.md", "MODEL_CARD.md", "LICENSE")


def _import_pair(source: Path, work: Path, name: str) -> ImportReport:
    """Copy a folder with spec.json and an ONNX pair, after a look at everything in it."""
    import dataclasses

    spec = ModelSpec.load(source)
    for file in FILES:
        if not (source / file).is_file():
            raise ModelError(f"{source} has no {file}: give the folder with the whole pair")
    spec.verify(source)
    for file in FILES:
        check_graph(source / file, spec)
    kept = [file for file in (*FILES, *OPTIONAL) if (source / file).is_file()]
    for file in kept:
        shutil.copyfile(source / file, work / file)
    picture = rendered(work, spec, check_picture())
    if picture.std() == 0:
        raise ModelError(f"{source} renders one flat colour: it is damaged or was never trained")
    notes = [] if (source / "generator.safetensors").is_file() else ["no generator.safetensors: no backend torch"]
    if not spec.hashes:
        notes.append("spec.json had no hashes: the files were taken as they are")
    hashed = {file: sha256(work / file) for file in kept if file in FILES or file == "generator.safetensors"}
    spec = dataclasses.replace(spec, name=name, hashes=hashed)
    spec.save(work)
    return ImportReport(spec=spec, kind="ONNX pair", error=None, psnr=None, notes=tuple(notes))


def check_graph(path: Path, spec: ModelSpec) -> None:
    """Opset, inputs and outputs of one graph of the pair; ModelError names what differs."""
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and checker raise what they like at damaged files
        raise ModelError(f"{path} is no valid ONNX file: export the model again") from error
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    foreign = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})
    if opset not in OPSETS or foreign:
        what = f"operators of {foreign[0]}" if foreign else f"opset {opset}"
        raise ModelError(f"{path} has {what}: export it with opset {OPSETS.start} to {OPSETS.stop - 1}")
    vector: Shape = [1, spec.norm_channels]
    picture: Shape = [None, None, None, 3]
    look: Shape = [1, len(spec.looks)]
    statistics = {"scale": (TensorProto.FLOAT, vector), "shift": (TensorProto.FLOAT, vector)}
    if path.stem == "probe":
        inputs = {"view": (TensorProto.UINT8, picture), "look": (TensorProto.FLOAT, look)}
        outputs = statistics
    else:
        inputs = {"tiles": (TensorProto.UINT8, picture), **statistics}
        outputs = {"output": (TensorProto.UINT8, picture)}
    held = {initializer.name for initializer in model.graph.initializer}
    for what, values, expected in (
        ("input", [v for v in model.graph.input if v.name not in held], inputs),
        ("output", list(model.graph.output), outputs),
    ):
        found = {value.name: value.type.tensor_type for value in values}
        if set(found) != set(expected):
            raise ModelError(f"{path}: {what}s are {', '.join(found) or 'none'}, expected {', '.join(expected)}")
        for key, (kind, shape) in expected.items():
            _check_tensor(path, key, found[key], kind, shape)


def _check_tensor(path: Path, name: str, tensor: Any, kind: int, shape: Shape) -> None:
    sizes = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    fits = len(sizes) == len(shape) and all(a is None or b is None or a == b for a, b in zip(sizes, shape, strict=True))
    fixed = any(a is not None and b is None for a, b in zip(sizes, shape, strict=False))
    if tensor.elem_type != kind or not fits or fixed:
        wanted = " x ".join(str(size) if size else "any" for size in shape)
        raise ModelError(
            f"{path}: {name} should be {TensorProto.DataType.Name(kind)} {wanted}, "
            f"is {TensorProto.DataType.Name(tensor.elem_type)} {' x '.join(str(s) if s else 'any' for s in sizes)}"
        )


def decibels(value: float) -> str:
    """A PSNR for people."""
    return "identical" if math.isinf(value) else f"{value:.1f} dB"
