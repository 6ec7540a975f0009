"""Photos out: encoded in memory, then written by the rules of `stylize.files`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from stylize.errors import OutputError
from stylize.files import Written, output_error, shown, write_bytes
from stylize.frame import Image
from stylize.media.image.encode import encode
from stylize.media.image.read import Picture
from stylize.media.image.settings import ImageSettings, format_of

__all__ = ["check_target", "write_image"]


def check_target(target: Path, settings: ImageSettings, *, source: Path | None = None) -> str:
    """Return the format that `target` is to be written in.

    Raises OutputError where its suffix is unknown, it exists and may not be replaced, or is the source itself.
    """
    kind = format_of(target)
    if kind is None:
        raise OutputError(f"{shown(target)}: unknown kind of picture: name it .jpg, .png, .webp, .tif or .bmp")
    try:
        if target.is_dir():
            raise OutputError(f"{shown(target)}: is a folder: give a file name")
        if source is not None and target.exists() and target.samefile(source):
            raise OutputError(f"{shown(target)}: is the source itself: choose another name")
        if os.path.lexists(target) and not settings.overwrite:
            raise OutputError(f"{shown(target)}: exists already: choose another name, or replace it with --overwrite")
    except (OSError, ValueError) as error:
        raise output_error(target, error) from error
    return kind


def write_image(
    path: Path,
    rgb: Image,
    like: Picture,
    settings: ImageSettings,
    *,
    before_rename: Callable[[Written], None] | None = None,
) -> Written:
    """Write sRGB pixels, uint8 ``(H, W, 3)``, with alpha, depth and metadata of `like`; the suffix says the format.

    `before_rename` is called when the file is complete but has not yet taken its name (a journal's hour).
    Raises OutputError where the target exists without `settings.overwrite`, cannot be written, or the disk
    is full; nothing new is left behind then.
    """
    if rgb.shape != like.data.shape or rgb.dtype != like.data.dtype:
        raise ValueError(f"the result has the source's size and type, got {rgb.shape = }, {rgb.dtype = }")
    kind = check_target(path, settings)
    try:
        data, notes = encode(rgb, like, kind, settings)
    except OutputError as error:
        raise OutputError(f"{shown(path)}: {error}") from error
    except (OSError, MemoryError) as error:
        raise OutputError(f"{shown(path)}: cannot be encoded ({error}): try another format") from error
    times = like.times if settings.keep_times else None
    return write_bytes(
        path, data, overwrite=settings.overwrite, times=times, notes=tuple(notes), before_rename=before_rename
    )
