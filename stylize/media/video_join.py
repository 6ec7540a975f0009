"""Encoded segments and the source's other streams into one file, without encoding anything again.

The segments' packets keep their order; the k-th frame in presentation order gets the k-th presentation time of
the job, so no container in between can round a time or shift it.  Decoding times follow from those by the delay
that the encoder's reordering needs.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from stylize.errors import MediaError, StylizeError
from stylize.media.ffmpeg import FfmpegProcess, command_line, explain, file_url, open_media
from stylize.media.video_codecs import Encoder
from stylize.media.video_probe import VideoInfo
from stylize.media.video_sink import sync_file, timescale
from stylize.media.video_source import widen_pipe
from stylize.media.video_streams import MUXERS, StreamPlan, stream_arguments

__all__ = ["count_packets", "join_segments", "segment_feed"]


def count_packets(path: Path) -> int:
    """Number of video packets in an encoded file; 0 if it cannot be opened."""
    import av

    try:
        with open_media(path) as container:
            return sum(1 for packet in container.demux(video=0) if packet.size)
    except (av.error.FFmpegError, OSError, IndexError):
        return 0


def _packet_times(segments: Sequence[Path]) -> list[list[int]]:
    """For each segment the presentation rank of each packet, in decoding order."""
    ranks = []
    for path in segments:
        with open_media(path) as container:
            times = [packet.pts for packet in container.demux(video=0) if packet.size]
        order = {pts: rank for rank, pts in enumerate(sorted(times))}
        ranks.append([order[pts] for pts in times])
    return ranks


def _decoding_times(pts: Sequence[int], ranks: Sequence[Sequence[int]]) -> list[int]:
    """Decoding time of every packet in decoding order: increasing, and never after its presentation."""
    delay = max((position - rank for segment in ranks for position, rank in enumerate(segment)), default=0)
    step = max(1, (pts[-1] - pts[0]) // max(1, len(pts) - 1))
    early = [pts[0] - (delay - position) * step for position in range(delay)]
    return [*early, *pts[: len(pts) - delay]] if delay < len(pts) else early[: len(pts)]


class segment_feed:
    """A readable pipe from which ffmpeg takes the joined video as NUT; a thread writes it."""

    def __init__(self, segments: Sequence[Path], pts: Sequence[int], time_base: Fraction) -> None:
        """Describe the video: `pts` has the time of every frame of all segments, in ticks of `time_base`."""
        self._segments = segments
        self._pts = pts
        self._time_base = time_base
        self.error: BaseException | None = None
        """What stopped the thread, None if all was written or ffmpeg stopped reading."""

    def __enter__(self) -> int:
        """Start the thread and return the pipe's reading end."""
        self._read, write = os.pipe()
        widen_pipe(write)
        self._thread = threading.Thread(target=self._run, args=(write,), name="video-join", daemon=True)
        self._thread.start()
        return self._read

    def release(self) -> None:
        """Close our copy of the reading end once ffmpeg has it, so that its end is noticed."""
        if self._read >= 0:
            os.close(self._read)
            self._read = -1

    def __exit__(self, *_: object) -> None:
        """End the thread."""
        self.release()
        self._thread.join()

    def _run(self, write: int) -> None:
        import av

        try:
            self._write(write)
        except (av.error.BrokenPipeError, BrokenPipeError):
            pass
        except Exception as error:
            self.error = error
        finally:
            os.close(write)

    def _write(self, write: int) -> None:
        import av

        ranks = _packet_times(self._segments)
        if sum(map(len, ranks)) != len(self._pts):
            raise MediaError(
                f"the segments hold {sum(map(len, ranks))} frames, not {len(self._pts)}: run with --restart"
            )
        # NUT takes no negative times; a shift by whole seconds is taken back by ffmpeg
        dts = iter(_decoding_times(self._pts, ranks))
        first = 0
        with contextlib.ExitStack() as stack:
            pipe: Any = None
            out: Any = None
            extradata: bytes | None = None
            for path, order in zip(self._segments, ranks, strict=True):
                with open_media(path) as container:
                    stream = container.streams.video[0]
                    if pipe is None:
                        pipe = stack.enter_context(av.open(f"pipe:{write}", "w", format="nut"))
                        out = pipe.add_stream_from_template(stream)
                        out.time_base = self._time_base
                        extradata = stream.codec_context.extradata
                    if stream.codec_context.extradata != extradata:
                        raise MediaError(f"{path} was encoded in another way than the first: run with --restart")
                    packets: Iterator[Any] = (packet for packet in container.demux(stream) if packet.size)
                    for rank, packet in zip(order, packets, strict=True):
                        packet.stream = out
                        packet.time_base = self._time_base
                        packet.pts = self._pts[first + rank]
                        packet.dts = next(dts)
                        pipe.mux(packet)
                first += len(order)


def _container_options(muxer: str, encoder: Encoder, time_base: Fraction, kept: Sequence[StreamPlan]) -> list[str]:
    if muxer not in {"mp4", "mov"}:
        return []
    # free-form tags and a cover exclude each other in ffmpeg's MP4 and MOV
    cover = any(plan.stream.picture for plan in kept)
    flags = "+faststart" if cover else "+faststart+use_metadata_tags"
    options = ["-movflags", flags, "-video_track_timescale", str(timescale(time_base))]
    return options + (["-tag:v:0", encoder.tag] if encoder.tag else [])


def join_segments(
    segments: Sequence[Path],
    target: Path,
    *,
    info: VideoInfo,
    plans: Sequence[StreamPlan],
    pts: Sequence[int],
    time_base: Fraction,
    encoder: Encoder,
    suffix: str,
    stop: threading.Event | None = None,
) -> list[str]:
    """Write `target` from the encoded segments and the streams of `info.path`.

    Args:
        segments: encoded files in order.
        target: the file to write, a work name of its own; the caller renames it.
        info: the source.
        plans: what becomes of its other streams.
        pts: presentation time of every frame in ticks of `time_base`.
        time_base: seconds a tick.
        encoder: how the segments were encoded.
        suffix: suffix of the final name, which tells the container.
        stop: ends the work early when set.

    Returns:
        Complaints that ffmpeg made about the source's streams.

    Raises:
        MediaError: the streams do not fit together.
        OutputError: the disk is full or not writable.
    """
    import ffmpeg

    muxer = MUXERS[suffix.lower()]
    feed = segment_feed(segments, pts, time_base)
    kept = [plan for plan in plans if plan.action != "drop"]
    video = ffmpeg.input("pipe:0", format="nut")
    source_options: dict[str, Any] = {"itsoffset": f"{float(-info.origin):.6f}"} if info.origin else {}
    source = ffmpeg.input(file_url(info.path), **source_options)
    stream = ffmpeg.output(
        video["v:0"], source, file_url(target), format=muxer, **{"c:v:0": "copy", "map_metadata": 1, "map_chapters": 1}
    )
    command = command_line(stream, before=["-copyts"])
    where = command.index("1", command.index("-map") + 2)  # the bare "-map 1" of the second input gives way
    command[where - 1 : where + 1] = stream_arguments(kept, source=1, muxer=muxer)
    command[-1:-1] = [
        *_container_options(muxer, encoder, time_base, kept),
        *_tags(info),
        *(["-copy_unknown"] if muxer == "mov" else []),
        *["-bsf:v:0", _durations(info, [ticks * time_base for ticks in pts[-2:]])],
        *["-max_interleave_delta", "0", "-max_muxing_queue_size", "4096", "-disposition:v:0", "default"],
    ]
    with feed as read, FfmpegProcess(command, stdin=read) as process:
        feed.release()
        code = _wait(process, stop)
    if feed.error is not None and not isinstance(feed.error, StylizeError):
        raise MediaError(f"joining the segments failed: {feed.error}") from feed.error
    if feed.error is not None:
        raise feed.error
    if code != 0:
        raise explain(process.complaints, "joining the segments failed")
    sync_file(target)
    return process.complaints


def _durations(info: VideoInfo, last: Sequence[Fraction]) -> str:
    """The bitstream filter that tells packets how long they last.

    It matters for the last one alone: containers take the others' from the next time, but an MP4 whose last
    frame lasts no time is cut off before it.
    """
    length = last[-1] - last[0] if len(last) > 1 else 1 / (info.nominal_rate or Fraction(25))
    if info.duration is not None:
        told = (info.start or Fraction(0)) - info.origin + info.duration - last[-1]
        length = told if length / 4 <= told <= 4 * length else length
    return f"setts=duration=max(1\\,round({length.numerator}/{length.denominator}/TB))"


def _tags(info: VideoInfo) -> list[str]:
    tags: list[str] = []
    for name in ("major_brand", "minor_version", "compatible_brands", "encoder"):  # the old file's, not the film's
        tags += ["-metadata", f"{name}="]
    if info.stream.language:
        tags += ["-metadata:s:v:0", f"language={info.stream.language}"]
    if info.stream.title:
        tags += ["-metadata:s:v:0", f"title={info.stream.title}"]
    return tags


def _wait(process: FfmpegProcess, stop: threading.Event | None) -> int:
    import subprocess

    while True:
        try:
            return process.wait(0.2)
        except subprocess.TimeoutExpired:
            if stop is not None and stop.is_set():
                raise KeyboardInterrupt from None
