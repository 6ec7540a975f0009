"""Where each format keeps its metadata: out of a file that Pillow has opened."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stylize.media.image.exif import exif_from_tiff, read_directory
from stylize.media.image.metadata import XMP_KEY, Metadata, iptc_from_photoshop

if TYPE_CHECKING:
    from PIL import Image as PilImage

__all__ = ["exif_block", "file_metadata", "missing_bytes", "tiff_metadata"]

_XMP_SEGMENT: Final = b"http://ns.adobe.com/xap/1.0/\0"


def missing_bytes(path: Path) -> int:
    """How many bytes a HEIC or AVIF file is short of what its boxes (ISO 14496-12, section 4.2) announce.

    libheif fills tiles that are cut off with black and says nothing.
    """
    end = path.stat().st_size
    at = 0
    with path.open("rb") as file:
        while at + 8 <= end:
            file.seek(at)
            size, _, large = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
            length = large if size == 1 else size
            if size == 0:  # to the end of the file
                return 0
            if length < 8:  # damaged otherwise: the decoder's business
                return 0
            at += length
    return max(0, at - end)


def exif_block(image: PilImage.Image) -> bytes | None:
    """The EXIF of anything but a TIFF as a TIFF stream, without prefix."""
    exif = image.info.get("exif")
    if exif is None and isinstance(legacy := image.info.get("Raw profile type exif"), str):
        exif = bytes.fromhex("".join(legacy.split("\n")[3:]))
    if not isinstance(exif, bytes):
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
    xmp = _bytes(image.info.get("xmp")) or _bytes(image.info.get(XMP_KEY))
    iptc = None
    for name, body in getattr(image, "applist", ()):
        if name == "APP1" and body.startswith(_XMP_SEGMENT):
            xmp = xmp or body[len(_XMP_SEGMENT) :]
        elif name == "APP13":
            iptc = iptc or iptc_from_photoshop(body)
    if isinstance(raw := image.info.get("Raw profile type iptc"), str):
        block = bytes.fromhex("".join(raw.split("\n")[3:]))
        iptc = iptc_from_photoshop(block) if block.startswith((b"8BIM", b"Photoshop")) else block
    texts = getattr(image, "text", {}) if image.format == "PNG" else {}
    comment = image.info.get("comment") if image.format in ("JPEG", "MPO") else None
    return Metadata(
        exif=exif_block(image),
        xmp=xmp,
        iptc=iptc,
        icc=_bytes(image.info.get("icc_profile")),
        dpi=_dpi(image),
        comment=_bytes(comment),
        text=tuple(
            (key, str(text)) for key, text in texts.items() if key != XMP_KEY and not key.startswith("Raw profile type")
        ),
    )


def tiff_metadata(path: Path, image: PilImage.Image, notes: list[str]) -> Metadata:
    """Metadata of a TIFF, from its first directory; what is amiss goes into `notes`."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            directory = read_directory(view)  # type: ignore[arg-type]  # slices to bytes as well
    except Exception:
        notes.append("the tags of this kind of TIFF were not taken over")
        return Metadata(icc=_bytes(image.info.get("icc_profile")), dpi=_dpi(image))
    raw = {tag: body for tag, (_, _, body) in directory.values.items()}
    iptc = raw.get(33723) or iptc_from_photoshop(raw.get(34377, b""))
    return Metadata(
        exif=exif_from_tiff(directory),
        xmp=raw.get(700),
        iptc=iptc,
        icc=_bytes(image.info.get("icc_profile")) or raw.get(34675),
        dpi=_dpi(image),
    )
