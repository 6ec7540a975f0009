"""TensorRT and CUDA themselves: skipped without them, a failure then with REQUIRE_GPU=1."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_graphs import OnnxBackend
from engine_models import landscape

from engine.backends.base import BackendOptions
from engine.backends.frames import render_frames
from engine.backends.tensorrt import TensorRtBackend
from engine.builder import Builder
from engine.errors import PlanError
from engine.metrics import psnr
from engine.spec import ModelSpec, look_weights
from engine.tiling import TilePlan
from engine.trt.inspect import layers_of
from engine.trt.plan import BARS, PlanCache, PlanConfig, PlanRecord, ShapeProfile
from stylize.api import Stylizer
from stylize.frame import Frame

SIDE = 256


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> PlanCache:
    return PlanCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def plan(models: dict[str, Path], cache: PlanCache) -> tuple[Path, PlanRecord]:
    profile = ShapeProfile.of_tile(ModelSpec.load(models["light"]), SIDE, SIDE, 2)
    return Builder(models["light"], PlanConfig(profile=profile, optimization_level=1), cache=cache).build()


@pytest.fixture
def backend(models: dict[str, Path], plan: tuple[Path, PlanRecord]) -> Iterator[TensorRtBackend]:
    spec = ModelSpec.load(models["light"])
    with TensorRtBackend(models["light"], spec, BackendOptions(plan=plan[0])) as running:
        yield running


@pytest.mark.tensorrt
@pytest.mark.parametrize("precision", BARS)
def test_every_architecture_builds_and_is_accurate(models: dict[str, Path], cache: PlanCache, precision: str) -> None:
    for folder in models.values():
        profile = ShapeProfile.of_tile(ModelSpec.load(folder), 64, 96, 1)
        config = PlanConfig(profile=profile, precision=precision, optimization_level=0)
        _, record = Builder(folder, config, cache=cache).build()
        assert record.psnr is not None and record.psnr >= BARS[precision]


@pytest.mark.tensorrt
def test_frames_on_the_device(backend: TensorRtBackend, models: dict[str, Path]) -> None:
    spec = backend.spec
    frames = [landscape(320, 400, seed=i) for i in range(6)]
    statistics = [backend.probe(frame[None], look_weights(spec, "auto")) for frame in frames]

    def planner(size: tuple[int, int], limit: int | None) -> Any:
        sizes: dict[str, int] = {"tile_height": SIDE, "tile_width": SIDE, "halo": spec.halo, "multiple": spec.multiple}
        return TilePlan(height=size[0], width=size[1], **sizes).tiles

    results = render_frames([backend], zip(frames, statistics, strict=True), planner)
    with OnnxBackend(models["light"], spec, BackendOptions()) as reference:
        for frame, values, result in zip(frames, statistics, results, strict=True):
            assert psnr(result, reference.render(frame[None], values)[0]) >= 45


@pytest.mark.tensorrt
def test_a_video(models: dict[str, Path], plan: tuple[Path, PlanRecord]) -> None:
    frames = [Frame(data=landscape(200, 240, seed=i), index=i, pts=Fraction(i, 10)) for i in range(7)]
    results = {}
    for name, values in {"fast": {"plan": str(plan[0])}, "slow": {"backend": "openvino", "precision": "fp32"}}.items():
        with Stylizer(model=str(models["light"]), **values) as stylizer:
            results[name] = [f.data for f in stylizer.transform(10)(iter(frames), range(7))]
    for fast, slow in zip(results["fast"], results["slow"], strict=True):
        assert psnr(fast, slow) >= 40


@pytest.mark.tensorrt
def test_layers_are_of_the_precision(plan: tuple[Path, PlanRecord]) -> None:
    layers = layers_of(plan[0], 0)["render"]
    types = {kind for layer in layers for kind in layer["types"]}
    assert any("Half" in kind or "FP16" in kind for kind in types), types


@pytest.mark.tensorrt
def test_a_plan_that_tensorrt_does_not_take(
    models: dict[str, Path], plan: tuple[Path, PlanRecord], tmp_path: Path
) -> None:
    import dataclasses
    import shutil

    from engine.spec import sha256

    broken = tmp_path / "plan"
    shutil.copytree(plan[0], broken)
    (broken / "render.plan").write_bytes(bytes(1000))
    files = {**plan[1].files, "render": sha256(broken / "render.plan")}
    dataclasses.replace(plan[1], files=files).save(broken)
    with pytest.raises(PlanError, match=r"cannot be loaded .*--force"):
        TensorRtBackend(models["light"], ModelSpec.load(models["light"]), BackendOptions(plan=broken)).__enter__()


@pytest.mark.gpu
def test_torch_on_cuda_by_way_of_the_program(models: dict[str, Path]) -> None:
    frames = [Frame(data=landscape(200, 240, seed=i), index=i, pts=Fraction(i, 10)) for i in range(7)]
    results = {}
    for name, device in {"fast": "cuda", "slow": "cpu"}.items():
        with Stylizer(model=str(models["light"]), backend="torch", device=device, tile=160) as stylizer:
            results[name] = [f.data for f in stylizer.transform(10)(iter(frames), range(7))]
    for fast, slow in zip(results["fast"], results["slow"], strict=True):
        assert psnr(fast, slow) >= 40 and not np.array_equal(fast, frames[0].data)
