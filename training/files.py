"""The one way in which training writes a file: whole, or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from training.errors import TrainingError

__all__ = ["write_file"]


def write_file(
    path: Path,
    data: bytes | memoryview | str,
    *,
    remedy: str = "free some space or choose another folder",
    error: type[TrainingError] = TrainingError,
) -> None:
    """Write `path` beside its place, bring it to the disk, then rename it; text is written as UTF-8.

    Readers, a full disk and a machine that stops meet the old file or the new one, never a part.  Several
    processes may write the same file: the last one to finish wins.

    Raises:
        TrainingError: the file cannot be written; or the class given as `error`, with `remedy` in the message.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as problem:
        part.unlink(missing_ok=True)
        raise error(
            f"{path} cannot be written ({problem.strerror or problem}): {remedy}; what was there before is kept"
        ) from problem
    except BaseException:  # Ctrl-C leaves nothing behind either
        part.unlink(missing_ok=True)
        raise
