"""The operations of a generator of the architecture `layers`: layout, fields, shader.

``probe``
    A view in -1..1, sides multiples of 32, -> ``layout`` ``(N, 2, H/8, W/8)``: sky 0..1 and depth 0 near..1 far.  The
    trunk of EfficientNet-Lite (Tan and Le 2019, arXiv 1905.11946) to stride 16, its features at strides 4, 8 and
    16 brought to stride 8 and joined with the colours, and a head of dilated convolutions.
``render``
    Three operations stand around the convolutions:

    `planes`
        ``x``, the map ``layout`` and the vector ``tone`` -> seven planes: RGB, the tones of land and sky, sky, depth.
        The land's tone runs from knot to knot of luma through `engine.looks.layout.TONES`; the sky's is
        ``(luma - lo) / (hi - lo)``, clipped to -0.2..1.2.  ``stride`` shrinks them by average pooling.
    `fields`
        The last convolution's output, added to what it is a residual on: sky, depth, tone of the land, tone of the
        sky, the planes shrunk once more by ``stride``.  In float32, as is all that follows.
    `shader`
        The fields, enlarged by ``stride``, the layout's other two channels (sky coordinate and glow) and the vectors
        ``sky_lut``, ``land_lut`` and ``controls`` -> the picture; see `engine.program.shader`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engine.errors import ModelError
from engine.program.operations import Op, OperationList

__all__ = ["LAND_LUT", "LAYOUT_CHANNELS", "RESIDUALS", "SKY_LUT", "TONE_VECTOR", "layers_operations"]

LAYOUT_CHANNELS = 4
"""Sky, depth, sky coordinate, glow of the sun."""
TONE_VECTOR = 7
"""Length of the vector `tone`: five knots of the land's luma, lo and hi of the sky's; see `engine.looks.layout`."""
SKY_LUT = (3, 17, 64)
"""Shape of the sky's table: RGB by cloud and place."""
LAND_LUT = (3, 64, 33)
"""Shape of the land's table: RGB by depth and tone."""
RESIDUALS = (5, 6, 3, 4)
"""Planes that the fields sky, depth, tone and cloud are residuals on."""
PLANES = 7

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
)
"""Repeats (of Lite0), kernel, stride, expansion, channels of the trunk's stages up to stride 16."""
TAPPED = (1, 2, 4)
"""Stages whose features are taken: strides 4, 8, 16."""
DEPTHS = {"efficientnet-lite0": 1.0, "efficientnet-lite1": 1.1}
"""Trunk -> factor of the repeats of all stages but the first."""
DILATIONS = (1, 2, 4, 8, 1)


def layers_operations(config: Mapping[str, Any]) -> tuple[tuple[Op, ...], tuple[Op, ...]]:
    """Operations of render and probe for a config (`LayersConfig.to_dict` of `training`).

    Raises ModelError for a trunk, stride or pool that this version does not know.
    """
    trunk, pool, stride = config["trunk"], int(config["pool"]), int(config["stride"])
    if trunk not in DEPTHS or pool not in (1, 2) or stride not in (2, 4):
        raise ModelError(
            f"got trunk {trunk!r}, pool {pool}, stride {stride}; this version knows {', '.join(DEPTHS)}, pool 1 and 2, "
            "stride 2 and 4"
        )
    render = _render(int(config["ngf"]), int(config["n_blocks"]), pool, stride)
    return render, _probe(DEPTHS[trunk], int(config["head"]))


def _probe(depth: float, head: int) -> tuple[Op, ...]:
    b = OperationList()
    tapped = _trunk(b, depth)
    parts = [
        b.add("avg_pool", tapped[0], stride=2),
        tapped[1],
        b.add("resize", tapped[2], stride=2),
        b.add("avg_pool", "x", stride=8),
    ]
    features = 3 + sum(STAGES[stage][4] for stage in TAPPED)
    y = b.add("relu", b.conv(b.add("concat", *parts), "layout.enter", features, head, 1))
    for i, dilation in enumerate(DILATIONS):
        shape: dict[str, Any] = {"cin": head, "cout": head, "kernel": 3, "pad": dilation, "dilation": dilation}
        z = b.add("conv", y, weight=f"layout.blocks.{i}", pad_mode="edge", **shape)
        y = b.add("add", y, b.add("relu", z))
    y = b.conv(y, "layout.leave", head, 2, 1)
    sky, far = b.add("slice", y, offset=0, cout=1), b.add("slice", y, offset=1, cout=1)
    b.add("concat", b.add("sigmoid", sky), b.add("clip", far))
    return tuple(b.ops)


def _trunk(b: OperationList, depth: float) -> list[str]:
    """The features of strides 4, 8 and 16."""

    def conv(x: str, name: str, cin: int, cout: int, kernel: int = 1, **more: Any) -> str:
        shape: dict[str, Any] = {"cin": cin, "cout": cout, "kernel": kernel, "pad": kernel // 2, "pad_mode": "constant"}
        return b.add("conv", x, weight=f"layout.trunk.{name}", **shape, **more)

    channels, number, tapped = 32, 0, []
    x = b.add("relu6", conv("x", "stem", 3, channels, 3, stride=2))
    for stage, (repeats, kernel, stride, expansion, cout) in enumerate(STAGES):
        for i in range(math.ceil(repeats * depth) if stage else repeats):
            name, wide, step = f"blocks.{number}", channels * expansion, stride if i == 0 else 1
            y = b.add("relu6", conv(x, f"{name}.expand", channels, wide)) if expansion > 1 else x
            y = b.add("relu6", conv(y, f"{name}.depthwise", wide, wide, kernel, stride=step, groups=wide))
            y = conv(y, f"{name}.project", wide, cout)
            x = b.add("add", x, y) if step == 1 and channels == cout else y
            channels, number = cout, number + 1
        if stage in TAPPED:
            tapped.append(x)
    return tapped


def _render(ngf: int, blocks: int, pool: int, stride: int) -> tuple[Op, ...]:
    b = OperationList()
    fine = stride // 2
    planes = b.add("planes", "x", "layout", "tone", stride=pool, cout=PLANES)
    x = b.add("unshuffle", planes, stride=stride)
    x = b.add("relu", b.conv(x, "fields.stem", PLANES * stride**2, ngf, 3))
    for i in range(blocks):
        y = b.add("relu", b.conv(x, f"fields.blocks.{i}.conv1", ngf, ngf, 3))
        x = b.add("add", x, b.conv(y, f"fields.blocks.{i}.conv2", ngf, ngf, 3))
    x = b.add("shuffle", b.conv(x, "fields.up", ngf, 2 * ngf, 3), stride=2)
    skip = b.add("unshuffle", planes, stride=fine) if fine > 1 else planes
    skip = b.conv(skip, "fields.skip", PLANES * fine**2, ngf // 2, 3)
    width = max(8, ngf * 2 // 3 // 8 * 8)
    x = b.add("leaky", b.conv(b.add("leaky", b.add("concat", x, skip)), "fields.tail", ngf, width, 3))
    x = b.conv(x, "fields.leave", width, len(RESIDUALS), 3)
    x = b.add("fields", x, planes, stride=fine, cout=len(RESIDUALS))
    b.add("shader", x, "layout", "sky_lut", "land_lut", "controls", stride=pool * fine, cout=3)
    return tuple(b.ops)
