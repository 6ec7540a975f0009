"""What can go wrong; the command line shows each as one line, and `fault` says it of one file of several.

StylizeError
├── InputError         a source that is missing, unreadable, empty or not what it claims to be
├── OutputError        a target that exists, cannot be written, or a disk that is full
├── MediaError         ffmpeg or a container that fails half-way; `partial` tells what was delivered
├── ToolError          a program or library that is missing or too old
├── ClusterError       a cluster that cannot be reached, or whose workers do not start
└── ResumeError        a journal that belongs to other settings or another source
"""

from __future__ import annotations

import logging

from engine.errors import EngineError

__all__ = [
    "ClusterError", "InputError", "MediaError", "OutputError", "ResumeError", "StylizeError", "ToolError", "fault",
]  # fmt: skip

_log = logging.getLogger(__name__)


class StylizeError(Exception):
    """Base of all errors that are the world's fault; the message says what to do next."""


class InputError(StylizeError):
    """The source is missing, unreadable, empty or not what it claims to be."""


class OutputError(StylizeError):
    """The target exists already, cannot be written, or there is no room for it."""


class MediaError(StylizeError):
    """Decoding or encoding failed half-way."""


class ToolError(StylizeError):
    """A program or library is missing or too old; the message names the command that installs it."""


class ClusterError(StylizeError):
    """A cluster cannot be reached, or its workers do not start."""


class ResumeError(StylizeError):
    """A journal of an interrupted run belongs to other settings or another source."""


def fault(error: BaseException, what: object = "") -> str:
    """What went wrong with one file, as one line; the rest of the work goes on.

    An error that names its remedy is passed on as it is, and so is a ValueError, which is about an argument.  What the
    system refuses is told with `what`, the file.  Anything else is a fault of this program: it keeps its type, and
    its trace is logged for -v.
    """
    place = f"{what}: " if str(what) else ""
    if isinstance(error, (StylizeError, EngineError, ValueError)) and not isinstance(error, UnicodeError):
        _log.debug("%sfailed", place, exc_info=error)
        return str(error)
    if isinstance(error, OSError):
        _log.debug("%sfailed", place, exc_info=error)
        words = error.strerror or " ".join(str(error).split()) or type(error).__name__
        named = f" ({error.filename})" if error.filename and str(error.filename) != str(what) else ""
        return f"{place}{words}{named}: check that the path is right, and may be read or written"
    _log.info("%sa fault of this program", place, exc_info=error)
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{place}a fault of this program, please report it with what -v shows: {words}"
