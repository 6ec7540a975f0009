"""Builder and backend over doubles of TensorRT and pycuda that keep the documented rules."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_graphs import OnnxBackend
from engine_models import landscape

from engine.backends.base import BackendOptions
from engine.backends.frames import Planner, render_frames
from engine.backends.tensorrt import TensorRtBackend
from engine.builder import Builder, build_plan
from engine.choice import choose_backend, open_backend
from engine.conditions import Conditions
from engine.errors import BackendError, BuildCancelled, OutOfMemoryError, PlanError
from engine.metrics import psnr
from engine.spec import ModelSpec, look_weights
from engine.tiling import TilePlan
from engine.trt.plan import PlanCache, PlanConfig, PlanRecord, ShapeProfile

pytestmark = pytest.mark.usefixtures("doubles")

BATCH, SIDE = 2, 96


@pytest.fixture
def folder(models: dict[str, Path]) -> Path:
    return models["light"]


@pytest.fixture
def spec(folder: Path) -> ModelSpec:
    return ModelSpec.load(folder)


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "cache")


def config(spec: ModelSpec, **values: Any) -> PlanConfig:
    return PlanConfig(profile=ShapeProfile.of_tile(spec, SIDE, SIDE, BATCH), **values)


@pytest.fixture
def built(folder: Path, spec: ModelSpec, cache: PlanCache) -> tuple[Path, PlanRecord]:
    return Builder(folder, config(spec), cache=cache).build()


@pytest.fixture
def backend(folder: Path, spec: ModelSpec, cache: PlanCache, built: Any) -> Iterator[TensorRtBackend]:
    with TensorRtBackend(folder, spec, BackendOptions(cache=cache.root)) as running:
        yield running


def reference(folder: Path, images: Any, statistics: Conditions) -> Any:
    with OnnxBackend(folder, ModelSpec.load(folder), BackendOptions()) as slow:
        return slow.render(images, statistics)


def tiles_of(spec: ModelSpec, side: int = SIDE, halo: int | None = None) -> Planner:
    def planner(size: tuple[int, int], limit: int | None) -> Any:
        tile = min(side, math.isqrt(limit or side**2)) // spec.multiple * spec.multiple
        return TilePlan(
            height=size[0],
            width=size[1],
            tile_height=min(tile, size[0]),
            tile_width=min(tile, size[1]),
            halo=spec.radius if halo is None else halo,
            multiple=spec.multiple,
        ).tiles

    return planner


# --- building


def test_build_installs_a_checked_plan(built: tuple[Path, PlanRecord], cache: PlanCache, doubles: Any) -> None:
    folder, record = built
    assert {p.name for p in folder.iterdir()} == {"probe.plan", "render.plan", "plan.json"}
    assert folder.parent == cache.plans and folder.name == record.key
    assert record.psnr is not None and record.psnr >= 45
    assert record.frames_per_second == pytest.approx(BATCH / (0.010 / 20))
    assert PlanRecord.load(folder) == record
    assert doubles.trt.builds == 2
    assert not doubles.cuda.live, "device memory was not given back"
    assert not [p for p in cache.plans.iterdir() if p.name.startswith(".building")]
    assert list((cache.root / "timings").iterdir())


def test_second_build_takes_what_is_there(folder: Path, spec: ModelSpec, cache: PlanCache, doubles: Any) -> None:
    for force, builds in ((False, 2), (False, 2), (True, 4)):
        path, _ = Builder(folder, config(spec), cache=cache).build(force=force)
        assert doubles.trt.builds == builds and path.is_dir()
    keys = {Builder(folder, config(spec, **c), cache=cache).record(_machine()).key for c in CONFIGS}
    assert len(keys) == len(CONFIGS)


CONFIGS: list[dict[str, Any]] = [{}, {"precision": "fp32"}, {"optimization_level": 5}, {"hardware_compatible": True}]


def _machine() -> Any:
    from engine.trt.api import Machine

    return Machine(gpu="A", capability="8.9", tensorrt="10.9.0.34")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_precisions(folder: Path, spec: ModelSpec, cache: PlanCache, precision: str) -> None:
    path, record = Builder(folder, config(spec, precision=precision), cache=cache).build()
    options = BackendOptions(cache=cache.root, precision=precision)
    with TensorRtBackend(folder, spec, options) as running:
        assert running.description == f"TensorRT 10.9.0.34 on NVIDIA Double 4090, {precision}"
        assert running.plan == path and running.record == record


def test_inaccurate_plan_is_refused(folder: Path, spec: ModelSpec, cache: PlanCache, doubles: Any) -> None:
    doubles.trt.damage = 0x10
    with pytest.raises(PlanError, match=r"not accurate: .* dB to the float32 reference, 45 dB are needed"):
        Builder(folder, config(spec), cache=cache).build()
    assert not cache.records() and not doubles.cuda.live


def test_build_reports_progress_and_stops(folder: Path, spec: ModelSpec, cache: PlanCache, doubles: Any) -> None:
    seen: list[tuple[str, int, int]] = []
    Builder(folder, config(spec), cache=cache, progress=lambda *step: seen.append(step)).build()
    assert seen[:4] == [("probe: Building Engine", i, 3) for i in range(4)]
    assert ("render: Building Engine", 3, 3) in seen and not [s for s in seen if "Tactics" in s[0]]
    builder = Builder(folder, config(spec), cache=cache, progress=lambda *step: builder.cancel())
    with pytest.raises(BuildCancelled):
        builder.build(force=True)
    assert doubles.trt.cancel_seen and len(cache.records()) == 1


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"parser_fails": True}, PlanError, "Resize 'resize_7': this mode is not supported"),
        ({"build_fails": "no kernel for conv_3"}, PlanError, "cannot build the probe plan: no kernel for conv_3"),
        ({"build_fails": "Requested amount of GPU memory"}, OutOfMemoryError, "choose a smaller --tile"),
        ({"wrong_type": True}, PlanError, "the network is not fp16 as exported"),
        ({"start": False}, BackendError, "TensorRT does not start .*error: 35"),
    ],
)
def test_build_fails(
    folder: Path, spec: ModelSpec, cache: PlanCache, doubles: Any, change: dict[str, Any], kind: Any, message: str
) -> None:
    for name, value in change.items():
        setattr(doubles.trt, name, value)
    with pytest.raises(kind, match=message):
        Builder(folder, config(spec), cache=cache).build()
    assert not cache.records()


def test_timing_cache(folder: Path, spec: ModelSpec, cache: PlanCache, caplog: pytest.LogCaptureFixture) -> None:
    path = cache.root / "mine.bin"
    cache.root.mkdir()
    path.write_bytes(b"foreign")
    Builder(folder, config(spec), cache=cache, timing_cache=path).build()
    assert "made by another GPU" in caplog.text
    assert path.read_bytes() == b"tt"  # written anew by probe, read and written by render


def test_unwritable_cache(folder: Path, spec: ModelSpec, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match=r"cannot be written .*--cache or FIREWATCH_CACHE"):
        Builder(folder, config(spec), cache=PlanCache(tmp_path / "file")).build()


def test_output_folder(folder: Path, spec: ModelSpec, cache: PlanCache, tmp_path: Path) -> None:
    path, record = Builder(folder, config(spec), cache=cache).build(output=tmp_path / "mine")
    assert path == tmp_path / "mine" and not cache.records()
    with TensorRtBackend(folder, spec, BackendOptions(cache=cache.root, plan=path)) as running:
        assert running.record == record
    with pytest.raises(PlanError, match="holds another plan"):
        Builder(folder, config(spec, precision="fp32"), cache=cache).build(output=path)


def test_output_never_replaces_other_files(folder: Path, spec: ModelSpec, cache: PlanCache, tmp_path: Path) -> None:
    mine = tmp_path / "documents"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(PlanError, match="documents holds other files: choose a new or empty folder for --output"):
            Builder(folder, config(spec), cache=cache).build(output=mine, force=force)
        with pytest.raises(PlanError, match=r"thesis\.txt holds other files"):
            Builder(folder, config(spec), cache=cache).build(output=mine / "thesis.txt", force=force)
    assert (mine / "thesis.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    path, record = Builder(folder, config(spec), cache=cache).build(output=tmp_path / "empty")
    assert Builder(folder, config(spec), cache=cache).build(output=path, force=True) == (path, record)
    assert {p.name for p in tmp_path.iterdir()} == {"documents", "empty", "cache"}, "nothing is left beside it"
    with pytest.raises(PlanError, match=r"thesis\.txt/plan cannot be written .*: choose another folder with --output"):
        Builder(folder, config(spec), cache=cache).build(output=mine / "thesis.txt" / "plan")


def test_two_builds_wait_for_each_other(folder: Path, spec: ModelSpec, cache: PlanCache, doubles: Any) -> None:
    builders = [Builder(folder, config(spec), cache=cache) for _ in range(2)]
    threads = [threading.Thread(target=builder.build) for builder in builders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert doubles.trt.builds == 2 and len(cache.records()) == 1


# --- plans that do not fit


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("gpu", "NVIDIA T4", "was built for NVIDIA T4 .*this is NVIDIA Double 4090"),
        ("capability", "7.5", "was built for .*7.5"),
        ("tensorrt", "10.16.1.11", "was built with TensorRT 10.16.1.11, this is 10.9.0.34"),
    ],
)
def test_plan_of_another_machine(
    folder: Path, spec: ModelSpec, built: tuple[Path, PlanRecord], field: str, value: str, message: str
) -> None:
    path, _ = built
    values = json.loads((path / "plan.json").read_text())
    values["machine"][field] = value
    (path / "plan.json").write_text(json.dumps(values))
    options = BackendOptions(plan=path)
    with pytest.raises(PlanError, match=f"{message}.*: build-engine --model light --precision fp16 --tile 96x96"):
        TensorRtBackend(folder, spec, options).__enter__()


def test_compatible_plans(built: tuple[Path, PlanRecord]) -> None:
    import dataclasses

    from engine.trt.api import Machine

    record = built[1]
    wide = dataclasses.replace(record, config=dataclasses.replace(record.config, hardware_compatible=True))
    assert wide.mismatch(Machine(gpu="B", capability="9.0", tensorrt="10.9.0.34")) is None
    assert "from Ampere on" in str(wide.mismatch(Machine(gpu="B", capability="7.5", tensorrt="10.9.0.34")))
    long = dataclasses.replace(record, config=dataclasses.replace(record.config, version_compatible=True))
    here = record.machine
    for version, fits in (("10.16.1.11", True), ("11.4.0.1", False), ("10.8.0.1", False)):
        assert (long.mismatch(dataclasses.replace(here, tensorrt=version)) is None) == fits


@pytest.mark.parametrize("damage", ["truncated", "missing", "sidecar", "other", "foreign"])
def test_damaged_plan(
    folder: Path, spec: ModelSpec, models: dict[str, Path], built: tuple[Path, PlanRecord], damage: str
) -> None:
    path, _ = built
    plan = path / "render.plan"
    if damage == "truncated":
        plan.write_bytes(plan.read_bytes()[:1000])
    elif damage == "missing":
        plan.unlink()
    elif damage == "sidecar":
        (path / "plan.json").write_text("{")
    elif damage == "foreign":
        path = models["light"]
    else:
        folder, spec = models["skip"], ModelSpec.load(models["skip"])
    messages = {"sidecar": "damaged", "other": "another model", "foreign": "no plan folder"}
    with pytest.raises(PlanError, match=messages.get(damage, "missing or damaged.*--force")):
        TensorRtBackend(folder, spec, BackendOptions(plan=path)).__enter__()


def test_plan_with_other_inputs(folder: Path, spec: ModelSpec, built: tuple[Path, PlanRecord], doubles: Any) -> None:
    import dataclasses

    from engine.spec import sha256

    path, record = built
    (path / "render.plan").write_bytes((path / "probe.plan").read_bytes())
    files = {**record.files, "render": sha256(path / "render.plan")}
    dataclasses.replace(record, files=files).save(path)
    with pytest.raises(PlanError, match=r"has other inputs than tiles, scale, shift, output: build-engine"):
        TensorRtBackend(folder, spec, BackendOptions(plan=path)).__enter__()
    assert not doubles.cuda.live


def test_plan_is_built_on_demand(
    folder: Path, spec: ModelSpec, cache: PlanCache, doubles: Any, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr("engine.backends.tensorrt.usual_tile", lambda halo, multiple: (64, 64))
    with TensorRtBackend(folder, spec, BackendOptions(cache=cache.root), build=build_plan) as running:
        assert running.largest_tile == (64, 64)
    for part in (
        "no TensorRT plan of light for 64x64 on NVIDIA Double 4090",
        "several minutes",
        str(cache.plans),
        "--gpu 0",
    ):
        assert part in caplog.text
    assert doubles.trt.builds == 2 and len(cache.records()) == 1


# --- running


def test_render_and_probe(backend: TensorRtBackend, folder: Path) -> None:
    tiles = np.stack([landscape(64, 80, seed=i) for i in range(5)])  # more than a batch
    look = look_weights(backend.spec, "dusk")
    with OnnxBackend(folder, backend.spec, BackendOptions()) as slow:
        expected = slow.probe(tiles[:1], look)
    statistics = backend.probe(tiles[:1], look)
    np.testing.assert_allclose(statistics.scale, expected.scale, rtol=5e-3)
    pictures = backend.render(tiles, statistics)
    assert psnr(pictures, reference(folder, tiles, statistics)) >= 45
    pictures[:] = 0  # the caller's own
    assert psnr(backend.render(tiles, statistics), reference(folder, tiles, statistics)) >= 45


@pytest.mark.parametrize("size", [(96, 96), (64, 64), (160, 128), (200, 96)])
def test_frames_are_cut_and_assembled_on_the_device(
    backend: TensorRtBackend, folder: Path, doubles: Any, size: tuple[int, int]
) -> None:
    frames = [landscape(*size, seed=i) for i in range(5)]
    statistics = [backend.probe(frame[None, :64, :64], look_weights(backend.spec, "auto")) for frame in frames]
    before = doubles.cuda.copied_to_device
    results = list(
        render_frames([backend], zip(frames, statistics, strict=True), tiles_of(backend.spec))
    )  # fmt: skip
    sent = (doubles.cuda.copied_to_device - before) / len(frames)
    vectors = 2 * -(-4 * backend.spec.norm_channels // 256) * 256  # each begins at a multiple of 256 bytes
    assert sent == frames[0].nbytes + vectors, "a frame is uploaded once"
    assert len(results) == len(frames)
    for frame, values, result in zip(frames, statistics, results, strict=True):
        assert psnr(result[None], reference(folder, frame[None], values)) >= 45


def test_two_frames_are_under_way(backend: TensorRtBackend) -> None:
    frame = landscape(64, 64)
    statistics = backend.probe(frame[None], look_weights(backend.spec, "auto"))
    windows = TilePlan.whole(64, 64).tiles
    backend.submit(frame, statistics, windows)
    backend.submit(frame[::-1], statistics, windows)
    with pytest.raises(ValueError, match="collect one first"):
        backend.submit(frame, statistics, windows)
    with pytest.raises(ValueError, match="collect one first"):
        backend.render(frame[None], statistics)
    first, second = backend.collect(), backend.collect()
    assert not np.array_equal(first, second)
    assert np.array_equal(backend.render(frame[None], statistics)[0], first)


def test_several_gpus_keep_the_order(folder: Path, spec: ModelSpec, cache: PlanCache, built: Any, doubles: Any) -> None:
    doubles.cuda.gpus = 3
    frames = [landscape(64, 64, seed=i) for i in range(9)]
    backends = [TensorRtBackend(folder, spec, BackendOptions(cache=cache.root, device=f"cuda:{i}")) for i in range(3)]
    doubles.cuda.used_gpus.clear()
    with backends[0] as a, backends[1] as b, backends[2] as c:
        statistics = a.probe(frames[0][None], look_weights(spec, "auto"))
        results = list(render_frames([a, b, c], ((f, statistics) for f in frames), tiles_of(spec)))
        expected = [a.render(frame[None], statistics)[0] for frame in frames]
    assert set(doubles.cuda.used_gpus) == {0, 1, 2}
    assert all(np.array_equal(x, y) for x, y in zip(results, expected, strict=True))


def test_memory_runs_out(backend: TensorRtBackend, folder: Path, doubles: Any, caplog: Any) -> None:
    """Frames under way are finished, the rest goes on with smaller tiles, none is lost."""
    spec = backend.spec
    frames = [landscape(*size, seed=i) for i, size in enumerate([(64, 64)] * 3 + [(96, 96)] * 4)]
    statistics = backend.probe(frames[0][None], look_weights(spec, "auto"))
    small = tiles_of(spec, halo=8)
    results = []
    for i, result in enumerate(render_frames([backend], ((f, statistics) for f in frames), small)):
        if i == 0:
            doubles.cuda.limit = doubles.cuda.used() + 2 * 96 * 96 * 3 * 4 + 500_000
        results.append(result)
    assert "going on with smaller tiles" in caplog.text
    assert [r.shape for r in results] == [f.shape for f in frames]
    for frame, result in zip(frames, results, strict=True):
        assert psnr(result[None], reference(folder, frame[None], statistics)) >= 20  # the halo is short
    doubles.cuda.limit = doubles.cuda.used()
    with pytest.raises(OutOfMemoryError, match="choose a smaller --tile or close other programs"):
        list(render_frames([backend], [(landscape(192, 192), statistics)], small))


def test_no_memory_leaves_the_backend_usable(backend: TensorRtBackend, doubles: Any) -> None:
    frame = landscape(64, 64)
    statistics = backend.probe(frame[None], look_weights(backend.spec, "auto"))
    expected = backend.render(frame[None], statistics)
    for _ in range(3):
        doubles.cuda.limit = doubles.cuda.used()
        with pytest.raises(OutOfMemoryError):
            backend.render(landscape(96, 96)[None], statistics)
    doubles.cuda.limit = 1 << 40
    assert np.array_equal(backend.render(frame[None], statistics), expected)


@pytest.fixture
def plain(folder: Path, spec: ModelSpec, cache: PlanCache, built: Any) -> Iterator[TensorRtBackend]:
    """Without CUDA graphs: every tile goes through TensorRT."""
    with TensorRtBackend(folder, spec, BackendOptions(cache=cache.root, graph=False)) as running:
        yield running


def test_tensorrt_itself_runs_out_of_memory(plain: TensorRtBackend, doubles: Any, caplog: Any) -> None:
    """What it says in `execute_async_v3` leads to smaller tiles as well; frames before and after are whole."""
    backend, spec, frames = plain, plain.spec, [landscape(96, 96, seed=i) for i in range(4)]
    statistics = backend.probe(frames[0][None], look_weights(spec, "auto"))
    small = tiles_of(spec, halo=8)
    expected = [backend.render(frame[None], statistics)[0] for frame in frames]
    results = render_frames([backend], ((f, statistics) for f in frames), small)
    first = next(results)
    doubles.trt.enqueue_room = 80 * 80
    rest = list(results)
    assert "no GPU memory left for the network" in caplog.text and "going on with smaller tiles" in caplog.text
    for result, wanted in zip([first, *rest], expected, strict=True):
        assert psnr(result, wanted) >= 20  # the halo is short
    doubles.trt.enqueue_room = 1
    with pytest.raises(OutOfMemoryError, match=r"IExecutionContext::enqueueV3: .*: choose a smaller --tile"):
        list(render_frames([backend], [(frames[0], statistics)], small))
    doubles.trt.enqueue_room = 1 << 40
    assert np.array_equal(backend.render(frames[0][None], statistics)[0], expected[0]), "the backend is usable"


@pytest.mark.parametrize("message", ["Cuda Runtime (an illegal memory access was encountered)", "no reason"])
def test_other_complaints_are_no_lack_of_memory(message: str) -> None:
    from engine.trt.api import lacks_memory

    assert not lacks_memory(message)
    for real in ("Error Code 2: OutOfMemory (Requested size was 8 bytes.)", "Cuda Runtime (out of memory)"):
        assert lacks_memory(real)


def test_the_same_work_is_replayed_as_a_graph(
    folder: Path, spec: ModelSpec, cache: PlanCache, built: Any, doubles: Any, caplog: Any
) -> None:
    frames = [landscape(160, 128, seed=i) for i in range(6)] + [landscape(64, 64)] * 2
    results: dict[bool, Any] = {}
    for graph in (True, False):
        with TensorRtBackend(folder, spec, BackendOptions(cache=cache.root, graph=graph)) as running:
            statistics = running.probe(frames[0][None, :64, :64], look_weights(spec, "auto"))
            before = doubles.cuda.launches
            pairs = ((frame, statistics) for frame in frames)
            results[graph] = list(render_frames([running], pairs, tiles_of(spec, halo=8)))
            assert (doubles.cuda.launches > before) == graph
        assert not doubles.cuda.graphs, "every graph is given back"
    assert all(np.array_equal(a, b) for a, b in zip(*results.values(), strict=True))
    doubles.cuda.refuse_capture = True
    with TensorRtBackend(folder, spec, BackendOptions(cache=cache.root)) as running:
        again = list(render_frames([running], ((f, statistics) for f in frames), tiles_of(spec, halo=8)))
    assert "no CUDA graph can be recorded (cuStreamBeginCapture_v2 failed with CUDA error 900)" in caplog.text
    assert all(np.array_equal(a, b) for a, b in zip(results[False], again, strict=True))


# --- a video's own plan


def whole(size: tuple[int, int], limit: int | None) -> Any:
    if limit is not None and size[0] * size[1] > limit:
        return tiles_of_light(size, limit)
    return TilePlan.whole(*size).tiles


def tiles_of_light(size: tuple[int, int], limit: int) -> Any:
    return TilePlan.balanced(*size, most=size, halo=8, multiple=4, pixels=limit).tiles


def test_a_video_has_a_plan_of_its_own_size(
    folder: Path, spec: ModelSpec, cache: PlanCache, doubles: Any, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr("engine.backends.tensorrt.usual_tile", lambda halo, multiple: (80, 80))
    options = BackendOptions(cache=cache.root, frame=(96, 128))
    for builds in (2, 2):  # the second time it is there
        with TensorRtBackend(folder, spec, options, build=build_plan) as running:
            assert running.record.config.profile == ShapeProfile.fixed(96, 128) and doubles.trt.builds == builds
            assert running.largest_tile == (96, 128)
    assert "for 96x128 on NVIDIA Double 4090" in caplog.text and "--tile 96x128 --fixed" in caplog.text
    with TensorRtBackend(folder, spec, BackendOptions(cache=cache.root), build=build_plan) as running:
        assert not running.record.config.profile.is_fixed, "photos have many sizes"


def test_a_plan_that_takes_the_frame_is_enough(
    folder: Path, spec: ModelSpec, cache: PlanCache, built: tuple[Path, PlanRecord], doubles: Any
) -> None:
    with TensorRtBackend(folder, spec, BackendOptions(cache=cache.root, frame=(64, 96)), build=build_plan) as running:
        assert running.plan == built[0] and doubles.trt.builds == 2
    Builder(folder, PlanConfig(profile=ShapeProfile.fixed(64, 96)), cache=cache).build()
    Builder(folder, config(spec, optimization_level=4), cache=cache).build()  # newer
    with TensorRtBackend(folder, spec, BackendOptions(cache=cache.root, frame=(64, 96)), build=build_plan) as running:
        assert running.record.config.profile.is_fixed, "the frame's own comes first"


def test_other_frames_change_the_plan(folder: Path, spec: ModelSpec, cache: PlanCache, built: Any, caplog: Any) -> None:
    """A frame of another size, and lack of memory: frames under way are not lost."""
    frames = [landscape(96, 96, seed=i) for i in range(3)] + [landscape(64, 96), landscape(96, 96)]
    Builder(folder, PlanConfig(profile=ShapeProfile.fixed(96, 96)), cache=cache).build()
    with TensorRtBackend(folder, spec, BackendOptions(cache=cache.root, frame=(96, 96))) as running:
        assert running.record.config.profile.is_fixed
        statistics = running.probe(frames[0][None], look_weights(spec, "auto"))
        results = list(render_frames([running], ((f, statistics) for f in frames), whole))
        assert running.plan == built[0]
    assert "the plan for 96x96 does not take tiles of 64x96: changing" in caplog.text
    for frame, result in zip(frames, results, strict=True):
        assert psnr(result[None], reference(folder, frame[None], statistics)) >= 45


def test_no_memory_for_the_video_s_own_plan(
    folder: Path, spec: ModelSpec, cache: PlanCache, built: Any, doubles: Any, caplog: Any
) -> None:
    frames = [landscape(96, 96, seed=i) for i in range(4)]
    Builder(folder, PlanConfig(profile=ShapeProfile.fixed(96, 96)), cache=cache).build()
    with TensorRtBackend(folder, spec, BackendOptions(cache=cache.root, frame=(96, 96))) as running:
        statistics = running.probe(frames[0][None], look_weights(spec, "auto"))
        results = render_frames([running], ((f, statistics) for f in frames), whole)
        found = [next(results)]
        doubles.trt.enqueue_room = 80 * 80
        found += results
        assert running.plan == built[0]
    assert "going on with smaller tiles" in caplog.text
    for frame, result in zip(frames, found, strict=True):
        assert psnr(result[None], reference(folder, frame[None], statistics)) >= 20  # the halo is short


def test_tiles_beyond_the_plan(backend: TensorRtBackend) -> None:
    statistics = backend.probe(landscape(64, 64)[None], look_weights(backend.spec, "auto"))
    with pytest.raises(OutOfMemoryError, match=r"up to 96x96 .*got 128x64 .*build-engine --tile 128x64"):
        backend.render(landscape(128, 64)[None], statistics)


def test_calls_from_several_threads(backend: TensorRtBackend) -> None:
    """The context is current in the thread that calls, and only for the length of the call."""
    frame = landscape(64, 64)[None]
    statistics = backend.probe(frame, look_weights(backend.spec, "auto"))
    expected = backend.render(frame, statistics)
    results: list[Any] = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: results.append(backend.render(frame, statistics)))
        thread.start()
        thread.join()
    assert len(results) == 3 and all(np.array_equal(r, expected) for r in results)


def test_everything_is_given_back(folder: Path, spec: ModelSpec, cache: PlanCache, built: Any, doubles: Any) -> None:
    with TensorRtBackend(folder, spec, BackendOptions(cache=cache.root)) as running:
        frame = landscape(64, 64)
        statistics = running.probe(frame[None], look_weights(spec, "auto"))
        running.submit(frame, statistics, TilePlan.whole(64, 64).tiles)
        assert doubles.cuda.live
    assert not doubles.cuda.live and not doubles.cuda.stack


def test_one_context_for_each_gpu_until_the_end(folder: Path, spec: ModelSpec, cache: PlanCache, doubles: Any) -> None:
    from engine.trt import cuda

    for _ in range(2):
        Builder(folder, config(spec), cache=cache).build(force=True)
    assert (doubles.cuda.retained, doubles.cuda.detached) == (1, 0)
    cuda._release()
    assert doubles.cuda.detached == 1


# --- choice and refusals


def test_auto_prefers_tensorrt(doubles: Any) -> None:
    assert choose_backend()[0] == "tensorrt"
    doubles.cuda.gpus = 0
    chosen, reason = choose_backend()
    assert chosen != "tensorrt" and "no CUDA-capable device" in reason


@pytest.mark.parametrize("version", ["10.2.0.19", "8.6.1"])
def test_old_tensorrt(folder: Path, doubles: Any, monkeypatch: Any, version: str) -> None:
    import sys

    module = doubles.module(version)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(BackendError, match=rf"TensorRT {version} is too old: pip install --upgrade 'tensorrt>=10.3'"):
        open_backend(folder, name="tensorrt").__enter__()


def test_no_driver_library(folder: Path, doubles: Any, monkeypatch: Any) -> None:
    """What pycuda says where there is no libcuda: it is installed, the driver is not."""
    import builtins
    import sys

    real = builtins.__import__

    def importing(name: str, *rest: Any) -> Any:
        if name == "pycuda.driver":
            raise ImportError("libcuda.so.1: cannot open shared object file: No such file or directory")
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "pycuda.driver")
    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(BackendError, match=r"no NVIDIA driver \(libcuda.so.1 is missing\): install one"):
        open_backend(folder, name="tensorrt").__enter__()


def test_missing_packages(folder: Path, monkeypatch: Any) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.delitem(sys.modules, "engine.trt.cuda_bindings", raising=False)
    monkeypatch.delattr("engine.trt.cuda_bindings", raising=False)
    with pytest.raises(BackendError, match="neither pycuda nor cuda-bindings is installed: pip install"):
        open_backend(folder, name="tensorrt").__enter__()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match="TensorRT is not installed: pip install"):
        open_backend(folder, name="tensorrt").__enter__()


def test_no_driver(folder: Path, doubles: Any) -> None:
    doubles.cuda.gpus = 0
    with pytest.raises(BackendError, match=r"the NVIDIA driver does not start .*nvidia-smi"):
        open_backend(folder, name="tensorrt").__enter__()


@pytest.mark.parametrize(("device", "message"), [("cuda:4", "there is no GPU 4"), ("mps", "choose cuda:0")])
def test_no_such_gpu(folder: Path, device: str, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        open_backend(folder, name="tensorrt", options=BackendOptions(device=device)).__enter__()
