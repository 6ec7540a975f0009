"""Some segments of a video, made without the ones before: what a shard or a worker of a cluster does.

The frames before a segment are not decoded from the beginning but found by seeking; so each frame's time is
compared with the plan, and each segment's record has a checksum of the frame before it, which has to be the
last frame of the segment before (`checked_records`).
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from stylize.distributed.segment_store import FramePlan, Segment, SegmentStore
from stylize.errors import InputError, ResumeError
from stylize.frame import Frame, FrameTransform
from stylize.media.video.loss import packet_times
from stylize.media.video.output import OutputPlan
from stylize.media.video.settings import VideoSettings
from stylize.media.video.source import VideoSource
from stylize.video.report import StoppedError
from stylize.video.resume import checksum, open_behind
from stylize.video.segments import SegmentWriter

__all__ = ["PlanDiffersError", "checked_records", "find_frames", "render_segments"]

ENCODE_QUEUE_BYTES = 32 << 20


class PlanDiffersError(Exception):
    """The source decodes to other frames than its container tells of."""


def find_frames(
    store: SegmentStore,
    plan: OutputPlan,
    settings: VideoSettings,
    *,
    decode: bool = False,
    stop: threading.Event | None = None,
) -> FramePlan:
    """The times of all frames: those another job found, else read off the container, else by decoding all.

    Args:
        store: where they are kept.
        plan: the video.
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
    found = None if decode or settings.fps is not None else _read_off(plan)
    if found is None:
        found = _decode_all(plan, settings, stop)
    store.put_frames(found)
    return found


def _read_off(plan: OutputPlan) -> FramePlan | None:
    """From the packets' times, where each has one of its own and the clock does not jump."""
    if plan.info.jumps:
        return None
    times = packet_times(plan.info)
    ticks = tuple(int(time / plan.time_base) for time in times)
    if not ticks or any(after <= before for before, after in itertools.pairwise(ticks)):
        return None
    return FramePlan(ticks=ticks, decoded=False)


def _decode_all(plan: OutputPlan, settings: VideoSettings, stop: threading.Event | None) -> FramePlan:
    with VideoSource(plan.info, fps=settings.fps) as source:
        source.halt = stop
        ticks = []
        for frame in source:
            if stop is not None and stop.is_set():
                raise StoppedError
            ticks.append(int(frame.pts / plan.time_base))
        if not ticks:
            raise InputError(f"{plan.info.path}: no frame of its video can be decoded: is it damaged?")
        return FramePlan(ticks=tuple(ticks), decoded=True, retimed=source.retimed, resized=source.resized)


class _Records:
    """Adds to each segment's record what the frame before it was."""

    def __init__(self, store: SegmentStore) -> None:
        self.store = store
        self.source: VideoSource | None = None
        self.before: int | None = None
        """Checksum of the frame before the next segment."""

    def add(self, record: Mapping[str, Any]) -> None:
        """See `stylize.video.segments.Records`."""
        resized = self.source.resized if self.source else 0
        self.store.add({**record, "before": self.before, "resized": resized})
        self.before = record["source"]


def render_segments(
    segments: Sequence[Segment],
    frames: FramePlan,
    plan: OutputPlan,
    settings: VideoSettings,
    transform: FrameTransform,
    store: SegmentStore,
    *,
    stop: threading.Event,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Make segments that follow one another.

    Args:
        segments: the segments, without a gap between them.
        frames: the times of all frames.
        plan: how they are encoded.
        settings: of the job.
        transform: frames in, frames out.
        store: where they go.
        stop: ends the work with StoppedError; finished segments stay.
        progress: called after each frame, with how many of these there are.

    Raises:
        PlanDiffersError: the frames are not those of `frames`.
        StylizeError: decoding or encoding failed.
    """
    first, last = segments[0].first, segments[-1].stop
    numbers = {frames.ticks[segment.first]: segment.number for segment in segments}
    current = segments[0].number

    def segment_of(pts: Fraction) -> int:
        nonlocal current
        current = numbers.get(int(pts / plan.time_base), current)
        return current

    records = _Records(store)
    checks: dict[int, int] = {}
    with contextlib.ExitStack() as stack:
        source, given = _open(stack, segments[0], frames, plan, settings, transform.context, store, stop)
        records.source = source
        writer = stack.enter_context(
            SegmentWriter(
                store.folder,
                records,
                make_sink=plan.sink,
                images=plan.kind == "images",
                segment_of=segment_of,
                time_base=plan.time_base,
                errors_now=lambda: source.errors,
                room=max(1, min(16, ENCODE_QUEUE_BYTES // (plan.info.width * plan.info.height * 3))),
            )
        )

        def watched() -> Iterator[Frame]:
            for frame in _as_planned(given, frames, plan.time_base, last + transform.context):
                if stop.is_set():
                    raise StoppedError
                checks[frame.index] = checksum(frame)
                if frame.index == first - 1:
                    records.before = checks[frame.index]
                if frame.index >= first - transform.context:
                    yield frame

        done = first
        for frame in transform(watched(), range(first, last)):
            shape = (plan.info.height, plan.info.width, 3)
            if frame.index != done or frame.data.shape != shape:
                raise ValueError(f"the transform gave frame {frame.index} {frame.data.shape}, not {done} {shape}")
            writer.put(frame, checks[frame.index], stop)
            done += 1
            for index in [index for index in checks if index < done]:
                del checks[index]
            if progress is not None:
                progress(done - first)
        writer.finish(stop)
        if done != last:
            raise PlanDiffersError


def _open(
    stack: contextlib.ExitStack,
    segment: Segment,
    frames: FramePlan,
    plan: OutputPlan,
    settings: VideoSettings,
    context: int,
    store: SegmentStore,
    stop: threading.Event,
) -> tuple[VideoSource, Iterator[Frame]]:
    """The source from before the segment's first frame on, with the content of that frame proven where known."""
    before = [part for part in frames.segments(settings.segment_seconds, plan.time_base) if part.stop == segment.first]
    record = store.record(before[0], frames) if before else None
    start = max(0, segment.first - max(1, context))
    try:
        return open_behind(
            stack,
            plan.info,
            first=segment.first,
            times=[tick * plan.time_base for tick in frames.ticks[start : segment.first]],
            check=None if record is None else int(record["source"]),
            fps=settings.fps,
            halt=stop,
        )
    except ResumeError as error:
        if record is not None:
            store.forget(before[0].number)
        raise PlanDiffersError from error


def _as_planned(given: Iterator[Frame], frames: FramePlan, time_base: Fraction, stop: int) -> Iterator[Frame]:
    """Frames up to `stop`, each at its planned time; raises PlanDiffersError for any other."""
    total = len(frames.ticks)
    index = -1
    for frame in given:
        index = frame.index
        if index >= total or frame.pts != frames.ticks[index] * time_base:
            raise PlanDiffersError
        if index >= stop:
            return
        yield frame
    if index != total - 1:
        raise PlanDiffersError


def checked_records(
    segments: Sequence[Segment], frames: FramePlan, store: SegmentStore
) -> tuple[list[dict[str, Any]], list[Segment]]:
    """Records of all segments that are there and follow from one another, and the segments that are missing.

    The frame before a segment, as its own job decoded it, has to be the last one of the segment before; where
    it is not, seeking gave that job a damaged picture, and the segment counts as missing.
    """
    records: list[dict[str, Any]] = []
    missing: list[Segment] = []
    before: dict[str, Any] | None = None
    for segment in segments:
        record = store.record(segment, frames)
        if record is not None and before is not None and record["before"] != before["source"]:
            store.forget(segment.number)
            record = None
        before = record
        if record is None:
            missing.append(segment)
        else:
            records.append(record)
    return records, missing
