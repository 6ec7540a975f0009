"""TensorRT-RTX as a runtime, over its double: portable plans, the cache of kernels, what `auto` says."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import double_tensorrt
import numpy as np
import pytest
from engine_graphs import OnnxBackend
from engine_models import landscape

from engine.backends.base import BackendOptions
from engine.builder import Builder
from engine.choice import candidates, open_backend
from engine.errors import BackendError, PlanError
from engine.metrics import psnr
from engine.spec import ModelSpec, look_weights
from engine.trt.plan import PlanCache, PlanConfig, PlanRecord, ShapeProfile

pytestmark = pytest.mark.usefixtures("rtx")


@pytest.fixture
def folder(models: dict[str, Path]) -> Path:
    return models["light"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlanCache:
    monkeypatch.setenv("FIREWATCH_CACHE", str(tmp_path / "cache"))
    return PlanCache()


def config(folder: Path, **values: Any) -> PlanConfig:
    profile = ShapeProfile.of_tile(ModelSpec.load(folder), 96, 96, 1)
    return PlanConfig(profile=profile, runtime="rtx", **values)


def test_a_portable_plan_renders(folder: Path, cache: PlanCache, doubles: Any) -> None:
    path, record = Builder(folder, config(folder), cache=cache).build()
    assert (record.machine.gpu, record.machine.capability) == ("any GPU", "7.5 8.0 8.6 8.9 12.0")
    assert record.psnr is not None and record.psnr >= 45
    image = landscape(64, 80)[None]
    for _ in range(2):  # the second time with the kernels of the first
        with (
            open_backend(folder, name="tensorrt-rtx") as backend,
            OnnxBackend(folder, backend.spec, BackendOptions()) as slow,
        ):
            assert backend.name == "tensorrt-rtx" and backend.plan == path  # type: ignore[attr-defined]
            assert backend.description == "TensorRT-RTX 1.7.1.116 on NVIDIA Double 4090, fp16"
            statistics = backend.probe(image, look_weights(backend.spec, "dusk"))
            assert psnr(backend.render(image, statistics), slow.render(image, statistics)) >= 45
        kernels = sorted((cache.root / "kernels").iterdir())
        assert [p.read_bytes() for p in kernels] == [b"kernels"] * 2 and "NVIDIA-Double-4090" in kernels[0].name
    assert set(doubles.trt.strategies) == {double_tensorrt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE}
    assert doubles.cuda.launches == 0, "TensorRT-RTX records by itself"
    assert not doubles.cuda.live


def test_foreign_kernels_are_written_anew(folder: Path, cache: PlanCache) -> None:
    Builder(folder, config(folder), cache=cache).build()
    for kernels in (cache.root / "kernels").iterdir():
        kernels.write_bytes(b"of another driver")
    with open_backend(folder, name="tensorrt-rtx"):
        pass
    assert all(kernels.read_bytes() == b"kernels" for kernels in (cache.root / "kernels").iterdir())


def test_it_is_built_without_a_gpu(folder: Path, cache: PlanCache, doubles: Any, caplog: Any) -> None:
    doubles.cuda.gpus = 0
    path, record = Builder(folder, config(folder), cache=cache).build()
    assert record.psnr is None and "built for all GPUs and checked on none" in caplog.text
    doubles.cuda.reset()
    with open_backend(folder, name="tensorrt-rtx") as backend:
        assert backend.plan == path  # type: ignore[attr-defined]


def test_a_model_carries_its_plan(folder: Path, cache: PlanCache, doubles: Any, tmp_path: Path, caplog: Any) -> None:
    model = tmp_path / "carrying"
    shutil.copytree(folder, model)
    Builder(model, config(model), cache=cache).build(output=model / "rtx")
    with open_backend(model, name="tensorrt-rtx") as backend:
        assert backend.plan == model / "rtx" and doubles.trt.builds == 2  # type: ignore[attr-defined]
    record = PlanRecord.load(model / "rtx")
    old = dataclasses.replace(record.machine, tensorrt="1.6.0.1")
    dataclasses.replace(record, machine=old).save(model / "rtx")
    caplog.set_level("INFO")
    with open_backend(model, name="tensorrt-rtx") as backend:
        assert backend.plan != model / "rtx" and doubles.trt.builds == 4  # type: ignore[attr-defined]
    assert "is not used: it was built with TensorRT-RTX 1.6.0.1, this is 1.7.1.116" in caplog.text
    assert "which may take several seconds" in caplog.text


def test_bf16_is_for_ampere_and_later(folder: Path, cache: PlanCache) -> None:
    builder = Builder(folder, config(folder, precision="bf16"), cache=cache)
    with builder.device() as device:
        assert builder.machine(device).capability == "8.0 8.6 8.9 12.0"


@pytest.mark.parametrize(
    ("built", "opened", "message"),
    [
        ("rtx", "tensorrt", r"was built for TensorRT-RTX \(--backend tensorrt-rtx runs it\), not for TensorRT:"),
        ("tensorrt", "tensorrt-rtx", r"was built for TensorRT \(--backend tensorrt runs it\), not for TensorRT-RTX:"),
    ],
)
def test_a_plan_of_the_other_runtime(folder: Path, cache: PlanCache, built: str, opened: str, message: str) -> None:
    plan, _ = Builder(folder, dataclasses.replace(config(folder), runtime=built), cache=cache).build()
    with pytest.raises(PlanError, match=message):
        open_backend(folder, name=opened, options=BackendOptions(plan=plan)).__enter__()


def test_a_gpu_that_it_does_not_support(
    folder: Path, cache: PlanCache, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import double_cuda

    Builder(folder, config(folder), cache=cache).build(output=folder.parent / "portable")
    monkeypatch.setattr(double_cuda.Device, "compute_capability", lambda self: (9, 0))
    assert "tensorrt-rtx" not in [name for name, _ in candidates()]
    monkeypatch.setattr("engine.choice._why_not_tensorrt", lambda: "left out here")
    reasons = [reason for _, reason in candidates()]
    assert "not tensorrt-rtx: it does not support GPUs of compute capability 9.0" in reasons[-1]
    message = r"TensorRT-RTX does not run on NVIDIA Double 4090 \(compute capability 9\.0\): take --backend tensorrt"
    for plan in (None, folder.parent / "portable"):  # none is built for nothing
        with pytest.raises(BackendError, match=message):
            open_backend(folder, name="tensorrt-rtx", options=BackendOptions(plan=plan)).__enter__()
    caplog.clear()
    _, record = Builder(folder, config(folder, optimization_level=1), cache=cache).build()  # for other machines
    assert record.psnr is None and "checked on none: TensorRT-RTX does not run on" in caplog.text


def test_auto_takes_tensorrt_first(folder: Path, monkeypatch: Any) -> None:
    names = [name for name, _ in candidates()]
    assert names[:2] == ["tensorrt", "tensorrt-rtx"]
    monkeypatch.setattr("engine.choice._why_not_tensorrt", lambda: "tensorrt is not installed")
    name, reason = next(iter(candidates()))
    assert name == "tensorrt-rtx" and reason.endswith("are there; not tensorrt: tensorrt is not installed")


def test_without_its_package(folder: Path, monkeypatch: Any) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(
        BackendError,
        match=r"TensorRT-RTX is not installed: pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings",
    ):
        open_backend(folder, name="tensorrt-rtx").__enter__()


def test_its_plans_are_portable_without_being_asked(folder: Path) -> None:
    with pytest.raises(ValueError, match="plans of TensorRT-RTX are portable by themselves"):
        config(folder, hardware_compatible=True)
    with pytest.raises(ValueError, match="unknown runtime, got 'trt'; allowed: tensorrt, rtx"):
        dataclasses.replace(config(folder), runtime="trt")


def test_frames_of_a_video_need_no_plan_of_their_own(folder: Path, cache: PlanCache) -> None:
    path, _ = Builder(folder, config(folder), cache=cache).build()
    with open_backend(folder, name="tensorrt-rtx", options=BackendOptions(frame=(64, 96))) as backend:
        assert backend.plan == path  # type: ignore[attr-defined]
        statistics = backend.probe(landscape(64, 96)[None], np.ones(2, np.float32) / 2)
        assert backend.render(landscape(64, 96)[None], statistics).shape == (1, 64, 96, 3)
