"""`engine.program.shader` in torch: what backend `torch` computes, and differentiable for training.

Everything is float32.  Tensors are NCHW; colours are in 0..1.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from engine.conditions import MAP_STRIDE
from engine.looks.layout import TONES
from engine.program.layers import RESIDUALS
from engine.program.shader import EDGE, FLATTEST, LUMA, SUN_SLOPE

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["add_planes", "fields_planes", "layers_op", "near", "shade", "sky_place"]


def near(layout: Tensor, cell: int) -> Tensor:
    """A layout on the grid ``(N, C, h + 2, w + 2)`` with cells of `cell` pixels, its border cut off."""
    import torch.nn.functional as F

    wide = F.interpolate(layout, scale_factor=cell, mode="bilinear", align_corners=False) if cell > 1 else layout
    return wide[:, :, cell:-cell, cell:-cell]


def fields_planes(x: Tensor, layout: Tensor, tone: Tensor) -> Tensor:
    """The seven planes that the fields are made from, at the size of ``x``.

    Args:
        x: RGB ``(N, 3, H, W)`` in -1..1, already shrunk by the model's `pool` (average pooling).
        layout: sky and depth in 0..1 ``(N, 2, H, W)``: the layout at stride 8, enlarged bilinearly.
        tone: five knots of the land's luma, lo and hi of the sky's, in 0..1, ``(N, 7)``; see `engine.looks.layout`.

    Returns:
        RGB, tone of the land (`engine.looks.layout.TONES` at the knots, between them linear), tone of the sky (0 at
        lo, 1 at hi, -0.2..1.2), sky, depth.
    """
    import torch

    r, g, b = x.unbind(1)
    luma = (LUMA[0] * r + LUMA[1] * g + LUMA[2] * b)[:, None] / 2 + 0.5
    knots = tone[:, :, None, None]
    ramps = ((luma - knots[:, :4]) / (knots[:, 1:5] - knots[:, :4])).clamp(0, 1)
    # Numbers and slices only: what is made on the CPU cannot be copied while a CUDA graph is recorded.
    rises = (high - low for low, high in itertools.pairwise(TONES))
    land = sum((ramps[:, i : i + 1] * rise for i, rise in enumerate(rises)), torch.zeros_like(luma))
    sky = ((luma - knots[:, 5:6]) / (knots[:, 6:] - knots[:, 5:6])).clamp(-0.2, 1.2)
    return torch.cat([x, land, sky, layout], 1)


def add_planes(residual: Tensor, planes: Tensor, stride: int) -> Tensor:
    """Fields sky, depth, tone and cloud ``(N, 4, h, w)``: a residual on planes of `stride` times the size."""
    import torch
    import torch.nn.functional as F

    kept = torch.cat([planes[:, i : i + 1] for i in RESIDUALS], 1)
    return torch.add(residual, F.avg_pool2d(kept, stride) if stride > 1 else kept)


def sky_place(v: Tensor, glow: Tensor, controls: Tensor, columns: int) -> Tensor:
    """See `engine.program.shader.sky_place`; maps ``(N, 1, h, w)``, controls ``(N or 1, K)``."""
    import torch

    gain, start = controls[:, 2:3, None, None], controls[:, 3:4, None, None]
    place = (v + gain * glow).clamp(0, 1) * ((columns - 2) / (columns - 1))
    disc = ((glow - start) * SUN_SLOPE).clamp(0, 1)
    return torch.add(place, disc * (1 - place))


def shade(
    fields: Tensor,
    places: Tensor,
    sky_lut: Tensor,
    land_lut: Tensor,
    controls: Tensor,
    factor: int,
    softness: float = 0.0,
) -> Tensor:
    """Colours ``(N, 3, h * factor, w * factor)``, differentiable by everything but the controls' levels.

    Args:
        fields: sky, depth, tone, cloud ``(N, 4, h, w)``.
        places: `sky_place` of every cell, ``(N, 1, h, w)``.
        sky_lut: ``(N or 1, 3, S, V)``, see `engine.program.shader.shade`.
        land_lut: ``(N or 1, 3, D, T)``.
        controls: see `engine.program.shader.CONTROLS`, ``(N or 1, K)``.
        factor: the fields are enlarged by this.
        softness: least width of a border, in levels: 0 is what `render` does, 1 leaves the fields unstepped.  What
            lies between lets gradients through at the borders without moving them.
    """
    import torch
    import torch.nn.functional as F

    values = _enlarged(torch.cat([fields, places], 1), factor)
    ones = torch.ones_like(controls[:, :1])
    levels = torch.cat([ones, controls[:, 4:5], controls[:, :2]], 1)[:, :, None, None]
    slope = F.interpolate(_slopes(fields) / factor, scale_factor=factor, mode="nearest")
    flat = _stepped(values[:, :4], levels, slope, softness)
    sky, depth, tone, cloud = (flat[:, i : i + 1] for i in range(4))
    land, above = _sampled(land_lut, tone, depth), _sampled(sky_lut, values[:, 4:5], cloud)
    return torch.add(land, sky * (above - land))


def _enlarged(x: Tensor, factor: int) -> Tensor:
    """Bicubic."""
    import torch.nn.functional as F

    return F.interpolate(x, scale_factor=factor, mode="bicubic", align_corners=False) if factor > 1 else x


def _slopes(x: Tensor) -> Tensor:
    """`engine.program.shader.slopes` of every channel."""
    import torch
    import torch.nn.functional as F

    wide = F.pad(x, (1, 1, 1, 1), mode="replicate")
    right, down = wide[:, :, 1:-1].diff(dim=3).abs(), wide[:, :, :, 1:-1].diff(dim=2).abs()
    right, down = torch.maximum(right[..., 1:], right[..., :-1]), torch.maximum(down[:, :, 1:], down[:, :, :-1])
    return torch.sqrt(right**2 + down**2 + 1e-12)


def _stepped(value: Tensor, levels: Tensor, slope: Tensor, softness: float) -> Tensor:
    import torch

    unstepped = 1 - levels.clamp(0, 1)  # a border as wide as a level is none
    levels = levels.clamp(min=1)
    s = value.clamp(0, 1) * levels
    k = torch.floor(s.detach())
    width = torch.maximum((slope * levels * EDGE).clamp(max(FLATTEST * EDGE, softness), 1), unstepped)
    return (k + ((s - k - 0.5) / width + 0.5).clamp(0, 1)) / levels


def _sampled(table: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Colours of a table at places in 0..1 ``(N, 1, H, W)``."""
    import torch
    import torch.nn.functional as F

    grid = torch.stack([column[:, 0], row[:, 0]], -1) * 2 - 1
    table = table.expand(len(grid), -1, -1, -1)
    return F.grid_sample(table, grid, mode="bilinear", padding_mode="border", align_corners=True)


def layers_op(kind: str, inputs: list[Tensor], stride: int) -> Tensor:
    """An operation of `engine.program.layers` around the convolutions, on float32 tensors.

    `planes` of ``x``, layout and tone; `fields` of a residual and planes; `shader`, whose colours are in -1..1, of
    fields, layout, both tables and controls.
    """
    import torch.nn.functional as F

    if kind == "planes":
        x, layout, tone = inputs
        x = F.avg_pool2d(x, stride) if stride > 1 else x
        return fields_planes(x, near(layout[:, :2], MAP_STRIDE // stride), tone)
    if kind == "fields":
        return add_planes(inputs[0], inputs[1], stride)
    fields, layout, sky_lut, land_lut, controls = inputs
    fine = near(layout[:, 2:], MAP_STRIDE // stride)
    place = sky_place(fine[:, :1], fine[:, 1:], controls, sky_lut.shape[3])
    return shade(fields, place, sky_lut, land_lut, controls, stride) * 2 - 1
