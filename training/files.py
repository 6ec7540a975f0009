"""Files that appear whole or not at all: written beside their place, flushed to the disk, then renamed.

The rules are those of `engine.files`, which this package does not import.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from training.errors import TrainingError

__all__ = ["write_bytes", "write_text"]


def write_bytes(
    path: Path,
    data: bytes,
    *,
    error: type[TrainingError] = TrainingError,
    remedy: str = "free some space or choose another folder",
) -> None:
    """Write `data`, in place of what was there; several threads and processes may do so at once.

    Raises `error`, with the remedy, where that cannot be done; the file is as it was then.
    """
    part = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise error(f"{path} could not be written ({problem}): {remedy}") from problem


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8; as `write_bytes`."""
    write_bytes(path, text.encode())
