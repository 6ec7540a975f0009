"""A container's clock from the first packet to the last, and where it jumps.

Recordings that were cut, restarted or put together byte by byte have clocks that start again or leap ahead.  The
ffmpeg program takes such jumps out of containers that may have them (MPEG-TS, MPEG-PS, Ogg), unless ``-copyts``
forbids it: all streams are moved by the jump that the first of them makes.  Here the packets alone are read, by
the same rule, to know beforehand whether there are jumps, and how long the film is without them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from stylize.media.ffmpeg import open_media

__all__ = ["MAY_JUMP", "Clock", "read_clock"]

MAY_JUMP = 0x0200
"""libavformat's flag of containers whose clock may be discontinuous (AVFMT_TS_DISCONT)."""

LEAP = 10
"""Seconds that a clock may leap ahead and be believed: a pause.  ffmpeg's ``-dts_delta_threshold``."""

BACK = Fraction(1, 10)
"""Seconds that decoding times may go back and be believed."""


@dataclass(kw_only=True)
class Clock:
    """What the packets tell of time; all values in seconds."""

    jumps: list[Fraction] = field(default_factory=list)
    """How far the clock leapt, at each place where it did; negative for backwards.  Taken out of what follows."""
    origin: Fraction | None = None
    """The earliest time of any stream."""
    start: Fraction | None = None
    """Presentation time of the first frame."""
    last: Fraction | None = None
    """Presentation time of the last frame."""
    frames: int = 0
    """Packets of the video that are to be shown and have a time."""

    @property
    def length(self) -> Fraction | None:
        """From the first frame to the last; None where the packets have no times."""
        return None if self.start is None or self.last is None else self.last - self.start


def read_clock(path: Path, index: int) -> Clock:
    """Read all packets of a file.

    Args:
        path: the file.
        index: its video stream.

    Raises:
        av.error.FFmpegError: it cannot be opened; OSError likewise.  What breaks off later ends the clock there.
    """
    state = path.stat()
    return _read(path, index, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _read(path: Path, index: int, size: int, changed: int) -> Clock:
    import av

    clock = Clock()
    with open_media(path) as container:
        shift = _Shift(jumps=clock.jumps, repaired=bool(int(container.format.flags) & MAY_JUMP))
        packets = container.demux()
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                break
            if packet is None:
                break
            if packet.size:
                _take(clock, packet, shift, shown=packet.stream_index == index)
    return clock


def _take(clock: Clock, packet: Any, shift: _Shift, *, shown: bool) -> None:
    unit = Fraction(packet.time_base)
    added = shift.of(packet)
    ticks = packet.pts if packet.pts is not None else packet.dts
    if ticks is None or packet.is_discard:
        return
    if shift.repaired and packet.dts is not None and abs(ticks - packet.dts) * unit > LEAP:
        ticks = packet.dts  # the first packet behind a jump of MPEG-PS: only its presentation time has jumped
    time = ticks * unit + added
    clock.origin = time if clock.origin is None else min(time, clock.origin)
    if shown:
        clock.frames += 1
        clock.start = time if clock.start is None else min(time, clock.start)
        clock.last = time if clock.last is None else max(time, clock.last)


@dataclass
class _Shift:
    """What has to be added to all times from a packet on."""

    jumps: list[Fraction]
    repaired: bool
    """ffmpeg takes jumps out of this container.  In others a leap is a pause, and a way back is for `length` alone."""
    total: Fraction = Fraction(0)
    due: dict[int, tuple[Fraction, Fraction]] = field(default_factory=dict)
    """For each stream the decoding time of its last packet, and the time of the next if nothing jumps."""

    def of(self, packet: Any) -> Fraction:
        """The shift of `packet` and, until the next jump, of those after it."""
        if packet.dts is None or packet.stream.type not in {"audio", "video"}:
            return self.total
        time = packet.dts * Fraction(packet.time_base) + self.total
        if packet.stream_index in self.due:
            before, due = self.due[packet.stream_index]
            if (self.repaired and abs(time - due) > LEAP) or time + BACK < before:
                if self.repaired:
                    self.jumps.append(time - due)
                self.total -= time - due
                time = due
        self.due[packet.stream_index] = (time, time + _duration(packet))
        return self.total


def _duration(packet: Any) -> Fraction:
    if packet.duration:
        return Fraction(packet.duration * Fraction(packet.time_base))
    rate = packet.stream.average_rate if packet.stream.type == "video" else None
    return 1 / Fraction(rate) if rate else Fraction(0)
