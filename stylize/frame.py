"""The two values that flow through the program: a frame, and what turns frames into frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["NOTHING", "Frame", "FrameTransform", "Image"]

Image = npt.NDArray[np.uint8]
"""RGB uint8, ``(height, width, 3)``, C-contiguous."""

NOTHING: Image = np.zeros((0, 0, 3), np.uint8)
"""Stands for a picture that is no longer needed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One picture and its place in time."""

    data: Image
    """RGB uint8 ``(height, width, 3)``, as it is to be shown: rotation applied, SDR BT.709."""
    index: int
    """Number of the frame in presentation order, from 0, counted over the whole source."""
    pts: Fraction
    """Presentation time in seconds, exact."""
    duration: Fraction | None = None
    """Seconds until the next frame, where the container says so."""

    def __post_init__(self) -> None:
        if self.data.ndim != 3 or self.data.shape[2] != 3 or self.data.dtype != np.uint8:
            raise ValueError(f"a frame is RGB uint8 (H, W, 3), got {self.data.shape = }, {self.data.dtype = }")
        if self.index < 0:
            raise ValueError(f"frames count from 0, got {self.index = }")


class FrameTransform(Protocol):
    """Turns frames into frames of the same size, index and time.

    A transform may look at neighbours (smoothed conditions), so a segment hands it `context` more
    frames on either side than it wants back.  What comes out for a frame may depend only on frames
    within `context` of it: then any cut into segments gives the same pictures.
    """

    @property
    def context(self) -> int:
        """How many frames before and after a frame its result depends on; 0 for a still filter."""
        ...

    def __call__(self, frames: Iterable[Frame], wanted: range) -> Iterator[Frame]:
        """Yield the result of each frame whose index is in `wanted`, in order."""
        ...
