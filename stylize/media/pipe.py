"""The writing end of a pipe to ffmpeg, in such a form that whoever writes can always be called off."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections import deque

__all__ = ["GRACE", "PipeWriter"]

GRACE = 10.0
"""Seconds that a thread is given to end before it is left behind, and an encoder before it is killed."""

_LOOK_MS = 100
"""Milliseconds between two looks whether the writer has been called off."""


class PipeWriter:
    """A file object for PyAV whose bytes `drain` brings into a pipe.

    Given the pipe itself, libavformat waits inside PyAV while the pipe is full; in closing a container PyAV holds
    the interpreter's lock meanwhile, so that no other thread runs and no signal is handled.  So PyAV writes
    to memory, at most a packet or a fragment at a time, and our own code waits for the pipe.
    """

    def __init__(self, descriptor: int) -> None:
        """Take over `descriptor`, the writing end of a pipe."""
        self._descriptor = descriptor
        self._cancelled = threading.Event()
        self._chunks: deque[bytes] = deque()
        self.write = self._chunks.append  # not a function of ours: PyAV would swallow a KeyboardInterrupt in it
        """What PyAV calls; it does not wait."""
        self._polled = os.name == "posix"
        if self._polled:
            os.set_blocking(descriptor, False)

    def take(self) -> bytes:
        """What has come together and is not drained yet, as one; it is not written then."""
        taken = b"".join(self._chunks)
        self._chunks.clear()
        return taken

    def drain(self) -> None:
        """Write what has come together; waits while the pipe is full.

        Raises:
            BrokenPipeError: nobody reads any more, or `cancel` was called.
        """
        while self._chunks:
            rest = memoryview(self._chunks.popleft())
            while rest:
                rest = rest[self._write_some(rest) :]

    def _write_some(self, data: memoryview) -> int:
        """Write what the pipe takes within `_LOOK_MS`; 0 if it takes nothing.  (Elsewhere than on POSIX: all.)"""
        if self._cancelled.is_set():
            raise BrokenPipeError(errno.EPIPE, "called off")
        if self._polled:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            if not poll.poll(_LOOK_MS):
                return 0
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0

    def cancel(self) -> None:
        """Let a `drain` that waits, and every later one, fail; may be called from any thread."""
        self._cancelled.set()

    def shut(self) -> None:
        """Close the descriptor; harmless if it is closed."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
