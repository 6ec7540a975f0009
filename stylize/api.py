"""`Stylizer`, the programming interface: pictures as `stylize.pipeline` makes them, and whole videos."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from engine.model_store import find_model
from stylize.frame import Frame, FrameTransform
from stylize.media.video.probe import VideoInfo, probe_video
from stylize.media.video.settings import VideoSettings
from stylize.media.video.source import VideoSource
from stylize.model_choice import choose_model
from stylize.pipeline import Pipeline
from stylize.video.flow import FlowFilter
from stylize.video.job import run_video
from stylize.video.report import VideoJob, VideoReport
from stylize.video.stylizer import VideoStylizer

__all__ = ["Stylizer"]


class Stylizer(Pipeline):
    """One opened model with its settings, for pictures and videos; a context manager.

    Example:
        >>> import numpy as np
        >>> photo = np.full((120, 160, 3), 128, np.uint8)   # RGB (H, W, 3)
        >>> with Stylizer(model="light", look="dusk") as stylizer:
        ...     firewatch = stylizer.image(photo)
        >>> firewatch.shape, firewatch.dtype
        ((120, 160, 3), dtype('uint8'))

    Args:
        settings: see `StyleSettings`; single settings may be given by name instead.
        cache: folder for compiled models.
        video: what model `auto` is to be chosen for.
        frame: height and width of a video's frames, which a TensorRT plan is made for.

    Raises ModelError or BackendError on entering, ValueError for a look that does not exist.
    """

    def video(self, source: Path | str, target: Path | str, **settings: Any) -> VideoReport:
        """Stylize a video file; `settings` are those of `stylize.media.video.settings.VideoSettings`.

        Where the model was left open (`auto`), it is the one for videos, as in ``stylize video``.
        Raises StylizeError when the source cannot be read or the target not be written; an interrupted
        call goes on where it stopped when it is made again.
        """
        wanted = VideoSettings(**settings)
        with self._for_video() as stylizer:
            transform = stylizer.transform_for(probe_video(Path(source)), wanted.fps)
            job = VideoJob(source=Path(source), target=Path(target), settings=wanted, transform_key=stylizer.key)
            return run_video(job, transform)

    def frames(self, source: Path | str) -> Iterator[Frame]:
        """Stylized frames of a video file, in order, each with its presentation time."""
        info = probe_video(Path(source))
        with self._for_video() as stylizer, VideoSource(info) as frames:
            yield from stylizer.transform_for(info)(frames, range(sys.maxsize))

    @contextmanager
    def _for_video(self) -> Iterator[Stylizer]:
        """With the model that `auto` means for a video, as the command line takes it; often it is open already."""
        if find_model(choose_model(self.settings, video=True)) == self.folder:
            yield self
            return
        with Stylizer(self.settings, cache=self._options.cache, video=True) as other:
            yield other

    def transform_for(self, info: VideoInfo, fps: Fraction | None = None) -> FrameTransform:
        """The frame transform of one video: rate and length decide the smoothing window and look changes."""
        rate = fps or info.rate or info.nominal_rate or Fraction(30)
        return self.transform(min(rate, Fraction(240)), info.duration)

    def transform(self, rate: Fraction | float, duration: Fraction | float | None = None) -> FrameTransform:
        """A frame transform for a video of `rate` frames a second and `duration` seconds."""
        radius = round(self.settings.smoothing * float(rate))
        length = None if duration is None else float(duration)
        stylized = VideoStylizer(pipeline=self, radius=radius, duration=length)
        return FlowFilter(stylized, self.settings.stabilize) if self.settings.stabilize else stylized
