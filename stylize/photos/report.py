"""A folder of photos to do: what the job is told, and what it says about its work, for people and as JSON."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stylize.media.image.settings import ImageSettings
from stylize.sharding import Shard

__all__ = ["FolderJob", "FolderReport", "PhotoReport", "Progress"]


@dataclass(frozen=True, kw_only=True)
class PhotoReport:
    """What became of one photo."""

    source: str
    target: str | None = None
    """Result; None where none was planned (an unreadable folder, a link)."""
    status: str
    """``done``, ``skipped``, ``failed``, or ``left`` where the run ended before it."""
    reason: str = ""
    """Why it was not done, as a word: ``up-to-date``, ``exists``, ``other-settings``, ``source-changed``,
    ``result-changed``, ``link``; ``error``, ``disk-full``, ``unreadable``; ``interrupted``."""
    message: str = ""
    """The same as one line."""
    seconds: float = 0.0
    """From reading to writing; photos overlap."""
    width: int | None = None
    height: int | None = None
    notes: tuple[str, ...] = ()
    """What could not be taken over, though the photo was done."""

    def __post_init__(self) -> None:
        if self.status not in ("done", "skipped", "failed", "left"):
            raise ValueError(f"status is done, skipped, failed or left, got {self.status!r}")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


Progress = Callable[[PhotoReport, int, int], None]
"""Called with a report, how many there are so far, and how many there will be."""


@dataclass(frozen=True, kw_only=True)
class FolderJob:
    """All that the parts of a run over a folder are told."""

    source: Path
    """The folder; it is left as it is."""
    target: Path | None = None
    """Where the tree is mirrored; None: the folder ``stylized`` in `source`."""
    settings: ImageSettings = field(default_factory=ImageSettings)
    """How photos are read and written."""
    transform_key: str = ""
    """Names the network and its settings: results made by another are not up to date."""
    shard: Shard | None = None
    """The share of the photos to do; other shards may run at the same time.  None: all."""
    progress: Progress | None = None
    """Called in the run's thread with each report as it comes."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set it to end the run after what is being written."""


@dataclass(frozen=True, kw_only=True)
class FolderReport:
    """What became of a folder of photos."""

    source: str
    output: str
    photos: tuple[PhotoReport, ...]
    ignored: dict[str, int]
    """Files that are no photos: suffix to number."""
    seconds: float
    interrupted: bool = False
    """Ended by Ctrl-C or `stop`."""
    message: str | None = None
    """Why the run ended early and how to go on; None where it did not."""

    def count(self, status: str) -> int:
        """How many photos have this status."""
        return sum(photo.status == status for photo in self.photos)

    @property
    def complete(self) -> bool:
        """Whether nothing failed and nothing was left."""
        return all(photo.status in ("done", "skipped") for photo in self.photos)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = {status: self.count(status) for status in ("done", "skipped", "failed", "left")}
        return {**asdict(self), "photos": [photo.as_dict() for photo in self.photos], **counts}
