"""Pixels and metadata to the bytes of a JPEG, PNG, WebP, TIFF or BMP file.

A source of 16 bits comes back as 16 bits in PNG and TIFF: the network's 8-bit levels are spread over the
full range (v * 257, so that 255 becomes 65535), the source's 16-bit alpha is kept as it was.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stylize.errors import OutputError
from stylize.frame import Image
from stylize.media.image.color import from_srgb, is_srgb, leads_back, profile_space, srgb_profile
from stylize.media.image.metadata import XMP_KEY, XMP_SEGMENT, Metadata, photoshop_from_iptc, raw_profile
from stylize.media.image.read import Picture
from stylize.media.image.samples import at_depth
from stylize.media.image.settings import ImageSettings
from stylize.media.image.tiff import write_tiff

__all__ = ["encode"]

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_MOST: Final = {"jpeg": 65500, "webp": 16383}
"""Pixels a side that a format (or its usual library) can hold."""
_SEGMENT_ROOM: Final = 65533
"""Bytes a JPEG segment holds beside its marker and length."""
_LONG_TEXT: Final = 1024
"""Characters from which on a PNG's text is packed."""
_PNG_HEADER: Final = 8 + 25
"""Bytes of the signature and of IHDR."""


def encode(rgb: Image, like: Picture, kind: str, settings: ImageSettings) -> tuple[bytes, list[str]]:
    """Encode sRGB pixels, uint8 ``(H, W, 3)``, as `kind` with alpha and metadata of `like`.

    Also returns what the format could not take, in words.  Raises OutputError where the picture is too
    large for the format.
    """
    height, width = rgb.shape[:2]
    if max(height, width) > _MOST.get(kind, 1 << 30):
        raise OutputError(f"{kind} holds at most {_MOST[kind]} pixels a side, got {width} x {height}: use PNG or TIFF")
    notes: list[str] = []
    alpha = like.alpha
    if alpha is not None and kind in ("jpeg", "bmp"):
        if int(alpha.min()) < np.iinfo(alpha.dtype).max:
            rgb = _on_white(rgb, at_depth(alpha, 8))
            notes.append(f"{kind.upper()} has no transparency: the picture was put on white")
        alpha = None
    rgb, icc = _profiled(rgb, like.metadata.icc, settings, notes)
    metadata = (like.metadata if settings.metadata else Metadata(dpi=like.metadata.dpi)).with_profile(icc)
    depth = like.depth if kind in ("png", "tiff") else 8
    pixels = at_depth(rgb, depth)
    if alpha is not None:
        pixels = np.dstack([pixels, at_depth(alpha, depth)])
    if kind == "jpeg":
        return _jpeg(pixels, metadata, settings, notes), notes
    if kind == "png":
        return _png(pixels, metadata, settings), notes
    if kind == "tiff":
        return write_tiff(pixels, metadata, settings.compression), notes
    if kind == "webp":
        return _webp(pixels, metadata, settings), notes
    return _saved(pixels, format="BMP", dpi=metadata.dpi), notes


def _on_white(rgb: Image, alpha: npt.NDArray[np.uint8]) -> Image:
    share = alpha[..., None].astype(np.uint16)
    return ((rgb * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)


def _profiled(rgb: Image, icc: bytes | None, settings: ImageSettings, notes: list[str]) -> tuple[Image, bytes | None]:
    """Bring sRGB pixels into the profile they are to be written in."""
    if icc is None or is_srgb(icc):
        return rgb, icc
    if settings.profile == "srgb" or profile_space(icc) != "RGB":
        return rgb, srgb_profile()
    if leads_back(icc):
        return from_srgb(rgb, icc), icc
    notes.append("the source's ICC profile cannot be written to: the result is in sRGB")
    return rgb, srgb_profile()


def _saved(pixels: Pixels, **options: Any) -> bytes:
    from PIL import Image as PilImage

    buffer = io.BytesIO()
    PilImage.fromarray(pixels).save(buffer, **{name: value for name, value in options.items() if value is not None})
    return buffer.getvalue()


def _jpeg(pixels: Pixels, metadata: Metadata, settings: ImageSettings, notes: list[str]) -> bytes:
    """A JPEG; metadata that does not fit its segments of 64 KiB is left out and named in `notes`."""
    parts = {
        "EXIF": metadata.exif and b"Exif\0\0" + metadata.exif,
        "XMP": metadata.xmp,
        "IPTC": metadata.iptc and b"Photoshop 3.0\0" + photoshop_from_iptc(metadata.iptc),
        "comment": metadata.comment,
    }
    for name, body in parts.items():
        if body and len(body) + (len(XMP_SEGMENT) if name == "XMP" else 0) > _SEGMENT_ROOM:
            notes.append(f"the {name} data is too large for a JPEG file and was left out")
            parts[name] = None
    iptc = parts["IPTC"]
    return _saved(
        pixels,
        format="JPEG",
        quality=settings.quality,
        subsampling=0 if settings.quality >= 90 else 2,
        icc_profile=metadata.icc,
        dpi=metadata.dpi and tuple(min(round(value), 65535) for value in metadata.dpi),
        exif=parts["EXIF"],
        xmp=parts["XMP"],
        comment=parts["comment"],
        extra=struct.pack(">BBH", 0xFF, 0xED, len(iptc) + 2) + iptc if iptc else None,
    )


def _webp(pixels: Pixels, metadata: Metadata, settings: ImageSettings) -> bytes:
    return _saved(
        pixels,
        format="WEBP",
        quality=settings.quality,
        lossless=settings.lossless,
        exact=True,
        icc_profile=metadata.icc,
        exif=metadata.exif,
        xmp=metadata.xmp,
    )


def _png(pixels: Pixels, metadata: Metadata, settings: ImageSettings) -> bytes:
    """A PNG by OpenCV, which alone writes 16 bits, with Pillow's chunks between its header and its pixels.

    EXIF goes into eXIf, XMP into iTXt under its registered keyword, IPTC into the hexadecimal
    ``Raw profile type iptc`` text that ImageMagick and ExifTool read.
    """
    import cv2
    from PIL import PngImagePlugin

    order = [2, 1, 0, 3][: pixels.shape[2]]
    done, data = cv2.imencode(
        ".png", np.ascontiguousarray(pixels[..., order]), [cv2.IMWRITE_PNG_COMPRESSION, settings.compression]
    )
    assert done
    info = PngImagePlugin.PngInfo()
    if metadata.icc:
        info.add(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc))
    if metadata.dpi:
        info.add(b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in metadata.dpi), 1))
    if metadata.exif:
        info.add(b"eXIf", metadata.exif)
    if metadata.xmp:
        info.add(b"iTXt", XMP_KEY.encode() + b"\0\0\0\0\0" + metadata.xmp)
    if metadata.iptc:
        info.add_text("Raw profile type iptc", raw_profile("iptc", photoshop_from_iptc(metadata.iptc)), zip=True)
    for key, value in metadata.text:
        name = key.encode("latin-1", "replace")[:79].decode("latin-1")
        info.add_text(name, value.encode("utf-8", "replace").decode(), zip=len(value) > _LONG_TEXT)
    file = io.BytesIO()
    file.write(data[:_PNG_HEADER].tobytes())
    for kind, body, *_ in info.chunks:
        PngImagePlugin.putchunk(file, kind, body)
    return file.getvalue() + data[_PNG_HEADER:].tobytes()
