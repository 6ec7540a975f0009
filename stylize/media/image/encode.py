"""Pixels and metadata to the bytes of a JPEG, PNG, WebP, TIFF or BMP file.

A source of 16 bits comes back as 16 bits in PNG and TIFF: the network's 8-bit levels are spread over the
full range (v * 257, so that 255 becomes 65535), the source's 16-bit alpha is kept as it was.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stylize.errors import OutputError
from stylize.frame import Image
from stylize.media.image.color import from_srgb, is_srgb, profile_space, srgb_profile
from stylize.media.image.exif import Directory, descriptive, read_directory, write_directory
from stylize.media.image.metadata import Metadata, into_jpeg, into_png
from stylize.media.image.read import Picture
from stylize.media.image.settings import ImageSettings

__all__ = ["encode"]

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_MOST: Final = {"jpeg": 65500, "webp": 16383}
"""Pixels a side that a format (or its usual library) can hold."""
_STRIP_BYTES: Final = 1 << 20


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
            rgb = _on_white(rgb, _as_depth(alpha, 8))
            notes.append(f"{kind.upper()} has no transparency: the picture was put on white")
        alpha = None
    rgb, icc = _profiled(rgb, like.metadata.icc, settings, notes)
    metadata = (like.metadata if settings.metadata else Metadata(dpi=like.metadata.dpi)).with_profile(icc)
    depth = like.depth if kind in ("png", "tiff") else 8
    pixels = _as_depth(rgb, depth)
    if alpha is not None:
        pixels = np.dstack([pixels, _as_depth(alpha, depth)])
    if kind == "jpeg":
        data, lost = _jpeg(pixels, metadata, settings)
        return data, notes + lost
    if kind == "png":
        return _png(pixels, metadata, settings), notes
    if kind == "tiff":
        return _tiff(pixels, metadata, settings), notes
    return (_webp if kind == "webp" else _bmp)(pixels, metadata, settings), notes


def _as_depth(array: Any, depth: int) -> Any:
    """uint8 or uint16 samples as `depth` bits: times 257 up, rounded down."""
    if depth == 16:
        return array if array.dtype == np.uint16 else array.astype(np.uint16) * 257
    if array.dtype == np.uint8:
        return array
    return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _on_white(rgb: Image, alpha: npt.NDArray[np.uint8]) -> Image:
    share = alpha[..., None].astype(np.uint16)
    return ((rgb * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)


def _profiled(rgb: Image, icc: bytes | None, settings: ImageSettings, notes: list[str]) -> tuple[Image, bytes | None]:
    """Bring sRGB pixels into the profile they are to be written in."""
    if icc is None or is_srgb(icc):
        return rgb, icc
    if settings.profile == "srgb" or profile_space(icc) != "RGB":
        return rgb, srgb_profile()
    try:
        return from_srgb(rgb, icc), icc
    except ValueError:
        notes.append("the source's ICC profile cannot be written to: the result is in sRGB")
        return rgb, srgb_profile()


def _saved(pixels: Pixels, **options: Any) -> bytes:
    from PIL import Image as PilImage

    buffer = io.BytesIO()
    PilImage.fromarray(pixels).save(buffer, **{name: value for name, value in options.items() if value is not None})
    return buffer.getvalue()


def _jpeg(pixels: Pixels, metadata: Metadata, settings: ImageSettings) -> tuple[bytes, list[str]]:
    dpi = metadata.dpi and tuple(min(round(value), 65535) for value in metadata.dpi)
    subsampling = 0 if settings.quality >= 90 else 2
    return into_jpeg(
        _saved(
            pixels, format="JPEG", quality=settings.quality, subsampling=subsampling, icc_profile=metadata.icc, dpi=dpi
        ),
        metadata,
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


def _bmp(pixels: Pixels, metadata: Metadata, settings: ImageSettings) -> bytes:
    return _saved(pixels, format="BMP", dpi=metadata.dpi)


def _png(pixels: Pixels, metadata: Metadata, settings: ImageSettings) -> bytes:
    import cv2

    order = [2, 1, 0, 3][: pixels.shape[2]]
    done, data = cv2.imencode(
        ".png", np.ascontiguousarray(pixels[..., order]), [cv2.IMWRITE_PNG_COMPRESSION, settings.compression]
    )
    assert done
    return into_png(data.tobytes(), metadata)


def _strips(pixels: Pixels, order: str, level: int) -> Iterator[tuple[int, bytes]]:
    """Rows of some 1 MiB each, horizontally differenced (TIFF 6.0, section 14) and deflated."""
    height, width, samples = pixels.shape
    rows = max(1, _STRIP_BYTES // (width * samples * pixels.itemsize))
    for top in range(0, height, rows):
        part = pixels[top : top + rows]
        difference = part.copy()
        difference[:, 1:] -= part[:, :-1]  # modulo 2^8 or 2^16, as wanted
        yield rows, zlib.compress(difference.astype(f"{order}u{pixels.itemsize}").tobytes(), level)


def _tiff(pixels: Pixels, metadata: Metadata, settings: ImageSettings) -> bytes:
    """A baseline TIFF of strips, deflated; tags keep the byte order and the field types of the source."""
    directory = Directory("<")
    if metadata.exif:
        try:
            directory = descriptive(read_directory(metadata.exif))
        except (ValueError, struct.error):
            directory = Directory("<")
    order = directory.order
    body, offsets, sizes, rows = bytearray(8), [], [], 1
    for rows, strip in _strips(pixels, order, settings.compression):  # noqa: B007  # the last one's value is used
        offsets.append(len(body))
        sizes.append(len(strip))
        body += strip + bytes(len(strip) % 2)
    _add_layout(directory, pixels, rows=rows, offsets=offsets, sizes=sizes)
    for tag, kind, raw in ((700, 1, metadata.xmp), (33723, 7, metadata.iptc), (34675, 7, metadata.icc)):
        if raw:
            directory.values[tag] = (kind, len(raw), raw)
    if metadata.dpi:
        for tag, value in zip((282, 283), metadata.dpi, strict=True):
            directory.values[tag] = (5, 1, struct.pack(order + "II", round(value * 1000), 1000))
        directory.values[296] = (3, 1, struct.pack(order + "H", 2))
    struct.pack_into(order + "2sHI", body, 0, b"II" if order == "<" else b"MM", 42, len(body))
    if len(body) >= 1 << 32:
        raise OutputError("a TIFF holds at most 4 GiB: use PNG")
    return bytes(body) + write_directory(directory, start=len(body))


def _add_layout(directory: Directory, pixels: Pixels, *, rows: int, offsets: list[int], sizes: list[int]) -> None:
    """Set the tags that say how the pixels lie in the file (TIFF 6.0, sections 3 to 8 and 18)."""
    height, width, samples = pixels.shape
    shorts: dict[int, list[int]] = {
        258: [8 * pixels.itemsize] * samples,
        259: [8],  # deflate
        262: [2],  # RGB
        274: [1],
        277: [samples],
        284: [1],
        317: [2],  # horizontal differencing
    }
    if samples == 4:
        shorts[338] = [2]  # alpha, not multiplied in
    longs: dict[int, list[int]] = {256: [width], 257: [height], 273: offsets, 278: [rows], 279: sizes}
    for kind, code, group in ((3, "H", shorts), (4, "I", longs)):
        for tag, numbers in group.items():
            raw = struct.pack(f"{directory.order}{len(numbers)}{code}", *numbers)
            directory.values[tag] = (kind, len(numbers), raw)
