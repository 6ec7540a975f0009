"""What a worker of a cluster does: it holds an opened model, and makes photos and segments of videos.

Nothing of Ray is imported here.  Whatever goes wrong in the world outside comes back as a value, so that it
reads there as it would here.
"""

from __future__ import annotations

import os
import platform
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylize import __version__
from stylize.errors import InputError, fault
from stylize.settings import StyleSettings
from stylize.video.report import VideoJob

if TYPE_CHECKING:
    from stylize.api import Stylizer
    from stylize.media.image.settings import ImageSettings
    from stylize.media.video.settings import VideoSettings

__all__ = ["ClusterWorker", "Failed", "PhotoDone", "SegmentDone", "WorkerFacts"]


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


@dataclass(frozen=True, kw_only=True)
class SegmentDone:
    """A segment is in the job folder, or `moved`: the plan of frames was wrong and a new one is there."""

    moved: bool = False


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
        from stylize.media.image.read import read_image
        from stylize.media.image.settings import shown
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

    def segment(self, source: str, target: str, settings: VideoSettings, number: int) -> SegmentDone | Failed:
        """Make segment `number` of a video into the job folder of `target`; both paths are on a shared disk."""
        try:
            return self._segment(VideoJob(source=Path(source), target=Path(target), settings=settings), number)
        except Exception as error:
            return Failed(message=fault(error, source))

    def _segment(self, job: VideoJob, number: int) -> SegmentDone:
        from stylize.media.video.output import plan_output
        from stylize.media.video.probe import probe_video
        from stylize.video.finish import job_header
        from stylize.video.render import FramesDifferError, SegmentRenderer, find_frames
        from stylize.video.store import SegmentStore

        assert self._stylizer is not None, "open comes first"
        store, settings = SegmentStore(job.target), job.settings
        times = store.frames()
        for there, what in ((job.source.exists(), job.source), (times is not None, store.folder)):
            if not there:
                raise InputError(
                    f"{what} is not to be seen on {platform.node()}: give source and result paths on a disk that all "
                    "machines mount at the same place"
                )
        assert times is not None
        output = plan_output(probe_video(job.source), job.target, settings)
        segments = times.segments(settings.segment_seconds, output.time_base)
        wanted = [segment for segment in segments if segment.number == number]
        if not wanted:
            return SegmentDone(moved=True)
        renderer = SegmentRenderer(
            output=output,
            settings=settings,
            transform=self._stylizer.transform_for(output.info, settings.fps),
            store=store,
            stop=threading.Event(),
        )
        with store.writing(job_header(output, settings, self._stylizer.key), job.facts, shared=True):
            try:
                renderer.stretch(wanted[0].first, wanted[0].stop, times)
            except FramesDifferError:
                find_frames(store, output, settings, decode=True)
                return SegmentDone(moved=True)
        return SegmentDone()
