"""Optional filter against the flicker that smoothed conditions leave: neighbours along the motion.

Each stylized frame is averaged with its two neighbours, warped onto it by the motion of the *source*
(DIS optical flow, Kroeger et al. 2016, arXiv 1603.03590, at reduced size).  A neighbour counts only where
the flow there and back agrees and the source looks the same, so what was hidden leaves no ghost.  The
filter looks at three frames and no further: any cut into segments gives the same pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from stylize.frame import Frame, FrameTransform, Image

__all__ = ["FlowFilter", "agreement", "dense_flow", "flow_view", "warp"]

F32 = npt.NDArray[np.float32]

FLOW_SIDE = 480
"""Long side in pixels at which motion is measured."""

TOLERANCE = 1.0
"""Pixels, at that size, by which the flow there and back may miss."""

LIKENESS = 12.0
"""Levels by which a pixel of the source may differ from where it went."""


def flow_view(image: Image) -> npt.NDArray[np.uint8]:
    """The small grey picture on which motion is measured."""
    scale = min(1.0, FLOW_SIDE / max(image.shape[:2]))
    size = (max(16, round(image.shape[1] * scale)), max(16, round(image.shape[0] * scale)))
    return np.asarray(cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY))


def dense_flow(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> F32:
    """Where each pixel of `a` is found in `b`: displacement x, y in pixels, float32 ``(H, W, 2)``."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    # OpenCV's stubs ask for an initial flow where the function takes None.
    return np.asarray(dis.calc(a, b, None), np.float32)  # type: ignore[call-overload]


def warp(image: npt.NDArray[np.uint8] | F32, flow: F32) -> npt.NDArray[np.uint8] | F32:
    """`image` seen from the frame that `flow` starts in; the flow is scaled to the image's size."""
    height, width = image.shape[:2]
    scale = np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)
    full = cv2.resize(flow * scale, (width, height), interpolation=cv2.INTER_LINEAR)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    mapped = cv2.remap(image, x + full[..., 0], y + full[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(mapped, image.dtype)  # type: ignore[return-value]


def agreement(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], there: F32, back: F32) -> F32:
    """Trust 0..1 ``(H, W)`` that a pixel of `a` and where it went in `b` show the same thing.

    Forward-backward check after Sundaram et al. 2010, and likeness of the two pictures.
    """
    height, width = a.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    at = (x + there[..., 0], y + there[..., 1])
    returned = cv2.remap(back, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    miss = np.linalg.norm(there + returned, axis=-1)
    length = np.linalg.norm(there, axis=-1)
    unlike = np.abs(a.astype(np.float32) - cv2.remap(b, *at, cv2.INTER_LINEAR).astype(np.float32))
    inside = (at[0] >= 0) & (at[0] <= width - 1) & (at[1] >= 0) & (at[1] <= height - 1)
    trust = (1 - miss / (TOLERANCE + 0.05 * length)).clip(0, 1) * (1 - unlike / LIKENESS).clip(0, 1) * inside
    # One untrusted pixel makes its neighbourhood doubtful: borders of what moves are where ghosts start.
    return np.asarray(cv2.blur(cv2.erode(trust.astype(np.float32), np.ones((3, 3))), (3, 3)), np.float32)


@dataclass(eq=False)
class _Passed:
    """A frame before and after the inner transform."""

    frame: Frame
    view: npt.NDArray[np.uint8]
    onward: tuple[F32, F32] | None = None
    """Flow to the next frame and back, once that is there."""


@dataclass(eq=False)
class FlowFilter:
    """`stylize.frame.FrameTransform` around another one.

    Args:
        inner: what stylizes the frames.
        strength: weight of a fully trusted neighbour, 0..1, against 1 for the frame itself.
    """

    inner: FrameTransform
    strength: float = 1.0

    @property
    def context(self) -> int:
        """That of the inner transform, and one more frame."""
        return self.inner.context + 1

    def __call__(self, frames: Iterable[Frame], wanted: range) -> Iterator[Frame]:
        """See `FrameTransform`."""
        views: dict[int, npt.NDArray[np.uint8]] = {}

        def watched() -> Iterator[Frame]:
            for frame in frames:
                views[frame.index] = flow_view(frame.data)
                yield frame

        inner_range = range(max(0, wanted.start - 1), wanted.stop + 1)
        passed: list[_Passed] = []
        for frame in self.inner(watched(), inner_range):
            passed.append(_Passed(frame, views.pop(frame.index)))
            if len(passed) >= 2:
                a, b = passed[-2], passed[-1]
                a.onward = dense_flow(a.view, b.view), dense_flow(b.view, a.view)
            for index in [i for i in views if i < frame.index]:
                del views[index]
            if len(passed) >= 2 and passed[-2].frame.index in wanted:
                yield self._blend(passed[-2], passed[-3] if len(passed) > 2 else None, passed[-1])
            del passed[:-2]
        if passed and passed[-1].frame.index in wanted:
            yield self._blend(passed[-1], passed[-2] if len(passed) > 1 else None, None)

    def _blend(self, own: _Passed, before: _Passed | None, after: _Passed | None) -> Frame:
        motions = []
        if before is not None and before.onward is not None:
            motions.append((before, *before.onward[::-1]))
        if after is not None and own.onward is not None:
            motions.append((after, *own.onward))
        total = own.frame.data.astype(np.float32)
        weights = np.ones(own.frame.data.shape[:2], np.float32)
        for other, there, back in motions:
            trust = self.strength * agreement(own.view, other.view, there, back)
            size = (own.frame.data.shape[1], own.frame.data.shape[0])
            trust = np.asarray(cv2.resize(trust, size, interpolation=cv2.INTER_LINEAR), np.float32)
            total += warp(other.frame.data, there).astype(np.float32) * trust[..., None]
            weights += trust
        data = np.rint(total / weights[..., None]).astype(np.uint8)
        frame = own.frame
        return Frame(data=data, index=frame.index, pts=frame.pts, duration=frame.duration)
