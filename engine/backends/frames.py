"""Streams of frames through one or several backends, in order, with smaller tiles when memory runs out."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from engine.backends.base import Backend
from engine.errors import OutOfMemoryError
from engine.spec import NormStatistics
from engine.windows import Window, batches

__all__ = ["FrameQueue", "Planner", "frame_queue", "render_frames"]

log = logging.getLogger(__name__)

Image = npt.NDArray[np.uint8]

Planner = Callable[[tuple[int, int], int], Sequence[Window]]
"""Windows for a frame of ``(height, width)``; the number says how often memory has run out so far.

ValueError: tiles cannot be any smaller.
"""


class FrameQueue(Protocol):
    """What takes a frame before the last one is done: `TensorRtBackend`, or any backend by `frame_queue`."""

    depth: int

    def submit(self, frame: Image, statistics: NormStatistics, windows: Sequence[Window]) -> None:
        """Queue a frame ``(H, W, 3)``; OutOfMemoryError asks for smaller windows, nothing is queued then."""
        ...

    def collect(self) -> Image:
        """The oldest frame, stylized."""
        ...


class _Immediate:
    """Any backend as a queue that does its work at once."""

    depth = 1

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._done: deque[Image] = deque()

    def submit(self, frame: Image, statistics: NormStatistics, windows: Sequence[Window]) -> None:
        result = np.empty_like(frame)
        for group in batches(windows, 1):
            for window in group:
                tile, kept = window.padded, window.region
                cut = frame[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
                done = self.backend.render(np.ascontiguousarray(cut)[None], statistics)[0]
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


def render_frames(
    backends: Sequence[Backend], frames: Iterable[tuple[Image, NormStatistics]], planner: Planner
) -> Iterator[Image]:
    """Stylize frames, shared out over entered backends in turn; results come in the order of the frames.

    As many frames are under way as the backends take together.  When memory runs out, the frames under
    way are finished and the planner is asked for smaller tiles, for all frames that follow; none is lost.
    """
    queues = [frame_queue(backend) for backend in backends]
    busy: deque[FrameQueue] = deque()
    shrunk = 0
    for i, (frame, statistics) in enumerate(frames):
        queue = queues[i % len(queues)]
        while busy.count(queue) >= queue.depth:
            yield busy.popleft().collect()
        windows = planner((frame.shape[0], frame.shape[1]), shrunk)
        while True:
            try:
                queue.submit(frame, statistics, windows)
                break
            except OutOfMemoryError as error:
                while busy:
                    yield busy.popleft().collect()
                shrunk += 1
                try:
                    windows = planner((frame.shape[0], frame.shape[1]), shrunk)
                except ValueError:
                    raise error from None
                log.warning("%s; going on with smaller tiles", error)
        busy.append(queue)
    while busy:
        yield busy.popleft().collect()
