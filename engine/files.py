"""Files and folders that appear whole or not at all: made beside their place, flushed to the disk, then renamed.

One set of rules for all that is written.  Nothing that stands there is replaced without `overwrite`, also where it
came into being meanwhile.  What an error leaves half-written is removed; what a killed process leaves is hidden,
and the next one to write the same file takes its place.  All functions raise OSError, FileExistsError among them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["new_file", "new_folder", "part_path", "replace_folder", "sync_folder"]


def part_path(target: Path) -> Path:
    """Where a target is written before it takes its name: hidden, short whatever the name, ending in ``.part``."""
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    return target.with_name(f".{digest}.part")


@contextmanager
def new_file(path: Path, *, overwrite: bool = False, several: bool = False) -> Iterator[Path]:
    """A place beside `path` to write to; what is there at the end of the block takes the name `path`.

    Missing folders are made.  With `several`, several processes or threads may write the same file at once.
    """
    part = part_path(path)
    if several:
        part = part.with_suffix(f".{secrets.token_hex(4)}.part")
    if not overwrite and os.path.lexists(path):
        raise _exists(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)  # of a process that was killed
    try:
        yield part
        _flush(part)
        if overwrite:
            part.replace(path)
        else:
            _name(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "exists already", str(path))


def _name(part: Path, path: Path) -> None:
    """Rename to a name that is free; of two that try, one gets it."""
    try:
        os.link(part, path)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise _exists(path) from None
        part.replace(path)
    else:
        part.unlink()


def _flush(path: Path) -> None:
    """Bring a file's bytes to the disk."""
    with path.open("rb" if os.name == "posix" else "rb+") as file:  # Windows flushes what may be written alone
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system lets folders be opened."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder beside `path` to fill; at the end of the block it takes the name `path`."""
    if not overwrite and os.path.lexists(path):
        raise _exists(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-", ignore_cleanup_errors=True) as temporary:
        work = Path(temporary) / "folder"
        work.mkdir()
        yield work
        replace_folder(work, path)


def replace_folder(work: Path, path: Path) -> None:
    """Put a finished folder, which lies on the same file system, in the place of `path` and of what was there."""
    for file in work.rglob("*"):
        if file.is_file():
            _flush(file)
    if os.path.lexists(path):
        old = path.with_name(f".old-{secrets.token_hex(4)}")
        path.replace(old)
        work.replace(path)
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink()
    else:
        work.replace(path)
    sync_folder(path.parent)
