"""Photo files opened: what is no photo is refused in one line, and Pillow works under our own limits."""

from __future__ import annotations

import os
import stat
import struct
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stylize.errors import InputError
from stylize.files import shown
from stylize.media.formats import CONTAINERS

if TYPE_CHECKING:
    from PIL import Image as PilImage

__all__ = ["check_size", "decoding", "missing_bytes", "opened", "pillow", "regular_file"]

_FORMATS: Final = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "HEIF", "AVIF")
_MOST_TEXT: Final = 16 << 20
"""Bytes that a text or the profile of a PNG may hold when unpacked."""

_pillow = threading.Lock()
"""Held while Pillow decodes: its warnings and its limits are settings of the whole process."""


def regular_file(path: Path) -> os.stat_result:
    """Status of a regular, non-empty file (never opens a pipe, which would wait for ever); else InputError."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise InputError(f"{shown(path)}: no such file: check the path") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(path)}: cannot be read ({_reason(error)}): check the path and its rights") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{shown(path)}: is a folder, not a photo: use `stylize folder`")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{shown(path)}: is not a regular file: name a photo")
    if status.st_size == 0:
        raise InputError(f"{shown(path)}: the file is empty: copy it again from where it came from")
    return status


def _reason(error: BaseException) -> str:
    """An error's own words as part of one line."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(shown(" ".join(str(words).split())).split())[:160]


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn every error but our own into an InputError of one line: decoders let every kind out."""
    try:
        yield
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"{shown(path)}: no permission to read it: check its rights") from error
    except MemoryError as error:
        raise InputError(f"{shown(path)}: too large for this machine's memory: make it smaller first") from error
    except Exception as error:
        raise InputError(
            f"{shown(path)}: the picture is damaged or cut off ({_reason(error)}): "
            "copy it again from where it came from"
        ) from error


def check_size(path: Path, width: int, height: int, max_megapixels: int) -> None:
    """InputError for a picture without pixels or with too many."""
    if width < 1 or height < 1:
        raise InputError(f"{shown(path)}: the picture has no pixels: copy it again from where it came from")
    if width * height > max_megapixels * 1_000_000:
        raise InputError(
            f"{shown(path)}: {width} x {height} pixels are more than the {max_megapixels} megapixels allowed: "
            "the file is damaged, or make the picture smaller first"
        )


@contextmanager
def pillow() -> Iterator[None]:
    """Hold Pillow, with our own limits of size in place of its own and without its warnings."""
    import pillow_heif
    from PIL import Image as PilImage
    from PIL import PngImagePlugin

    with _pillow, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "HEIF" not in PilImage.OPEN:
            pillow_heif.register_heif_opener()
        PilImage.init()
        limits: list[tuple[Any, str, int | None]] = [
            (PilImage, "MAX_IMAGE_PIXELS", None),
            (PngImagePlugin, "MAX_TEXT_CHUNK", _MOST_TEXT),
            (PngImagePlugin, "MAX_TEXT_MEMORY", sys.maxsize),
        ]
        before = [getattr(module, name) for module, name, _ in limits]
        try:
            for module, name, limit in limits:
                setattr(module, name, limit)
            yield
        finally:
            for (module, name, _), value in zip(limits, before, strict=True):
                setattr(module, name, value)


@contextmanager
def opened(path: Path, notes: list[str]) -> Iterator[PilImage.Image]:
    """Open a photo with Pillow, its header read; what had to be left out goes into `notes`.

    InputError for what is no picture.
    """
    from PIL import Image as PilImage
    from PIL import ImageFile, UnidentifiedImageError

    with pillow():
        ImageFile.LOAD_TRUNCATED_IMAGES = True  # in a PNG's header: without texts and profiles that are too large
        try:
            with decoding(path):
                image = PilImage.open(path, formats=[name for name in _FORMATS if name in PilImage.OPEN])
        except InputError as error:
            raise _no_picture(path) if isinstance(error.__cause__, UnidentifiedImageError) else error from None
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        with image:
            if image.format == "PNG" and ("" in image.info.values() or image.info.get("icc_profile", b"") is None):
                notes.append("a text or the ICC profile is empty, damaged or too large, and was left out")
            yield image


def _no_picture(path: Path) -> InputError:
    if path.suffix.lower() in (*CONTAINERS, ".avi"):
        return InputError(f"{shown(path)}: is a video: use `stylize video`")
    return InputError(
        f"{shown(path)}: not a picture that can be read (JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC, AVIF): "
        "check that the file is what its name says"
    )


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
