"""The loop that renders segments of a video: a run on one machine has all of them, a shard or a worker its share.

Where a stretch begins in the middle, the frames before it are found by seeking.  So their times and content are
compared with what is known of them, and each segment's record has a checksum of the frame before it, which has to be
the last frame of the segment before (`SegmentStore.chain`).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from stylize.errors import InputError, ResumeError
from stylize.frame import Frame, FrameTransform
from stylize.media.video.loss import packet_times
from stylize.media.video.output import OutputPlan
from stylize.media.video.probe import VideoInfo
from stylize.media.video.settings import VideoSettings
from stylize.media.video.source import VideoSource
from stylize.video.report import StoppedError
from stylize.video.segments import SegmentWriter
from stylize.video.store import FrameTimes, SegmentStore

__all__ = ["FramesDifferError", "SegmentRenderer", "checksum", "expected_frames", "find_frames", "open_behind"]

_log = logging.getLogger(__name__)

MANY = 2**62
"""More frames than any video has: the end of an open range."""


class FramesDifferError(Exception):
    """The source decodes to other frames than its container tells of."""


def find_frames(
    store: SegmentStore,
    output: OutputPlan,
    settings: VideoSettings,
    *,
    decode: bool = False,
    stop: threading.Event | None = None,
) -> FrameTimes:
    """The times of all frames: those another run found, else read off the container, else by decoding all.

    Args:
        store: where they are kept, open to be written.
        output: the video.
        settings: of the job; a constant rate is known only by decoding.
        decode: the container has turned out not to tell the truth.
        stop: ends the search when set.

    Raises:
        StoppedError: `stop` is set.
        StylizeError: the source cannot be read or the store not be written.
    """
    known = store.frames()
    if known is not None and (known.decoded or not decode):
        return known
    found = None if decode or settings.fps is not None else _read_off(output)
    if found is None:
        found = _decode_all(output, settings, stop)
    store.add_frames(found)
    return found


def _read_off(output: OutputPlan) -> FrameTimes | None:
    """From the packets' times, where each has one of its own and the clock does not jump."""
    if output.info.jumps:
        return None
    ticks = tuple(int(time / output.time_base) for time in packet_times(output.info))
    if not ticks or any(after <= before for before, after in itertools.pairwise(ticks)):
        return None
    return FrameTimes(ticks=ticks)


def _decode_all(output: OutputPlan, settings: VideoSettings, stop: threading.Event | None) -> FrameTimes:
    with VideoSource(output.info, fps=settings.fps) as source:
        source.halt = stop
        ticks = []
        for frame in source:
            if stop is not None and stop.is_set():
                raise StoppedError
            ticks.append(int(frame.pts / output.time_base))
        if not ticks:
            raise _nothing_decoded(output.info)
        return FrameTimes(ticks=tuple(ticks), decoded=True, retimed=source.retimed, resized=source.resized)


def expected_frames(info: VideoInfo, fps: Fraction | None) -> int | None:
    """How many frames a result has, as far as the container lets guess."""
    return info.frames if fps is None else round(info.duration * fps) if info.duration else None


def _nothing_decoded(info: VideoInfo) -> InputError:
    return InputError(f"{info.path}: no frame of its video can be decoded: is it damaged?")


@dataclass(kw_only=True)
class SegmentRenderer:
    """Makes segments of one video."""

    output: OutputPlan
    """How they are encoded."""
    settings: VideoSettings
    """Of the job."""
    transform: FrameTransform
    """Frames in, frames out."""
    store: SegmentStore
    """Where they go; open to be written."""
    stop: threading.Event
    """Ends the work with StoppedError; finished segments stay."""
    tell: Callable[[int], None] = lambda done: None
    """Called after each frame, with how many of the stretch there are."""
    split: dict[str, float] = field(default_factory=dict)
    """Seconds spent in decode, transform and encode, which overlap."""

    def stretch(self, first: int, last: int | None, times: FrameTimes) -> FrameTimes:
        """Make frames `first` to `last` (None: to the end), cut into segments by time.

        Args:
            first: the first frame of a segment.
            last: index behind the last frame of a segment.
            times: of all frames, or of those before `first` alone.

        Returns:
            The times of all frames, where `last` is None.

        Raises:
            FramesDifferError: the frames are not those of `times`.
            StylizeError: decoding or encoding failed, or the source is another than before.
        """
        checks: dict[int, int] = {}
        ticks = list(times.ticks[:first])
        waiting, began = 0.0, time.perf_counter()
        with contextlib.ExitStack() as stack:
            source, frames = self._open(stack, first, times)
            writer = stack.enter_context(self._writer(source, times))

            def given() -> Iterator[Frame]:
                nonlocal waiting
                end = None if last is None else last + self.transform.context
                expected = self._as_expected(frames, times, end)
                while True:
                    if self.stop.is_set():
                        raise StoppedError
                    before = time.perf_counter()
                    frame = next(expected, None)
                    waiting += time.perf_counter() - before
                    if frame is None:
                        return
                    checks[frame.index] = checksum(frame)
                    if frame.index == first - 1:
                        writer.before = checks[frame.index]
                    if frame.index >= first - self.transform.context:
                        yield frame

            for frame in self.transform(given(), range(first, MANY if last is None else last)):
                self._check(frame, len(ticks))
                before = time.perf_counter()
                writer.put(frame, checks[frame.index])
                waiting += time.perf_counter() - before
                ticks.append(int(frame.pts / self.output.time_base))
                for index in [index for index in checks if index < len(ticks)]:
                    del checks[index]
                self.tell(len(ticks) - first)
            self._add("transform", time.perf_counter() - began - waiting)
            self.split.update(getattr(self.transform, "seconds", {}))  # of its two graphs, since the video began
            writer.finish()
            if not ticks:
                raise _nothing_decoded(self.output.info)
            if last is not None and len(ticks) != last:
                raise FramesDifferError
            self._add("decode", source.waited)
            self._add("encode", writer.seconds)
            return FrameTimes(ticks=tuple(ticks), decoded=True, retimed=source.retimed, resized=source.resized)

    def _add(self, part: str, seconds: float) -> None:
        self.split[part] = self.split.get(part, 0.0) + seconds

    def _check(self, frame: Frame, expected: int) -> None:
        shape = (self.output.info.height, self.output.info.width, 3)
        if frame.index != expected or frame.data.shape != shape:
            raise ValueError(f"the transform gave frame {frame.index} {frame.data.shape}, not {expected} {shape}")

    def _writer(self, source: VideoSource, times: FrameTimes) -> SegmentWriter:
        return SegmentWriter(
            self.store,
            self.output,
            source,
            seconds=self.settings.segment_seconds,
            start=times.ticks[0] * self.output.time_base if times.ticks else None,
            stop=self.stop,
        )

    def _open(self, stack: contextlib.ExitStack, first: int, times: FrameTimes) -> tuple[VideoSource, Iterator[Frame]]:
        """The source from before frame `first` on, with the content of the frame before it proven where known."""
        start = max(0, first - max(1, self.transform.context))
        record = next((r for r in self.store.finished() if first and r["first"] + len(r["times"]) == first), None)
        try:
            return open_behind(
                stack,
                self.output.info,
                first=first,
                times=[tick * self.output.time_base for tick in times.ticks[start:first]],
                check=None if record is None else int(record["source"]),
                fps=self.settings.fps,
                halt=self.stop,
            )
        except ResumeError as error:
            if not times.complete:
                raise
            if record is not None:
                self.store.forget(record)
            raise FramesDifferError from error

    def _as_expected(self, frames: Iterator[Frame], times: FrameTimes, stop: int | None) -> Iterator[Frame]:
        """Frames up to `stop`, each at its time as far as that is known; raises FramesDifferError for any other."""
        known = len(times.ticks)
        index = -1
        for frame in frames:
            index = frame.index
            if index < known and frame.pts != times.ticks[index] * self.output.time_base:
                raise FramesDifferError
            if index >= known and times.complete:
                raise FramesDifferError
            if stop is not None and index >= stop:
                return
            yield frame
        if times.complete and index != known - 1:
            raise FramesDifferError


def checksum(frame: Frame) -> int:
    """CRC-32 of every eighth row: enough to tell frames apart, quick enough to do it for each."""
    return zlib.crc32(frame.data[::8].tobytes())


def open_behind(
    stack: contextlib.ExitStack,
    info: VideoInfo,
    *,
    first: int,
    times: Sequence[Fraction],
    check: int | None,
    fps: Fraction | None,
    halt: threading.Event | None = None,
) -> tuple[VideoSource, Iterator[Frame]]:
    """Open the source a few frames, whose times are known, before frame `first`.

    Args:
        stack: closes the source.
        info: the source.
        first: index of the first wanted frame.
        times: presentation times of the frames that are to be given before it, seconds; none only for frame 0.
        check: `checksum` of the last of them; None where it is not known.
        fps: constant rate to convert to.
        halt: see `VideoSource.halt`.

    Returns:
        The source and its frames, those before `first` included, indices counted over the whole source.

    Raises:
        ResumeError: the source does not decode to frames of these times.
    """
    if not times:
        source = stack.enter_context(VideoSource(info, fps=fps))
        source.halt = halt
        return source, iter(source)
    wanted = first - len(times)
    with contextlib.ExitStack() as attempt:
        source = attempt.enter_context(VideoSource(info, fps=fps, start=times[0], first_index=wanted))
        source.halt = halt
        frames = iter(source)
        head = _head(frames, times, check)
        if head is not None:
            stack.push(attempt.pop_all())
    if head is None:
        _log.info("seeking did not land on the right frame of %s: decoding from its beginning", info.path)
        source = stack.enter_context(VideoSource(info, fps=fps))
        source.halt = halt
        frames = itertools.dropwhile(lambda frame: frame.index < wanted, iter(source))
        head = _head(frames, times, check)
    if head is None:
        raise ResumeError(f"{info.path} no longer decodes to the same frames: use --restart to begin anew")
    return source, _chain(head, frames)


def _head(frames: Iterator[Frame], times: Sequence[Fraction], check: int | None) -> list[Frame] | None:
    """The frames that were done already, None unless their times and the last one's content are as before."""
    head: list[Frame] = []
    for expected in times:
        frame = next(frames, None)
        if frame is None or frame.pts != expected:
            return None
        head.append(frame)
    return head if check is None or checksum(head[-1]) == check else None


def _chain(head: list[Frame], rest: Iterator[Frame]) -> Iterator[Frame]:
    while head:
        yield head.pop(0)
    yield from rest
