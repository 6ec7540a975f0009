"""What backend `torch` does by itself on CUDA, tried on the CPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engine.backends.torch import reflected


@pytest.mark.parametrize(("size", "pad"), [((2, 3), 1), ((8, 5), 3), ((4, 4), 3), ((9, 16), 1)])
def test_reflection_keeps_the_channels_last(size: tuple[int, int], pad: int) -> None:
    x = torch.randn(2, 5, *size).contiguous(memory_format=torch.channels_last)
    found = reflected(x, pad)
    assert torch.equal(found, F.pad(x, (pad,) * 4, mode="reflect"))
    assert found.is_contiguous(memory_format=torch.channels_last)
