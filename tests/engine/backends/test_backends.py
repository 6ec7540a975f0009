"""One contract for every backend, against the shipped graphs in onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_graphs import OnnxBackend
from engine_models import CONFIGS, landscape, make_model

from engine.backends.base import Backend, BackendOptions
from engine.backends.frames import render_frames
from engine.choice import BACKENDS, choose_backend, open_backend
from engine.errors import BackendError, ModelError, OutOfMemoryError
from engine.metrics import psnr
from engine.spec import ModelSpec, look_weights
from engine.tiling import TilePlan

Opener = Callable[[str], Backend]


def onnxruntime(folder: Path) -> Backend:
    return OnnxBackend(folder, ModelSpec.load(folder), BackendOptions())


def backend(name: str, **options: Any) -> Callable[[Path], Backend]:
    return lambda folder: open_backend(folder, name=name, options=BackendOptions(**options))


CPU = {
    "onnxruntime": onnxruntime,
    "mnn": backend("mnn", threads=1),
    "openvino": backend("openvino", precision="fp32", threads=1),
    "torch": backend("torch", device="cpu", precision="fp32", threads=1),
}
GPU = {
    "torch-cuda-no-graph": backend("torch", device="cuda", precision="fp32", graph=False),
    "torch-cuda": backend("torch", device="cuda", precision="fp32"),
    "torch-cuda-fp16": backend("torch", device="cuda"),
    "torch-cuda-bf16": backend("torch", device="cuda", precision="bf16"),
}
BAR = {"torch-cuda-fp16": 45.0, "torch-cuda-bf16": 34.0, "mnn": 65.0}
"""PSNR in dB to the reference where 70 is not to be had: half precision, and Winograd's rounding."""
HALF = {name for name, bar in BAR.items() if bar < 60}


@pytest.fixture(params=[*CPU, *(pytest.param(name, marks=pytest.mark.gpu) for name in GPU)])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(name: str, models: dict[str, Path]) -> Iterator[Backend]:
    with (CPU | GPU)[name](models["skip"]) as running:
        yield running


@pytest.mark.parametrize("kind", CONFIGS)
def test_agrees_with_the_reference(name: str, kind: str, models: dict[str, Path]) -> None:
    image = landscape(64, 96)[None]
    with onnxruntime(models[kind]) as reference:
        look = look_weights(reference.spec, "auto=0.3,dusk=0.7")
        statistics = reference.probe(image, look)
        expected = reference.render(image, statistics)
    with (CPU | GPU)[name](models[kind]) as running:
        found = running.probe(image, look)
        assert found.scale.dtype == found.shift.dtype == np.float32
        assert found.scale.shape == found.shift.shape == (running.spec.norm_channels,)
        half = name in HALF
        np.testing.assert_allclose(found.scale, statistics.scale, rtol=0.03 if half else 2e-3)
        picture = running.render(image, statistics)
        assert picture.dtype == np.uint8 and picture.shape == image.shape
        assert psnr(picture, expected) >= BAR.get(name, 70.0)
        assert psnr(running.render(image, found), expected) >= BAR.get(name, 70.0) - 2
        assert running.name and running.description


def test_batches(opened: Backend, name: str) -> None:
    tiles = np.stack([landscape(32, 48, seed=i) for i in range(3)])
    statistics = opened.probe(tiles, look_weights(opened.spec, "auto"))
    together = opened.render(tiles, statistics)
    apart = np.concatenate([opened.render(tile[None], statistics) for tile in tiles])
    assert psnr(together, apart) >= BAR.get(name, 70.0)
    # Statistics are joint: one picture three times over has those of the picture.
    three = opened.probe(np.stack([tiles[0]] * 3), look_weights(opened.spec, "auto"))
    one = opened.probe(tiles[:1], look_weights(opened.spec, "auto"))
    np.testing.assert_allclose(three.scale, one.scale, rtol=0.03 if name in HALF else 2e-3)


def test_results_belong_to_the_caller(opened: Backend) -> None:
    a, b = landscape(32, 48, seed=1)[None], landscape(32, 48, seed=2)[None]
    statistics = opened.probe(a, look_weights(opened.spec, "auto"))
    scale = statistics.scale.copy()
    first = opened.render(a, statistics)
    kept = first.copy()
    second = opened.render(b, statistics)
    opened.probe(b, look_weights(opened.spec, "dusk"))
    assert np.array_equal(first, kept) and not np.array_equal(first, second)
    assert np.array_equal(statistics.scale, scale)
    first[:] = 0  # writable


def test_inputs_are_left_alone(opened: Backend) -> None:
    tiles = landscape(40, 56)[None]
    tiles.flags.writeable = False
    kept = tiles.copy()
    opened.render(tiles[:, 4:36, 4:52], opened.probe(tiles, look_weights(opened.spec, "auto")))  # not contiguous
    assert np.array_equal(tiles, kept)


def test_looks_differ(opened: Backend) -> None:
    image = landscape(32, 48)[None]
    a, b, mixed = (opened.probe(image, look_weights(opened.spec, look)) for look in ("auto", "dusk", "auto,dusk"))
    assert np.abs(a.shift - b.shift).max() > 0.01
    offset = next(op.offset for op in opened.spec.program.ops if op.kind == "norm" and not op.instance)
    np.testing.assert_allclose(mixed.scale[offset:], (a.scale + b.scale)[offset:] / 2, rtol=1e-3)


def test_tile_with_halo_is_the_whole_frame(opened: Backend, name: str) -> None:
    spec = opened.spec
    frame = landscape(2 * spec.radius + 48, 2 * spec.radius + 64)[None]
    statistics = opened.probe(frame, look_weights(spec, "auto"))
    whole = opened.render(frame, statistics)
    top, left, height, width = spec.radius + 3 * spec.multiple, spec.radius + 2 * spec.multiple, 32, 40
    halo = spec.radius
    tile = frame[:, top - halo : top + height + halo, left - halo : left + width + halo]
    inner = opened.render(tile, statistics)[:, halo : halo + height, halo : halo + width]
    expected = whole[:, top : top + height, left : left + width]
    if name in ("onnxruntime", "torch"):
        assert np.abs(inner.astype(int) - expected).max() <= 1  # sums in another order, rounded
    assert psnr(inner, expected) >= BAR.get(name, 75.0)


@pytest.mark.parametrize(
    "tiles",
    [
        np.zeros((1, 30, 32, 3), np.uint8),
        np.zeros((1, 32, 32, 3), np.float32),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((1, 32, 32, 4), np.uint8),
        np.zeros((1, 4, 32, 3), np.uint8),
    ],
    ids=["odd", "float", "3d", "rgba", "small"],
)
def test_bad_tiles(opened: Backend, tiles: Any) -> None:
    with pytest.raises(ValueError, match="got"):
        opened.probe(tiles, look_weights(opened.spec, "auto"))


def test_bad_statistics(opened: Backend, models: dict[str, Path]) -> None:
    if opened.name == "onnxruntime":
        pytest.skip("the reference is not part of the program")
    with open_backend(models["light"], name="torch", options=BackendOptions(device="cpu", threads=1)) as other:
        statistics = other.probe(landscape(32, 32)[None], look_weights(other.spec, "auto"))
    with pytest.raises(ValueError, match="conditions of another model"):
        opened.render(landscape(32, 32)[None], statistics)


def test_smallest_sides(models: dict[str, Path], name: str) -> None:
    for folder in models.values():
        with (CPU | GPU)[name](folder) as running:
            side = running.spec.min_side
            tiles = landscape(side, side)[None]
            assert running.render(tiles, running.probe(tiles, look_weights(running.spec, "auto"))).shape == tiles.shape


def test_closed_and_opened_again(name: str, models: dict[str, Path]) -> None:
    running = (CPU | GPU)[name](models["light"])
    image = landscape(32, 32)[None]
    results = []
    for _ in range(2):
        with running as entered:
            results.append(entered.render(image, entered.probe(image, look_weights(entered.spec, "auto"))))
    assert np.array_equal(*results)


def test_unknown_backend(models: dict[str, Path]) -> None:
    with pytest.raises(BackendError, match="unknown backend 'cuda'; allowed: auto, "):
        open_backend(models["skip"], name="cuda")


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no model folder"):
        open_backend(tmp_path)


def test_damaged_graphs(tmp_path: Path, models: dict[str, Path]) -> None:
    for path in models["skip"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "render.onnx").write_bytes(b"\x08\x09garbage")
    with pytest.raises(ModelError, match=r"render\.onnx cannot be read"):
        open_backend(tmp_path, name="openvino").__enter__()


def test_torch_without_such_a_device(models: dict[str, Path]) -> None:
    with pytest.raises(BackendError, match="torch cannot use device 'cuda:97'"):
        open_backend(models["skip"], name="torch", options=BackendOptions(device="cuda:97")).__enter__()


@pytest.mark.parametrize(("precision", "bar"), [("fp16", 45.0), ("bf16", 34.0)])
def test_torch_in_16_bits(models: dict[str, Path], precision: str, bar: float) -> None:
    image = landscape(32, 48)[None]
    with onnxruntime(models["light"]) as reference:
        statistics = reference.probe(image, look_weights(reference.spec, "auto"))
        expected = reference.render(image, statistics)
    options = BackendOptions(device="cpu", precision=precision, threads=1)
    with open_backend(models["light"], name="torch", options=options) as running:
        assert psnr(running.render(image, statistics), expected) >= bar
        found = running.probe(image, look_weights(running.spec, "auto"))
        np.testing.assert_allclose(found.scale, statistics.scale, rtol=0.05)


HOT: dict[str, dict[str, Any]] = {"gain": {"gain": 1e4}, "hot": {"gain": 1e4, "amplitude": 300.0}}
"""Weights that make activations large; without their powers of two the first overflow float16."""


@pytest.mark.parametrize("hot", HOT)
@pytest.mark.parametrize("kind", CONFIGS)
def test_torch_in_16_bits_with_large_activations(kind: str, hot: str, tmp_path: Path) -> None:
    make_model(tmp_path, kind, **HOT[hot])
    image = landscape(32, 48)[None]
    with onnxruntime(tmp_path) as reference:
        look = look_weights(reference.spec, "auto=0.25,dusk=0.75")
        statistics = reference.probe(image, look)
        expected = reference.render(image, statistics)
    for precision, bar in {"fp16": 45.0, "bf16": 33.0}.items():
        options = BackendOptions(device="cpu", precision=precision, threads=1)
        with open_backend(tmp_path, name="torch", options=options) as running:
            found = running.probe(image, look)
            assert np.isfinite(found.scale).all() and np.isfinite(found.shift).all()
            for values in (statistics, found):
                assert psnr(running.render(image, values), expected) >= bar - (0 if values is statistics else 2)


def test_only_float16_is_scaled(tmp_path: Path) -> None:
    make_model(tmp_path, "plain", gain=1e4)
    for precision, scaled in {"fp32": False, "bf16": False, "fp16": True}.items():
        options = BackendOptions(device="cpu", precision=precision, threads=1)
        with open_backend(tmp_path, name="torch", options=options) as running:
            assert any(running._powers.values()) == scaled  # type: ignore[attr-defined]


@pytest.fixture(params=["torch", *(pytest.param(name, marks=pytest.mark.gpu) for name in GPU)])
def queue(request: pytest.FixtureRequest, models: dict[str, Path]) -> Iterator[Any]:
    with (CPU | GPU)[request.param](models["light"]) as running:
        running.bar = BAR.get(request.param, 70.0)  # type: ignore[attr-defined]
        yield running


def test_frames_are_queued_and_cut_on_the_device(queue: Any) -> None:
    spec = queue.spec
    frames = [landscape(176, 208, seed=i) for i in range(5)]
    statistics = [queue.probe(frame[None], look_weights(spec, "auto")) for frame in frames]
    tile = 2 * spec.halo + 40
    sizes: dict[str, Any] = {"halo": spec.halo, "multiple": spec.multiple, "height": 176, "width": 208}
    plan = TilePlan(tile_height=tile, tile_width=tile, **sizes)
    assert len(plan.tiles) > 4

    def planner(size: tuple[int, int], limit: int | None) -> Any:
        return plan.tiles

    results = list(render_frames([queue], zip(frames, statistics, strict=True), planner))
    for frame, values, result in zip(frames, statistics, results, strict=True):
        expected = plan.apply(frame, lambda part: queue.render(part[None], values)[0])  # noqa: B023
        if queue.bar == 70.0:
            assert np.array_equal(result, expected)
        assert psnr(result, expected) >= queue.bar
        result[:] = 0  # the caller's own
    windows = TilePlan.whole(176, 208).tiles
    for _ in range(queue.depth):
        queue.submit(frames[0], statistics[0], windows)
    with pytest.raises(ValueError, match="collect one first"):
        queue.submit(frames[0], statistics[0], windows)
    kept = frames[0].copy()
    whole = queue.render(kept[None], statistics[0])[0]
    frames[0][:] = 0  # may be changed once it was submitted
    for _ in range(queue.depth):
        assert psnr(queue.collect(), whole) >= queue.bar


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", OutOfMemoryError, "no memory for a tile of 1x32x48"),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", OutOfMemoryError, "a smaller"),
        ("CUDA error: an illegal memory access was encountered\nSee below", BackendError, "CUDA failed on cpu .*nvid"),
        ("expected a Tensor", RuntimeError, "expected a Tensor"),
    ],
)
def test_errors_of_torch(models: dict[str, Path], error: str, kind: Any, message: str) -> None:
    import torch

    tile = landscape(32, 48)
    with open_backend(models["light"], name="torch", options=BackendOptions(device="cpu", threads=1)) as running:
        statistics = running.probe(tile[None], look_weights(running.spec, "auto"))
        expected = running.render(tile[None], statistics)

        def fails(*_: Any) -> Any:
            raise (torch.OutOfMemoryError if "Tried" in error else RuntimeError)(error)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(running, "_compute", fails)
            for call in (
                lambda: running.render(tile[None], statistics),
                lambda: running.submit(tile, statistics, TilePlan.whole(32, 48).tiles),  # type: ignore[attr-defined]
            ):
                with pytest.raises(kind, match=message) as caught:
                    call()
                assert kind is RuntimeError or "\n" not in str(caught.value)
        assert np.array_equal(running.render(tile[None], statistics), expected)


def test_torch_counts_the_gpus(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(BackendError, match="there is no GPU 5: this machine has 2; see nvidia-smi"):
        open_backend(models["skip"], name="torch", options=BackendOptions(device="cuda:5")).__enter__()


def test_openvino_without_such_a_device(models: dict[str, Path]) -> None:
    with pytest.raises(BackendError, match=r"OpenVINO has no device 'cuda:0' here: choose .*CPU"):
        open_backend(models["skip"], name="openvino", options=BackendOptions(device="cuda:0")).__enter__()
    with open_backend(models["skip"], name="openvino", options=BackendOptions(device="cpu")) as running:
        assert running.description.startswith("OpenVINO on ")


def test_recorded_graphs_are_kept_by_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bookkeeping of CUDA graphs, with the recording itself replaced."""
    import torch

    from engine.backends.shape_cache import SHAPES as KEPT
    from engine.backends.torch_graph import GraphCache

    class Replay:
        def __init__(self, work: Callable[[], None]) -> None:
            self.replay = work

    recorded = []

    def record(self: GraphCache, inputs: tuple[torch.Tensor, ...]) -> Any:
        places = tuple(value.clone() for value in inputs)
        result = torch.zeros_like(places[0])
        recorded.append(tuple(places[0].shape))
        return Replay(lambda: result.copy_(places[0] + places[1])), places, result

    monkeypatch.setattr(GraphCache, "_record", record)
    graphs = GraphCache(lambda *tensors: tensors[0])
    for value in range(3):
        for side in range(1, KEPT + 1):
            result = graphs(torch.full((side,), float(value)), torch.ones(1), torch.ones(1))
            assert result.tolist() == [value + 1.0] * side
    assert recorded == [(side,) for side in range(1, KEPT + 1)]
    graphs(torch.zeros(9), torch.ones(1), torch.ones(1))
    graphs(torch.zeros(KEPT), torch.ones(1), torch.ones(1))
    graphs(torch.zeros(1), torch.ones(1), torch.ones(1))
    assert recorded[KEPT:] == [(9,), (1,)], "the least recently used shape goes first"


@pytest.mark.gpu
def test_torch_on_a_gpu_runs_out_of_memory(models: dict[str, Path]) -> None:
    import torch

    with open_backend(models["skip"], name="torch", options=BackendOptions(device="cuda")) as running:
        small = landscape(64, 64)[None]
        statistics = running.probe(small, look_weights(running.spec, "auto"))
        free, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction((total - free + (64 << 20)) / total)
        try:
            with pytest.raises(OutOfMemoryError, match="choose a smaller --tile"):
                running.render(np.zeros((1, 4096, 4096, 3), np.uint8), statistics)
            assert running.render(small, statistics).shape == small.shape
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)


def test_choice_says_why() -> None:
    chosen, reason = choose_backend()
    assert chosen in BACKENDS and reason
