"""What travels with a photo beside its pixels, and how it is put into a JPEG or PNG file.

EXIF stays as it was but for orientation, size and thumbnail; XMP and IPTC stay but for the entries
that the new pixels make untrue.  Parts of a file that are pictures themselves (gain maps, depth maps,
the video of a live photo) are left behind.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, replace
from typing import Final

from stylize.media.image.exif import exif_as_shown

__all__ = ["Metadata", "into_jpeg", "into_png", "iptc_from_photoshop", "xmp_as_shown"]

XMP_KEY: Final = "XML:com.adobe.xmp"
_XMP_SEGMENT: Final = b"http://ns.adobe.com/xap/1.0/\0"
_PHOTOSHOP: Final = b"Photoshop 3.0\0"
_IPTC_RESOURCE: Final = 0x0404
_SEGMENT_ROOM: Final = 65533
"""Bytes a JPEG segment holds beside its marker and length."""


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


def _photoshop_from_iptc(iptc: bytes) -> bytes:
    padded = iptc + bytes(len(iptc) % 2)
    return b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + padded


def into_jpeg(jpeg: bytes, metadata: Metadata) -> tuple[bytes, list[str]]:
    """Put EXIF, XMP, IPTC and the comment into an encoded JPEG; also what did not fit, in words.

    A JPEG segment holds 64 KiB; a block that is larger is left out and named.  The ICC profile and the
    resolution are the encoder's business.
    """
    notes: list[str] = []
    segments = bytearray()
    for name, marker, body in (
        ("EXIF", 0xE1, metadata.exif and b"Exif\0\0" + metadata.exif),
        ("XMP", 0xE1, metadata.xmp and _XMP_SEGMENT + metadata.xmp),
        ("IPTC", 0xED, metadata.iptc and _PHOTOSHOP + _photoshop_from_iptc(metadata.iptc)),
        ("comment", 0xFE, metadata.comment),
    ):
        if not body:
            continue
        if len(body) > _SEGMENT_ROOM:
            notes.append(f"the {name} data is too large for a JPEG file and was left out")
            continue
        segments += struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
    at = 2
    while jpeg[at : at + 2] == b"\xff\xe0":  # JFIF stays first
        at += 2 + struct.unpack_from(">H", jpeg, at + 2)[0]
    return b"".join((jpeg[:at], segments, jpeg[at:])), notes


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _text_chunk(key: str, value: str) -> bytes:
    """A PNG text chunk: tEXt where Latin-1 holds it, else iTXt."""
    name = key.encode("latin-1", "replace")[:79]
    try:
        return _chunk(b"tEXt", name + b"\0" + value.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(b"iTXt", name + b"\0\0\0\0\0" + value.encode("utf-8", "replace"))


def into_png(png: bytes, metadata: Metadata) -> bytes:
    """Put all metadata into an encoded PNG, between its header and its pixels.

    EXIF goes into eXIf, XMP into iTXt under its registered keyword, IPTC into the hexadecimal
    ``Raw profile type iptc`` text that ImageMagick and ExifTool read.
    """
    chunks: list[bytes] = []
    if metadata.icc:
        chunks.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.dpi:
        chunks.append(_chunk(b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in metadata.dpi), 1)))
    if metadata.exif:
        chunks.append(_chunk(b"eXIf", metadata.exif))
    if metadata.xmp:
        chunks.append(_chunk(b"iTXt", XMP_KEY.encode() + b"\0\0\0\0\0" + metadata.xmp))
    if metadata.iptc:
        wrapped = _photoshop_from_iptc(metadata.iptc)
        digits = wrapped.hex()
        lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
        raw = f"\niptc\n{len(wrapped):8d}\n{lines}\n".encode()
        chunks.append(_chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(raw)))
    chunks += [_text_chunk(key, value) for key, value in metadata.text]
    header_end = 8 + 25  # signature, IHDR
    return b"".join((png[:header_end], *chunks, png[header_end:]))
