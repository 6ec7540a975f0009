"""Frames through one or several backends, several under way at once, with smaller tiles when memory runs out."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from engine.backends.base import Backend
from engine.conditions import Conditions, window
from engine.errors import OutOfMemoryError
from engine.spec import F32
from engine.tiling import Tile, batches

__all__ = ["FrameQueue", "FrameRenderer", "Planner", "Rendering", "frame_queue", "render_frames"]

log = logging.getLogger(__name__)

Image = npt.NDArray[np.uint8]

Planner = Callable[[tuple[int, int], int | None], Sequence[Tile]]
"""Windows for a frame of ``(height, width)``; the number is how many pixels a tile may have, None: any.

ValueError: tiles cannot be as small as that.
"""


class FrameQueue(Protocol):
    """What takes a frame before the last one is done: `TensorRtBackend`, or any backend by `frame_queue`."""

    @property
    def depth(self) -> int:
        """Frames that may be under way at once."""
        ...

    def submit(self, frame: Image, conditions: Conditions, windows: Sequence[Tile]) -> None:
        """Queue a frame ``(H, W, 3)``; maps are on its grid (`engine.conditions.on_grid`).

        OutOfMemoryError asks for smaller windows, nothing is queued then.
        """
        ...

    def collect(self) -> Image:
        """The oldest frame, stylized."""
        ...


class _Immediate:
    """Any backend as a queue that does its work at once, tile by tile."""

    depth = 1

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._done: deque[Image] = deque()

    def submit(self, frame: Image, conditions: Conditions, windows: Sequence[Tile]) -> None:
        if len(windows) == 1 and windows[0].padded.height * windows[0].padded.width == frame.size // 3:
            self._done.append(self.backend.render(frame[None], conditions)[0])
            return
        result = np.empty_like(frame)
        for (part,) in batches(windows, 1):
            tile, kept = part.padded, part.region
            cut = frame[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
            done = self.backend.render(np.ascontiguousarray(cut)[None], window(conditions, tile))[0]
            top, left = kept.top - tile.top, kept.left - tile.left
            result[kept.top : kept.top + kept.height, kept.left : kept.left + kept.width] = done[
                top : top + kept.height, left : left + kept.width
            ]
        self._done.append(result)

    def collect(self) -> Image:
        return self._done.popleft()


def frame_queue(backend: Backend) -> FrameQueue:
    """The backend's own queue, or one around it."""
    return cast(FrameQueue, backend) if hasattr(backend, "submit") else _Immediate(backend)


class Rendering:
    """One frame under way; `result` waits for it."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        self._image: Image | None = None
        self._error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether `result` would return, or raise, at once."""
        return self._image is not None or self._error is not None

    def result(self) -> Image:
        """The stylized frame, the same array at every call; raises what its backend raised."""
        self._channel.finish(self)
        if self._error is not None:
            raise self._error
        assert self._image is not None
        return self._image


class _Channel:
    """One backend and the frames under way on it, the oldest first.

    Whoever needs a place takes in the oldest frame himself and leaves its picture with its `Rendering`,
    so nobody waits for anybody else to fetch his, and a frame that nobody asks for any more blocks none.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.queue = frame_queue(backend)
        self.lock = threading.RLock()
        self._under_way: deque[Rendering] = deque()

    def submit(self, frame: Image, conditions: Conditions, windows: Sequence[Tile]) -> Rendering:
        with self.lock:
            while len(self._under_way) >= self.queue.depth:
                self._take_in()
            self.queue.submit(frame, conditions, windows)
            rendering = Rendering(self)
            self._under_way.append(rendering)
        return rendering

    def finish(self, rendering: Rendering | None = None) -> None:
        """Wait for a frame, or for all."""
        with self.lock:
            while self._under_way if rendering is None else not rendering.done:
                self._take_in()

    def _take_in(self) -> None:
        oldest = self._under_way.popleft()
        try:
            oldest._image = self.queue.collect()
        except BaseException as error:
            oldest._error = error
            if not isinstance(error, Exception):
                raise


class FrameRenderer:
    """Shares frames out over entered backends in turn; may be used from several threads.

    When memory runs out, the frames under way on that backend are finished and the planner is asked for
    smaller tiles, for this frame and all that follow; none is lost.
    """

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._channels = [_Channel(backend) for backend in backends]
        self._lock = threading.Lock()
        self._turn = 0
        self._limit: int | None = None

    @property
    def depth(self) -> int:
        """Frames that may be under way at once; more make their sender wait."""
        return sum(channel.queue.depth for channel in self._channels)

    @property
    def largest_tile(self) -> tuple[int, int] | None:
        """Height and width of the largest tile that all backends take; None: whatever memory allows."""
        sizes = [size for c in self._channels if (size := getattr(c.backend, "largest_tile", None)) is not None]
        return (min(h for h, _ in sizes), min(w for _, w in sizes)) if sizes else None

    def probe(self, view: Image, look: F32) -> Conditions:
        """See `Backend.probe`, for one view ``(H, W, 3)``.  Always by the first backend."""
        first = self._channels[0]
        with first.lock:
            return first.backend.probe(view[None], look)

    def submit(self, frame: Image, conditions: Conditions, planner: Planner) -> Rendering:
        """Begin to stylize a frame ``(H, W, 3)``, which may be changed as soon as this returns.

        Maps are on the frame's grid (`engine.conditions.on_grid`).

        Raises OutOfMemoryError when the planner has no smaller tiles.
        """
        with self._lock:
            channel = self._channels[self._turn % len(self._channels)]
            self._turn += 1
        size = frame.shape[0], frame.shape[1]
        windows = planner(size, self._limit)
        while True:
            try:
                return channel.submit(frame, conditions, windows)
            except OutOfMemoryError as error:
                channel.finish()
                most = max(part.padded.height * part.padded.width for part in windows)
                try:
                    windows = planner(size, most // 2)
                except ValueError:
                    raise error from None
                log.warning("%s; going on with smaller tiles", error)
                with self._lock:
                    self._limit = min(most // 2, self._limit or most)


def render_frames(
    backends: Sequence[Backend], frames: Iterable[tuple[Image, Conditions]], planner: Planner
) -> Iterator[Image]:
    """Stylize a stream of frames; results come in the order of the frames."""
    renderer = FrameRenderer(backends)
    under_way: deque[Rendering] = deque()
    for frame, conditions in frames:
        under_way.append(renderer.submit(frame, conditions, planner))
        if len(under_way) >= renderer.depth:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()
