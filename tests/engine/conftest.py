from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the helper modules of this folder

from engine_models import CONFIGS, LAYERS, make_model

REQUIRE_GPU = os.environ.get("REQUIRE_GPU") == "1"


def _missing(mark: str) -> str | None:
    """Why tests with this mark cannot run here; None if they can."""
    if mark == "gpu":
        try:
            import torch
        except ImportError:
            return "torch is not installed"
        return None if torch.cuda.is_available() else "no CUDA device"
    try:
        import pycuda.driver
        import tensorrt

        pycuda.driver.init()
        return None if tensorrt.Builder(tensorrt.Logger()) else "TensorRT does not start"
    except Exception as error:
        return f"TensorRT does not run here ({error!r})"


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in ("gpu", "tensorrt"):
        if item.get_closest_marker(mark) is not None and (reason := _missing(mark)) is not None:
            if REQUIRE_GPU:
                pytest.fail(f"REQUIRE_GPU=1, but {reason}", pytrace=False)
            pytest.skip(reason)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model folder with random weights for every architecture."""
    root = tmp_path_factory.mktemp("models")
    for kind in CONFIGS:
        make_model(root / kind, kind)
    return {kind: root / kind for kind in CONFIGS}


@pytest.fixture(scope="session")
def layered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model folder with random weights for every net with a layout."""
    root = tmp_path_factory.mktemp("layered")
    for kind in LAYERS:
        make_model(root / kind, kind)
    return {kind: root / kind for kind in LAYERS}


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """tensorrt and pycuda replaced by doubles; their states are `.trt` and `.cuda`."""
    import double_cuda
    import double_tensorrt

    from engine.trt import api as tensorrt_api
    from engine.trt import cuda, cuda_graph

    package = ModuleType("pycuda")
    package.driver = double_cuda.module()  # type: ignore[attr-defined]
    for module in (package, package.driver, double_tensorrt.module()):
        # find_spec looks for it.
        module.__spec__ = ModuleSpec(module.__name__, None)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)  # `rtx` puts its double there
    double_cuda.state.reset()
    double_tensorrt.state.reset()
    monkeypatch.setattr(cuda, "_contexts", {})
    monkeypatch.setattr(cuda_graph, "library", double_cuda.Library)
    tensorrt_api.logger.cache_clear()
    tensorrt_api.recent_errors()
    yield SimpleNamespace(cuda=double_cuda.state, trt=double_tensorrt.state, module=double_tensorrt.module)
    tensorrt_api.logger.cache_clear()


@pytest.fixture
def rtx(doubles: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`doubles`, and one of TensorRT-RTX beside them."""
    import double_tensorrt

    for module in (double_tensorrt.rtx_module(), ModuleType("tensorrt_rtx_libs")):
        module.__spec__ = ModuleSpec(module.__name__, None)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return doubles
