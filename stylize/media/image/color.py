"""Colour management of photos: from a photo's ICC profile to sRGB for the network, and back.

Both ways use the relative colorimetric intent with black point compensation, as photo editors do by
default.  Heavy lifting is littleCMS, through Pillow, at 8 bits a channel.
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from stylize.frame import Image

if TYPE_CHECKING:
    from PIL import Image as PilImage

__all__ = ["from_srgb", "is_srgb", "leads_back", "profile_space", "srgb_profile", "to_srgb"]

_WAY_BACK = 6.0
"""Levels that a way into a profile and back may cost on average."""
_SPACES = {"RGB": "RGB", "CMYK": "CMYK", "GRAY": "L", "Lab": "LAB"}


def _open(icc: bytes) -> Any:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(io.BytesIO(icc))


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """An sRGB ICC profile, to be embedded where pixels were converted to sRGB; always the same bytes."""
    from PIL import ImageCms

    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # littleCMS writes the time of day there
    data[84:100] = bytes(16)  # profile ID, a checksum: 0 for none
    return bytes(data)


@lru_cache(maxsize=32)
def profile_space(icc: bytes) -> str | None:
    """Pillow's mode for the pixels a profile describes (RGB, CMYK, L, LAB); None where it cannot be used."""
    from PIL import Image as PilImage
    from PIL import ImageCms

    try:
        space = _SPACES.get(_open(icc).profile.xcolor_space.strip())
        if space is not None:
            to_srgb(PilImage.new(space, (1, 1)), icc)  # of a profile that was cut off the header may be sound
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return space


def _convert(image: PilImage.Image, source: Any, target: Any) -> PilImage.Image:
    from PIL import ImageCms

    converted = ImageCms.profileToProfile(
        image,
        source,
        target,
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert converted is not None
    return converted


def _lattice(low: int, high: int) -> Image:
    """All mixtures of nine levels a channel: RGB uint8 (27, 27, 3)."""
    levels = np.linspace(low, high, 9).round().astype(np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)


@lru_cache(maxsize=32)
def is_srgb(icc: bytes) -> bool:
    """Whether a profile means sRGB: a lattice of colours comes out of the conversion within one level."""
    from PIL import Image as PilImage

    if profile_space(icc) != "RGB":
        return False
    lattice = _lattice(0, 255)
    shown = np.asarray(to_srgb(PilImage.fromarray(lattice), icc))
    return int(np.abs(shown.astype(np.int16) - lattice).max()) <= 1


@lru_cache(maxsize=32)
def leads_back(icc: bytes) -> bool:
    """Whether colours can be brought into an RGB profile: muted ones come back from it nearly as they were.

    The profiles of scanners have no way back; those of some encoders (XYB) have one that gives black.
    """
    from PIL import Image as PilImage

    lattice = _lattice(64, 192)
    try:
        back = np.asarray(to_srgb(PilImage.fromarray(from_srgb(lattice, icc)), icc))
    except ValueError:
        return False
    return float(np.abs(back.astype(np.int16) - lattice).mean()) <= _WAY_BACK


def to_srgb(image: PilImage.Image, icc: bytes) -> PilImage.Image:
    """Convert a picture in the mode of its profile to sRGB; ValueError where littleCMS cannot."""
    from PIL import ImageCms

    try:
        return _convert(image, _open(icc), ImageCms.createProfile("sRGB"))
    except ImageCms.PyCMSError as error:
        raise ValueError(f"the ICC profile cannot be used: {error}") from error


def from_srgb(rgb: Image, icc: bytes) -> Image:
    """Convert sRGB pixels, uint8 ``(H, W, 3)``, to those of the RGB profile `icc`.

    Raises ValueError where the profile cannot be written to (scanner profiles may only be read from).
    """
    from PIL import Image as PilImage
    from PIL import ImageCms

    try:
        image = _convert(PilImage.fromarray(rgb), ImageCms.createProfile("sRGB"), _open(icc))
    except ImageCms.PyCMSError as error:
        raise ValueError(f"the ICC profile cannot be used: {error}") from error
    return np.array(image)
