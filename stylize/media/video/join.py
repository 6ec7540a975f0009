"""Encoded segments and the source's other streams into one file, without encoding anything again.

The segments' packets keep their order; the k-th frame in presentation order gets the k-th presentation time of
the job, so no container in between can round a time or shift it.  Decoding times follow from those by the delay
that the encoder's reordering needs.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from stylize.errors import MediaError, StylizeError
from stylize.media.ffmpeg import FfmpegProcess, command_line, explain, file_url, open_media
from stylize.media.pipe import GRACE, PipeWriter
from stylize.media.video.boxes import set_creation_time, with_boxes
from stylize.media.video.codecs import Encoder
from stylize.media.video.probe import VideoInfo
from stylize.media.video.sink import sync_file, timescale
from stylize.media.video.source import clock_options, read_all, widen_pipe
from stylize.media.video.streams import MUXERS, StreamPlan, stream_arguments

__all__ = ["SegmentFeed", "count_packets", "feed_container", "join_segments", "last_duration"]


def feed_container(encoder: Encoder) -> str:
    """MOV for all codecs that it takes, MP4 for the others; for segments and for `SegmentFeed`."""
    return "mp4" if encoder.codec in {"vp9", "av1", "av1_nvenc"} else "mov"


def count_packets(path: Path) -> int:
    """Number of video packets in an encoded file; 0 if it cannot be opened."""
    import av

    try:
        with open_media(path) as container:
            return sum(1 for packet in container.demux(video=0) if packet.size)
    except (av.error.FFmpegError, OSError, IndexError):
        return 0


def _packet_ranks(segments: Sequence[Path]) -> list[list[int]]:
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
    step = min((after - before for before, after in itertools.pairwise(pts)), default=1)  # a pause must not widen it
    early = [pts[0] - (delay - position) * step for position in range(delay)]
    return [*early, *pts[: len(pts) - delay]] if delay < len(pts) else early[: len(pts)]


class SegmentFeed:
    """A pipe from which ffmpeg reads the joined video; a thread writes it once ffmpeg runs.  A context manager.

    It is fragmented MP4 or MOV, because that has exact decoding times and durations in it.  (NUT has neither:
    its reader guesses them, and then ffmpeg moves presentation times to fit the guess.)
    """

    def __init__(
        self,
        segments: Sequence[Path],
        pts: Sequence[int],
        *,
        time_base: Fraction,
        container: str,
        last: Fraction,
        boxes: bytes = b"",
    ) -> None:
        """Describe the video; nothing runs before ``with``.

        Args:
            segments: encoded files in order.
            pts: time of every frame of all segments, in ticks of `time_base`.
            time_base: seconds a tick.
            container: "mov", or "mp4" for the codecs that MOV does not take.
            last: how long the last frame is shown, seconds; an MP4 whose last frame lasts no time loses it.
            boxes: more for the description of the track (`stylize.media.video.boxes`).
        """
        self._segments = segments
        self._pts = list(pts)
        self._time_base = time_base
        self._container = container
        self._boxes, self._head = boxes, b""
        self._last = max(1, round(last / time_base))
        self.error: BaseException | None = None
        """What stopped the thread, None if all was written or ffmpeg stopped reading."""
        self.shift = Fraction(0)
        """Seconds that all times in the pipe are later than they should be: its first decoding time is always 0."""

    def __enter__(self) -> SegmentFeed:
        """Read the segments' order and make the pipe; the thread starts in `wait`, when somebody reads.

        Raises:
            MediaError: the segments do not hold as many frames as there are times.
        """
        ranks = _packet_ranks(self._segments)
        held = sum(map(len, ranks))
        if held != len(self._pts):
            raise MediaError(f"the segments hold {held} frames, not {len(self._pts)}: run with --restart")
        dts = _decoding_times(self._pts, ranks)
        early = -dts[0]
        self.shift = early * self._time_base
        self.pipe, write = os.pipe()
        widen_pipe(write)
        self._writer = PipeWriter(write)
        self._thread = threading.Thread(target=self._run, args=(ranks, dts, early), name="video-join", daemon=True)
        return self

    def release(self) -> None:
        """Close our copy of the reading end once ffmpeg has it, so that its end is noticed."""
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1

    def wait(self, process: FfmpegProcess, stop: threading.Event | None) -> int:
        """Feed the ffmpeg that reads, wait for it and return its exit code; give up if the feed fails or at `stop`.

        Raises:
            KeyboardInterrupt: `stop` was set.
            MediaError: the feed failed.
        """
        import subprocess

        self.release()
        self._thread.start()
        while True:
            try:
                code = process.wait(0.1)
                break
            except subprocess.TimeoutExpired:
                if stop is not None and stop.is_set():
                    raise KeyboardInterrupt from None
                if self.error is not None:  # the pipe may never end: nobody else will stop ffmpeg
                    break
        if self.error is None:
            return code
        if isinstance(self.error, StylizeError):
            raise self.error
        raise MediaError(f"joining the segments failed: {self.error}") from self.error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread."""
        self.release()
        self._writer.cancel()
        if self._thread.ident is None:  # ffmpeg did not start
            self._writer.shut()
        else:
            self._thread.join(GRACE)

    def _run(self, ranks: list[list[int]], dts: list[int], early: int) -> None:
        import av

        try:
            self._write(ranks, dts, early)
        except (av.error.BrokenPipeError, BrokenPipeError):
            pass
        except Exception as error:
            self.error = error
        finally:
            self._writer.shut()

    def _write(self, ranks: list[list[int]], dts: list[int], early: int) -> None:
        import av

        options = {
            "movflags": "frag_keyframe+empty_moov+default_base_moof",
            "avoid_negative_ts": "disabled",
            "video_track_timescale": str(timescale(self._time_base)),
        }
        with contextlib.ExitStack() as stack:
            pipe: Any = None
            out: Any = None
            for packet, stream, place, rank in self._packets(ranks):
                if pipe is None:
                    pipe = stack.enter_context(av.open(self._writer, "w", format=self._container, options=options))
                    out = pipe.add_stream_from_template(stream, opaque=True)
                    out.time_base = self._time_base
                packet.stream = out
                packet.time_base = self._time_base
                packet.pts = self._pts[rank] + early
                packet.dts = dts[place] + early
                packet.duration = dts[place + 1] - dts[place] if place + 1 < len(dts) else self._last
                pipe.mux(packet)
                self._send()
        self._send()  # what closing the container wrote

    def _send(self) -> None:
        """Bring what was written into the pipe, the beginning with `boxes` in it."""
        if self._boxes:
            self._head += self._writer.take()
            extended = with_boxes(self._head, self._boxes)
            if extended is None:
                return
            self._writer.write(extended)
            self._boxes = b""
        self._writer.drain()

    def _packets(self, ranks: list[list[int]]) -> Iterator[tuple[Any, Any, int, int]]:
        """Packets with their stream, place in decoding order and place in presentation order."""
        first = 0
        extradata: bytes | None = None
        for path, order in zip(self._segments, ranks, strict=True):
            with open_media(path) as container:
                stream = container.streams.video[0]
                if first and stream.codec_context.extradata != extradata:
                    raise MediaError(f"{path} was encoded in another way than the first: run with --restart")
                extradata = stream.codec_context.extradata
                packets: Iterator[Any] = (packet for packet in container.demux(stream) if packet.size)
                for place, (rank, packet) in enumerate(zip(order, packets, strict=True)):
                    yield packet, stream, first + place, first + rank
            first += len(order)


def _container_options(muxer: str, encoder: Encoder, time_base: Fraction, kept: Sequence[StreamPlan]) -> list[str]:
    if muxer not in {"mp4", "mov"}:  # sound may begin before 0 (Vorbis in Ogg); the rest is not to move for it
        return ["-avoid_negative_ts", "disabled"]
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
    muxer = MUXERS[suffix.lower()]
    kept = [plan for plan in plans if plan.action != "drop"]
    last = last_duration(info, [ticks * time_base for ticks in pts[-2:]])
    feed = SegmentFeed(
        segments, pts, time_base=time_base, container=feed_container(encoder), last=last, boxes=info.spherical
    )
    made = _made(info)
    with feed:
        command = _join_command(feed, target, info, kept, muxer)
        command[-1:-1] = [*_container_options(muxer, encoder, time_base, kept), *_tags(info, muxer)]
        command += read_all(1) if info.jumps else []
        with FfmpegProcess(command, stdin=feed.pipe) as process:
            code = feed.wait(process, stop)
    if code != 0:
        raise explain(process.complaints, "joining the segments failed")
    if made is not None and muxer in {"mp4", "mov"}:
        set_creation_time(target, made)
    sync_file(target)
    return _of_other_streams(process.complaints, info, kept)


def _of_other_streams(complaints: Sequence[str], info: VideoInfo, kept: Sequence[StreamPlan]) -> list[str]:
    """Complaints about what was copied; ffmpeg looks into the video of the source as well, which is not."""
    if not kept:
        return []
    return [line for line in complaints if not line.startswith(f"[{info.stream.codec} @")]


def _join_command(
    feed: SegmentFeed, target: Path, info: VideoInfo, kept: Sequence[StreamPlan], muxer: str
) -> list[str]:
    import ffmpeg

    kept_times = {"seek_timestamp": 1} if info.jumps else {}
    video = ffmpeg.input("pipe:0", format="mov", **kept_times)
    shift = {"itsoffset": f"{float(-info.origin):.6f}"} if info.origin else {}
    source = ffmpeg.input(file_url(info.path), **shift, **kept_times)
    stream = ffmpeg.output(
        video["v:0"], source, file_url(target), format=muxer, **{"c:v:0": "copy", "map_metadata": 1, "map_chapters": 1}
    )
    command = command_line(stream, before=clock_options(info))
    where = command.index("1", command.index("-map") + 2)  # the bare "-map 1" of the second input gives way
    command[where - 1 : where + 1] = stream_arguments(kept, source=1, muxer=muxer)
    late = f"round({feed.shift.numerator}/{feed.shift.denominator}/TB)"
    command[-1:-1] = ["-bsf:v:0", f"setts=pts=PTS-{late}:dts=DTS-{late}"]
    command[-1:-1] = ["-disposition:v:0", "default", *(["-copy_unknown"] if muxer == "mov" else [])]
    command[-1:-1] = ["-max_interleave_delta", "0", "-max_muxing_queue_size", "4096"]
    return command


def last_duration(info: VideoInfo, times: Sequence[Fraction]) -> Fraction:
    """How long the last frame is shown: until the end that the source tells, else as long as the one before."""
    length = times[-1] - times[-2] if len(times) > 1 else 1 / (info.nominal_rate or Fraction(25))
    if info.duration is not None:
        told = (info.start or Fraction(0)) - info.origin + info.duration - times[-1]
        if length / 4 <= told <= 4 * length:
            return told
    return length


def _made(info: VideoInfo) -> datetime | None:
    """When the source says it was made; a file with the tag in two places is read as A;A."""
    told = info.metadata.get("creation_time", "").split(";")[0].strip()
    try:
        moment = datetime.fromisoformat(told.replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _tags(info: VideoInfo, muxer: str) -> list[str]:
    tags: list[str] = []
    for name in ("major_brand", "minor_version", "compatible_brands", "encoder"):  # the old file's, not the film's
        tags += ["-metadata", f"{name}="]
    if (made := _made(info)) is not None:
        # With free-form tags ffmpeg's MP4 and MOV write it twice, so there it is set afterwards.
        told = "" if muxer in {"mp4", "mov"} else made.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        tags += ["-metadata", f"creation_time={told}"]
    if info.timecode:
        tags += ["-metadata:s:v:0", f"timecode={info.timecode}"]
    if info.spherical:
        tags += ["-strict", "unofficial"]
    if info.stream.language:
        tags += ["-metadata:s:v:0", f"language={info.stream.language}"]
    if info.stream.title:
        tags += ["-metadata:s:v:0", f"title={info.stream.title}"]
    return tags
