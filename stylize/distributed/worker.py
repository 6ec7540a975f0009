"""What a worker of a cluster does: it holds an opened model, and makes photos and segments of videos.

Nothing of Ray is imported here.  Whatever goes wrong in the world outside comes back as a value, so that it
reads there as it would here.
"""

from __future__ import annotations

import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylize import __version__
from stylize.errors import InputError, fault
from stylize.settings import StyleSettings
from stylize.sharding import Shard
from stylize.video.report import VideoJob, VideoReport

if TYPE_CHECKING:
    from stylize.api import Stylizer
    from stylize.media.image.settings import ImageSettings
    from stylize.media.video.settings import VideoSettings

__all__ = ["ClusterWorker", "Failed", "PhotoDone", "WorkerFacts"]


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A piece of work, or a worker's start, that failed for a reason that another worker would not change."""

    message: str


@dataclass(frozen=True, kw_only=True)
class WorkerFacts:
    """A worker that is ready."""

    version: str
    """Of the stylizer."""
    key: str
    """Of its model and settings, see `Stylizer.key`."""
    description: str
    """The backend in words."""
    node: str
    """Name of the machine."""
    pid: int


@dataclass(frozen=True, kw_only=True)
class PhotoDone:
    """A stylized photo."""

    data: bytes
    """The encoded file."""
    width: int
    height: int
    notes: tuple[str, ...]
    """What could not be taken over."""


class ClusterWorker:
    """One model on one GPU or on some cores; `open` comes first, then any number of the others, also at once."""

    def __init__(self, style: StyleSettings, *, video: bool) -> None:
        self._style = style
        self._video = video
        self._stylizer: Stylizer | None = None

    def open(self) -> WorkerFacts | Failed:
        """Load the model."""
        from stylize.api import Stylizer

        try:
            self._stylizer = Stylizer(settings=self._style, video=self._video).__enter__()
        except Exception as error:
            return Failed(message=f"{platform.node()}: {fault(error)}")
        return WorkerFacts(
            version=__version__,
            key=self._stylizer.key,
            description=self._stylizer.backend.description,
            node=platform.node(),
            pid=os.getpid(),
        )

    def photo(self, name: str, data: bytes, target: str, settings: ImageSettings) -> PhotoDone | Failed:
        """Stylize a photo that is handed over as bytes.

        Args:
            name: its path where it comes from, for messages and its suffix.
            data: the file.
            target: path of the result there; the suffix says the format.
            settings: how it is read and written.
        """
        from stylize.files import shown
        from stylize.media.image.read import read_image
        from stylize.media.image.write import write_image

        assert self._stylizer is not None, "open comes first"
        with tempfile.TemporaryDirectory(prefix="stylize-") as folder:
            source, result = Path(folder) / f"in{Path(name).suffix}", Path(folder) / f"out{Path(target).suffix}"
            source.write_bytes(data)
            try:
                picture = read_image(source, max_megapixels=settings.max_megapixels)
                written = write_image(result, self._stylizer.image(picture.data), picture, settings)
            except Exception as error:
                message = (
                    fault(error, shown(Path(name)))
                    .replace(shown(source), shown(Path(name)))
                    .replace(shown(result), shown(target))
                )
                return Failed(message=message)
            height, width = picture.data.shape[:2]
            notes = (*picture.notes, *written.notes)
            return PhotoDone(data=result.read_bytes(), width=width, height=height, notes=notes)

    def segment(self, source: str, target: str, settings: VideoSettings, shard: Shard) -> VideoReport | Failed:
        """Make a share of a video's segments into the work folder of `target`; both paths are on a shared disk."""
        from stylize.media.video.probe import probe_video
        from stylize.video.job import run_video
        from stylize.video.store import SegmentStore

        assert self._stylizer is not None, "open comes first"
        job = VideoJob(
            source=Path(source), target=Path(target), settings=settings, transform_key=self._stylizer.key, shard=shard
        )
        try:
            for path in (job.source, SegmentStore(job.target).folder):
                if not path.exists():
                    raise InputError(
                        f"{path} is not to be seen on {platform.node()}: give source and result paths on a disk that "
                        "all machines mount at the same place"
                    )
            return run_video(job, self._stylizer.transform_for(probe_video(job.source), settings.fps))
        except Exception as error:
            return Failed(message=fault(error, source))
