"""Powers of two that keep the feature maps of float16 networks near one; see docs/adr/0004."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.program.operations import Op

__all__ = ["weight_powers"]


def weight_powers(ops: Iterable[Op], weights: Mapping[str, npt.NDArray[Any]]) -> dict[str, int]:
    """k for every convolution in front of a norm, and the same k for that norm, by their names in `weights`.

    With the convolution's weights and bias times 2^-k, weights of any size give feature maps near one, far
    from both ends of float16; the norm takes the power back in float32, where it is exact.
    """
    ops = list(ops)
    convolutions = {op.output: op for op in ops if op.kind in ("conv", "conv_transpose")}
    powers: dict[str, int] = {}
    for op in ops:
        if op.kind == "norm" and op.inputs[0] in convolutions:
            conv = convolutions[op.inputs[0]]
            weight = weights[f"{conv.weight}.weight"].astype(np.float64)
            size = math.sqrt(np.square(weight).sum() / conv.cout)  # output over input, root mean square
            powers[conv.weight] = powers[op.weight] = round(math.log2(size)) if size > 0 else 0
    return powers
