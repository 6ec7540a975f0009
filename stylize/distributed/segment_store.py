"""The job folder of a video that several machines make, on the disk that they share.

    job.json       what the work is about, as in a journal's header, and how it was asked for
    frames.json    the time of every frame: what segments are cut from
    000012.mov     a finished segment (a folder for pictures)
    000012.json    its record, written after it

Jobs never wait for each other.  Every file is written beside its name and renamed, and two jobs that write
the same one write the same content; so jobs may run at once, be repeated, and be killed at any moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from stylize.errors import InputError, OutputError, ResumeError
from stylize.media.video.settings import VideoSettings
from stylize.video.journal import sync_folder
from stylize.video.segments import weight

__all__ = ["FramePlan", "JobFacts", "Segment", "SegmentStore", "ranges", "runs"]


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of frames that is encoded to a file of its own."""

    number: int
    """From the time of its first frame, so that a gap in time leaves numbers out."""
    first: int
    """Index of its first frame."""
    stop: int
    """Index behind its last frame."""


@dataclass(frozen=True, kw_only=True)
class FramePlan:
    """When every frame of a video is shown."""

    ticks: tuple[int, ...]
    """Presentation times in ticks of the output's time base."""
    decoded: bool
    """Found by decoding the whole video; else read off the container, to be compared with what is decoded."""
    retimed: int = 0
    """Frames whose time had to be moved."""
    resized: int = 0
    """How often the picture changes its size."""

    def segments(self, seconds: Fraction, time_base: Fraction) -> list[Segment]:
        """Cut as a run on one machine cuts: by time since the first frame."""
        starts: list[tuple[int, int]] = []
        for index, tick in enumerate(self.ticks):
            number = int((tick - self.ticks[0]) * time_base // seconds)
            if not starts or starts[-1][0] != number:
                starts.append((number, index))
        stops = [*(first for _, first in starts[1:]), len(self.ticks)]
        return [
            Segment(number=number, first=first, stop=stop) for (number, first), stop in zip(starts, stops, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class JobFacts:
    """How a job was asked for: enough to join its segments, and to say how missing ones are made."""

    source: str
    """Path of the video."""
    target: str
    """Path of the result."""
    settings: dict[str, Any]
    """The `VideoSettings`, as JSON values."""
    command: str = ""
    """The command line without its share."""
    shards: int = 0
    """Jobs of the array; 0 where the segments were not shared out so."""

    @classmethod
    def of(cls, source: Path, target: Path, settings: VideoSettings, *, command: str = "", shards: int = 0) -> JobFacts:
        """Describe a job; paths are made absolute."""
        values = {name: str(v) if isinstance(v, Fraction) else v for name, v in asdict(settings).items()}
        return cls(
            source=str(source.absolute()),
            target=str(target.absolute()),
            settings=values,
            command=command,
            shards=shards,
        )

    def video_settings(self, **changed: Any) -> VideoSettings:
        """The settings, some of them `changed`."""
        values = {**self.settings, **changed}
        values["encoder_args"] = tuple(values["encoder_args"])
        for name in ("fps", "segment_seconds"):
            values[name] = None if values[name] is None else Fraction(values[name])
        return VideoSettings(**values)


class SegmentStore:
    """The files of one job folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, header: Mapping[str, Any], facts: JobFacts) -> None:
        """Make the folder, or find it made for the same work by another job.

        Raises:
            ResumeError: it belongs to other work.
            OutputError: it cannot be written.
        """
        path = self.folder / "job.json"
        header = json.loads(json.dumps(header))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be made ({error.strerror}): choose another target") from error
        if not path.exists():
            self._write(path, {"header": header, "facts": asdict(facts)}, keep=True)
        self.check(header)

    def check(self, header: Mapping[str, Any]) -> None:
        """Compare with what the folder was made for.  Raises ResumeError where it is other work."""
        there = self.job()[0]
        different = [name for name in sorted({*there, *header}) if there.get(name) != header.get(name)]
        if different:
            raise ResumeError(
                f"{self.folder} holds segments of a job with another {', '.join(different)}: give every job the same "
                "settings, source and programs, or delete that folder to begin anew"
            )

    def job(self) -> tuple[dict[str, Any], JobFacts]:
        """Header and facts.  Raises InputError where there is no job."""
        value = self._read(self.folder / "job.json")
        try:
            facts = {field.name: value["facts"][field.name] for field in fields(JobFacts)}
            return dict(value["header"]), JobFacts(**facts)
        except (KeyError, TypeError) as error:
            raise InputError(f"{self.folder} holds no segments to join: run stylize video --shard first") from error

    def frames(self) -> FramePlan | None:
        """The frames, None where no job has looked yet."""
        value = self._read(self.folder / "frames.json")
        if not value:
            return None
        return FramePlan(**{**value, "ticks": tuple(value["ticks"])})

    def put_frames(self, plan: FramePlan) -> None:
        """Keep the frames; what was decoded is not replaced by what was only read."""
        if plan.decoded or self.frames() is None:
            self._write(self.folder / "frames.json", asdict(plan))

    def add(self, record: Mapping[str, Any]) -> None:
        """Keep the record of a finished segment (see `SegmentWriter`).  Raises OutputError."""
        self._write(self.folder / f"{record['segment']:06d}.json", dict(record))

    def forget(self, number: int) -> None:
        """Let a segment be missing again."""
        with contextlib.suppress(OSError):
            (self.folder / f"{number:06d}.json").unlink()

    def record(self, segment: Segment, plan: FramePlan) -> dict[str, Any] | None:
        """The record of a segment, if it is there and whole and has the frames that it should."""
        value = self._read(self.folder / f"{segment.number:06d}.json")
        try:
            whole = value["first"] == segment.first and weight(self.folder / value["file"]) == value["bytes"]
        except (KeyError, OSError):
            return None
        return value if whole and tuple(value["times"]) == plan.ticks[segment.first : segment.stop] else None

    def _read(self, path: Path) -> dict[str, Any]:
        """A JSON object; empty where there is none."""
        try:
            value = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}): delete it and run the jobs again") from error
        return value if isinstance(value, dict) else {}

    def _write(self, path: Path, value: Any, *, keep: bool = False) -> None:
        """Write whole or not at all; with `keep` the first of several writers wins."""
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            with part.open("xb") as file:
                file.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                if keep:
                    os.link(part, path)
                else:
                    part.replace(path)
            except FileExistsError:
                pass
            except OSError:
                if not keep:
                    raise
                part.replace(path)  # a file system without links
            part.unlink(missing_ok=True)
            sync_folder(self.folder)
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror}): free some room") from error


def ranges(numbers: Iterable[int]) -> str:
    """Numbers in order, in short: ``1-3, 7``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)


def runs(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Segments that follow one another without a gap, together."""
    found: list[list[Segment]] = []
    for segment in segments:
        if found and found[-1][-1].stop == segment.first:
            found[-1].append(segment)
        else:
            found.append([segment])
    return found
