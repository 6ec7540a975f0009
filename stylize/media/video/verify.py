"""Is the finished file what it should be?  Read back before it gets its final name."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from stylize.errors import MediaError
from stylize.media.ffmpeg import open_media
from stylize.media.video.clock import read_clock
from stylize.media.video.probe import VideoInfo
from stylize.media.video.streams import StreamPlan

__all__ = ["verify_length", "verify_video"]


def verify_video(
    path: Path,
    *,
    times: Sequence[Fraction],
    size: tuple[int, int],
    plans: Sequence[StreamPlan],
    decode: bool,
    stop: threading.Event | None = None,
) -> None:
    """Compare a finished file with what went into it.

    Args:
        path: the file.
        times: presentation time of every frame, seconds.
        size: width and height.
        plans: what was done with the source's other streams.
        decode: decode every frame; without it only the container is read.
        stop: ends the work early when set.

    Raises:
        KeyboardInterrupt: `stop` was set.
        MediaError: it differs, or cannot be read.
    """
    import av

    try:
        with open_media(path) as container:
            stream = container.streams.video[0]
            found = (stream.codec_context.width, stream.codec_context.height)
            if found != size:
                raise MediaError(f"verification failed: {found[0]}x{found[1]} pixels instead of {size[0]}x{size[1]}")
            _compare_streams(container, plans)
            _compare_times(_times(container, stream, decode, stop), times, Fraction(stream.time_base))
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise MediaError(f"verification failed: the output cannot be read back ({error})") from error


def verify_length(info: VideoInfo, times: Sequence[Fraction]) -> None:
    """Compare how long the pictures last with what the source's packets add up to, without its clock's jumps.

    Args:
        info: the source.
        times: presentation time of every frame of the result, seconds.

    Raises:
        MediaError: they differ by more than half a second (deinterlacing and damaged ends may cost some frames).
    """
    wanted = read_clock(info.path, info.stream.index).length
    found = times[-1] - times[0]
    if wanted is not None and abs(found - wanted) > Fraction(1, 2):
        raise MediaError(
            f"verification failed: {float(found):.3f} s of pictures instead of {float(wanted):.3f} s; does the "
            f"clock of {info.path} go back? Then put its parts together anew (ffmpeg -f concat)"
        )


def _times(container: Any, stream: Any, decode: bool, stop: threading.Event | None) -> list[Fraction]:
    base = Fraction(stream.time_base)
    if decode:
        stream.thread_type = "AUTO"
        times = []
        for frame in container.decode(stream):
            if stop is not None and stop.is_set():
                raise KeyboardInterrupt
            times.append(frame.pts * base)
        return times
    return sorted(packet.pts * base for packet in container.demux(stream) if packet.size and not packet.is_discard)


def _compare_streams(container: Any, plans: Sequence[StreamPlan]) -> None:
    kept = [plan for plan in plans if plan.action != "drop"]
    wanted = Counter(plan.stream.kind for plan in kept) + Counter(["video"])
    found = Counter(stream.type for stream in container.streams)
    missing = wanted - found
    # a cover may come back as an attachment, an attachment as a cover
    still = {"video", "attachment"}
    if sum(wanted[kind] for kind in still) == sum(found[kind] for kind in still):
        missing = Counter({kind: count for kind, count in missing.items() if kind not in still})
    if missing:
        lacking = ", ".join(f"{count} {kind}" for kind, count in missing.items())
        raise MediaError(f"verification failed: the output lacks streams ({lacking})")


def _compare_times(found: Sequence[Fraction], wanted: Sequence[Fraction], base: Fraction) -> None:
    if len(found) != len(wanted):
        raise MediaError(f"verification failed: {len(found)} frames instead of {len(wanted)}")
    for index, (got, want) in enumerate(zip(found, wanted, strict=True)):
        if abs(got - want) > base:
            raise MediaError(
                f"verification failed: frame {index} is shown at {float(got):.6f} s instead of {float(want):.6f} s"
            )
