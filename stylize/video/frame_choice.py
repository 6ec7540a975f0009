"""A few well-chosen frames of a video: one for every scene, sharp and well exposed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import cv2
import numpy as np

from stylize.errors import InputError
from stylize.frame import Frame, Image
from stylize.media.ffmpeg import open_media
from stylize.media.video.probe import VideoInfo
from stylize.media.video.source import VideoSource
from stylize.video.temporal import CUT_CONTENT, SceneSignature

__all__ = ["Sample", "choose", "choose_times", "frame_at", "samples"]

SAMPLES = 24
"""Frames that are looked at."""

SHORT = 600
"""Videos of up to so many frames are decoded whole; of longer ones, key frames are looked at."""

LOOK_SIDE = 320
"""Width at which sharpness is judged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """A frame that was looked at."""

    pts: Fraction
    """Seconds, on the clock of `VideoSource`."""
    signature: SceneSignature
    score: float
    """The sharper and the better exposed, the higher."""

    @classmethod
    def of(cls, image: Image, pts: Fraction) -> Sample:
        """Judge a small picture."""
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        clipped = float(((grey < 8) | (grey > 247)).mean())
        sharpness = float(np.log1p(cv2.Laplacian(grey, cv2.CV_32F).var()))
        return cls(pts=pts, signature=SceneSignature.of(image), score=sharpness * (1 - clipped))


def choose_times(info: VideoInfo, count: int) -> list[Fraction]:
    """Presentation times of at most `count` frames, each the best of its scene, in order.

    Raises InputError where no frame can be decoded.
    """
    found = list(samples(info))
    if not found:
        raise InputError(f"{info.path}: no frame of its video can be decoded: is it damaged?")
    return [sample.pts for sample in choose(found, count)]


def choose(found: Sequence[Sample], count: int) -> list[Sample]:
    """The best sample of each of the `count` scenes that differ most, in order."""
    changes = [b.signature.change(a.signature) for a, b in itertools.pairwise(found)]
    strongest = sorted(range(len(changes)), key=lambda i: -changes[i])
    cuts = sorted(i + 1 for i in strongest[: max(0, count - 1)] if changes[i] >= CUT_CONTENT)
    edges = [0, *cuts, len(found)]
    return [max(found[a:b], key=lambda sample: sample.score) for a, b in itertools.pairwise(edges)]


def samples(info: VideoInfo) -> Iterator[Sample]:
    """Frames spread over the video, in order; colours and rotation are as they are stored."""
    with open_media(info.path) as container:
        stream = container.streams[info.stream.index]
        stream.thread_type = "AUTO"
        if info.frames is not None and info.frames > SHORT and info.duration:
            stream.codec_context.skip_frame = "NONKEY"
            yield from _key_frames(container, stream, info)
        else:
            step = max(1, -(-(info.frames or SHORT) // SAMPLES))
            for number, frame in enumerate(_decoded(container, stream)):
                if number % step == step // 2 or (info.frames is not None and info.frames <= step):
                    yield _sample(frame, info)


def _key_frames(container: Any, stream: Any, info: VideoInfo) -> Iterator[Sample]:
    last = Fraction(-1)
    start = (info.start or Fraction(0)) + info.origin
    assert info.duration is not None
    for number in range(SAMPLES):
        target = start + info.duration * (2 * number + 1) / (2 * SAMPLES)
        container.seek(int(target / stream.time_base), stream=stream)
        frame = next(_decoded(container, stream), None)
        if frame is not None and frame.pts * stream.time_base > last:
            last = frame.pts * stream.time_base
            yield _sample(frame, info)


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Frames that decode and have a time; damaged ones are passed over."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        try:
            yield from (frame for frame in packet.decode() if frame.pts is not None)
        except av.error.FFmpegError:
            continue


def _sample(frame: Any, info: VideoInfo) -> Sample:
    width = min(LOOK_SIDE, frame.width)
    height = max(2, round(frame.height * width / frame.width))
    small = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    return Sample.of(np.ascontiguousarray(small), frame.pts * frame.time_base - info.origin)


def frame_at(info: VideoInfo, time: Fraction) -> Frame:
    """The first frame at or after a time in seconds, as shown; the last one where there is none after it.

    Raises InputError where the time lies beyond the end.
    """
    end = None if info.duration is None else info.duration + max(Fraction(0), info.start or Fraction(0))
    if end is not None and time > end:
        raise InputError(f"{info.path} is {float(end):.2f} s long: {float(time):.2f} s lies beyond its end")
    for start in (time, max(Fraction(0), time - 2), Fraction(0)):
        with VideoSource(info, start=start) as source:
            last = None
            for frame in source:
                last = frame
                if frame.pts >= time:
                    break
            if last is not None:
                return last
    raise InputError(f"{info.path}: no frame of its video can be decoded: is it damaged?")
