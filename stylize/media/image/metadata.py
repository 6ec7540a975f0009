"""What travels with a photo beside its pixels.

EXIF stays as it was but for orientation, size and thumbnail; XMP and IPTC stay but for the entries
that the new pixels make untrue.  Parts of a file that are pictures themselves (gain maps, depth maps,
the video of a live photo) are left behind.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace
from typing import Final

from stylize.media.image.exif import exif_as_shown

__all__ = [
    "XMP_KEY",
    "XMP_SEGMENT",
    "Metadata",
    "iptc_from_photoshop",
    "photoshop_from_iptc",
    "raw_profile",
    "xmp_as_shown",
]

XMP_KEY: Final = "XML:com.adobe.xmp"
XMP_SEGMENT: Final = b"http://ns.adobe.com/xap/1.0/\0"
"""What XMP in a JPEG or in ImageMagick's texts begins with."""
_PHOTOSHOP: Final = b"Photoshop 3.0\0"
_IPTC_RESOURCE: Final = 0x0404


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a photo file says about itself."""

    exif: bytes | None = None
    """EXIF as a TIFF stream, without the ``Exif\\0\\0`` prefix."""
    xmp: bytes | None = None
    """XMP packet, UTF-8."""
    iptc: bytes | None = None
    """IPTC records (IIM), without the Photoshop wrapping."""
    icc: bytes | None = None
    """Profile that the written pixels are meant in; None stands for sRGB without saying so."""
    dpi: tuple[float, float] | None = None
    """Dots per inch, across and down."""
    comment: bytes | None = None
    """A JPEG's comment."""
    text: tuple[tuple[str, str], ...] = ()
    """A PNG's text chunks, in order."""

    def as_shown(self, *, width: int, height: int, turned: bool) -> tuple[Metadata, list[str]]:
        """Make it true for upright pixels of `width` x `height`; also what had to be left behind, in words."""
        notes: list[str] = []
        exif = self.exif
        if exif is not None:
            try:
                exif = exif_as_shown(exif, width=width, height=height)
            except (ValueError, struct.error):
                exif = None
                notes.append("the EXIF data is damaged and was left out")
        xmp = None if self.xmp is None else xmp_as_shown(self.xmp, width=width, height=height, turned=turned)
        return replace(self, exif=exif, xmp=xmp), notes

    def with_profile(self, icc: bytes | None) -> Metadata:
        """The same with another ICC profile."""
        return replace(self, icc=icc)


def _set_property(xmp: bytes, name: str, value: int) -> bytes:
    """Set a simple XMP property that is there, as attribute or as element."""
    key, number = re.escape(name.encode()), str(value).encode()
    xmp = re.sub(rb"(\b" + key + rb"\s*=\s*)([\"'])[^\"']*\2", rb"\g<1>\g<2>" + number + rb"\g<2>", xmp)
    return re.sub(rb"(<" + key + rb">)[^<]*(</" + key + rb">)", rb"\g<1>" + number + rb"\g<2>", xmp)


def xmp_as_shown(xmp: bytes, *, width: int, height: int, turned: bool) -> bytes:
    """Correct the XMP entries that new, upright pixels make untrue; the rest keeps its bytes.

    Set: orientation (where it was applied: `turned`), pixel sizes, the marks of a motion photo and of
    further XMP in other segments.  Removed: thumbnails.
    """
    if turned:
        xmp = _set_property(xmp, "tiff:Orientation", 1)
    for name, value in (
        ("tiff:ImageWidth", width),
        ("tiff:ImageLength", height),
        ("exif:PixelXDimension", width),
        ("exif:PixelYDimension", height),
        ("GCamera:MotionPhoto", 0),
        ("GCamera:MicroVideo", 0),
        ("Camera:MotionPhoto", 0),
    ):
        xmp = _set_property(xmp, name, value)
    xmp = re.sub(rb"\s*\bxmpNote:HasExtendedXMP\s*=\s*([\"'])[^\"']*\1", b"", xmp)
    return re.sub(rb"<(xmp|xap):Thumbnails\b.*?</\1:Thumbnails>", b"", xmp, flags=re.DOTALL)


def iptc_from_photoshop(block: bytes) -> bytes | None:
    """Find the IPTC records in a sequence of Photoshop image resources (``8BIM`` blocks)."""
    at = len(_PHOTOSHOP) if block.startswith(_PHOTOSHOP) else 0
    while block[at : at + 4] == b"8BIM" and at + 7 <= len(block):
        number, name = struct.unpack_from(">HB", block, at + 4)
        body = at + 7 + name + (name + 1) % 2
        if body + 4 > len(block):
            return None
        (size,) = struct.unpack_from(">I", block, body)
        if number == _IPTC_RESOURCE:
            return block[body + 4 : body + 4 + size] or None
        at = body + 4 + size + size % 2
    return None


def photoshop_from_iptc(iptc: bytes) -> bytes:
    """IPTC records as a Photoshop image resource."""
    padded = iptc + bytes(len(iptc) % 2)
    return b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + padded


def raw_profile(name: str, data: bytes) -> str:
    """Bytes as the text that ImageMagick puts into a PNG: name, length, hexadecimal lines."""
    digits = data.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return f"\n{name}\n{len(data):8d}\n{lines}\n"
