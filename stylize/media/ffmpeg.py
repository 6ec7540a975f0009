"""The ffmpeg program: which one is used, how it is run, and what its complaints mean."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from stylize.errors import MediaError, OutputError, StylizeError, ToolError
from stylize.media.pipe import GRACE

__all__ = ["Ffmpeg", "FfmpegProcess", "command_line", "explain", "file_url", "find_ffmpeg", "open_media", "stem_for"]

OVERRIDE = "STYLIZE_FFMPEG"
"""Environment variable that names the ffmpeg program to use instead of the one found."""

OLDEST_LIBAVUTIL = 58
"""libavutil of ffmpeg 6.0, the first release with `-fps_mode` and `-enc_time_base demux` as used here."""

NEEDED_FILTERS = frozenset({"zscale", "tonemap", "bwdif"})


@dataclass(frozen=True, kw_only=True)
class Ffmpeg:
    """An ffmpeg program that can do what is asked of it here."""

    path: str
    """Where the program is."""
    version: str
    """Its own words, such as ``6.1.1-3ubuntu5``; part of a journal's key."""
    encoders: frozenset[str]
    """Names of all encoders it was built with (hardware encoders may still refuse to start)."""


@functools.lru_cache(maxsize=1)
def find_ffmpeg() -> Ffmpeg:
    """Return the ffmpeg to use: `STYLIZE_FFMPEG`, else the system's if it will do, else imageio-ffmpeg's.

    Raises:
        ToolError: none is there, or the named one is too old or lacks a filter.
    """
    named = os.environ.get(OVERRIDE)
    if named:
        return _examine(named)
    system = shutil.which("ffmpeg")
    if system:
        with contextlib.suppress(ToolError):
            return _examine(system)
    try:
        import imageio_ffmpeg

        bundled = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise ToolError(
            "no usable ffmpeg was found: pip install imageio-ffmpeg, or install ffmpeg 6 or newer"
        ) from error
    return _examine(bundled)


def _examine(path: str) -> Ffmpeg:
    """Ask the program at `path` for its version, filters and encoders."""

    def ask(*words: str) -> str:
        try:
            done = subprocess.run(
                [path, "-hide_banner", *words], capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ToolError(f"{path} does not run as ffmpeg ({error}): install ffmpeg 6 or newer") from error
        return done.stdout.decode(errors="replace")

    about = ask("-version")
    release = re.search(r"^ffmpeg version (\S+)", about)
    library = re.search(r"^libavutil\s+(\d+)\.", about, re.MULTILINE)
    if release is None or library is None or int(library.group(1)) < OLDEST_LIBAVUTIL:
        raise ToolError(f"{path} is too old: ffmpeg 6 or newer is needed (pip install imageio-ffmpeg brings one)")
    filters = set(re.findall(r"^ [A-Z.|]+ (\w+) ", ask("-filters"), re.MULTILINE))
    if missing := NEEDED_FILTERS - filters:
        raise ToolError(f"{path} lacks {', '.join(sorted(missing))}: pip install imageio-ffmpeg brings a fuller ffmpeg")
    encoders = frozenset(re.findall(r"^ [VAS][A-Z.]{5} (\S+)", ask("-encoders"), re.MULTILINE))
    return Ffmpeg(path=path, version=release.group(1), encoders=encoders)


_UNSPELLABLE: dict[str, str] = {}
"""Stand-ins for names that are not UTF-8, which ffmpeg-python cannot take; `command_line` puts the names back."""


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def file_url(path: Path) -> str:
    """`path` in the form in which ffmpeg takes it as a file whatever its name looks like; for `command_line`."""
    url = f"file:{path}"
    if _is_utf8(url):
        return url
    token = f"file:{hashlib.sha256(os.fsencode(url)).hexdigest()}"
    _UNSPELLABLE[token] = url
    return token


@contextlib.contextmanager
def open_media(path: Path) -> Iterator[Any]:
    """Open `path` for reading with PyAV, whatever characters its name has.

    Raises:
        av.error.FFmpegError: what libavformat says; OSError if the file itself cannot be opened.
    """
    import av

    url = f"file:{path}"
    if _is_utf8(url):
        with av.open(url, metadata_errors="replace") as container:
            yield container
    else:  # PyAV cannot spell it; a file object needs no name
        with path.open("rb") as file, av.open(file, metadata_errors="replace") as container:
            yield container


def stem_for(name: str, *, suffix: str = "", limit: int = 255) -> str:
    """A hidden file name for work on `name`, short enough for a file system that takes `limit` bytes."""
    plain = f".{name}{suffix}"
    if len(os.fsencode(plain)) <= limit:
        return plain
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}{suffix}"


def command_line(
    stream: Any, *, extra: Sequence[str] = (), before: Sequence[str] = (), log: str = "level+warning"
) -> list[str]:
    """The argument list of an ffmpeg-python output `stream`; `extra` goes last before the output's name."""
    arguments = [_UNSPELLABLE.get(word, word) for word in stream.compile(cmd=find_ffmpeg().path)]
    arguments[-1:-1] = list(extra)
    arguments[1:1] = ["-hide_banner", "-nostdin", "-nostats", "-y", "-loglevel", log, *before]
    return arguments


class FfmpegProcess:
    """A running ffmpeg whose complaints are collected; a context manager that leaves no process behind."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        stdin: int | IO[bytes] | None = None,
        stdout: int | IO[bytes] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._arguments = list(arguments)
        self._stdin = subprocess.DEVNULL if stdin is None else stdin
        self._stdout = subprocess.DEVNULL if stdout is None else stdout
        self._cwd = cwd
        self._lines: deque[str] = deque(maxlen=200)
        self.errors = 0
        """How many lines of level error or worse were printed."""
        self.resized = 0
        """How often the picture changed its size or format in mid-stream."""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> FfmpegProcess:
        """Start the program, in a session of its own so that Ctrl-C reaches only us."""
        try:
            self._process = subprocess.Popen(
                self._arguments,
                stdin=self._stdin,
                stdout=self._stdout,
                stderr=subprocess.PIPE,
                cwd=self._cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise ToolError(f"ffmpeg could not be started ({error}): check the installation") from error
        self._reader = threading.Thread(target=self._read, name="ffmpeg-stderr", daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the program if it still runs."""
        self.kill()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        with self._process.stderr as pipe:
            for raw in pipe:
                line = raw.decode(errors="replace").rstrip()
                if "Reconfiguring filter graph" in line or "Changing video frame properties" in line:
                    self.resized += 1
                if "[error]" in line or "[fatal]" in line or "[panic]" in line:
                    self.errors += 1
                    self._lines.append(line)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code."""
        assert self._process is not None
        code = self._process.wait(timeout)
        self._reader.join(GRACE)  # its pipe may be held open by a process that we know nothing of
        return code

    def kill(self) -> None:
        """End the program at once; harmless if it has ended."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a process may hang in the kernel, on a dead disk
                self._process.wait(GRACE)
            self._reader.join(GRACE)

    @property
    def complaints(self) -> list[str]:
        """The last lines of level error, oldest first."""
        return list(self._lines)


_FULL = "the disk is full: free some room, then run the same command again (finished segments are kept)"


def explain(complaints: Sequence[str], what: str) -> StylizeError:
    """Turn ffmpeg's complaints into one error; `what` says what was being done, such as "encoding failed"."""
    text = "\n".join(complaints)
    if "No space left on device" in text or "Disk quota exceeded" in text or "File too large" in text:
        return OutputError(f"{what}: {_FULL}")
    if "Read-only file system" in text:
        return OutputError(f"{what}: the file system is read-only: choose another target with -o")
    if "Permission denied" in text:
        return OutputError(f"{what}: permission denied: choose another target with -o")
    cleaned = [re.sub(r"\[[^\]]*\] ?", "", line).strip() for line in complaints]
    reason = next((line for line in cleaned if line), "ffmpeg gave no reason")
    return MediaError(f"{what}: {reason}")
