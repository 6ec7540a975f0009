"""The folded resize convolution against the plain one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_models import config, random_weights

from engine.program.architecture import Program
from engine.program.fold import fold_upsampling, folded_kernel, unfold_transposed
from engine.program.operations import Op


@pytest.mark.parametrize("size", [(1, 2), (2, 1), (3, 5), (8, 7)])
def test_it_computes_what_the_pair_computes(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(2, 5, *size)))
    weight = rng.normal(size=(4, 5, 3, 3)).astype(np.float32)
    doubled = F.interpolate(x, scale_factor=2, mode="nearest")
    expected = F.conv2d(F.pad(doubled, (1,) * 4, mode="reflect"), torch.from_numpy(weight).double())
    kernel = torch.from_numpy(folded_kernel(weight)).double()
    found = F.conv_transpose2d(F.pad(x, (1,) * 4, mode="replicate"), kernel, stride=2, padding=3)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)


def test_every_upsampling_of_a_resize_net_is_folded_and_nothing_else() -> None:
    values = config("skip")
    ops = Program.of(values).ops
    weights = random_weights(values)
    folded, changed = fold_upsampling(ops, weights)
    assert not any(op.kind == "upsample" for op in folded)
    assert [op.weight for op in folded if op.kind == "conv_transpose"] == ["up.0.conv", "up.1.conv"]
    assert [op.output for op in folded] == [op.output for op in ops if op.kind != "upsample"]
    assert {name for name in weights if changed[name] is not weights[name]} == {"up.0.conv.weight", "up.1.conv.weight"}


@pytest.mark.parametrize("kind", ["plain", "light"])
def test_other_nets_stay_as_they_are(kind: str) -> None:
    values = config(kind)
    ops, weights = Program.of(values).ops, random_weights(values)
    assert fold_upsampling(ops, weights) == (ops, weights)


@pytest.mark.parametrize(
    ("kernel", "before", "after"), [(3, 1, 0), (3, 0, 1), (4, 1, 1), (2, 0, 0), (3, 1, 1), (5, 2, 1)]
)
def test_a_transposed_convolution_is_unfolded(kernel: int, before: int, after: int) -> None:
    """Against torch's: what is cut off above and left, and what comes below and to the right for twice the size."""
    rng = np.random.default_rng(kernel)
    x = torch.from_numpy(rng.normal(size=(2, 5, 4, 7)))
    weights = {"up.weight": rng.normal(size=(5, 3, kernel, kernel)), "up.bias": rng.normal(size=3)}
    parameters = torch.from_numpy(weights["up.weight"]), torch.from_numpy(weights["up.bias"])
    whole = F.pad(F.conv_transpose2d(x, *parameters, stride=2), (0, 2, 0, 2))
    expected = whole[:, :, before : before + 8, before : before + 14]
    if kernel < 2 + before:  # beyond the last tap there is the bias alone
        expected[:, :, 2 + 2 * 3 + kernel - before - 2 :] = parameters[1].view(1, -1, 1, 1)
        expected[:, :, :, 2 + 2 * 6 + kernel - before - 2 :] = parameters[1].view(1, -1, 1, 1)
    shape = {"kernel": kernel, "stride": 2, "pad": before, "pad_end": after, "pad_mode": "constant"}
    op = Op(kind="conv_transpose", inputs=("x",), output="y", weight="up", cin=5, cout=3, **shape)  # type: ignore[arg-type]
    (conv, shuffle), changed = unfold_transposed([op], weights)
    padded = F.pad(x, (*conv.pads, *conv.pads))
    places = F.conv2d(padded, torch.from_numpy(changed["up.weight"]), torch.from_numpy(changed["up.bias"]))
    assert torch.allclose(F.pixel_shuffle(places, shuffle.stride), expected)
