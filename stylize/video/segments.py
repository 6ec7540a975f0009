"""Frames into encoded segments, each safe on the disk before the journal tells of it."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from stylize.errors import MediaError, OutputError
from stylize.files import sync_folder
from stylize.frame import Frame
from stylize.media.pipe import GRACE
from stylize.media.video.join import count_packets
from stylize.media.video.output import OutputPlan
from stylize.media.video.sink import VideoSink, sync_file
from stylize.media.video.source import VideoSource
from stylize.video.store import SegmentStore, segment_bytes

__all__ = ["SegmentWriter"]

QUEUE_BYTES = 32 << 20
"""About so much waits for the encoder.  At least one frame, at most sixteen."""


@dataclass
class _Open:
    """The segment that is being written."""

    number: int
    path: Path
    sink: VideoSink
    first: int
    before: int | None
    times: list[int] = field(default_factory=list)
    source_check: int = 0


class SegmentWriter:
    """Encodes frames in a thread of its own, a file for each segment; a context manager.

    While one segment's encoder finishes, the next one is already fed.
    """

    def __init__(
        self,
        store: SegmentStore,
        output: OutputPlan,
        source: VideoSource,
        *,
        seconds: Fraction,
        start: Fraction | None,
        stop: threading.Event,
    ) -> None:
        """Describe the work; nothing runs before ``with``.

        Args:
            store: names the segments, and is told of each finished one from another thread.
            output: how they are encoded.
            source: where the frames come from; its complaints go into the records.
            seconds: length of a segment.
            start: presentation time of the video's first frame; None where that is the first one to come.
            stop: nobody waits for an encoder once it is set.
        """
        self._store, self._output, self._source = store, output, source
        self._seconds, self._start, self._stop = seconds, start, stop
        self._images = output.kind == "images"
        self._errors_told = 0
        self.before: int | None = None
        """Checksum of the source frame before the next one that is put."""
        frame_bytes = max(1, output.info.width * output.info.height * 3)
        room = max(1, min(16, QUEUE_BYTES // frame_bytes))
        self._queue: queue.Queue[tuple[Frame, int] | None] = queue.Queue(maxsize=room)
        self._failed: BaseException | None = None
        self._abort = threading.Event()
        self._finisher: threading.Thread | None = None
        self._finishing: VideoSink | None = None
        self._sinks: list[VideoSink] = []
        """Encoders that run, at most the one that is finishing and the one that is being fed."""
        self.seconds = 0.0
        """Seconds that encoders were waited for."""

    def __enter__(self) -> SegmentWriter:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="video-encode", daemon=True)
        self._thread.start()
        return self

    def put(self, frame: Frame, source_check: int) -> None:
        """Queue a frame; `source_check` is the checksum of the source frame it came from.

        Raises:
            StylizeError: what went wrong with an earlier frame.
            KeyboardInterrupt: the run is to stop, and the encoder takes nothing.
        """
        while True:
            self._raise_failure()
            try:
                self._queue.put((frame, source_check), timeout=0.2)
            except queue.Full:
                if self._stop.is_set():
                    raise KeyboardInterrupt from None
                continue
            return

    def finish(self) -> None:
        """Wait until the last segment is on the disk; once the run is to stop, no longer than `GRACE`.

        Raises:
            StylizeError: what went wrong.
            KeyboardInterrupt: the run is to stop, and the encoder does not come to its end.
        """
        told = False
        left = GRACE
        while self._thread.is_alive():
            if not told:
                with contextlib.suppress(queue.Full):
                    self._queue.put(None, timeout=0.2)
                    told = True
            self._thread.join(0.2)
            if self._stop.is_set():
                left -= 0.2
                if left <= 0:
                    raise KeyboardInterrupt
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failed is not None:
            raise self._failed

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; the segment that is being written is given up unless `finish` was called.

        The one before, whose encoder is about to finish, is given `GRACE`.
        """
        self._abort.set()
        for sink in self._sinks[-1:]:
            if sink is not self._finishing:
                sink.cancel()
        self._thread.join(GRACE)
        for sink in list(self._sinks):
            sink.cancel()
        self._thread.join(GRACE)

    def _run(self) -> None:
        current: _Open | None = None
        try:
            with contextlib.ExitStack() as stack:
                while (item := self._next()) is not None:
                    frame, source_check = item
                    before = time.perf_counter()
                    self._start = frame.pts if self._start is None else self._start
                    number = int((frame.pts - self._start) // self._seconds)
                    if current is None or number != current.number:
                        if current is not None:
                            self._settle()
                            self._close(current, stack.pop_all())
                        current = self._open(number, frame.index, stack)
                    current.sink.write(frame)
                    current.times.append(int(frame.pts / self._output.time_base))
                    current.source_check = self.before = source_check
                    self.seconds += time.perf_counter() - before
                if self._abort.is_set():
                    raise _AbortedError
                if current is not None:
                    self._settle()
                    self._close(current, stack.pop_all())
        except _AbortedError:
            pass
        except BaseException as error:
            self._failed = self._failed or error
        finally:
            if self._finisher is not None:
                self._finisher.join()

    def _next(self) -> tuple[Frame, int] | None:
        while not self._abort.is_set():
            with contextlib.suppress(queue.Empty):
                return self._queue.get(timeout=0.2)
        return None

    def _open(self, number: int, first: int, stack: contextlib.ExitStack) -> _Open:
        path = self._store.part(number)
        try:
            if self._images:
                path.mkdir()
        except OSError as error:
            raise OutputError(f"{path} cannot be made ({error.strerror}): choose another target") from error
        sink = self._output.sink(path)
        self._sinks.append(sink)
        stack.callback(self._sinks.remove, sink)
        stack.enter_context(sink)
        return _Open(number=number, path=path, sink=sink, first=first, before=self.before)

    def _settle(self) -> None:
        """Wait for the segment before; what went wrong with it is raised while the current one is still ours."""
        if self._finisher is not None:
            self._finisher.join()
            self._raise_failure()

    def _close(self, segment: _Open, sink: AbstractContextManager[Any]) -> None:
        """Let another thread finish `segment`."""

        def run() -> None:
            try:
                sink.__exit__(None, None, None)
                self._commit(segment)
            except BaseException as error:
                self._failed = self._failed or error

        before = time.perf_counter()
        self._finishing = segment.sink
        self._finisher = threading.Thread(target=run, name="video-segment", daemon=True)
        self._finisher.start()
        if self._images:
            self._finisher.join()
        self.seconds += time.perf_counter() - before

    def _commit(self, segment: _Open) -> None:
        final = segment.path.with_suffix(".images" if self._images else ".mov")
        held = len(list(segment.path.iterdir())) if self._images else count_packets(segment.path)
        if held != len(segment.times):
            raise MediaError(
                f"the encoder made {held} frames of {len(segment.times)}: try another --codec, or drop --encoder-args"
            )
        try:
            if self._images:
                for picture in segment.path.iterdir():
                    sync_file(picture)
            segment.path.replace(final)
            size = segment_bytes(final)
        except OSError as error:
            raise OutputError(f"{final} cannot be written ({error.strerror}): free some room") from error
        sync_folder(final.parent)
        errors = self._source.errors
        self._store.add(
            {
                "segment": segment.number,
                "file": final.name,
                "first": segment.first,
                "times": segment.times,
                "bytes": size,
                "source": segment.source_check,
                "before": segment.before,
                "errors": errors - self._errors_told,
                "resized": self._source.resized,
            }
        )
        self._errors_told = errors


class _AbortedError(Exception):
    """The writer was left without `finish`."""
