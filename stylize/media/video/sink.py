"""Frames into one encoded file, each at its own presentation time.

The way of `VideoSource` in the other direction: PyAV writes rawvideo in NUT into a pipe, ffmpeg encodes.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from stylize.errors import OutputError
from stylize.frame import Frame
from stylize.media.ffmpeg import FfmpegProcess, command_line, explain, file_url
from stylize.media.pipe import GRACE, PipeWriter
from stylize.media.video.codecs import Encoder
from stylize.media.video.color import encode_filters
from stylize.media.video.source import widen_pipe

__all__ = ["FrameFormat", "VideoSink", "sync_file", "timescale"]

PIPE_BUFFER = 1 << 20
"""Bytes that PyAV hands over at once."""

HIGHEST_TIMESCALE = 1_000_000
"""Ticks a second of an MP4 or MOV track at the most; finer clocks are rounded to microseconds."""


def timescale(time_base: Fraction) -> int:
    """Ticks a second of a track that can hold multiples of `time_base`."""
    return time_base.denominator if time_base.denominator <= HIGHEST_TIMESCALE else HIGHEST_TIMESCALE


@dataclass(frozen=True, kw_only=True)
class FrameFormat:
    """What frames are that come to a sink."""

    width: int
    """Pixels a row."""
    height: int
    """Rows."""
    time_base: Fraction
    """Seconds that divide every presentation time."""
    rate: Fraction | None = None
    """Nominal frames a second, told to the encoder; None: 25."""
    sample_aspect_ratio: Fraction = Fraction(1)
    """Width of a pixel over its height."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height


class VideoSink:
    """An encoder that takes frames of one size in order; a context manager.

    The file is written under the name it is given; leaving the ``with`` block without an error finishes it and
    brings it safely to the disk, leaving it with one ends the encoder and leaves a broken file behind.
    """

    def __init__(
        self,
        path: Path,
        *,
        encoder: Encoder,
        frames: FrameFormat,
        container: str = "mov",
        options: tuple[str, ...] = (),
    ) -> None:
        """Describe what to write; nothing runs before ``with``.

        Args:
            path: the file, overwritten if it exists (for the container "image2" a pattern).
            encoder: codec and settings.
            frames: what comes.
            container: ffmpeg's name of the format.
            options: more output options, such as those of the container.
        """
        self._path = path
        self._encoder = encoder
        self._frames = frames
        self._container = container
        self._options = options
        self._stack = contextlib.ExitStack()
        self._process: FfmpegProcess | None = None
        self._pipe: Any = None
        self._stream: Any = None
        self._writer: PipeWriter | None = None

    def __enter__(self) -> VideoSink:
        """Start the encoder.

        Raises:
            ToolError: ffmpeg cannot be started.
        """
        import av

        with contextlib.ExitStack() as stack:
            read, write = os.pipe()
            self._writer = PipeWriter(write)
            stack.callback(self._writer.shut)
            try:
                widen_pipe(write)
                self._process = stack.enter_context(FfmpegProcess(self._command(), stdin=read))
            finally:
                os.close(read)
            options = {"flush_packets": "0"}
            self._pipe = av.open(self._writer, "w", format="nut", options=options, buffer_size=PIPE_BUFFER)
            stack.callback(self._abandon)
            stream = self._pipe.add_stream("rawvideo", rate=self._frames.rate or Fraction(25))
            stream.width, stream.height = self._frames.width, self._frames.height
            stream.pix_fmt = "rgb24"
            stream.time_base = self._frames.time_base
            self._stream = stream
            self._stack = stack.pop_all()
        return self

    def _command(self) -> list[str]:
        import ffmpeg

        source = ffmpeg.input("pipe:0", format="nut", probesize="32", analyzeduration="0")
        stream = ffmpeg.output(
            source["v:0"],
            file_url(self._path),
            format=self._container,
            fps_mode="passthrough",
            enc_time_base="demux",
            vf=encode_filters(self._encoder.pixel_format, self._frames.sample_aspect_ratio, self._frames.size),
            pix_fmt=self._encoder.pixel_format,
            map_metadata=-1,
        )
        extra = [*self._encoder.arguments, *self._options]
        if self._container in {"mov", "mp4"}:
            extra += ["-video_track_timescale", str(timescale(self._frames.time_base))]
        return command_line(stream, extra=extra, before=["-copyts"])

    def write(self, frame: Frame) -> None:
        """Hand one frame to the encoder; waits while it is busy.

        Raises:
            OutputError: the disk is full or not writable.
            MediaError: the encoder gave up.
        """
        import av

        height, width = frame.data.shape[:2]
        if (width, height) != self._frames.size:
            raise ValueError(f"frames are {self._frames.width}x{self._frames.height} here, got {width}x{height}")
        assert self._writer is not None
        packet = av.Packet(frame.data.tobytes())
        packet.stream = self._stream
        packet.time_base = self._frames.time_base
        packet.pts = packet.dts = int(frame.pts / self._frames.time_base)
        try:
            self._pipe.mux(packet)
            self._writer.drain()
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure() from error

    def cancel(self) -> None:
        """Give the file up: a `write` or an end that waits for the encoder fails.  From any thread."""
        if self._writer is not None:
            self._writer.cancel()
        if self._process is not None:
            self._process.kill()

    def _failure(self) -> Exception:
        assert self._process is not None
        with contextlib.suppress(Exception):
            self._process.wait(GRACE)
        return explain(self._process.complaints, "encoding failed")

    def _abandon(self) -> None:
        """Close the pipe's writer; the encoder is gone or about to be killed, so nothing it says matters."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            with contextlib.suppress(Exception):
                pipe.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file, or end the encoder if an error is on its way.

        Raises:
            OutputError: the disk is full or not writable.
            MediaError: the encoder gave up.
        """
        with self._stack:
            if kind is not None:
                assert self._process is not None
                self._process.kill()
                return
            self._finish()

    def _finish(self) -> None:
        import av

        assert self._process is not None
        assert self._writer is not None
        pipe, self._pipe = self._pipe, None
        try:
            pipe.close()
            self._writer.drain()
        except (av.error.FFmpegError, OSError) as problem:
            raise self._failure() from problem
        self._writer.shut()
        if self._process.wait() != 0:
            raise explain(self._process.complaints, "encoding failed")
        if self._container != "image2":
            sync_file(self._path)


def sync_file(path: Path) -> None:
    """Bring a file safely to the disk.

    Raises:
        OutputError: the file is not there, or the disk failed.
    """
    try:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{path} could not be written ({error.strerror}): check the disk") from error
