"""Photos out: encoded in memory, written beside the target, flushed to the disk, then renamed.

Under the final name there is either nothing, what was there before, or the whole new file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stylize.errors import OutputError
from stylize.frame import Image
from stylize.media.image.encode import encode
from stylize.media.image.read import Picture
from stylize.media.image.settings import ImageSettings, format_of, shown

__all__ = ["DiskFullError", "Written", "check_target", "part_path", "write_bytes", "write_image"]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskFullError(OutputError):
    """There is no room for the target; trying further files is in vain."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A file as it was written."""

    size: int
    """Bytes."""
    mtime_ns: int
    """Modification time, nanoseconds."""
    sha256: str
    """Of its bytes, hexadecimal."""
    notes: tuple[str, ...] = ()
    """What the format could not take over."""


def part_path(target: Path) -> Path:
    """Where a target is written before it takes its name: hidden, short whatever the name, ending in ``.part``."""
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    return target.with_name(f".{digest}.part")


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
        raise _output_error(target, error) from error
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


def write_bytes(
    path: Path,
    data: bytes,
    *,
    overwrite: bool = False,
    times: tuple[int, int] | None = None,
    notes: tuple[str, ...] = (),
    before_rename: Callable[[Written], None] | None = None,
) -> Written:
    """Write `data` whole or not at all; missing folders are made.  Raises OutputError."""
    part = part_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            written = _write_part(part, data, times, notes)
            if not overwrite and os.path.lexists(path):
                raise OutputError(f"{shown(path)}: came into being meanwhile: choose another name, or use --overwrite")
            if before_rename is not None:
                before_rename(written)
            part.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except (OSError, ValueError) as error:
        raise _output_error(path, error) from error
    return written


def _write_part(part: Path, data: bytes, times: tuple[int, int] | None, notes: tuple[str, ...]) -> Written:
    part.unlink(missing_ok=True)  # of a run that was killed
    with part.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if times is not None:
        os.utime(part, ns=times)
    return Written(
        size=len(data), mtime_ns=part.stat().st_mtime_ns, sha256=hashlib.sha256(data).hexdigest(), notes=notes
    )


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system lets folders be opened."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _output_error(path: Path, error: Exception) -> OutputError:
    """Say in one line what stopped the writing and what to do."""
    name, code = shown(path), getattr(error, "errno", None)
    if code in _FULL:
        return DiskFullError(f"{name}: the disk is full: free some space and run again")
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{name}: no permission to write there: choose another place with -o")
    if code in (errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
        return OutputError(f"{name}: its folder is not there or is a file: choose another place with -o")
    if code == errno.ENAMETOOLONG:
        return OutputError(f"{name}: the name is too long for this file system: shorten it")
    words = getattr(error, "strerror", None) or str(error)
    return OutputError(f"{name}: cannot be written ({words}): choose another place with -o")
