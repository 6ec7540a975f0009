"""What can go wrong outside the trainer's own code.

TrainingError
├── DataError         the folders of photos or art
├── CheckpointError   a file that should hold weights
└── DivergenceError   the losses are no longer numbers
"""

from __future__ import annotations

__all__ = ["CheckpointError", "DataError", "DivergenceError", "TrainingError"]


class TrainingError(Exception):
    """Base of all errors that the command line shows as one line."""


class DataError(TrainingError):
    """A folder is missing, empty, or holds too few readable images."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be read, written, or belongs to another architecture."""


class DivergenceError(TrainingError):
    """A loss became NaN or infinite; the last good checkpoint is kept."""
