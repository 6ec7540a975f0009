"""What a damaged source did not give: which frames are missing, and where."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from stylize.media.ffmpeg import open_media
from stylize.media.video.probe import VideoInfo

__all__ = ["missing_frames", "packet_times"]


def missing_frames(info: VideoInfo, times: Sequence[Fraction]) -> list[str]:
    """Compare the packets that the container has with the frames that came out of the decoder.

    Args:
        info: the source.
        times: presentation time of every decoded frame, seconds.

    Returns:
        A line for each stretch of lost frames, and one for a lost end; empty if nothing is missing.
    """
    if info.jumps:  # to the tick only ffmpeg knows where its frames come to lie
        return []
    expected = packet_times(info)
    have = set(times)
    lost = [time for time in expected if time not in have]
    lines = []
    for first, last, count in _stretches(expected, lost):
        plural = "frame" if count == 1 else "frames"
        lines.append(f"{count} {plural} lost between {float(first):.3f} s and {float(last):.3f} s")
    step = 1 / info.rate if info.rate else Fraction(1, 10)
    reached = max([*times[-1:], *expected[-1:]], default=Fraction(0))
    if info.duration is not None:
        end = (info.start or Fraction(0)) - info.origin + info.duration
        if reached + 2 * step < end:
            lines.append(f"the end is lost: {float(reached):.3f} s of {float(end):.3f} s are there")
    return lines


def packet_times(info: VideoInfo) -> list[Fraction]:
    """Presentation times of all packets that are to be shown, sorted; empty where the container has none."""
    import av

    times = []
    try:
        with open_media(info.path) as container:
            stream = container.streams[info.stream.index]
            for packet in container.demux(stream):
                if packet.size and packet.pts is not None and not packet.is_discard:
                    times.append(packet.pts * info.time_base - info.origin)
    except (av.error.FFmpegError, OSError, IndexError):
        pass
    return sorted(times)


def _stretches(expected: Sequence[Fraction], lost: Sequence[Fraction]) -> list[tuple[Fraction, Fraction, int]]:
    """Runs of neighbouring lost frames as (first, last, count)."""
    gone = set(lost)
    runs: list[tuple[Fraction, Fraction, int]] = []
    inside = False
    for time in expected:
        if time not in gone:
            inside = False
        elif inside:
            runs[-1] = (runs[-1][0], time, runs[-1][2] + 1)
        else:
            runs.append((time, time, 1))
            inside = True
    return runs
