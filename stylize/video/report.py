"""What a video job says of its work: how far it is, and what became of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Progress", "StoppedError", "VideoReport"]


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
    interrupted (to be continued); failed; left (not begun)."""
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

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return asdict(self)


class StoppedError(Exception):
    """The stop event of a run is set."""
