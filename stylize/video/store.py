"""The work folder of a video: its finished segments, and the journals that tell of them.

    lock                     held by whoever works on the video alone, or joins it
    journal.jsonl            the journal of the run on one machine
    share-1f2e3d4c-77.jsonl  the journal of one run of a shard, or of a worker of a cluster
    000012.1f2e3d4c.mov      a finished segment (a folder for pictures)

Every journal begins with what the work is about and how it was asked for.  Its other lines are the times of the
frames, and finished segments.  Shards never wait for each other: each run writes files of its own names alone, so
jobs may run at once, be repeated, and be killed at any moment.  A segment counts where a line tells of it and its
file is whole.  On a disk that they share, a run on one machine, shards and workers go on with each other's work.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from stylize.errors import InputError, OutputError, ResumeError, StylizeError
from stylize.journal import Journal, JournalContent, read_journal
from stylize.media.ffmpeg import stem_for
from stylize.settings import option_changes
from stylize.video.report import VideoJob

__all__ = [
    "PART", "SHARED", "SUFFIX", "VERSION", "FrameTimes", "Segment", "SegmentStore", "check_target",
    "locked", "segment_bytes", "with_unfinished",
]  # fmt: skip

PART = ".part"
"""Suffix of what is not finished."""

VERSION = 3
"""Of the work folder's files."""

SUFFIX = ".stylize"

WHOLE, SHARED = "run", "share"
"""How the names of unfinished files begin: of a run that has the folder to itself, and of one that has not."""

_thread = threading.local()

_WAYS_OUT = "begin anew with --restart, or delete that folder"


def segment_bytes(path: Path) -> int:
    """Size of a segment: a file, or a folder of pictures."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir())
    return path.stat().st_size


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of frames that is encoded to a file of its own."""

    number: int
    """From the time of its first frame, so that a gap in time leaves numbers out."""
    first: int
    """Index of its first frame."""
    stop: int
    """Index behind its last frame."""

    @property
    def frames(self) -> int:
        """How many there are."""
        return self.stop - self.first


@dataclass(frozen=True, kw_only=True)
class FrameTimes:
    """When the frames of a video are shown."""

    ticks: tuple[int, ...]
    """Presentation times in ticks of the output's time base."""
    complete: bool = True
    """These are all frames; else how many follow is found out while they are decoded."""
    decoded: bool = False
    """Found by decoding the whole video; else read off the container, to be compared with what is decoded."""
    retimed: int = 0
    """Frames whose time had to be moved."""
    resized: int = 0
    """How often the picture changes its size."""

    def segments(self, seconds: Fraction, time_base: Fraction) -> list[Segment]:
        """Cut by the time since the first frame."""
        starts: list[tuple[int, int]] = []
        for index, tick in enumerate(self.ticks):
            number = int((tick - self.ticks[0]) * time_base // seconds)
            if not starts or starts[-1][0] != number:
                starts.append((number, index))
        stops = [*(first for _, first in starts[1:]), len(self.ticks)]
        return [
            Segment(number=number, first=first, stop=stop) for (number, first), stop in zip(starts, stops, strict=True)
        ]


class SegmentStore:
    """The work folder of one target, as it is on the disk whenever a method is called."""

    def __init__(self, target: Path) -> None:
        self.folder = target.parent / stem_for(target.name, suffix=SUFFIX)
        self.header: dict[str, Any] = {}
        """What the work is about; see `stylize.video.finish.job_header`."""
        self._journal: Journal | None = None
        self._kind = WHOLE

    @classmethod
    def at(cls, folder: Path) -> SegmentStore:
        """The store of a folder whose target is not known."""
        store = cls(folder)
        store.folder = folder
        return store

    def read(self) -> VideoJob:
        """How the work that is there was asked for.  Raises InputError where there is nothing."""
        headers = [content.header for content in self._contents() if content.header is not None]
        for header in sorted(headers, key=lambda header: int(header.get("job", {}).get("shards", 0))):
            if header.get("version") == VERSION:
                self.header = {name: value for name, value in header.items() if name != "job"}
                return VideoJob.from_json({**header["job"], "transform_key": header["transform"]})
        if headers:
            raise self._other_version
        raise InputError(f"{self.folder} holds no segments to join: run stylize video --shard first")

    @contextlib.contextmanager
    def writing(self, header: Mapping[str, Any], job: VideoJob, *, shared: bool) -> Iterator[None]:
        """Make the folder, or go on in it, with a journal that is open for `add` and `add_frames`.

        Args:
            header: all that decides the encoded frames.
            job: how it was asked for.
            shared: others may write to the folder at the same time.

        Raises:
            ResumeError: it belongs to other work.
            OutputError: it cannot be written.
        """
        self._kind = SHARED if shared else WHOLE
        name = f"{SHARED}-{_name_of_thread()}.jsonl" if shared else "journal.jsonl"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.check(header, job)
            with Journal(self.folder / name, {**self.header, "job": job.to_json()}) as self._journal:
                yield
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be written ({error.strerror}): free some room") from error
        finally:
            self._journal = None

    def take_over(self, header: Mapping[str, Any]) -> list[str]:
        """Get the frames that another target in the same folder could not be made of, and say so.

        Only of a job that rendered all of them, of the same source and in the same way (`header`), and delivered
        nothing.
        """
        if self.folder.exists() and any(self.folder.iterdir()):
            return []
        for journal in sorted(self.folder.parent.glob(f".*{SUFFIX}/journal.jsonl")):
            other = SegmentStore.at(journal.parent)
            with contextlib.suppress(StylizeError, OSError):
                target = self.folder.parent / other.read().target.name
                times = other.frames()
                if target.exists() or other.header != json.loads(json.dumps(header)) or not (times and times.decoded):
                    continue
                with locked(other.folder):
                    other.folder.rename(self.folder)
                return [f"the frames were rendered already, for {target.name}: used again"]
        return []

    def check(self, header: Mapping[str, Any], job: VideoJob) -> None:
        """Compare with what the folder was made for.  Raises ResumeError where it is other work."""
        self.header = json.loads(json.dumps(header))
        asked = json.loads(json.dumps(job.to_json()["settings"]))
        for there in (content.header for content in self._contents() if content.header is not None):
            if there.get("version") != VERSION:
                raise self._other_version
            different = [name for name in self.header if there.get(name) != self.header[name]]
            options = option_changes(there["transform"], self.header["transform"])
            options += option_changes(there["job"]["settings"], asked, "overwrite", "restart", "verify", "keep_work")
            if different:
                named = f" ({'; '.join(options)})" if options else ""
                raise ResumeError(
                    f"{self.folder} holds unfinished work with another {', '.join(different)}{named}: give the same "
                    f"(to every shard of a job, too), or {_WAYS_OUT}"
                )

    @property
    def _other_version(self) -> ResumeError:
        return ResumeError(f"{self.folder} holds the unfinished work of another version of this program: {_WAYS_OUT}")

    def _contents(self) -> list[JournalContent]:
        if (self.folder / "shards").exists():
            return [JournalContent(header={"version": 1})]
        return [read_journal(path) for path in sorted(self.folder.glob("*.jsonl"))]

    def _records(self, kind: str) -> list[dict[str, Any]]:
        return [record for content in self._contents() for record in content.records if kind in record]

    def part(self, number: int) -> Path:
        """A new name for a segment that is begun; nobody else's encoder writes there, not even an orphaned one."""
        return self.folder / f"{number:06d}.{self._kind}-{secrets.token_hex(4)}{PART}"

    def add(self, record: Mapping[str, Any]) -> None:
        """Keep the record of a finished segment (see `SegmentWriter`), or of the frames.  Raises OutputError."""
        assert self._journal is not None
        try:
            self._journal.add(record)
        except OSError as error:
            raise OutputError(f"{self._journal.path} cannot be written ({error.strerror}): free some room") from error

    def frames(self) -> FrameTimes | None:
        """The times of all frames, decoded ones before ones that were read off; None where nobody has looked yet."""
        found = [
            FrameTimes(**{**record["frames"], "ticks": tuple(record["frames"]["ticks"])})
            for record in self._records("frames")
        ]
        return next((times for times in found if times.decoded), found[0] if found else None)

    def add_frames(self, times: FrameTimes) -> None:
        """Keep the times of all frames.  Raises OutputError."""
        self.add({"frames": asdict(times)})

    def finished(self) -> list[dict[str, Any]]:
        """Records of the segments that are there and whole, in order."""
        records = {record["file"]: record for record in self._records("segment")}
        return sorted(filter(self._is_whole, records.values()), key=lambda record: int(record["first"]))

    def _is_whole(self, record: Mapping[str, Any]) -> bool:
        try:
            return segment_bytes(self.folder / record["file"]) == int(record["bytes"])
        except OSError:
            return False

    def begun(self) -> FrameTimes:
        """The frames that a run on one machine goes on behind: of segments from the first one on without a gap.

        Later segments are forgotten, as it will make them again.
        """
        ticks: list[int] = []
        for record in self.finished():
            if record["first"] == len(ticks):
                ticks += record["times"]
            else:
                self.forget(record)
        return FrameTimes(ticks=tuple(ticks), complete=False)

    def chain(self, segments: Sequence[Segment], times: FrameTimes) -> tuple[list[dict[str, Any]], list[Segment]]:
        """Records of all segments that are there and follow from one another, and the segments that are missing.

        The frame before a segment, as its own job decoded it, has to be the last one of the segment before.  Where
        it is not, seeking gave that job a damaged picture: such a segment is forgotten.
        """
        finished: dict[int, list[dict[str, Any]]] = {}
        for record in self.finished():
            finished.setdefault(record["first"], []).append(record)
        records: list[dict[str, Any]] = []
        missing: list[Segment] = []
        before: dict[str, Any] | None = None
        for segment in segments:
            wanted = list(times.ticks[segment.first : segment.stop])
            candidates = [record for record in finished.get(segment.first, []) if record["times"] == wanted]
            fitting = [record for record in candidates if before is None or record["before"] == before["source"]]
            for record in candidates if not fitting else ():
                self.forget(record)
            before = fitting[0] if fitting else None
            if before is None:
                missing.append(segment)
            else:
                records.append(before)
        return records, missing

    def forget(self, record: Mapping[str, Any]) -> None:
        """Let a segment be missing again."""
        _remove(self.folder / record["file"])

    def clear(self, *, everything: bool = False) -> None:
        """Remove what interrupted runs on one machine left half-written, or all but the lock."""
        for path in self.folder.iterdir():
            if (everything and path.name != "lock") or (path.suffix == PART and f".{SHARED}-" not in path.name):
                _remove(path)

    def remove(self) -> None:
        """The work is done, or given up."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _name_of_thread() -> str:
    """The same for all that a thread does, and for nobody else: a worker makes hundreds of segments."""
    _thread.name = getattr(_thread, "name", None) or secrets.token_hex(4)
    return f"{_thread.name}-{os.getpid()}"  # a forked process has the name from its parent


def with_unfinished(message: str, target: Path) -> str:
    """A message, with where the unfinished work on `target` lies and how to give it up, if there is any."""
    folder = SegmentStore(target).folder
    if not folder.exists() or str(folder) in message:
        return message
    return f"{message} (unfinished work is kept in {folder}: --restart, or deleting that folder, gives it up)"


def check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    """Refuse a target that must not be written, before any work is done.

    Raises:
        OutputError: it exists, is the source, or its folder cannot be written.
    """
    try:
        if target.exists() and source.exists() and target.samefile(source):
            raise OutputError(f"{target} is the source itself: choose another target with -o")
        filled = target.is_dir() and any(target.iterdir())
        if not overwrite and (target.is_file() or filled):
            raise OutputError(f"{target} exists already: choose another name, or --overwrite to replace it")
        if target.is_dir() and target.suffix:
            raise OutputError(f"{target} is a folder: choose another name")
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target} cannot be written ({error.strerror}): choose another target with -o") from error
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
