"""Frames into encoded segments, each safe on the disk before the journal tells of it."""

from __future__ import annotations

import contextlib
import queue
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from stylize.errors import MediaError, OutputError
from stylize.frame import Frame
from stylize.media.pipe import GRACE
from stylize.media.video.join import count_packets
from stylize.media.video.sink import VideoSink, sync_file
from stylize.video.journal import Journal, sync_folder

__all__ = ["Records", "SegmentWriter", "clear_parts", "usable_records", "weight"]

PART = ".part"


class Records(Protocol):
    """What is told of finished segments: a `Journal`, or records of their own files."""

    def add(self, record: Mapping[str, Any]) -> None:
        """Keep one record; on return it is on the disk."""
        ...


@dataclass
class _Open:
    """The segment that is being written."""

    number: int
    path: Path
    sink: VideoSink
    first: int
    times: list[int]
    source_check: int = 0


def usable_records(journal: Journal, folder: Path) -> list[dict[str, Any]]:
    """The records of segments that are all there, from the first on; the journal forgets the rest."""
    good = 0
    index = 0
    for record in journal.records:
        if "segment" in record:
            path = folder / record["file"]
            if record["first"] != index or not path.exists() or weight(path) != record["bytes"]:
                break
            index += len(record["times"])
        good += 1
    journal.keep(good)
    return [record for record in journal.records if "segment" in record]


def clear_parts(folder: Path) -> None:
    """Remove what interrupted runs left half-written."""
    for path in folder.glob(f"*{PART}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def weight(path: Path) -> int:
    """Bytes of a segment: a file, or a folder of pictures."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir())
    return path.stat().st_size


class SegmentWriter:
    """Encodes frames in a thread of its own, a file for each segment; a context manager.

    While one segment's encoder finishes, the next one is already fed.
    """

    def __init__(
        self,
        folder: Path,
        journal: Records,
        *,
        make_sink: Callable[[Path], VideoSink],
        images: bool,
        segment_of: Callable[[Fraction], int],
        time_base: Fraction,
        errors_now: Callable[[], int],
        room: int,
    ) -> None:
        """Describe the work; nothing runs before ``with``.

        Args:
            folder: where the segments go.
            journal: told of each finished segment, from another thread.
            make_sink: an encoder that writes to the given path.
            images: a segment is a folder of pictures instead of one file.
            segment_of: number of the segment that a presentation time belongs to; never falls.
            time_base: seconds a tick of the times in the journal.
            errors_now: how many decoding errors there have been so far.
            room: how many frames may wait for the encoder.
        """
        self._folder = folder
        self._journal = journal
        self._make_sink = make_sink
        self._images = images
        self._segment_of = segment_of
        self._time_base = time_base
        self._errors_now = errors_now
        self._errors_told = 0
        self._queue: queue.Queue[tuple[Frame, int] | None] = queue.Queue(maxsize=max(1, room))
        self._failed: BaseException | None = None
        self._abort = threading.Event()
        self._finisher: threading.Thread | None = None
        self._finishing: VideoSink | None = None
        self._sinks: list[VideoSink] = []
        """Encoders that run, at most the one that is finishing and the one that is being fed."""
        self.seconds = 0.0
        """Seconds that encoders were waited for."""
        self.written = 0
        """Frames handed to encoders."""

    def __enter__(self) -> SegmentWriter:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="video-encode", daemon=True)
        self._thread.start()
        return self

    def put(self, frame: Frame, source_check: int, stop: threading.Event | None = None) -> None:
        """Queue a frame; `source_check` is the checksum of the source frame it came from.

        Raises:
            StylizeError: what went wrong with an earlier frame.
            KeyboardInterrupt: `stop` is set while the encoder takes nothing.
        """
        while True:
            self._raise_failure()
            try:
                self._queue.put((frame, source_check), timeout=0.2)
            except queue.Full:
                if stop is not None and stop.is_set():
                    raise KeyboardInterrupt from None
                continue
            return

    def finish(self, stop: threading.Event | None = None) -> None:
        """Wait until the last segment is on the disk; once `stop` is set, no longer than `GRACE`.

        Raises:
            StylizeError: what went wrong.
            KeyboardInterrupt: `stop` is set and the encoder does not come to its end.
        """
        told = False
        left = GRACE
        while self._thread.is_alive():
            if not told:
                with contextlib.suppress(queue.Full):
                    self._queue.put(None, timeout=0.2)
                    told = True
            self._thread.join(0.2)
            if stop is not None and stop.is_set():
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
                    number = self._segment_of(frame.pts)
                    if current is None or number != current.number:
                        if current is not None:
                            self._settle()
                            self._close(current, stack.pop_all())
                        current = self._open(number, frame.index, stack)
                    current.sink.write(frame)
                    current.times.append(int(frame.pts / self._time_base))
                    current.source_check = source_check
                    self.written += 1
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
        # a name of its own: an encoder orphaned by a killed run may still be writing the last one
        path = self._folder / f"{number:06d}.{secrets.token_hex(4)}{PART}"
        try:
            if self._images:
                path.mkdir()
        except OSError as error:
            raise OutputError(f"{path} cannot be made ({error.strerror}): choose another target") from error
        sink = self._make_sink(path)
        self._sinks.append(sink)
        stack.callback(self._sinks.remove, sink)
        stack.enter_context(sink)
        return _Open(number=number, path=path, sink=sink, first=first, times=[])

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
        final = segment.path.with_name(f"{segment.number:06d}.{'images' if self._images else 'mov'}")
        held = len(list(segment.path.iterdir())) if self._images else count_packets(segment.path)
        if held != len(segment.times):
            raise MediaError(
                f"the encoder made {held} frames of {len(segment.times)}: try another --codec, or drop --encoder-args"
            )
        try:
            if self._images:
                for picture in segment.path.iterdir():
                    sync_file(picture)
            if final.is_dir():
                shutil.rmtree(final)
            segment.path.replace(final)
            size = weight(final)
        except OSError as error:
            raise OutputError(f"{final} cannot be written ({error.strerror}): free some room") from error
        sync_folder(self._folder)
        errors = self._errors_now()
        self._journal.add(
            {
                "segment": segment.number,
                "file": final.name,
                "first": segment.first,
                "times": segment.times,
                "bytes": size,
                "source": segment.source_check,
                "errors": errors - self._errors_told,
            }
        )
        self._errors_told = errors


class _AbortedError(Exception):
    """The writer was left without `finish`."""
