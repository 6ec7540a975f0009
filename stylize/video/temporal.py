"""What keeps a video calm: scene changes, and conditions smoothed within a scene.

Global flicker comes from conditions (layout and tones, or normalisation statistics) that jump from frame to
frame.  They are averaged here over a window of frames before and after.  A finite window, not a running average:
the result for a frame depends on its neighbours alone, so a video may be cut into segments anywhere, resumed,
or shared out over machines, and gives the same pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from engine.conditions import Conditions
from engine.spec import F32
from stylize.frame import Image

__all__ = ["CUT_CONTENT", "SceneSignature", "carried", "is_cut", "window_weights"]

CUT_CONTENT = 27.0
"""Mean change of hue, saturation and value that can be a cut: the threshold of PySceneDetect's
content detector, on the same 0..255 scale."""

CUT_RATIO = 3.0
"""A cut also stands out from the changes around it (PySceneDetect's adaptive detector), so that a
running camera is no series of cuts."""


SURE = 0.3
"""Peak of the phase correlation, 0..1, from which on a movement is believed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneSignature:
    """A small HSV picture of a frame."""

    hsv: npt.NDArray[np.int16]
    """``(36, 64, 3)``."""

    @classmethod
    def of(cls, image: Image) -> SceneSignature:
        """Shrink and convert a frame."""
        small = cv2.resize(image, (64, 36), interpolation=cv2.INTER_AREA)
        return cls(hsv=cv2.cvtColor(small, cv2.COLOR_RGB2HSV).astype(np.int16))

    def change(self, other: SceneSignature) -> float:
        """Mean absolute difference, 0..255; hue is an angle and weighs with saturation."""
        delta = np.abs(self.hsv - other.hsv)
        hue = np.minimum(delta[..., 0], 180 - delta[..., 0]) * (255 / 90)
        # The hue of grey is noise.
        grey = np.minimum(self.hsv[..., 1], other.hsv[..., 1]) / 255.0
        return float((hue * grey + delta[..., 1] + delta[..., 2]).mean() / 3)

    def moved(self, before: SceneSignature) -> tuple[float, float]:
        """How far the picture has moved since, in widths and heights: phase correlation (Kuglin and Hines 1975).

        ``(0, 0)`` where the two do not agree on one movement.
        """
        window = cv2.createHanningWindow((64, 36), cv2.CV_64F)
        first, second = (signature.hsv[..., 2].astype(np.float64) for signature in (before, self))
        (x, y), response = cv2.phaseCorrelate(first, second, window)
        return (x / 64, y / 36) if response >= SURE else (0.0, 0.0)


def is_cut(changes: Sequence[float], at: int, reach: int = 2) -> bool:
    """Whether a new scene starts with frame `at`; ``changes[i]`` is the change from frame i-1 to i."""
    change = changes[at]
    if change < CUT_CONTENT:
        return False
    around = [c for i, c in enumerate(changes) if i != at and abs(i - at) <= reach]
    return change >= CUT_RATIO * (float(np.mean(around)) if around else 0.0)


def window_weights(distance: npt.NDArray[np.int64], radius: int) -> npt.NDArray[np.float64]:
    """Raised-cosine weight of frames at a distance in frames; zero beyond `radius`."""
    inside = np.abs(distance) <= radius
    return np.where(inside, 0.5 + 0.5 * np.cos(np.pi * distance / (radius + 1)), 0.0)


def carried(conditions: Conditions, x: float, y: float) -> Conditions:
    """Conditions of a picture whose content has moved by so many widths and heights; what comes in repeats the border.

    Less than half a cell is none: to resample a map softens it.
    """

    def moved(values: F32) -> F32:
        height, width = values.shape[1:]
        if max(abs(x) * width, abs(y) * height) < 0.5:
            return values
        matrix = np.array([[1, 0, x * width], [0, 1, y * height]], np.float32)
        planes = [cv2.warpAffine(plane, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE) for plane in values]
        return np.asarray(np.stack(planes), np.float32)

    return Conditions(
        vectors=conditions.vectors, maps={name: moved(values) for name, values in conditions.maps.items()}
    )
