"""The journal of a folder run: which result came from which photo by which settings.

A `stylize.journal.Journal` in a hidden file beside the results.  A line is on the disk before its result takes its
name, so a run that is killed at any moment knows, next time, every result that is there.

Jobs of an array each keep a journal of their own beside it (``.stylize-3-of-8.jsonl``); every run reads them
all, and the next run that is no shard takes them into its own.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType

from engine.spec import sha256
from stylize.errors import OutputError, ResumeError
from stylize.files import shown, write_bytes
from stylize.journal import Journal, journal_lines, read_journal
from stylize.photos.scan import JOURNAL_NAME
from stylize.sharding import Shard

__all__ = ["Entry", "FolderJournal", "read_entries"]

_log = logging.getLogger(__name__)
_HEADER = {"stylize-folder": 1}
_SHARDS = ".stylize-*-of-*.jsonl"
_PATIENCE = 30.0
"""Seconds that a shard waits while another one looks whether a run that is no shard is at work."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One result."""

    target: str
    """Result, relative to the output folder, as a POSIX path."""
    source: str
    """Photo, relative to the source folder, as a POSIX path."""
    source_size: int
    source_mtime_ns: int
    source_sha256: str
    key: str
    """Settings and network that made it."""
    size: int
    """Bytes of the result."""
    mtime_ns: int
    sha256: str

    def __post_init__(self) -> None:
        for each in fields(self):
            if type(getattr(self, each.name)).__name__ != each.type:
                raise TypeError(f"{each.name} is {each.type}, got {getattr(self, each.name)!r}")

    def is_result(self, path: Path) -> bool:
        """Whether the file at `path` is the result as it was written."""
        return _is_same(path, self.size, self.mtime_ns, self.sha256)

    def is_source(self, path: Path) -> bool:
        """Whether the photo at `path` is still the one the result was made from."""
        return _is_same(path, self.source_size, self.source_mtime_ns, self.source_sha256)


def _is_same(path: Path, size: int, mtime_ns: int, digest: str) -> bool:
    """Same size and time, or, where only the time differs (a copied folder), same bytes."""
    try:
        status = path.stat()
        return status.st_size == size and (status.st_mtime_ns == mtime_ns or sha256(path) == digest)
    except OSError:
        return False


def read_entries(output: Path) -> dict[str, Entry]:
    """Entries by result; empty where there is no journal yet.

    Raises ResumeError where the journal is of another version or cannot be read.
    """
    entries = _read(output / JOURNAL_NAME)[0]
    for path in _shard_journals(output):
        entries |= _read(path)[0]
    return entries


def _shard_journals(output: Path) -> list[Path]:
    """Journals of shards, the latest last."""
    with suppress(OSError):
        return sorted(output.glob(_SHARDS), key=lambda path: (path.stat().st_mtime_ns, path.name))
    return []


def _read(path: Path) -> tuple[dict[str, Entry], bool]:
    """Entries of one journal, and whether the file is clean: no line damaged, cut off or outdated."""
    try:
        content = read_journal(path)
    except OSError as error:
        raise ResumeError(f"{shown(path)}: cannot be read ({error.strerror}): check its rights") from error
    if content.header not in (None, _HEADER):
        raise ResumeError(f"{shown(path)}: the journal of another version: choose another output folder, or delete it")
    entries: dict[str, Entry] = {}
    clean = content.clean
    for record in content.records:
        try:
            entry = Entry(**record)
        except TypeError:
            _log.warning("%s: a line is damaged and counts for nothing", shown(path))
            clean = False
            continue
        clean = clean and entry.target not in entries
        entries[entry.target] = entry
    return entries, clean


class FolderJournal:
    """The journal opened for a run; a second run into the same folder is refused meanwhile.

    Shards of one array may run at once, but neither the same shard twice nor a shard beside a run that is none.
    A context manager; entering makes the folder.  Raises OutputError where that is impossible.
    """

    def __init__(self, output: Path, shard: Shard | None = None) -> None:
        self.output = output
        self.shard = shard
        self.entries: dict[str, Entry] = {}
        self._stack = ExitStack()

    def __enter__(self) -> FolderJournal:
        from filelock import Timeout

        try:
            with ExitStack() as stack:
                self.output.mkdir(parents=True, exist_ok=True)
                path = self._take(stack) if self.shard is None else self._take_share(stack, self.shard)
                self._journal = stack.enter_context(Journal(path, _HEADER))
                self._stack = stack.pop_all()
        except Timeout as error:
            raise OutputError(
                f"{shown(self.output)}: another run writes there: wait for it, or choose another folder with -o"
            ) from error
        except OSError as error:
            raise OutputError(
                f"{shown(self.output)}: cannot be written ({error.strerror}): choose another folder with -o"
            ) from error
        return self

    def _take(self, stack: ExitStack) -> Path:
        """Lock the folder for a run that is no shard; what shards noted comes into its journal."""
        from filelock import FileLock

        path = self.output / JOURNAL_NAME
        stack.enter_context(FileLock(_lock(path), timeout=0))
        shards = _shard_journals(self.output)
        for other in shards:
            with FileLock(_lock(other), timeout=0):
                pass
        clean = _read(path)[1]
        self.entries = read_entries(self.output)
        if shards or not clean:
            _rewrite(path, self.entries)
        for other in shards:
            other.unlink()
            _lock(other).unlink(missing_ok=True)
        return path

    def _take_share(self, stack: ExitStack, shard: Shard) -> Path:
        """Lock one share of the folder."""
        from filelock import FileLock

        path = self.output / f".stylize-{shard.number}-of-{shard.count}.jsonl"
        stack.enter_context(FileLock(_lock(path), timeout=0))
        main = self.output / JOURNAL_NAME
        with FileLock(_lock(main), timeout=_PATIENCE):
            if not main.exists():
                _rewrite(main, {})
        own, clean = _read(path)
        if not clean:
            _rewrite(path, own)
        self.entries = read_entries(self.output)
        return path

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def record(self, entry: Entry) -> None:
        """Add a line and flush it to the disk.  Raises OSError (a full disk)."""
        self._journal.add(asdict(entry))
        self.entries[entry.target] = entry


def _lock(journal: Path) -> Path:
    """The lock of a journal."""
    return journal.with_suffix(".lock")


def _rewrite(path: Path, entries: dict[str, Entry]) -> None:
    write_bytes(path, journal_lines([_HEADER, *map(asdict, entries.values())]), overwrite=True)
