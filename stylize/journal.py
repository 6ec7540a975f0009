"""A record of finished work, one JSON object a line, that survives a crash at any moment.

The first line is the header, which says what the work is about.  Every further line stands for one finished piece.
A line is on the disk before anybody counts on it.  A line that is damaged counts for nothing, nor does the end of a
file that a power cut tore off.  Whoever reads a line asks whether its result is there, too: so work is forgotten by
deleting its result, and a journal only ever grows.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from stylize.files import sync_folder

__all__ = ["Journal", "JournalContent", "journal_lines", "read_journal"]

_log = logging.getLogger(__name__)


@dataclass
class JournalContent:
    """What a journal says."""

    header: dict[str, Any] | None = None
    """None where there is no journal, or its first line is damaged."""
    records: list[dict[str, Any]] = field(default_factory=list)
    """The finished pieces, oldest first."""
    clean: bool = False
    """The file is there, and none of its lines is damaged or torn."""
    length: int = 0
    """Bytes up to the end of the last line that was not torn."""


def read_journal(path: Path) -> JournalContent:
    """Read a journal; empty where there is none.  Raises OSError where it cannot be read."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return JournalContent()
    found = JournalContent(clean=lines[-1] == b"", length=sum(len(line) + 1 for line in lines[:-1]))
    for number, line in enumerate(lines[:-1]):  # what follows the last line end was torn off
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            _log.warning("%s: line %d is damaged and counts for nothing", path, number + 1)
            found.clean = False
        elif number == 0:
            found.header = value
        else:
            found.records.append(value)
    return found


def journal_lines(values: Iterable[Mapping[str, Any]]) -> bytes:
    """Lines of ASCII; names that are no valid text come back as they were (lone surrogates, escaped)."""
    return b"".join(json.dumps(dict(value), separators=(",", ":")).encode("ascii") + b"\n" for value in values)


class Journal:
    """A journal that is open to be added to, by one process at a time; a context manager."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Describe the journal; nothing is done before ``with``.

        Args:
            path: the file; made if it does not exist.
            header: its first line, where it is made.  Whether that of an existing one will do is for the caller to say.
        """
        self.path = path
        self._header = header
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Journal:
        """Make the file, or cut a torn end off.  Raises OSError."""
        there = read_journal(self.path)
        self._file = self.path.open("r+b" if self.path.exists() else "w+b", buffering=0)
        try:
            length = 0 if there.header is None else there.length
            if self._file.seek(0, os.SEEK_END) != length:
                self._file.truncate(length)
            if there.header is None:
                self.add(self._header)
                sync_folder(self.path.parent)
        except OSError:
            self._file.close()
            raise
        return self

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one line; on return it is on the disk.  Raises OSError (a full disk), and nothing was added then."""
        assert self._file is not None, "the journal is not open"
        line, end = journal_lines([record]), self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(end)  # half a line would spoil the next one
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
