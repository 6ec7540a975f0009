"""What can go wrong outside the program's own code; the command line shows each as one line.

StylizeError
├── InputError         a source that is missing, unreadable, empty or not what it claims to be
├── OutputError        a target that exists, cannot be written, or a disk that is full
├── MediaError         ffmpeg or a container that fails half-way; `partial` tells what was delivered
├── ToolError          a program or library that is missing or too old
├── ClusterError       a cluster that cannot be reached, or whose workers do not start
└── ResumeError        a journal that belongs to other settings or another source
"""

from __future__ import annotations

__all__ = ["ClusterError", "InputError", "MediaError", "OutputError", "ResumeError", "StylizeError", "ToolError"]


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
