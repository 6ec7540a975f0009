"""The ONNX pair against the network that was trained, in every precision."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from engine_graphs import graphs, run, stored_in_half, unrounded
from engine_models import CONFIGS, LOOKS, config, landscape, make_model, photos, random_weights, save_checkpoint
from onnx import TensorProto, helper

from engine.errors import ModelError
from engine.graphs.export import PRECISIONS, export_model, probe_graph, read_checkpoint, render_graph
from engine.metrics import psnr
from engine.program.architecture import Program
from engine.spec import ModelSpec, look_weights, sha256
from training.generator.networks import GeneratorConfig, LightGenerator, ResnetGenerator

HOT = {"gain": 1e4, "amplitude": 300.0}
"""Convolutions that overflow float16 unless their weights are scaled, and wide feature maps."""


def reference(folder: Path, image: npt.NDArray[np.uint8], look: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`training.generator.networks` in float32: ``(1, 3, H, W)`` in 0..255, not rounded."""
    weights, values = read_checkpoint(folder / "generator.safetensors")
    settings = GeneratorConfig.from_dict(values)
    net = LightGenerator(settings) if settings.architecture == "light" else ResnetGenerator(settings)
    net.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    x = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        y: npt.NDArray[np.float32] = net(x, torch.from_numpy(look).reshape(1, -1)).mul(127.5).add(127.5).numpy()
    return y


def decibel(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """PSNR of pictures in 0..255 before rounding, which alone would cost 59 dB."""
    error = float(np.square(a.astype(np.float64) - b).mean())
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


def pictures() -> list[npt.NDArray[np.uint8]]:
    """Structured pictures ``(1, H, W, 3)``, real photos where there are any."""
    found = [landscape(48, 72)[None]]
    for path in sorted(folder.glob("*.jpg"))[:1] if (folder := photos()) else []:
        photo = cv2.cvtColor(
            cv2.resize(cv2.imread(str(path)), (72, 48), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB
        )
        found.append(np.ascontiguousarray(photo[None], np.uint8))
    return found


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("hot", [False, True], ids=["usual", "hot"])
def test_parity_with_the_trained_network(kind: str, hot: bool, tmp_path: Path) -> None:
    make_model(tmp_path, kind, **(HOT if hot else {}))
    for precision, bar in {"fp32": 90.0, "fp16": 45.0, "bf16": 36.0}.items():
        spec, probe, render = graphs(tmp_path, precision)
        look = look_weights(spec, "auto=0.25,dusk=0.75")
        for image in pictures()[: 1 if precision == "bf16" else 2]:
            expected = reference(tmp_path, image, look)
            scale, shift = run(stored_in_half(probe), view=image, look=look.reshape(1, -1))
            inputs = {"tiles": image, "scale": scale, "shift": shift}
            picture = run(unrounded(stored_in_half(render)), **inputs)[0]
            assert decibel(picture, expected) >= bar, precision
            if precision == "fp16":
                rounded = run(stored_in_half(render), **inputs)[0]
                whole = np.clip(np.round(expected), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
                assert psnr(rounded, whole) >= 45


def test_rounding_to_half_is_real() -> None:
    """Guards the tests above: float16 that onnxruntime quietly computes in float32 would prove nothing."""
    half, single = TensorProto.FLOAT16, TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=half),
        helper.make_node("Mul", ["h", "h"], ["square"]),
        helper.make_node("Sub", ["square", "h"], ["difference"]),
        helper.make_node("Cast", ["difference"], ["y"], to=single),
    ]
    ends = [helper.make_tensor_value_info(name, single, [3]) for name in "xy"]
    graph = helper.make_graph(nodes, "square", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    x = np.array([1.0, 2049 / 32, 300.0], np.float32)
    with np.errstate(over="ignore"):
        h = x.astype(np.float16)
        expected = (h * h - h).astype(np.float32)
    assert np.array_equal(run(stored_in_half(model), x=x)[0], expected)
    assert np.isinf(expected[2])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_types_of_the_graphs(models: dict[str, Path], precision: str) -> None:
    for folder in models.values():
        spec, *pair = graphs(folder, precision)
        for model in pair:
            onnx.checker.check_model(model, full_check=True)
            inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
            kinds = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
            kinds |= {v.name: v.type.tensor_type.elem_type for v in [*inferred.graph.input, *inferred.graph.output]}
            convolutions = [n for n in inferred.graph.node if n.op_type in ("Conv", "ConvTranspose")]
            assert convolutions
            assert {kinds[n.output[0]] for n in convolutions} == {PRECISIONS[precision]}
            reductions = [n for n in inferred.graph.node if n.op_type == "ReduceMean"]
            assert {kinds[n.output[0]] for n in reductions} <= {TensorProto.FLOAT}
            # TensorRT: uint8 only at the ends of a network, cast to or from float32 or float16 there.
            inner = {n.output[0] for n in inferred.graph.node} - {v.name for v in inferred.graph.output}
            assert not [name for name in inner if kinds.get(name) == TensorProto.UINT8]
            for node in inferred.graph.node:
                if set(node.input) & {"tiles", "view"}:
                    assert node.op_type == "Cast" and kinds[node.output[0]] == TensorProto.FLOAT
        assert spec.norm_channels == kinds_length(pair[0])


def kinds_length(probe: onnx.ModelProto) -> int:
    (scale,) = [v for v in probe.graph.output if v.name == "scale"]
    return int(scale.type.tensor_type.shape.dim[1].dim_value)


def test_any_size_and_batch(models: dict[str, Path]) -> None:
    for folder in models.values():
        spec, probe, render = graphs(folder, "fp32")
        look = look_weights(spec, "dusk").reshape(1, -1)
        for shape in ((1, spec.min_side, spec.min_side), (2, 24, 40), (3, 40, 16)):
            tiles = np.stack([landscape(*shape[1:], seed=i) for i in range(shape[0])])
            scale, shift = run(probe, view=tiles, look=look)
            assert scale.shape == shift.shape == (1, spec.norm_channels)
            together = run(render, tiles=tiles, scale=scale, shift=shift)[0]
            assert together.shape == tiles.shape and together.dtype == np.uint8
            apart = [run(render, tiles=t[None], scale=scale, shift=shift)[0][0] for t in tiles]
            assert psnr(together, np.stack(apart)) >= 70


def test_statistics_are_joint_over_the_batch(models: dict[str, Path]) -> None:
    spec, probe, _ = graphs(models["skip"], "fp32")
    look = look_weights(spec, "auto").reshape(1, -1)
    image = landscape(32, 32)
    one = run(probe, view=image[None], look=look)
    three = run(probe, view=np.stack([image] * 3), look=look)
    for a, b in zip(one, three, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_statistics_of_a_half_graph_survive_large_features(tmp_path: Path) -> None:
    """Their squares are far beyond float16; only float32 statistics come out finite and right."""
    make_model(tmp_path, "plain", **HOT)
    image = landscape(48, 64)[None]
    look = np.array([[1.0, 0.0]], np.float32)
    results = {p: run(stored_in_half(graphs(tmp_path, p)[1]), view=image, look=look) for p in ("fp32", "fp16")}
    np.testing.assert_allclose(results["fp16"][0], results["fp32"][0], rtol=0.02)
    assert np.isfinite(results["fp16"][1]).all()


def test_model_folder(tmp_path: Path) -> None:
    spec = make_model(tmp_path / "m", "skip")
    assert {p.name for p in (tmp_path / "m").iterdir()} == {
        "generator.safetensors",
        "probe.onnx",
        "render.onnx",
        "spec.json",
    }
    again = ModelSpec.load(tmp_path / "m")
    assert again.config == spec.config and again.looks == tuple(LOOKS)
    again.verify(tmp_path / "m")
    assert again.hashes == {name: sha256(tmp_path / "m" / name) for name in again.hashes or {}}
    (tmp_path / "m" / "probe.onnx").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"probe\.onnx is damaged"):
        again.verify(tmp_path / "m")


def test_export_is_reproducible(tmp_path: Path) -> None:
    first, second = (make_model(tmp_path / name, "skip").hashes or {} for name in ("a/m", "b/m"))
    assert [first[f"{graph}.onnx"] == second[f"{graph}.onnx"] for graph in ("probe", "render")] == [True, True]


def broken(path: Path, change: str) -> Path:
    values = config("skip")
    weights: dict[str, Any] = dict(random_weights(values))
    if change == "missing":
        del weights["head.bias"]
    elif change == "shape":
        weights["head.bias"] = weights["head.bias"][:2]
    elif change == "large":
        weights["head.weight"] = weights["head.weight"] * 1e9
    elif change == "architecture":
        return save_checkpoint(path, {**values, "architecture": "vgg"}, weights)
    return save_checkpoint(path, values, weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "head.bias should be"),
        ("shape", "head.bias should be"),
        ("large", "beyond the range of float16"),
        ("architecture", "unknown architecture 'vgg'"),
    ],
)
def test_broken_checkpoints(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        export_model(broken(tmp_path / "c", change), tmp_path / "m")


def test_foreign_files(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    (tmp_path / "short").write_bytes(b"no")
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        read_checkpoint(tmp_path / "short")
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "foreign")
    with pytest.raises(ModelError, match="was not written by train-generator"):
        read_checkpoint(tmp_path / "foreign")
    with pytest.raises(ModelError, match=r"no spec\.json"):
        ModelSpec.load(tmp_path)
    (tmp_path / "spec.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(ModelError, match="not of format"):
        ModelSpec.load(tmp_path)


def test_precision_is_checked(models: dict[str, Path]) -> None:
    spec = ModelSpec.load(models["skip"])
    weights, _ = read_checkpoint(models["skip"] / "generator.safetensors")
    for graph in (probe_graph, render_graph):
        with pytest.raises(ValueError, match="unknown precision"):
            graph(spec, weights, precision="int8")


def test_flops_of_the_seed() -> None:
    """Figures of the seed's generator, counted by hand."""
    program = Program.of({"architecture": "resnet9", "ngf": 32, "n_blocks": 9, "upsample": "transposed"})
    assert program.flops(256, 256) == pytest.approx(25.4e9, rel=0.02)
    assert program.norm_channels == 2624
