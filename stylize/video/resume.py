"""The frames that are still to be done, beginning in the middle of a source and proven to be the right ones."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from stylize.errors import ResumeError
from stylize.frame import Frame
from stylize.media.video.probe import VideoInfo
from stylize.media.video.source import VideoSource

__all__ = ["checksum", "open_at", "open_behind"]

_log = logging.getLogger(__name__)


def checksum(frame: Frame) -> int:
    """CRC-32 of every eighth row: enough to tell frames apart, quick enough to do it for each."""
    return zlib.crc32(frame.data[::8].tobytes())


def open_at(
    stack: contextlib.ExitStack,
    info: VideoInfo,
    *,
    records: Sequence[dict[str, Any]],
    context: int,
    fps: Fraction | None,
    halt: threading.Event | None = None,
) -> tuple[VideoSource, Iterator[Frame]]:
    """Open the source so that the first frame is `context` frames before the first one that is not done.

    Args:
        stack: closes the source.
        info: the source.
        records: the journal's segments, all frames before the first missing one.
        context: frames that the transform wants to see before it.
        fps: constant rate to convert to.
        halt: see `VideoSource.halt`.

    Returns:
        The source and its frames, indices as in an uninterrupted run.

    Raises:
        ResumeError: the source does not decode to the frames that the journal tells of.
    """
    base = info.time_base if fps is None else 1 / fps
    times = [time * base for record in records for time in record["times"]]
    check = int(records[-1]["source"]) if records else None
    wanted = max(0, len(times) - max(1, context))
    source, frames = open_behind(stack, info, first=len(times), times=times[wanted:], check=check, fps=fps, halt=halt)
    first_given = max(0, len(times) - context)
    return source, itertools.dropwhile(lambda frame: frame.index < first_given, frames)


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
