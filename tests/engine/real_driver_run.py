"""Build and run plans with the real pycuda, or cuda-bindings, over a driver without a GPU; run by the tests.

    python real_driver_run.py PACKAGE FAKE_LIBCUDA WORK_FOLDER [LIBRARY_TO_LOAD_FIRST]

PACKAGE is the folder of a built pycuda, or ``cuda-bindings`` for what is installed.
"""

from __future__ import annotations

import collections
import ctypes
import gc
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any


class AtOnce:
    """A stream for TensorRT's double: the fake driver does its work at once, so does this."""

    def enqueue(self, work: Any) -> None:
        work()


def main(package: Path, driver: Path, place: Path, runtime: Path | None = None) -> None:
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
    if str(package) == "cuda-bindings":
        sys.modules["pycuda"] = None  # type: ignore[assignment]
    else:
        sys.path[:0] = [str(package), str(package.parent / "needs")]
    sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)
    fake = ctypes.CDLL(str(driver), ctypes.RTLD_GLOBAL)
    if runtime is not None:
        ctypes.CDLL(str(runtime), ctypes.RTLD_GLOBAL)

    import double_cuda
    import double_tensorrt
    from engine_graphs import OnnxBackend
    from engine_models import landscape, make_model

    sys.modules["tensorrt"] = double_tensorrt.module()
    double_cuda._current = lambda: 0
    double_cuda.state.check_range = lambda address, size: None  # type: ignore[method-assign]
    double_cuda.state.streams = collections.defaultdict(AtOnce)  # type: ignore[assignment]

    from engine.backends.base import BackendOptions
    from engine.backends.frames import render_frames
    from engine.backends.tensorrt import TensorRtBackend
    from engine.builder import Builder
    from engine.errors import OutOfMemoryError
    from engine.metrics import psnr
    from engine.spec import look_weights
    from engine.tiling import TilePlan
    from engine.trt.plan import PlanCache, PlanConfig, ShapeProfile

    spec = make_model(place / "model", "light")
    cache = PlanCache(place / "cache")
    config = PlanConfig(profile=ShapeProfile.of_tile(spec, 96, 96, 2))
    _, record = Builder(place / "model", config, cache=cache).build()
    result: dict[str, Any] = {"gpu": record.machine.gpu, "psnr": [record.psnr]}
    frames = [landscape(160, 128, seed=i) for i in range(5)]
    options = BackendOptions(cache=cache.root)
    tiles = TilePlan(height=160, width=128, tile_height=96, tile_width=96, halo=spec.radius, multiple=4).tiles
    with (
        TensorRtBackend(place / "model", spec, options) as backend,
        OnnxBackend(place / "model", spec, options) as slow,
    ):
        statistics = backend.probe(frames[0][None, :96, :96], look_weights(spec, "auto"))
        rendered = render_frames([backend], ((frame, statistics) for frame in frames), lambda size, shrunk: tiles)
        result["psnr"] += [
            min(psnr(picture[None], slow.render(frame[None], statistics)), 99.0)
            for picture, frame in zip(rendered, frames, strict=True)
        ]
        tile, found = frames[0][None, :96, :96], []
        thread = threading.Thread(target=lambda: found.append(backend.render(tile, statistics)))
        thread.start()
        thread.join()
        result["threads"] = len(found)
        double_tensorrt.state.scratch_per_pixel = 1 << 20
        try:
            backend.render(tile, statistics)
        except OutOfMemoryError as error:
            result["memory"] = str(error)
    gc.collect()
    result["leaked"] = fake.fake_live()
    print(json.dumps(result))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
