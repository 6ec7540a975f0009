"""How large a tile this machine has room for."""

from __future__ import annotations

import psutil

from engine.spec import ModelSpec

__all__ = ["default_tile"]

BYTES_PER_PIXEL = {"resnet9": 900, "resnet9-skip": 900, "light": 120}
"""Feature maps alive at once while a pixel is rendered in float32 (measured; see docs/performance.md)."""

SHARE = 0.4
"""Share of the free memory that one tile may take."""

CEILING = 2_000_000_000
"""Bytes that a tile takes at the most: larger ones gain nothing."""


def default_tile(spec: ModelSpec, height: int, width: int) -> int:
    """Side of the tiles for a picture, in pixels; 0 when it fits in one piece."""
    config = spec.config
    per_pixel = BYTES_PER_PIXEL[str(config["architecture"])] * int(config["ngf"]) / 32
    room = min(SHARE * psutil.virtual_memory().available, CEILING)
    pixels = room / per_pixel
    if height * width <= pixels:
        return 0
    least = 4 * spec.halo
    return max(least, int(pixels**0.5) // spec.multiple * spec.multiple)
