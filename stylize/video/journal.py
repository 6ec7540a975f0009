"""A record of what is done, one JSON object a line, that survives a crash at any moment.

The first line is the header: what the work is about.  Every further line is one finished piece.  A line counts
once it is complete and on the disk; a torn last line, as a power cut leaves it, is cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from stylize.errors import OutputError, ResumeError

__all__ = ["Journal", "rendered", "sync_folder"]


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` safely to the disk (a no-op where folders cannot be opened)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        return
    finally:
        os.close(descriptor)


class Journal:
    """An append-only list of finished pieces; a context manager that holds the file open."""

    def __init__(self, path: Path, header: Mapping[str, Any], *, advice: str) -> None:
        """Describe the journal; nothing is read before ``with``.

        Args:
            path: the file; made if it does not exist.
            header: what the work is about, JSON values; an existing journal must have the same.
            advice: what to do when it has another, the end of the error message.
        """
        self._path = path
        self._header = json.loads(json.dumps(header))
        self._advice = advice
        self._file: IO[bytes] | None = None
        self._ends: list[int] = []  # where the header and each record end in the file
        self.records: list[dict[str, Any]] = []
        """The finished pieces, oldest first."""

    def __enter__(self) -> Journal:
        """Read what is there and get ready to append.

        Raises:
            ResumeError: the journal belongs to other work.
            OutputError: the file cannot be read or written.
        """
        try:
            content = self._path.read_bytes() if self._path.exists() else b""
            header, self.records, self._ends = _parse(content)
            length = self._ends[-1] if self._ends else 0
            if header is not None:
                self._compare(header)
            self._file = self._path.open("r+b" if self._path.exists() else "w+b")
            self._file.truncate(length)
            self._file.seek(length)
            if header is None:
                self._append(self._header)
                sync_folder(self._path.parent)
        except OSError as error:
            self.__exit__(None, None, None)
            raise OutputError(f"{self._path} cannot be written ({error.strerror}): choose another target") from error
        return self

    def _compare(self, header: Mapping[str, Any]) -> None:
        names = sorted({*header, *self._header})
        different = [name for name in names if header.get(name) != self._header.get(name)]
        if different:
            raise ResumeError(
                f"{self._path.parent} holds an unfinished run with another {', '.join(different)}: {self._advice}"
            )

    def _append(self, record: Mapping[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._ends.append(self._file.tell())

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one finished piece; on return it is on the disk.

        Raises:
            OutputError: it could not be written.
        """
        try:
            self._append(record)
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written ({error.strerror}): free some room") from error
        self.records.append(dict(record))

    def keep(self, count: int) -> None:
        """Forget all pieces but the first `count`: what they stand for is gone.

        Raises:
            OutputError: the file cannot be written.
        """
        if count >= len(self.records):
            return
        assert self._file is not None
        del self.records[count:]
        del self._ends[count + 1 :]
        try:
            self._file.truncate(self._ends[-1])
            self._file.seek(self._ends[-1])
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written ({error.strerror}): free some room") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def rendered(path: Path, header: Mapping[str, Any]) -> bool:
    """Whether the journal at `path` has this header and tells of a job whose frames are all done.

    Raises OSError where it cannot be read.
    """
    found, records, _ = _parse(path.read_bytes())
    return found == json.loads(json.dumps(header)) and any("end" in record for record in records)


def _parse(content: bytes) -> tuple[dict[str, Any] | None, list[dict[str, Any]], list[int]]:
    """Header, records, and where each of these lines ends; what follows the last end is torn."""
    lines: list[dict[str, Any]] = []
    ends: list[int] = []
    at = 0
    for line in content.split(b"\n")[:-1]:
        try:
            value = json.loads(line)
        except ValueError:
            break
        if not isinstance(value, dict):
            break
        at += len(line) + 1
        lines.append(value)
        ends.append(at)
    return (lines[0] if lines else None), lines[1:], ends
