"""How steady a stylization is from frame to frame of a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from training.data.image_io import CLIP_SUFFIXES, fit
from training.data.pseudo_pairs import F32, U8
from training.errors import DataError

__all__ = ["clip_files", "read_frames", "warping_error"]

Pixels = TypeVar("Pixels", U8, F32)


def clip_files(folder: Path) -> list[Path]:
    """Videos below a folder, sorted; DataError if there are none."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in CLIP_SUFFIXES)
    if not files:
        raise DataError(f"{folder} holds no clip ({', '.join(sorted(CLIP_SUFFIXES))}): give another folder")
    return files


def read_frames(path: Path, *, count: int = 8, long_side: int = 384, skip: int = 12) -> list[U8]:
    """Some successive frames of a clip, after `skip` of them, scaled to `long_side` pixels.

    DataError if the file is no video or holds fewer than two frames.
    """
    import av

    try:
        with av.open(str(path)) as container:
            frames = [fit(np.asarray(f.to_ndarray(format="rgb24"), np.uint8), long_side)
                      for f in _window(container.decode(video=0), skip, count)]  # fmt: skip
    except (av.FFmpegError, IndexError, OSError) as error:
        raise DataError(f"{path} cannot be decoded ({error}): remove it or give other clips") from error
    if len(frames) < 2:
        raise DataError(f"{path} holds fewer than two frames: give longer clips")
    return [np.ascontiguousarray(f) for f in frames]


def _window(frames: Iterator[Any], skip: int, count: int) -> Iterator[Any]:
    """`count` frames after `skip`, or the last ones of a shorter clip."""
    kept: list[Any] = []
    for i, frame in enumerate(frames):
        kept = [*kept, frame][-count:]
        if i + 1 == skip + count:
            break
    yield from kept


def warping_error(source: Sequence[U8], stylized: Sequence[U8]) -> tuple[float, float]:
    """Mean absolute change, in 8-bit levels, that the motion of the source does not explain.

    Lai et al. 2018 (arXiv 1808.00449): each frame is compared with its predecessor, warped along the
    flow of the *source* and only where that flow is consistent both ways (occlusion test of Ruder et
    al. 2016).  The flow is DIS (Kroeger et al. 2016).

    Returns:
        The error of `stylized`, and that of `source` itself: their ratio is what stylizing adds.
    """
    totals = np.zeros(3)
    for i in range(1, len(source)):
        flow, seen = _backward_flow(source[i], source[i - 1])
        for k, frames in enumerate((stylized, source)):
            difference = cv2.absdiff(frames[i], _warp(frames[i - 1], flow)).astype(np.float32).mean(-1)
            totals[k] += float(difference[seen].sum())
        totals[2] += int(seen.sum())
    visible = max(totals[2], 1.0)
    return totals[0] / visible, totals[1] / visible


def _backward_flow(frame: U8, previous: U8) -> tuple[F32, npt.NDArray[np.bool_]]:
    """Where each pixel of `frame` was in `previous`, ``(H, W, 2)``, and where that can be trusted."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    a, b = (cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in (frame, previous))
    backward = np.asarray(dis.calc(a, b, None), np.float32)  # type: ignore[call-overload]
    forward = np.asarray(dis.calc(b, a, None), np.float32)  # type: ignore[call-overload]
    returned = backward + _warp(forward, backward)
    lengths = (backward**2).sum(-1) + (_warp(forward, backward) ** 2).sum(-1)
    consistent = (returned**2).sum(-1) <= 0.01 * lengths + 0.5
    h, w = a.shape
    y, x = np.mgrid[:h, :w] + backward[..., ::-1].transpose(2, 0, 1)
    inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    return backward, consistent & inside


def _warp(image: Pixels, flow: F32) -> Pixels:
    h, w = flow.shape[:2]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    warped = cv2.remap(image, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, image.dtype)  # type: ignore[return-value,unused-ignore]
