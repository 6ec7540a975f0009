"""What this package writes: by the rules of `engine.files`, with errors of one line."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from engine import files
from engine.files import part_path, sync_folder
from stylize.errors import OutputError

__all__ = ["DiskFullError", "Written", "new_file", "output_error", "part_path", "shown", "sync_folder", "write_bytes"]

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


def shown(path: PurePath | str) -> str:
    """A path as one printable line: line breaks, control characters and undecodable bytes escaped."""
    text = str(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@contextmanager
def new_file(path: Path, *, overwrite: bool = False, several: bool = False) -> Iterator[Path]:
    """`engine.files.new_file`, whose errors, and those of the block, become OutputErrors."""
    try:
        with files.new_file(path, overwrite=overwrite, several=several) as part:
            yield part
    except (OSError, ValueError) as error:
        raise output_error(path, error) from error


def write_bytes(
    path: Path,
    data: bytes,
    *,
    overwrite: bool = False,
    times: tuple[int, int] | None = None,
    notes: tuple[str, ...] = (),
    before_rename: Callable[[Written], None] | None = None,
) -> Written:
    """Write `data` whole or not at all; `times` are those of access and modification, in nanoseconds.

    `before_rename` is called when the file is complete but has not yet taken its name (a journal's hour).
    Raises OutputError where `path` exists without `overwrite` or cannot be written; nothing new is left then.
    """
    with new_file(path, overwrite=overwrite) as part:
        part.write_bytes(data)
        if times is not None:
            os.utime(part, ns=times)
        digest = hashlib.sha256(data).hexdigest()
        written = Written(size=len(data), mtime_ns=part.stat().st_mtime_ns, sha256=digest, notes=notes)
        if before_rename is not None:
            before_rename(written)
    return written


def output_error(path: Path, error: Exception) -> OutputError:
    """What stopped the writing and what to do, in one line."""
    name, code = shown(path), getattr(error, "errno", None)
    if code in _FULL:
        return DiskFullError(f"{name}: the disk is full: free some space and run again")
    if isinstance(error, FileExistsError) and os.path.lexists(path):
        return OutputError(f"{name}: exists already: choose another name, or replace it with --overwrite")
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{name}: no permission to write there: choose another place with -o")
    if code in (errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
        return OutputError(f"{name}: its folder is not there or is a file: choose another place with -o")
    if code == errno.ENAMETOOLONG:
        return OutputError(f"{name}: the name is too long for this file system: shorten it")
    words = getattr(error, "strerror", None) or str(error)
    return OutputError(f"{name}: cannot be written ({words}): choose another place with -o")
