"""Models of the architecture `layers` through the TensorRT builder and backend, over doubles of both libraries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_graphs import OnnxBackend
from engine_models import LAYERS, given, landscape

from engine.backends.base import BackendOptions
from engine.backends.frames import render_frames
from engine.backends.tensorrt import TensorRtBackend
from engine.builder import Builder
from engine.conditions import Conditions
from engine.metrics import psnr
from engine.spec import ModelSpec
from engine.tiling import TilePlan
from engine.trt.plan import PlanCache, PlanConfig, ShapeProfile

pytestmark = pytest.mark.usefixtures("doubles")


@pytest.fixture(params=LAYERS)
def folder(request: pytest.FixtureRequest, layered: dict[str, Path]) -> Path:
    return layered[request.param]


@pytest.fixture
def backend(folder: Path, tmp_path: Path, doubles: Any) -> Iterator[TensorRtBackend]:
    spec, cache = ModelSpec.load(folder), PlanCache(tmp_path / "cache")
    side = 2 * spec.halo + 64
    plan = PlanConfig(profile=ShapeProfile.of_tile(spec, side, side + 16, 2))
    _, record = Builder(folder, plan, cache=cache).build()
    assert record.psnr is not None and record.psnr >= 45
    with TensorRtBackend(folder, spec, BackendOptions(cache=cache.root)) as running:
        yield running


def test_probe_and_render(backend: TensorRtBackend, folder: Path) -> None:
    view, tiles = landscape(64, 96)[None], np.stack([landscape(48, 64, seed=i) for i in range(3)])
    conditions = given(48, 64)
    with OnnxBackend(folder, backend.spec, BackendOptions()) as slow:
        layout = slow.probe(view, np.ones(2, np.float32)).maps["layout"]
        expected = slow.render(tiles, conditions)
    found = backend.probe(view, np.ones(2, np.float32))
    np.testing.assert_allclose(found.maps["layout"], layout, atol=0.02)
    assert not found.vectors
    assert psnr(backend.render(tiles, conditions), expected) >= 45


def test_every_tile_takes_its_window_of_the_layout(backend: TensorRtBackend, folder: Path) -> None:
    halo = backend.spec.halo
    height, width = 2 * halo + 104, 2 * halo + 72
    frames = [(landscape(height, width, seed=i), given(height, width, seed=i)) for i in range(4)]
    sizes: dict[str, Any] = {"halo": halo, "multiple": 8, "height": height, "width": width}
    plan = TilePlan(tile_height=2 * halo + 40, tile_width=2 * halo + 48, **sizes)
    assert len(plan.tiles) > 4
    results = list(render_frames([backend], frames, lambda size, limit: plan.tiles))
    with OnnxBackend(folder, backend.spec, BackendOptions()) as slow:
        for result, (frame, conditions) in zip(results, frames, strict=True):
            assert psnr(result[None], slow.render(frame[None], conditions)) >= 45


def test_addresses_are_aligned(backend: TensorRtBackend, doubles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """NvInferRuntime.h: tensor addresses are multiples of 256 bytes; here of the buffer that they lie in."""
    seen: dict[str, int] = {}
    lane = backend._lanes[0]
    real = type(lane).execute

    def execute(self: Any, addresses: dict[str, int], shapes: Any) -> None:
        start = self.vectors.reserve(0)
        seen.update({n: a - start for n, a in addresses.items() if n not in ("tiles", "output")})
        real(self, addresses, shapes)

    monkeypatch.setattr(type(lane), "execute", execute)
    backend.render(landscape(48, 64)[None], given(48, 64))
    assert set(seen) == {"layout", "tone", "sky_lut", "land_lut", "controls"}
    assert all(offset % 256 == 0 for offset in seen.values())
    assert len(set(seen.values())) == len(seen)


def test_the_throughput_needs_no_picture(backend: TensorRtBackend) -> None:
    assert backend.throughput((1, 48, 64), repetitions=1) > 0


def test_conditions_of_another_model(backend: TensorRtBackend) -> None:
    norm = Conditions.of_norm(scale=np.ones(4, np.float32), shift=np.ones(4, np.float32))
    with pytest.raises(ValueError, match="conditions of another model"):
        backend.submit(landscape(64, 64), norm, TilePlan.whole(64, 64).tiles)
