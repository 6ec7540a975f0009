"""Samples of 1 to 16 bits, and what every reader hands over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stylize.media.image.metadata import Metadata

if TYPE_CHECKING:
    from PIL import Image as PilImage

__all__ = ["Alpha", "Stored", "at_depth", "split_alpha"]

Alpha = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(kw_only=True)
class Stored:
    """A photo as its file holds it: not yet turned, colours not yet managed."""

    image: PilImage.Image
    """Colour at 8 bits, in a mode without opacity."""
    alpha: Alpha | None = None
    """Opacity ``(H, W)``, not multiplied into the colour; uint16 where `depth` is 16."""
    depth: int = 8
    """Bits that a result is to be written with, 8 or 16."""
    orientation: int = 1
    """EXIF orientation, 1 to 8."""
    metadata: Metadata = field(default_factory=Metadata)
    notes: list[str] = field(default_factory=list)
    """What could not be taken over, each in one line."""


def at_depth(array: Any, depth: int) -> Any:
    """uint8 or uint16 samples as `depth` bits (8 or 16): times 257 up, rounded down."""
    if array.dtype == (np.uint16 if depth == 16 else np.uint8):
        return array
    if depth == 16:
        return array.astype(np.uint16) * 257
    levels = ((np.arange(65536, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return levels[array]


def split_alpha(image: PilImage.Image) -> tuple[PilImage.Image, npt.NDArray[np.uint8] | None]:
    """Part colour and opacity; palettes and single transparent colours count as opacity, too."""
    if image.mode == "La" or (image.mode in ("L", "1") and "transparency" in image.info):
        image = image.convert("LA")
    elif image.mode in ("PA", "RGBa") or (image.mode in ("P", "RGB") and "transparency" in image.info):
        image = image.convert("RGBA")
    if image.mode not in ("LA", "RGBA"):
        return image, None
    alpha = np.array(image.getchannel("A"))
    return image.convert("L" if image.mode == "LA" else "RGB"), alpha
