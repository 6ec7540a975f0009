"""Models of the architecture `layers`: one contract for every backend, against the shipped graphs in onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from engine_graphs import OnnxBackend, graphs, run, stored_in_half
from engine_models import LAYERS, given, landscape, save_checkpoint
from onnx import TensorProto

from engine.backends.base import Backend, BackendOptions
from engine.backends.frames import render_frames
from engine.choice import open_backend
from engine.conditions import Conditions, window
from engine.errors import BackendError, ModelError
from engine.graphs.export import PRECISIONS, assert_precision, export_model, read_checkpoint
from engine.looks.torch_shader import layers_op, near
from engine.looks.torch_shader import shade as shade_in_torch
from engine.metrics import psnr
from engine.probing import usual_conditions
from engine.program.architecture import Program
from engine.program.shader import shade, sky_place
from engine.spec import ModelSpec
from engine.tiling import Region, TilePlan
from training.generator.config import LayersConfig
from training.generator.layered_networks import FieldsNet, LayoutNet, checkpoint_weights, fields_planes

CPU: dict[str, dict[str, Any]] = {
    "onnxruntime": {},
    "openvino": {"name": "openvino", "threads": 1},
    "torch": {"name": "torch", "device": "cpu", "precision": "fp32", "threads": 1},
}
GPU: dict[str, dict[str, Any]] = {
    "torch-cuda-no-graph": {"name": "torch", "device": "cuda", "precision": "fp32", "graph": False},
    "torch-cuda": {"name": "torch", "device": "cuda", "precision": "fp32"},
    "torch-cuda-fp16": {"name": "torch", "device": "cuda"},
}
BAR = {"torch-cuda-fp16": 45.0}


def opener(name: str, folder: Path) -> Any:
    """A backend, not yet entered."""
    settings = dict((CPU | GPU)[name])
    if not settings:
        return OnnxBackend(folder, ModelSpec.load(folder), BackendOptions())
    return open_backend(folder, name=settings.pop("name"), options=BackendOptions(**settings))


@pytest.fixture(params=[*CPU, *(pytest.param(name, marks=pytest.mark.gpu) for name in GPU)])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LAYERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(name: str, kind: str, layered: dict[str, Path]) -> Iterator[Backend]:
    with opener(name, layered[kind]) as running:
        yield running


def test_agrees_with_the_reference(opened: Backend, name: str, kind: str, layered: dict[str, Path]) -> None:
    view, tiles = landscape(64, 96)[None], landscape(48, 72, seed=1)[None]
    with opener("onnxruntime", layered[kind]) as reference:
        layout = reference.probe(view, np.ones(2, np.float32)).maps["layout"]
        expected = reference.render(tiles, given(48, 72))
    found = opened.probe(view, np.ones(2, np.float32)).maps["layout"]
    assert found.dtype == np.float32 and found.shape == (2, 8, 12)
    np.testing.assert_allclose(found, layout, atol=0.03 if name in BAR else 1e-4)
    picture = opened.render(tiles, given(48, 72))
    assert picture.dtype == np.uint8 and picture.shape == tiles.shape
    assert psnr(picture, expected) >= BAR.get(name, 60.0)
    assert picture.std() > 10


def test_depth_in_layers(opened: Backend, name: str, kind: str, layered: dict[str, Path]) -> None:
    tiles = landscape(48, 72, seed=1)[None]
    with opener("onnxruntime", layered[kind]) as reference:
        expected, smooth = (reference.render(tiles, given(48, 72, layers=n)) for n in (3, 0))
    assert psnr(opened.render(tiles, given(48, 72, layers=3)), expected) >= BAR.get(name, 60.0)
    assert psnr(expected, smooth) < 40


def test_batches_share_their_place(opened: Backend, name: str) -> None:
    tiles = np.stack([landscape(32, 48, seed=i) for i in range(3)])
    conditions = given(32, 48)
    apart = np.concatenate([opened.render(tile[None], conditions) for tile in tiles])
    assert psnr(opened.render(tiles, conditions), apart) >= BAR.get(name, 60.0)


def test_tile_with_halo_is_the_whole_frame(opened: Backend, name: str) -> None:
    halo = opened.spec.halo
    assert halo == opened.spec.radius and halo % 8 == 0
    frame = landscape(2 * halo + 48, 2 * halo + 64)
    conditions = given(*frame.shape[:2])
    whole = opened.render(frame[None], conditions)[0]
    sizes: dict[str, Any] = {"halo": halo, "multiple": 8, "height": frame.shape[0], "width": frame.shape[1]}
    plan = TilePlan(tile_height=2 * halo + 24, tile_width=2 * halo + 32, **sizes)
    assert len(plan.tiles) >= 4
    (queued,) = render_frames([opened], [(frame, conditions)], lambda size, limit: plan.tiles)
    assert psnr(queued, whole) >= BAR.get(name, 60.0)
    if name not in BAR:
        assert (np.abs(queued.astype(int) - whole) > 1).mean() < 1e-4


def test_results_belong_to_the_caller(opened: Backend) -> None:
    tiles, conditions = landscape(32, 48)[None], given(32, 48)
    first = opened.render(tiles, conditions)
    kept = first.copy()
    layout = opened.probe(landscape(64, 96)[None], np.ones(2, np.float32)).maps["layout"]
    kept_layout = layout.copy()
    opened.render(255 - tiles, given(32, 48, seed=3))
    opened.probe(landscape(64, 96, seed=2)[None], np.ones(2, np.float32))
    assert np.array_equal(first, kept) and np.array_equal(layout, kept_layout)


def test_what_does_not_fit(opened: Backend) -> None:
    if opened.name == "onnxruntime":
        pytest.skip("the reference is not part of the program")
    tiles, look = landscape(32, 48)[None], np.ones(2, np.float32)
    with pytest.raises(ValueError, match="multiples of 32 from 32 up, got 40 x 64"):
        opened.probe(landscape(40, 64)[None], look)
    with pytest.raises(ValueError, match="one view at a time, got 2"):
        opened.probe(np.stack([landscape(32, 32)] * 2), look)
    with pytest.raises(ValueError, match="multiples of 8 from 16 up, got 36 x 48"):
        opened.render(landscape(36, 48)[None], given(32, 48))
    with pytest.raises(ValueError, match=r"conditions of another model: .* takes \{'tone': \(7,\)"):
        opened.render(tiles, Conditions.of_norm(scale=np.ones(4, np.float32), shift=np.ones(4, np.float32)))
    with pytest.raises(ValueError, match=r"takes maps \{'layout': \(4, 6, 8\)\} for 32 x 48 pixels, got .*4, 8, 8"):
        opened.render(tiles, given(48, 48))
    with pytest.raises(ValueError, match="got none: complete them"):
        opened.render(tiles, Conditions(vectors=given(32, 48).vectors))


def test_mnn_says_what_to_take_instead(layered: dict[str, Path]) -> None:
    with pytest.raises(BackendError, match="mnn has no shader for layers: take --backend openvino"):
        open_backend(layered["layers"], name="mnn").__enter__()


def test_openvino_keeps_the_borders_exact(layered: dict[str, Path]) -> None:
    options = BackendOptions(precision="bf16")
    with pytest.raises(BackendError, match="openvino computes layers in fp32, not bf16"):
        open_backend(layered["layers"], name="openvino", options=options).__enter__()
    with open_backend(layered["layers"], name="openvino") as running:
        assert running.description.endswith("fp32")


@pytest.mark.parametrize(("precision", "bar"), [("fp16", 45.0), ("bf16", 30.0)])
def test_16_bits(kind: str, precision: str, bar: float, layered: dict[str, Path]) -> None:
    """The graphs with their 16-bit tensors really rounded, and the same in torch."""
    tiles, conditions = landscape(64, 96)[None], given(64, 96)
    with opener("onnxruntime", layered[kind]) as reference:
        expected = reference.render(tiles, conditions)
    _, probe, render = graphs(layered[kind], precision)
    assert psnr(run(stored_in_half(render), tiles=tiles, **conditions.feeds())[0], expected) >= bar
    exact = graphs(layered[kind], "fp32")[1]
    layout = run(stored_in_half(probe), view=tiles)[0]
    np.testing.assert_allclose(layout, run(exact, view=tiles)[0], atol=0.02 if precision == "fp16" else 0.1)
    options = BackendOptions(device="cpu", precision=precision, threads=1)
    with open_backend(layered[kind], name="torch", options=options) as running:
        assert psnr(running.render(tiles, conditions), expected) >= bar


@pytest.mark.parametrize("precision", PRECISIONS)
def test_types_of_the_graphs(kind: str, precision: str, layered: dict[str, Path]) -> None:
    _, *pair = graphs(layered[kind], precision)
    for model in pair:
        onnx.checker.check_model(model, full_check=True)
        assert_precision(model, precision)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        kinds = {v.name: v.type.tensor_type.elem_type for v in [*inferred.graph.value_info, *inferred.graph.input]}
        for node in inferred.graph.node:
            if node.op_type == "GridSample" or node.name.startswith("exact_"):
                assert {kinds[i] for i in node.input if i in kinds} == {TensorProto.FLOAT}
        inner = {n.output[0] for n in inferred.graph.node} - {v.name for v in inferred.graph.output}
        assert not [i for i in inner if kinds.get(i) == TensorProto.UINT8]


@pytest.mark.parametrize("trunk", ["efficientnet-lite0", "efficientnet-lite1"])
@pytest.mark.parametrize("kind", LAYERS)
def test_parity_with_the_trained_networks(kind: str, trunk: str, tmp_path: Path) -> None:
    """From torch modules through the checkpoint to the ONNX pair: the same numbers."""
    config = LayersConfig(**{**LAYERS[kind], "trunk": trunk})
    torch.manual_seed(0)
    layout, fields = LayoutNet(config, pretrained=False), FieldsNet(config)
    layout.mean.normal_()
    layout.deviation.uniform_(0.5, 2)
    weights = {key: value.detach().numpy() for key, value in checkpoint_weights(layout, fields).items()}
    path = save_checkpoint(tmp_path / "checkpoint", config.to_dict(), weights)
    spec = export_model(path, tmp_path / "model")
    assert spec.probe_side == 384
    rounded, _ = read_checkpoint(tmp_path / "model" / "generator.safetensors")
    fields.load_state_dict({k[7:]: torch.from_numpy(v) for k, v in rounded.items() if k.startswith("fields.")})
    image, conditions = landscape(64, 96), given(64, 96, layers=2)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    with opener("onnxruntime", tmp_path / "model") as running, torch.inference_mode():
        found = running.probe(image[None], np.ones(1, np.float32)).maps["layout"]
        np.testing.assert_allclose(found, layout.layout(x)[0].numpy(), atol=5e-3)  # weights are stored in float16
        small = torch.nn.functional.avg_pool2d(x, config.pool)
        feeds = {key: torch.from_numpy(value) for key, value in conditions.feeds().items()}
        planes = fields_planes(small, near(feeds["layout"][:, :2], 8 // config.pool), feeds["tone"])
        smooth = fields(planes)
        factor = config.pool * config.stride // 2
        fine = near(feeds["layout"][:, 2:], 8 // factor)[0].numpy()
        vectors = conditions.vectors
        places = sky_place(fine[0], fine[1], vectors["controls"], 64)
        tables = vectors["sky_lut"], vectors["land_lut"], vectors["controls"]
        expected = shade(smooth[0].numpy(), places, *tables, factor)
        picture = running.render(image[None], conditions)[0]
    assert psnr(picture, np.round(expected * 255).astype(np.uint8)) >= 70


def test_planes_are_what_they_are_said_to_be() -> None:
    """Tones by interpolation in numpy, of luma in 0..1."""
    x, layout = np.random.default_rng(0).random((1, 3, 4, 6)), np.random.default_rng(1).random((1, 2, 4, 6))
    tone = np.array([[0.1, 0.25, 0.4, 0.62, 0.7, 0.4, 0.9]])
    inputs = (torch.from_numpy(a).float() for a in (x * 2 - 1, layout, tone))
    found = fields_planes(*inputs)[0].numpy()
    luma = np.einsum("c,chw->hw", [0.299, 0.587, 0.114], x[0])
    np.testing.assert_allclose(found[:3], x[0] * 2 - 1, atol=1e-6)
    np.testing.assert_allclose(found[3], np.interp(luma, tone[0, :5], [0, 1 / 6, 1 / 2, 5 / 6, 1]), atol=1e-5)
    np.testing.assert_allclose(found[4], np.clip((luma - 0.4) / 0.5, -0.2, 1.2), atol=1e-5)
    np.testing.assert_allclose(found[5:], layout[0], atol=1e-6)


def test_a_checkpoint_without_what_the_config_says(tmp_path: Path) -> None:
    config = {**LayersConfig().to_dict(), "trunk": "resnet50"}
    with pytest.raises(ModelError, match="got trunk 'resnet50', pool 1, stride 4; this version knows efficientnet"):
        Program.of(config)


def test_the_program_counts_what_torch_computes(kind: str) -> None:
    """Multiply-adds of `render`, counted by hooks on the torch network; of the probe, groups included."""
    config = LayersConfig(**LAYERS[kind])
    counted: list[int] = []

    def count(module: Any, inputs: Any, output: Any) -> None:
        counted.append(2 * output.numel() * module.in_channels // module.groups * module.kernel_size[0] ** 2)

    net = FieldsNet(config)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        net(torch.zeros(1, 7, 96 // config.pool, 128 // config.pool))
    assert Program.of(config.to_dict()).flops(96, 128) == sum(counted)


def test_nothing_beyond_the_radius_changes_a_pixel(kind: str, layered: dict[str, Path]) -> None:
    with opener("torch", layered[kind]) as running:
        radius = running.spec.program.radius
        side = (2 * radius + 47) // 8 * 8
        frame, middle = landscape(side, side), side // 2
        conditions = given(side, side)
        whole = running.render(frame[None], conditions)[0]
        changed = frame.copy()
        far = np.abs(np.arange(side) - middle) > radius
        changed[far], changed[:, far] = 255 - changed[far], 255 - changed[:, far]
        again = running.render(changed[None], conditions)[0]
        assert not np.array_equal(whole, again)
        assert np.abs(whole[middle, middle].astype(int) - again[middle, middle]).max() <= 1


def test_windows_of_the_grid_are_enlarged_alike(kind: str) -> None:
    """A tile's cells, with their border, give its pixels of the whole frame's enlarged layout."""
    conditions = given(96, 128)
    whole = near(torch.from_numpy(conditions.maps["layout"][None]), 8)[0].numpy()
    cut = window(conditions, Region(16, 40, 48, 64)).maps["layout"]
    part = near(torch.from_numpy(cut[None]), 8)[0].numpy()
    np.testing.assert_allclose(part, whole[:, 16:64, 40:104], atol=1e-6)
    with pytest.raises(ValueError, match="begin at multiples of 8, got 4, 0"):
        window(conditions, Region(4, 0, 48, 64))


def test_usual_conditions_are_complete(opened: Backend) -> None:
    picture = landscape(48, 88)[None]
    assert opened.render(picture, usual_conditions(opened, picture)).shape == picture.shape


def test_layers_op_is_differentiable_where_it_is_soft() -> None:
    feeds = {key: torch.from_numpy(value) for key, value in given(32, 48).feeds().items()}
    fields = torch.rand(1, 4, 16, 24, requires_grad=True)
    tables = feeds["sky_lut"], feeds["land_lut"], feeds["controls"]
    shade_in_torch(fields, torch.rand(1, 1, 16, 24), *tables, 2, softness=0.5).sum().backward()
    gradient = fields.grad
    assert gradient is not None and torch.isfinite(gradient).all()
    assert (gradient.abs().amax((0, 2, 3)) > 0).all()
    assert layers_op("fields", [torch.zeros(1, 4, 8, 8), torch.ones(1, 7, 16, 16)], 2).eq(1).all()
