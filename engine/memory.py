"""How large a tile this machine, or its GPU, has room for."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import psutil

from engine.program.architecture import Program
from engine.program.fold import fold_operations
from engine.program.operations import Op
from engine.spec import ModelSpec
from engine.tiling import TilePlan

__all__ = ["bytes_per_pixel", "default_tile", "gpu_tile"]

MAKES = ("conv", "conv_transpose", "upsample", "unshuffle", "shuffle", "concat", "planes", "shader")
"""Operations whose result lies beside their input; the others work in place."""

RESERVE = 1.3
"""Memory that is really taken over what `bytes_per_pixel` counts (measured: 1.0 to 1.2; docs/performance.md)."""

SHARE = 0.4
"""Share of the free memory that one tile may take."""

SHADER = 36
"""Values that the shader holds at once for every pixel: eleven convolved, once more cut apart, grids, colours."""

CEILING = 2_000_000_000
"""Bytes that a tile takes at the most: larger ones gain nothing."""

GPU_SHARE = 0.6
"""Share of a GPU's memory that the feature maps of all frames under way may take: kernels, weights and what shows on
the screen need the rest."""


GPU_RESERVE = 1.9
"""Activation memory that TensorRT plans over what `bytes_per_pixel` counts: of the architectures with
instance norm 1.3 for `resnet9-skip` and 1.8 for `light`, by TensorRT-RTX's builder."""


def default_tile(spec: ModelSpec, height: int, width: int) -> int:
    """Side of the tiles for a picture, in pixels; 0 when it fits in one piece."""
    room = min(SHARE * psutil.virtual_memory().available, CEILING)
    pixels = room / (RESERVE * bytes_per_pixel(spec.program))
    if height * width <= pixels:
        return 0
    least = 4 * spec.halo
    return max(least, int(pixels**0.5) // spec.multiple * spec.multiple)


def gpu_tile(spec: ModelSpec, frame: tuple[int, int], memory: int, *, precision: str, at_once: int) -> tuple[int, int]:
    """Height and width of the tiles for frames of one size on a GPU: the frame itself where there is room for it.

    Args:
        spec: the model.
        frame: height and width, multiples of `ModelSpec.multiple`.
        memory: bytes that the GPU has in all.
        precision: of the feature maps.
        at_once: frames that are under way at once.

    Raises ValueError where not even the smallest tile has room.
    """
    size = bytes_per_pixel(spec.program) * (1.0 if precision == "fp32" else 0.5)
    pixels = int(GPU_SHARE * memory / (GPU_RESERVE * size * at_once))
    if frame[0] * frame[1] <= pixels:
        return frame
    plan = TilePlan.balanced(*frame, most=frame, halo=spec.halo, multiple=spec.multiple, pixels=pixels)
    return plan.tile_height, plan.tile_width


def bytes_per_pixel(program: Program) -> float:
    """Float32 feature maps alive at once per pixel of the picture, where they are the most.

    Norms and activations work in place, sums in their first operand, and a convolution's padded input is a
    copy.
    """
    ops = fold_operations(program.ops)
    last = {name: i for i, op in enumerate(ops) for name in op.inputs}
    area, channels = {"x": Fraction(1)}, {"x": 3}
    alive = {"x": Fraction(3)}
    most = Fraction(0)
    for i, op in enumerate(ops):
        source = op.inputs[0]
        area[op.output] = area[source] * _growth(op)
        channels[op.output] = _channels(op, [channels.get(name, 0) for name in op.inputs])
        size = area[op.output] * channels[op.output]
        if op.kind in MAKES:
            copy = area[source] * channels[source] if op.pad else 0
            most = max(most, sum(alive.values(), Fraction(0)) + copy + size)
        for name in op.inputs:
            if last[name] == i:
                alive.pop(name, None)
        alive[op.output] = size
    return 4.0 * float(most) + 2 * 3  # and the picture itself, in and out


def _growth(op: Op) -> Fraction:
    """Pixels of the result over those of the input."""
    if op.kind in ("conv", "unshuffle", "planes"):
        return Fraction(1, op.stride**2)
    return Fraction(op.stride**2 if op.kind in ("conv_transpose", "upsample", "shuffle", "shader") else 1)


def _channels(op: Op, given: Sequence[int]) -> int:
    """Channels of the result of an operation on maps of so many."""
    if op.kind == "shader":
        return SHADER
    if op.kind == "concat":
        return sum(given)
    if op.kind == "unshuffle":
        return given[0] * op.stride**2
    return op.cout or (given[0] // op.stride**2 if op.kind == "shuffle" else given[0])
