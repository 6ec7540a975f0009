"""A resize convolution as one transposed convolution: the same picture for 4/9 of the operations.

After doubling by nearest neighbour, a 3x3 kernel sees only 2x2 different pixels, so its nine weights add
up to four, other ones for each of the four places in a doubled pixel: together a transposed convolution of
kernel 4 and stride 2.  Reflection at the border of the doubled map is repetition at the border of the small
one, so the result is the same up to rounding; and the doubled map is never made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.operations import Op

__all__ = ["fold_operations", "fold_upsampling", "folded_kernel"]

TAPS = {0: ((0,), (1, 2)), 1: ((0, 1), (2,))}
"""Place in the doubled pixel -> rows of the kernel that fall on the first and second small pixel it sees."""


def fold_upsampling(
    ops: Sequence[Op], weights: Mapping[str, npt.NDArray[Any]]
) -> tuple[tuple[Op, ...], dict[str, npt.NDArray[Any]]]:
    """Operations and weights of a program with its resize convolutions folded.

    Folded weights are float32: they would not fit float16 exactly.
    """
    folded = fold_operations(ops)
    names = [f"{op.weight}.weight" for op in folded if op.kind == "conv_transpose" and op.pad_mode == "edge"]
    return folded, {**weights, **{name: folded_kernel(weights[name]) for name in names}}


def fold_operations(ops: Sequence[Op]) -> tuple[Op, ...]:
    """Operations with every `upsample` by 2 in front of a reflecting 3x3 `conv` folded into it.

    The new operation is a `conv_transpose` of kernel 4, stride 2, pad 3 with ``pad_mode="edge"``: its input
    is padded by one repeated pixel first.
    """
    readers: dict[str, list[Op]] = {}
    for op in ops:
        for name in op.inputs:
            readers.setdefault(name, []).append(op)
    sources: dict[str, str] = {}
    kept = []
    for op in ops:
        if op.kind == "upsample" and op.stride == 2 and all(_fits(reader) for reader in readers[op.output]):
            sources[op.output] = op.inputs[0]
        elif op.inputs[0] in sources:
            shape: dict[str, Any] = {"kernel": 4, "stride": 2, "pad": 3, "pad_mode": "edge"}
            kept.append(dataclasses.replace(op, kind="conv_transpose", inputs=(sources[op.inputs[0]],), **shape))
        else:
            kept.append(op)
    return tuple(kept)


def _fits(op: Op) -> bool:
    return (op.kind, op.kernel, op.stride, op.pads, op.pad_mode) == ("conv", 3, 1, (1, 1), "reflect")


def folded_kernel(weight: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Kernel ``(cout, cin, 3, 3)`` behind a doubling -> ``(cin, cout, 4, 4)`` of a transposed convolution."""
    cout, cin = weight.shape[:2]
    kernel = np.zeros((cin, cout, 4, 4), np.float32)
    source = weight.astype(np.float32)
    for y, rows in TAPS.items():
        for x, columns in TAPS.items():
            for i, row in enumerate(rows):
                for j, column in enumerate(columns):
                    kernel[:, :, 3 - y - 2 * i, 3 - x - 2 * j] = _sum(source, row, column).T
    return kernel


def _sum(weight: npt.NDArray[np.float32], rows: tuple[int, ...], columns: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Sum over some taps, ``(cout, cin)``."""
    return np.asarray(weight[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].sum(axis=(2, 3)), np.float32)
