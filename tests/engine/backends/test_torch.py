"""What backend `torch` does by itself on CUDA, tried on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_models import LAYERS, make_model
from torch.utils._python_dispatch import TorchDispatchMode

from engine.backends.base import BackendOptions
from engine.backends.torch import TorchBackend, reflected
from engine.choice import open_backend
from engine.probing import usual_conditions


@pytest.mark.parametrize(("size", "pad"), [((2, 3), 1), ((8, 5), 3), ((4, 4), 3), ((9, 16), 1)])
def test_reflection_keeps_the_channels_last(size: tuple[int, int], pad: int) -> None:
    x = torch.randn(2, 5, *size).contiguous(memory_format=torch.channels_last)
    found = reflected(x, pad)
    assert torch.equal(found, F.pad(x, (pad,) * 4, mode="reflect"))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", [*LAYERS, "light"])
def test_nothing_is_made_on_the_host_while_a_graph_is_recorded(kind: str, tmp_path: Path) -> None:
    """A CUDA graph takes no copy from ordinary memory: no tensor from Python's numbers, no list as an index."""

    class Recording(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert func not in (torch.ops.aten.lift_fresh.default, torch.ops.aten.index.Tensor), func
            return func(*args, **(kwargs or {}))

    spec = make_model(tmp_path / kind, kind)
    with open_backend(tmp_path / kind, name="torch", options=BackendOptions(device="cpu")) as backend:
        assert isinstance(backend, TorchBackend)
        picture = np.zeros((1, 64, 96, 3), np.uint8)
        maps, vectors = backend._placed_conditions(usual_conditions(backend, picture), 1)
        images = torch.from_numpy(picture)
        with torch.inference_mode(), Recording():
            assert backend._compute(images, *maps, *vectors).shape == picture.shape
    assert spec.has_layout == (kind in LAYERS)
