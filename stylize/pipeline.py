"""The map of the program: picture -> working size -> statistics -> tiles -> render -> mix -> picture.

`Stylizer` does this for one picture; `VideoStylizer` for a stream of frames, with statistics that
are smoothed over time.  Reading and writing files is done elsewhere (`stylize.media`).
"""

from __future__ import annotations

import copy
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
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
from stylize.temporal import CUT_CONTENT, SceneSignature, is_cut, mean_statistics, window_weights
from stylize.tiling import TilePlan

if TYPE_CHECKING:
    from stylize.media.video_probe import VideoInfo
    from stylize.video_job import VideoReport

__all__ = ["Stylizer", "VideoStylizer"]

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


@dataclass(eq=False)
class _Seen:
    """A frame on its way through the window."""

    frame: Frame
    data: Image | None
    """Its picture, until it is rendered."""
    signature: SceneSignature
    change: float
    """From the frame before; 0 for the first that is seen."""
    repeats: bool
    """Whether it shows the very picture of the frame before."""
    view: Image | None = None
    """What the probe is shown, where it may be asked for."""
    statistics: NormStatistics | None = None


PROBE_EVERY = 2
"""Frames between two probes within a scene; those between them use their neighbours'."""

CUT_REACH = 2
"""Frames on either side that a cut has to stand out from."""

REPEAT_RUN = 8
"""A picture that stands still is rendered once in so many frames (at indices that this divides)."""


NOTHING: Image = np.zeros((0, 0, 3), np.uint8)
"""Stands for a picture that is no longer needed."""


@dataclass(eq=False)
class VideoStylizer:
    """`stylize.frame.FrameTransform` of a video: what `Stylizer.transform` returns.

    The statistics of a frame are the weighted mean over the probed frames of its scene within
    `radius`.  Which frames are probed depends on their index and on cuts alone.  A frame that repeats
    the one before takes over its result, up to `REPEAT_RUN` frames in a row.
    """

    stylizer: Stylizer
    radius: int
    """Frames before and after."""
    duration: float | None = None
    """Seconds of the whole video, for looks that change on the way."""
    seconds: dict[str, float] = field(default_factory=lambda: {"probe": 0.0, "render": 0.0})
    """Time spent in each graph for this video."""
    _window: deque[_Seen] = field(default_factory=deque, repr=False)
    _last: tuple[int, Image] | None = field(default=None, repr=False)
    """The frame that was rendered last, and its result."""

    @property
    def context(self) -> int:
        """Frames before and after a frame that its result depends on."""
        return self._reach + CUT_REACH + REPEAT_RUN

    @property
    def _reach(self) -> int:
        return max(self.radius, PROBE_EVERY)

    def __call__(self, frames: Iterable[Frame], wanted: range) -> Iterator[Frame]:
        """See `FrameTransform`."""
        window: deque[_Seen] = deque()
        self._window, self._last = window, None
        waiting = wanted.start
        ahead = self._reach + CUT_REACH + 1
        for frame in frames:
            self._push(frame, shown=frame.index in wanted)
            while waiting in wanted and frame.index >= waiting + ahead:
                yield self._finish(waiting)
                waiting += 1
                while window and window[0].frame.index < waiting - self.context:
                    window.popleft()
        # The source has ended: what is left has all the neighbours it will ever have.
        while window and waiting in wanted and waiting <= window[-1].frame.index:
            yield self._finish(waiting)
            waiting += 1
        window.clear()
        self._last = None

    def _push(self, frame: Frame, shown: bool) -> None:
        """Take a frame in: all that later frames need of it is small."""
        signature = SceneSignature.of(frame.data)
        before = self._window[-1] if self._window else None
        change = signature.change(before.signature) if before else 0.0
        repeats = before is not None and change == 0 and np.array_equal(frame.data, before.frame.data)
        seen = _Seen(frame, frame.data if shown else None, signature, change, repeats)
        if frame.index % PROBE_EVERY == 0 or change >= CUT_CONTENT:
            seen.view = self.stylizer.view(frame.data)
        if before:
            before.frame = replace(before.frame, data=NOTHING)
        self._window.append(seen)

    def _finish(self, index: int) -> Frame:
        seen = self._window[index - self._window[0].frame.index]
        assert seen.data is not None
        leader = self._leader(index)
        if self._last is None or self._last[0] != leader:
            statistics = self._statistics(leader)
            started = time.perf_counter()
            self._last = (leader, self.stylizer.render(seen.data, statistics))
            self.seconds["render"] += time.perf_counter() - started
        seen.data = None
        return replace(seen.frame, data=self._last[1])

    def _leader(self, index: int) -> int:
        """The frame whose result frame `index` takes: itself, unless it repeats those before it."""
        first = self._window[0].frame.index
        while index > first and index % REPEAT_RUN and self._window[index - first].repeats:
            index -= 1
        return index

    def _statistics(self, index: int) -> NormStatistics:
        """What a frame is rendered with."""
        window, first = self._window, self._window[0].frame.index
        scene = self._scene(index - first)
        near = [i for i in scene if abs(first + i - index) <= self._reach and self._is_probed(i, scene)]
        distance = np.array([first + i - index for i in near])
        parts = [self._probed(window[i]) for i in near]
        return mean_statistics(parts, list(window_weights(distance, self._reach)))

    def _scene(self, at: int) -> range:
        """Places in the window that belong to the scene of place `at`."""
        changes = [seen.change for seen in self._window]
        start, stop = max(0, at - self._reach), min(len(changes), at + self._reach + 1)
        for i in range(at, start, -1):
            if is_cut(changes, i, CUT_REACH):
                start = i
                break
        for i in range(at + 1, stop):
            if is_cut(changes, i, CUT_REACH):
                stop = i
                break
        return range(start, stop)

    def _is_probed(self, at: int, scene: range) -> bool:
        """Every n-th frame of the video, and the first of a scene that begins in sight."""
        index = self._window[at].frame.index
        starts_scene = at == scene.start and is_cut([s.change for s in self._window], at, CUT_REACH)
        return index % PROBE_EVERY == 0 or starts_scene

    def _probed(self, seen: _Seen) -> NormStatistics:
        """The frame's own statistics; taken at the first call."""
        if seen.statistics is None:
            assert seen.view is not None
            started = time.perf_counter()
            position = float(seen.frame.pts) / self.duration if self.duration else 0.0
            seen.statistics, seen.view = self.stylizer.probe_view(seen.view, position), None
            self.seconds["probe"] += time.perf_counter() - started
        return seen.statistics


def _resize(image: Image, height: int, width: int) -> Image:
    if image.shape[:2] == (height, width):
        return image
    smaller = height * width < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)
