"""Pictures that wait for the frames after them: many seconds of them do not fit into memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from stylize.errors import OutputError
from stylize.frame import Image

__all__ = ["WaitingPictures"]

IN_MEMORY = 1 << 30
"""Bytes of pictures that are kept in memory."""

DISK = Path("/var/tmp")
"""For temporary files that are large; /tmp may be memory."""


class WaitingPictures:
    """Keeps pictures of one size, `IN_MEMORY` of them in memory and the others in a temporary file without a name."""

    def __init__(self) -> None:
        self._held = 0
        self._file: IO[bytes] | None = None
        self._places = 0
        self._free: list[int] = []

    def put(self, image: Image) -> Callable[[], Image]:
        """Keep a picture; what is returned gives it back, once.

        Raises OutputError where the disk has no room for it.
        """
        size = image.nbytes
        if self._held + size <= IN_MEMORY:
            self._held += size
            return lambda: self._from_memory(image)
        place = self._free.pop() if self._free else self._places
        self._places = max(self._places, place + 1)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=DISK if DISK.is_dir() else None)  # noqa: SIM115  see close
            self._file.seek(place * size)
            self._file.write(image.tobytes())
        except OSError as error:
            raise OutputError(
                f"no room in {DISK} for pictures that wait ({error.strerror}): free some, or lower --smoothing"
            ) from error
        shape = image.shape  # the picture itself is let go
        return lambda: self._from_file(place, shape)

    def _from_memory(self, image: Image) -> Image:
        self._held -= image.nbytes
        return image

    def _from_file(self, place: int, shape: tuple[int, ...]) -> Image:
        assert self._file is not None
        size = int(np.prod(shape))
        self._file.seek(place * size)
        self._free.append(place)
        return np.frombuffer(self._file.read(size), np.uint8).reshape(shape)

    def close(self) -> None:
        """Give the disk's room back."""
        if self._file is not None:
            self._file.close()
            self._file = None
