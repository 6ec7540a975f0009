"""What this package writes: by the rules of `engine.files`, with errors of one line."""

from __future__ import annotations

from pathlib import Path

from engine.files import new_file
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
    try:
        with new_file(path, overwrite=True, several=True) as part:
            part.write_bytes(data)
    except OSError as problem:
        raise error(f"{path} could not be written ({problem}): {remedy}") from problem


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8; as `write_bytes`."""
    write_bytes(path, text.encode())
