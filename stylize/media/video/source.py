"""Frames out of a video file, each with its exact presentation time.

ffmpeg decodes, turns and converts; it writes rawvideo in NUT, a container that keeps time stamps in any time
base, into a pipe that PyAV takes apart here.  Measured with 1080p: 4 ms of our own time a frame.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType
from typing import Any

import numpy as np

from stylize.errors import MediaError
from stylize.frame import Frame
from stylize.media.ffmpeg import FfmpegProcess, command_line, explain, file_url
from stylize.media.pipe import GRACE
from stylize.media.video.color import decode_filters
from stylize.media.video.probe import VideoInfo

__all__ = ["VideoSource", "clock_options", "read_all", "widen_pipe"]

QUEUE_BYTES = 48 << 20
"""About so much is decoded ahead: seven frames of 1080p; at least two frames."""

_END = object()


def widen_pipe(descriptor: int) -> None:
    """Give a pipe room for 1 MiB where the system allows it: fewer switches between the processes."""
    try:
        import fcntl

        fcntl.fcntl(descriptor, getattr(fcntl, "F_SETPIPE_SZ", 1031), 1 << 20)
    except (ImportError, OSError):
        return


def clock_options(info: VideoInfo) -> list[str]:
    """Global options of an ffmpeg that reads `info`: times as they are, or without the clock's jumps."""
    return [] if info.jumps else ["-copyts"]


def read_all(source: int) -> list[str]:
    """One more output, for nothing, of all sound and pictures of input number `source`.

    ffmpeg finds jumps of the clock in the streams that it reads.  So that pictures and sound, read by two
    processes, are moved by the same amount, both read the same streams.
    """
    counted = ["-bsf", "setts=ts=N"]  # where the clock jumps, streams overlap, which even this muxer complains of
    return ["-map", f"{source}:v", "-map", f"{source}:a?", "-c", "copy", *counted, "-f", "null", "-"]


class VideoSource:
    """All frames of a video in presentation order; a context manager, to be iterated once.

    A thread decodes ahead into a bounded queue; what goes wrong there is raised in the consumer.  A source that
    is damaged in the middle gives what decodes, each frame at its own time; `errors` and `resized` tell of it.
    """

    def __init__(
        self, info: VideoInfo, *, fps: Fraction | None = None, start: Fraction | None = None, first_index: int = 0
    ) -> None:
        """Describe what to read; nothing runs before ``with``.

        Args:
            info: what `probe_video` found.
            fps: convert to this constant rate.
            start: leave out frames before this presentation time (seconds); found by seeking.
            first_index: index of the first frame that is given.
        """
        self.info = info
        self.time_base = info.time_base if fps is None else 1 / fps
        """Every presentation time is a whole number of these seconds."""
        self.waited = 0.0
        """Seconds the decoding thread waited for ffmpeg: the cost of decoding as far as it is not hidden."""
        self.retimed = 0
        """Frames whose time stamp did not increase and was moved up by a tick."""
        self.halt: threading.Event | None = None
        """Set it, and whoever waits for a frame need not wait for ffmpeg."""
        self._fps = fps
        self._start = start
        self._index = first_index
        frame_bytes = max(1, info.width * info.height * 3)
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=int(max(2, min(64, QUEUE_BYTES // frame_bytes))))
        self._stop = threading.Event()
        self._stack = contextlib.ExitStack()
        self._process: FfmpegProcess | None = None

    @property
    def errors(self) -> int:
        """Complaints of level error that ffmpeg made while decoding."""
        return self._process.errors if self._process is not None else 0

    @property
    def complaints(self) -> list[str]:
        """The last of those complaints."""
        return self._process.complaints if self._process is not None else []

    @property
    def resized(self) -> int:
        """How often the source changed its size or format; such frames are scaled to the first one's size."""
        return self._process.resized if self._process is not None else 0

    def __enter__(self) -> VideoSource:
        """Start ffmpeg and the thread.

        Raises:
            ToolError: there is no ffmpeg.
        """
        arguments, self._shift = self._command()
        with contextlib.ExitStack() as stack:
            read, write = os.pipe()
            try:
                widen_pipe(write)
                self._process = stack.enter_context(FfmpegProcess(arguments, stdout=write))
            except BaseException:
                os.close(read)
                raise
            finally:
                os.close(write)
            thread = threading.Thread(target=self._run, args=(read,), name="video-decode", daemon=True)
            stack.callback(self._finish, thread)
            thread.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop decoding, wherever it is."""
        self._stack.close()

    def _finish(self, thread: threading.Thread) -> None:
        self._stop.set()
        assert self._process is not None
        self._process.kill()  # ends the pipe, and with it the thread
        thread.join(GRACE)

    def _command(self) -> tuple[list[str], Fraction]:
        """The command, and what it adds to all times so that none is negative (NUT takes none)."""
        import ffmpeg

        info = self.info
        shift = Fraction(0)
        first = info.start if info.start is not None else Fraction(0)
        if first < 0:
            shift = Fraction((-first // info.time_base.numerator + 1) * info.time_base.numerator)
        options: dict[str, Any] = {}
        if shift:
            options["itsoffset"] = str(int(shift))
        if info.jumps:  # ffmpeg looks for jumps from 0 on
            options["seek_timestamp"] = 1  # without -copyts: or the times would be moved to begin at 0
            options["itsoffset"] = f"{float(shift - info.origin):.6f}"
        elif self._start is not None and self._start + info.origin > first + 3:
            options["noaccurate_seek"] = None
            options["seek_timestamp"] = 1
            options["ss"] = f"{float(self._start + info.origin - 2):.6f}"
        source = ffmpeg.input(file_url(info.path), **options)
        stream = ffmpeg.output(
            source[str(info.stream.index)],
            "pipe:1",
            format="nut",
            vcodec="rawvideo",
            pix_fmt="rgb24",
            fps_mode="passthrough",
            enc_time_base="demux" if self._fps is None else "filter",
            vf=decode_filters(info, fps=self._fps),
            map_metadata=-1,
        )
        command = command_line(stream, before=clock_options(info), log="level+info")
        return command + (read_all(0) if info.jumps else []), shift

    def _run(self, read: int) -> None:
        """The thread: packets into frames into the queue, and at last the end or an error."""
        import av

        try:
            with av.open(f"pipe:{read}", "r", format="nut") as container:
                for frame in self._frames(container):
                    if not self._put(frame):
                        return
            self._put(self._verdict())
        except av.error.FFmpegError:  # not even a header came
            self._put(self._failure())
        except Exception as error:
            self._put(error)
        finally:
            os.close(read)

    def _put(self, item: object) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _frames(self, container: Any) -> Iterator[Frame]:
        import av

        stream = container.streams.video[0]
        shape = (stream.height, stream.width, 3)
        if (stream.width, stream.height) != (self.info.width, self.info.height):
            raise MediaError(f"{self.info.path} decodes as {stream.width}x{stream.height}, not as its header says")
        unit = Fraction(stream.time_base)
        tick = self.time_base
        offset = self._shift + (0 if self.info.jumps else self.info.origin)
        last: Fraction | None = None
        pending: tuple[Any, Fraction] | None = None
        packets = container.demux(stream)
        while True:
            before = time.perf_counter()
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, ValueError):
                packet = None  # the pipe broke: ffmpeg's exit code tells why
            self.waited += time.perf_counter() - before
            if packet is None or packet.size != shape[0] * shape[1] * 3:
                break
            pts = round((packet.pts * unit - offset) / tick) * tick
            if last is not None and pts <= last:
                pts = last + tick
                self.retimed += 1
            last = pts
            if self._start is not None and pts < self._start:
                continue
            if pending is not None:
                yield self._frame(pending, shape, pts - pending[1])
            pending = (packet, pts)
        if pending is not None:
            yield self._frame(pending, shape, None)

    def _frame(self, pending: tuple[Any, Fraction], shape: tuple[int, int, int], duration: Fraction | None) -> Frame:
        packet, pts = pending
        data = np.frombuffer(packet, dtype=np.uint8).reshape(shape)  # (H, W, 3), shares the packet's memory
        frame = Frame(data=data, index=self._index, pts=pts, duration=duration)
        self._index += 1
        return frame

    def _verdict(self) -> object:
        """The end, or the error that stopped ffmpeg before it gave a single frame."""
        assert self._process is not None
        code = self._process.wait()
        return self._failure() if code != 0 and self._index == 0 else _END

    def _failure(self) -> Exception:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        return explain(self._process.complaints, f"{self.info.path} cannot be decoded")

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames.

        Raises:
            MediaError: decoding failed before the first frame.
            KeyboardInterrupt: `halt` is set while ffmpeg has nothing to give.
        """
        while True:
            try:
                item = self._queue.get(timeout=0.2)
            except queue.Empty:
                if self.halt is not None and self.halt.is_set():
                    raise KeyboardInterrupt from None
                continue
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
