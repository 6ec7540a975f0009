"""One video to make: what it is told, how far it is, and what became of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from stylize.media.video.settings import VideoSettings
from stylize.sharding import Shard

__all__ = ["Progress", "StoppedError", "VideoJob", "VideoReport", "Watch"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job is."""

    stage: str
    """frames, join or verify."""
    done: int
    """Frames finished, those of earlier runs included."""
    total: int | None
    """Frames in all as far as the container lets guess."""
    resumed: int
    """Frames that an earlier run had finished."""
    seconds: float
    """Since this run began."""

    @property
    def fps(self) -> float:
        """Frames a second in this run."""
        return (self.done - self.resumed) / self.seconds if self.seconds > 0 else 0.0


@dataclass(kw_only=True)
class VideoReport:
    """What became of one video."""

    source: str
    """The source's path."""
    target: str
    """The target's path."""
    status: str = "done"
    """done; damaged (delivered, but the source had losses); shard (this run's share of the segments is there);
    skipped (the target was there); interrupted (to be continued); failed; left (not begun)."""
    frames_in: int = 0
    """Frames that the source gave."""
    frames_out: int = 0
    """Frames in the output."""
    frames_resumed: int = 0
    """Of those, finished by an earlier run."""
    duration: float = 0.0
    """Seconds from the first frame to the end of the last."""
    seconds: float = 0.0
    """Wall-clock time of this run."""
    fps: float = 0.0
    """Frames a second of this run."""
    split: dict[str, float] = field(default_factory=dict)
    """Seconds spent in decode, transform, encode (these three overlap) and join; of the transform, in its
    parts as far as it tells them (probe, render)."""
    warnings: list[str] = field(default_factory=list)
    """What the user should know: converted or dropped streams, guesses."""
    lost: list[str] = field(default_factory=list)
    """What a damaged source did not give, and where."""
    message: str = ""
    """What to do next, if anything."""

    def end(self, watch: Watch) -> None:
        """Note how long it took."""
        self.seconds = watch.seconds
        fresh = self.frames_out - self.frames_resumed
        self.fps = fresh / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class VideoJob:
    """All that the parts of a video job are told."""

    source: Path
    """Any video that ffmpeg reads."""
    target: Path
    """What to write; its suffix tells the container (see `output_kind`)."""
    settings: VideoSettings = field(default_factory=VideoSettings)
    """Everything about the output that is not the look."""
    transform_key: str = ""
    """Names generator and look: work is only continued with the same."""
    shard: Shard | None = None
    """The share of the segments to make, for `join_video` to put together; None: all, and the target itself."""
    command: str = ""
    """The command line without its share, for messages."""
    skip_existing: bool = False
    """A target that is there is left as it is, and is no fault."""
    progress: Callable[[Progress], None] | None = None
    """Called after each frame and at each stage."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set it (from a signal handler, say) to end cleanly."""

    def skipped(self) -> VideoReport | None:
        """A report where there is nothing to do.  Raises OSError for a target's name that the system refuses."""
        if not self.skip_existing or self.settings.overwrite or not os.path.lexists(self.target):
            return None
        message = f"{self.target} is there already: skipped (--overwrite makes it anew)"
        return VideoReport(source=str(self.source), target=str(self.target), status="skipped", message=message)

    def to_json(self) -> dict[str, Any]:
        """How it was asked for, with absolute paths: enough to join its segments, or to have missing ones made."""
        values = asdict(self.settings)
        return {
            "source": str(self.source.absolute()),
            "target": str(self.target.absolute()),
            "settings": {name: str(value) if isinstance(value, Fraction) else value for name, value in values.items()},
            "command": self.command,
            "shards": self.shard.count if self.shard else 0,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> VideoJob:
        """What `to_json` told of, and a key; of a shard, the first."""
        settings = {**values["settings"], "encoder_args": tuple(values["settings"]["encoder_args"])}
        for name in ("fps", "segment_seconds"):
            settings[name] = None if settings[name] is None else Fraction(settings[name])
        return cls(
            source=Path(values["source"]),
            target=Path(values["target"]),
            settings=VideoSettings(**settings),
            transform_key=values["transform_key"],
            command=values["command"],
            shard=Shard(number=1, count=values["shards"]) if values["shards"] else None,
        )


class Watch:
    """The clock of a job: tells how far it is, and ends it when it is to stop."""

    def __init__(self, progress: Callable[[Progress], None] | None, stop: threading.Event) -> None:
        self.stop = stop
        self.total: int | None = None
        """Frames in all."""
        self.done = self.resumed = 0
        """Frames finished, and those of them that an earlier run had finished."""
        self._progress = progress
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the job began."""
        return time.perf_counter() - self._began

    def tell(self, done: int, stage: str = "frames") -> None:
        """Say how many frames are finished."""
        self.done = done
        if self._progress is not None:
            self._progress(
                Progress(stage=stage, done=done, total=self.total, resumed=self.resumed, seconds=self.seconds)
            )

    def enter(self, stage: str) -> None:
        """Begin another stage.  Raises StoppedError where the job is to stop."""
        if self.stop.is_set():
            raise StoppedError
        self.tell(self.done, stage)


class StoppedError(Exception):
    """The stop event of a run is set."""
