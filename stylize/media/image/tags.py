"""Where each format keeps its metadata: out of a file that Pillow has opened."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from stylize.media.image.metadata import XMP_KEY, XMP_SEGMENT, Metadata, iptc_from_photoshop

if TYPE_CHECKING:
    from PIL import Image as PilImage

__all__ = ["exif_block", "file_metadata"]


def _raw_profile(image: PilImage.Image, *names: str) -> bytes | None:
    """The first of the profiles that ImageMagick and ExifTool write into a PNG's texts, in hexadecimal."""
    for name in names:
        text = image.info.get(f"Raw profile type {name}")
        if isinstance(text, str):
            with contextlib.suppress(ValueError):
                return bytes.fromhex("".join(text.split("\n")[3:])) or None
    return None


def exif_block(image: PilImage.Image) -> bytes | None:
    """The EXIF of anything but a TIFF as a TIFF stream, without prefix."""
    exif = image.info.get("exif") or _raw_profile(image, "exif", "APP1")
    if not isinstance(exif, bytes) or exif.startswith(XMP_SEGMENT):
        return None
    return exif.removeprefix(b"Exif\0\0") or None


def _dpi(image: PilImage.Image) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 1 <= across < 1e5 and 1 <= down < 1e5 else None


def _bytes(value: object) -> bytes | None:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape") or None
    return value or None if isinstance(value, bytes) else None


def file_metadata(image: PilImage.Image) -> Metadata:
    """Metadata of anything but a TIFF, after its pixels were loaded (a PNG may say more behind them)."""
    packet = _raw_profile(image, "xmp", "APP1")
    if packet and packet.startswith(b"Exif"):
        packet = None
    xmp = _bytes(image.info.get("xmp")) or _bytes(image.info.get(XMP_KEY)) or packet
    resources = _raw_profile(image, "iptc", "8bim")
    iptc = resources and (iptc_from_photoshop(resources) or (resources if resources[:1] == b"\x1c" else None))
    for name, body in getattr(image, "applist", ()):
        if name == "APP1" and body.startswith(XMP_SEGMENT):
            xmp = xmp or body
        elif name == "APP13":
            iptc = iptc or iptc_from_photoshop(body)
    texts = getattr(image, "text", {}) if image.format == "PNG" else {}
    comment = image.info.get("comment") if image.format in ("JPEG", "MPO") else None
    return Metadata(
        exif=exif_block(image),
        xmp=xmp and xmp.removeprefix(XMP_SEGMENT),
        iptc=iptc,
        icc=_bytes(image.info.get("icc_profile")) or _raw_profile(image, "icc", "icm"),
        dpi=_dpi(image),
        comment=_bytes(comment),
        text=tuple(
            (key, str(text)) for key, text in texts.items() if key != XMP_KEY and not key.startswith("Raw profile type")
        ),
    )
