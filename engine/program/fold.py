"""How a generator makes its picture larger, rewritten for what runs it.

`fold_upsampling`: a resize convolution as one transposed convolution, the same picture for 4/9 of the operations.

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

from engine.program.operations import Op

__all__ = ["fold_operations", "fold_upsampling", "folded_kernel", "unfold_transposed"]

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


def unfold_transposed(
    ops: Sequence[Op], weights: Mapping[str, npt.NDArray[Any]]
) -> tuple[tuple[Op, ...], dict[str, npt.NDArray[Any]]]:
    """Operations and weights of a program with every `conv_transpose` of stride 2 as `conv` and `shuffle`."""
    result, changed = [], dict(weights)
    for op in ops:
        if op.kind != "conv_transpose":
            result.append(op)
            continue
        kernel, reach = _phases(weights[f"{op.weight}.weight"], op.pads[0])
        changed[f"{op.weight}.weight"] = kernel
        if op.bias:
            changed[f"{op.weight}.bias"] = np.repeat(weights[f"{op.weight}.bias"], 4)
        shape: dict[str, Any] = {"kernel": kernel.shape[2], "stride": 1, "pad": reach[0], "pad_end": reach[1]}
        places = f"{op.output}:places"
        result += [
            dataclasses.replace(op, kind="conv", output=places, cout=4 * op.cout, pad_mode="constant", **shape),
            Op(kind="shuffle", inputs=(places,), output=op.output, stride=2),
        ]
    return tuple(result), changed


def _phases(weight: npt.NDArray[Any], before: int) -> tuple[npt.NDArray[Any], tuple[int, int]]:
    """Kernel ``(cin, cout, k, k)`` of a transposed convolution -> ``(4 cout, cin, n, n)``, and its padding.

    Pixel ``2m + p`` of the result is the sum over d of pixel ``m + d`` of the input times tap ``p + before - 2d``.
    """
    cin, cout, size = weight.shape[:3]
    taps = {(p, d): p + before - 2 * d for p in (0, 1) for d in range(-size, size + 1)}
    taps = {place: tap for place, tap in taps.items() if 0 <= tap < size}
    low, high = min(d for _, d in taps), max(d for _, d in taps)
    kernel = np.zeros((cout, 2, 2, cin, high - low + 1, high - low + 1), weight.dtype)
    for (p, y), row in taps.items():
        for (q, x), column in taps.items():
            kernel[:, p, q, :, y - low, x - low] = weight[:, :, row, column].T
    return kernel.reshape(4 * cout, cin, *kernel.shape[4:]), (-low, high)
