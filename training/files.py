"""What training writes: by the rules of `engine.files`, whole or not at all, with errors of one line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from engine.files import new_file
from training.errors import TrainingError

__all__ = ["save_tensors", "write_file"]


def write_file(
    path: Path,
    data: bytes | memoryview | str,
    *,
    remedy: str = "free some space or choose another folder",
    error: type[TrainingError] = TrainingError,
) -> None:
    """Write `path`, in place of what was there; text is written as UTF-8.

    Readers, a full disk and a machine that stops meet the old file or the new one, never a part.  Several threads
    and processes may write the same file: the last one to finish wins.

    Raises:
        TrainingError: the file cannot be written; or the class given as `error`, with `remedy` in the message.
    """
    try:
        with new_file(path, overwrite=True, several=True) as part:
            part.write_bytes(data.encode() if isinstance(data, str) else data)
    except OSError as problem:
        raise error(
            f"{path} cannot be written ({problem.strerror or problem}): {remedy}; what was there before is kept"
        ) from problem


def save_tensors(path: Path, values: Any) -> None:
    """`torch.save`, by `write_file`; read it with ``torch.load(path, weights_only=True)``."""
    import torch

    buffer = io.BytesIO()
    torch.save(values, buffer)
    write_file(path, buffer.getbuffer())
