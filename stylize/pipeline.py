"""The map of the program: picture -> working size -> statistics -> tiles -> render -> mix -> picture.

`Stylizer` does this for one picture; `stylize.video_frames` for a stream of frames, with statistics that
are smoothed over time.  Reading and writing files is done elsewhere (`stylize.media`).
"""

from __future__ import annotations

import copy
import logging
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from engine.backends.base import Backend, BackendOptions, open_backend
from engine.errors import OutOfMemoryError
from engine.spec import F32, ModelSpec, NormStatistics, look_weights
from stylize.flow import FlowFilter
from stylize.frame import Frame, FrameTransform, Image
from stylize.memory import default_tile
from stylize.model_choice import choose_model
from stylize.model_store import find_model
from stylize.settings import BASE_SIDE, StyleSettings
from stylize.tiling import TilePlan
from stylize.video_frames import VideoStylizer

if TYPE_CHECKING:
    from stylize.media.video_probe import VideoInfo
    from stylize.video_job import VideoReport

__all__ = ["Stylizer"]

log = logging.getLogger(__name__)


class Stylizer:
    """One opened model with its settings; a context manager.

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

    Raises ModelError or BackendError on entering, ValueError for a look that does not exist.
    """

    def __init__(
        self,
        settings: StyleSettings | None = None,
        *,
        cache: Path | None = None,
        video: bool = False,
        **values: Any,
    ) -> None:
        if settings is not None and values:
            raise ValueError("give either settings or single values, not both")
        self.settings = settings or StyleSettings(**values)
        self.folder = find_model(choose_model(self.settings, video=video))
        options = BackendOptions(
            device=self.settings.device,
            precision=self.settings.precision,
            threads=self.settings.threads,
            cache=cache,
        )
        self.backend: Backend = open_backend(self.folder, name=self.settings.backend, options=options)
        self.seconds = {"probe": 0.0, "render": 0.0}
        """Time spent in each graph since the stylizer was opened."""
        self._tile_limit: int | None = None
        self._turn = threading.Lock()  # one picture in the network at a time, whatever thread it comes from
        self._looks = self._look_ends()
        if self.settings.tile:
            self._check_tile(self.settings.tile)

    @property
    def spec(self) -> ModelSpec:
        """The model's descriptor."""
        return self.backend.spec

    def _look_ends(self) -> tuple[F32, F32]:
        start, _, end = (self.settings.look or self.spec.usual_look).partition(":")
        return look_weights(self.spec, start), look_weights(self.spec, end or start)

    def restyled(self, **values: Any) -> Stylizer:
        """The same opened model under other settings of the look; to be used while this one is open.

        Raises ValueError for what `StyleSettings` or the model does not have.
        """
        other = copy.copy(self)
        other.settings = replace(self.settings, **values)
        other._looks = other._look_ends()
        return other

    @property
    def key(self) -> str:
        """Hash of model and settings: two stylizers with one key give the same pictures."""
        return self.settings.key(str(dict(self.spec.hashes or {})))

    @classmethod
    def open(cls, model: str = "auto", **values: Any) -> Stylizer:
        """An entered stylizer for a script that ends with `close` (or with the program)."""
        return cls(model=model, **values).__enter__()

    def close(self) -> None:
        """Give the backend's memory back."""
        self.__exit__(None, None, None)

    def __enter__(self) -> Stylizer:
        self.backend.__enter__()
        log.info("%s", self.backend.description)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.backend.__exit__(kind, error, trace)

    def image(self, image: Image) -> Image:
        """Stylize one picture, RGB uint8 ``(H, W, 3)`` of any size; the result has the same size."""
        if self.settings.strength == 0:
            return image.copy()
        return self.render(image, self.probe(image))

    def video(self, source: Path | str, target: Path | str, **settings: Any) -> VideoReport:
        """Stylize a video file; `settings` are those of `stylize.media.video_settings.VideoSettings`.

        Raises StylizeError when the source cannot be read or the target not be written; an interrupted
        call goes on where it stopped when it is made again.
        """
        from stylize.media.video_probe import probe_video
        from stylize.media.video_settings import VideoSettings
        from stylize.video_job import stylize_video

        wanted = VideoSettings(**settings)
        transform = self.transform_for(probe_video(Path(source)), wanted.fps)
        return stylize_video(Path(source), Path(target), transform, wanted, transform_key=self.key)

    def frames(self, source: Path | str) -> Iterator[Frame]:
        """Stylized frames of a video file, in order, each with its presentation time."""
        from stylize.media.video_probe import probe_video
        from stylize.media.video_source import VideoSource

        info = probe_video(Path(source))
        with VideoSource(info) as frames:
            yield from self.transform_for(info)(frames, range(sys.maxsize))

    def transform_for(self, info: VideoInfo, fps: Fraction | None = None) -> FrameTransform:
        """The frame transform of one video: rate and length decide the smoothing window and look changes."""
        rate = fps or info.rate or info.nominal_rate or Fraction(30)
        return self.transform(min(rate, Fraction(240)), info.duration)

    def transform(self, rate: Fraction | float, duration: Fraction | float | None = None) -> FrameTransform:
        """A frame transform for a video of `rate` frames a second and `duration` seconds."""
        radius = round(self.settings.smoothing * float(rate))
        length = None if duration is None else float(duration)
        stylized = VideoStylizer(stylizer=self, radius=radius, duration=length)
        return FlowFilter(stylized, self.settings.stabilize) if self.settings.stabilize else stylized

    def look_at(self, position: float) -> F32:
        """Look weights ``(K,)`` at a position 0..1 of a video."""
        start, end = self._looks
        share = min(max(position, 0.0), 1.0)
        return np.asarray(start * (1 - share) + end * share, np.float32)

    def probe(self, image: Image, position: float = 0.0) -> NormStatistics:
        """Statistics of a picture, taken from a thumbnail of it."""
        return self.probe_view(self.view(image), position)

    def view(self, image: Image) -> Image:
        """The thumbnail of a picture that the probe is shown: a copy, RGB uint8 ``(h, w, 3)``."""
        height, width = image.shape[:2]
        scale = min(1.0, self.spec.probe_side / max(height, width))
        view = _resize(image, max(1, round(height * scale)), max(1, round(width * scale)))
        return view.copy() if view is image else view

    def probe_view(self, view: Image, position: float = 0.0) -> NormStatistics:
        """Statistics of a picture whose `view` was taken before."""
        started = time.perf_counter()
        with self._turn:
            statistics = self.backend.probe(self._pad(view)[None], self.look_at(position))
        self.seconds["probe"] += time.perf_counter() - started
        return statistics

    def render(self, image: Image, statistics: NormStatistics) -> Image:
        """Stylize a picture with given statistics; the result has the picture's size."""
        started = time.perf_counter()
        height, width = image.shape[:2]
        scale = 1.0
        if self.settings.detail > 0:
            scale = min(1.0, BASE_SIDE * self.settings.detail / max(height, width))
        work = _resize(image, max(1, round(height * scale)), max(1, round(width * scale)))
        with self._turn:
            fake = self._render_tiles(self._pad(work), statistics)[: work.shape[0], : work.shape[1]]
        out = self.mix(image, _resize(fake, height, width))
        self.seconds["render"] += time.perf_counter() - started
        return out

    def _pad(self, image: Image) -> Image:
        """Mirror the right and lower border up to the sizes that the network takes."""
        multiple, least = self.spec.multiple, self.spec.min_side
        height, width = (max(least, -(-side // multiple) * multiple) for side in image.shape[:2])
        if (height, width) == image.shape[:2]:
            return np.ascontiguousarray(image)
        bottom, right = height - image.shape[0], width - image.shape[1]
        return np.asarray(cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REFLECT), np.uint8)

    def _render_tiles(self, image: Image, statistics: NormStatistics) -> Image:
        """All tiles of a padded picture; on lack of memory again with smaller ones."""
        while True:
            plan = self.tile_plan(*image.shape[:2])
            try:
                return plan.apply(image, lambda tile: self.backend.render(tile[None], statistics)[0])
            except OutOfMemoryError as error:
                side = max(plan.tile_height, plan.tile_width) // 2
                side = side // self.spec.multiple * self.spec.multiple
                if side <= 2 * self.spec.halo:
                    raise
                log.warning("%s; going on with tiles of %d pixels", error, side)
                self._tile_limit = side

    def tile_plan(self, height: int, width: int) -> TilePlan:
        """How a padded picture is cut: as the settings say, else whole when memory allows."""
        side = self._tile_limit or self.settings.tile
        if side is None:
            side = default_tile(self.spec, height, width)
        if side == 0:
            return TilePlan.whole(height, width)
        self._check_tile(side)
        side = side // self.spec.multiple * self.spec.multiple
        return TilePlan(
            height=height,
            width=width,
            tile_height=min(side, height),
            tile_width=min(side, width),
            halo=self.spec.halo,
            multiple=self.spec.multiple,
        )

    def _check_tile(self, side: int) -> None:
        least = 2 * self.spec.halo + self.spec.multiple
        if side < least:
            raise ValueError(
                f"a tile of {side} pixels is smaller than twice the halo of {self.spec.halo}: choose {least} or more"
            )

    def mix(self, image: Image, fake: Image) -> Image:
        """A picture with its stylization, RGB uint8 of one size: strength and kept colour, in CIE Lab."""
        strength, keep = self.settings.strength, self.settings.keep_color
        if strength == 1 and keep == 0:
            return np.ascontiguousarray(fake)
        lab = [cv2.cvtColor(x.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB) for x in (image, fake)]
        share = np.array([strength, strength * (1 - keep), strength * (1 - keep)], np.float32)
        rgb = cv2.cvtColor(lab[0] + (lab[1] - lab[0]) * share, cv2.COLOR_LAB2RGB)
        return np.asarray(np.clip(np.rint(rgb * 255.0), 0, 255), np.uint8)


def _resize(image: Image, height: int, width: int) -> Image:
    if image.shape[:2] == (height, width):
        return image
    smaller = height * width < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)
