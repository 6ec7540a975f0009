"""A video's frames through the network: conditions over a window of time, then one picture after the other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from engine.conditions import Conditions, mean_conditions
from stylize.frame import NOTHING, Frame, Image
from stylize.pipeline import Pipeline, Stylizing
from stylize.video.temporal import CUT_CONTENT, SceneSignature, carried, is_cut, window_weights
from stylize.video.waiting import WaitingPictures

__all__ = ["VideoStylizer"]


@dataclass(eq=False)
class _Seen:
    """A frame on its way through the window."""

    frame: Frame
    take: Callable[[], Image] | None
    """Gives its picture, which waits to be rendered."""
    signature: SceneSignature
    change: float
    """From the frame before; 0 for the first that is seen."""
    repeats: bool
    """Whether it shows the very picture of the frame before."""
    moved: tuple[float, float]
    """How far it has moved since the frame before, in widths and heights."""
    view: Image | None = None
    """What the probe is shown, where it may be asked for."""
    conditions: Conditions | None = None


PROBE_EVERY = 2
"""Frames between two probes within a scene; those between them use their neighbours'."""

CUT_REACH = 2
"""Frames on either side that a cut has to stand out from."""

REPEAT_RUN = 8
"""A picture that stands still is rendered once in so many frames (at indices that this divides)."""


@dataclass(eq=False)
class VideoStylizer:
    """`stylize.frame.FrameTransform` of a video: what `Stylizer.transform` returns.

    The conditions of a frame are the weighted mean over the probed frames of its scene within
    `radius`.  Which frames are probed depends on their index and on cuts alone.  A frame that repeats
    the one before takes over its result, up to `REPEAT_RUN` frames in a row.
    """

    pipeline: Pipeline
    radius: int
    """Frames before and after."""
    duration: float | None = None
    """Seconds of the whole video, for looks that change on the way."""
    seconds: dict[str, float] = field(default_factory=lambda: {"probe": 0.0, "render": 0.0})
    """Time spent in each graph for this video."""
    _window: deque[_Seen] = field(default_factory=deque, repr=False)
    _waiting: WaitingPictures = field(default_factory=WaitingPictures, repr=False)
    _last: tuple[int, Stylizing] | None = field(default=None, repr=False)
    """The frame that was sent to the network last, and what becomes of it."""

    @property
    def context(self) -> int:
        """Frames before and after a frame that its result depends on."""
        return self._reach + CUT_REACH + REPEAT_RUN

    @property
    def _reach(self) -> int:
        return max(self.radius, PROBE_EVERY)

    def __call__(self, frames: Iterable[Frame], wanted: range) -> Iterator[Frame]:
        """See `FrameTransform`."""
        under_way: deque[tuple[Frame, Stylizing]] = deque()
        for seen in self._complete(frames, wanted):
            under_way.append((seen.frame, self._begin(seen)))
            while len(under_way) >= self.pipeline.depth:
                yield self._finish(*under_way.popleft())
        while under_way:
            yield self._finish(*under_way.popleft())
        self._window.clear()
        self._waiting.close()
        self._last = None

    def _complete(self, frames: Iterable[Frame], wanted: range) -> Iterator[_Seen]:
        """Wanted frames that have all the neighbours that they will ever have."""
        window: deque[_Seen] = deque()
        self._window, self._last, self._waiting = window, None, WaitingPictures()
        waiting = wanted.start
        ahead = self._reach + CUT_REACH + 1
        for frame in frames:
            self._push(frame, shown=frame.index in wanted)
            while waiting in wanted and frame.index >= waiting + ahead:
                yield window[waiting - window[0].frame.index]
                waiting += 1
                while window and window[0].frame.index < waiting - self.context:
                    window.popleft()
        while window and waiting in wanted and waiting <= window[-1].frame.index:
            yield window[waiting - window[0].frame.index]
            waiting += 1

    def _push(self, frame: Frame, shown: bool) -> None:
        """Take a frame in: all that later frames need of it is small."""
        small = self.pipeline.reduced(frame.data)
        signature = SceneSignature.of(small)
        before = self._window[-1] if self._window else None
        change = signature.change(before.signature) if before else 0.0
        repeats = before is not None and change == 0 and np.array_equal(frame.data, before.frame.data)
        take = self._waiting.put(frame.data) if shown else None
        moved = signature.moved(before.signature) if before and not repeats else (0.0, 0.0)
        seen = _Seen(frame, take, signature, change, repeats, moved)
        if frame.index % PROBE_EVERY == 0 or change >= CUT_CONTENT:
            seen.view = self.pipeline.view(small)
        if before:
            before.frame = replace(before.frame, data=NOTHING)
        self._window.append(seen)

    def _begin(self, seen: _Seen) -> Stylizing:
        assert seen.take is not None
        data, seen.take = seen.take(), None
        leader = self._leader(seen.frame.index)
        if self._last is None or self._last[0] != leader:
            conditions = self._conditions(leader)
            started = time.perf_counter()
            self._last = (leader, self.pipeline.begin(data, conditions))
            self.seconds["render"] += time.perf_counter() - started
        return self._last[1]

    def _finish(self, frame: Frame, picture: Stylizing) -> Frame:
        started = time.perf_counter()
        data = picture.result()
        self.seconds["render"] += time.perf_counter() - started
        return replace(frame, data=data)

    def _leader(self, index: int) -> int:
        """The frame whose result frame `index` takes: itself, unless it repeats those before it."""
        first = self._window[0].frame.index
        while index > first and index % REPEAT_RUN and self._window[index - first].repeats:
            index -= 1
        return index

    def _conditions(self, index: int) -> Conditions:
        """What a frame is rendered with."""
        window, first = self._window, self._window[0].frame.index
        scene = self._scene(index - first)
        near = [i for i in scene if abs(first + i - index) <= self._reach and self._is_probed(i, scene)]
        distance = np.array([first + i - index for i in near])
        parts = [carried(self._probed(window[i]), *self._movement(i, index - first)) for i in near]
        return mean_conditions(parts, list(window_weights(distance, self._reach)))

    def _movement(self, start: int, stop: int) -> tuple[float, float]:
        """How far the picture moves from one place in the window to another."""
        steps = [self._window[i].moved for i in range(min(start, stop) + 1, max(start, stop) + 1)]
        sign = 1 if start <= stop else -1
        return sign * sum(x for x, _ in steps), sign * sum(y for _, y in steps)

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

    def _probed(self, seen: _Seen) -> Conditions:
        """The frame's own conditions; taken at the first call."""
        if seen.conditions is None:
            assert seen.view is not None
            started = time.perf_counter()
            position = float(seen.frame.pts) / self.duration if self.duration else 0.0
            seen.conditions, seen.view = self.pipeline.probe_view(seen.view, position), None
            self.seconds["probe"] += time.perf_counter() - started
        return seen.conditions
