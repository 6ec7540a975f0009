"""The folder beside a target where the segments of an unfinished video are kept."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from stylize.errors import OutputError
from stylize.media.ffmpeg import stem_for

__all__ = ["check_target", "locked", "work_folder"]


def work_folder(target: Path) -> Path:
    """Where the segments of an unfinished `target` are kept."""
    return target.parent / stem_for(target.name, suffix=".stylize")


def check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    """Refuse a target that must not be written, before any work is done.

    Raises:
        OutputError: it exists, is the source, or its folder cannot be written.
    """
    if target.exists() and source.exists() and target.samefile(source):
        raise OutputError(f"{target} is the source itself: choose another target with -o")
    filled = target.is_dir() and any(target.iterdir())
    if not overwrite and (target.is_file() or filled):
        raise OutputError(f"{target} exists already: choose another name, or --overwrite to replace it")
    if target.is_dir() and target.suffix:
        raise OutputError(f"{target} is a folder: choose another name")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target.parent} cannot be made ({error.strerror}): choose another target") from error
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"{target.parent} may not be written: choose another target with -o")


@contextlib.contextmanager
def locked(work: Path) -> Iterator[None]:
    """Make the work folder and keep other runs out of it.

    Raises:
        OutputError: it cannot be made, or another run is at work in it.
    """
    import filelock

    try:
        work.mkdir(exist_ok=True)
        lock = filelock.FileLock(work / "lock", timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise OutputError(f"another run is at work on this target ({work}): wait for it, or stop it") from error
    except OSError as error:
        raise OutputError(f"{work} cannot be made ({error.strerror}): choose another target with -o") from error
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            if not any(path.name != "lock" for path in work.iterdir()):
                shutil.rmtree(work)
