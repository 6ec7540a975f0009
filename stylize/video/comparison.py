"""Source and result of a video together: a video of both, and figures on how far apart and how calm they are."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from engine.metrics import psnr
from stylize.errors import InputError
from stylize.frame import Frame, Image
from stylize.media.video.codecs import encoder_for
from stylize.media.video.probe import VideoInfo, probe_video
from stylize.media.video.settings import VideoSettings
from stylize.media.video.sink import FrameFormat, VideoSink
from stylize.media.video.source import VideoSource
from stylize.video.temporal import CUT_CONTENT, SceneSignature

__all__ = ["Figures", "Flicker", "compare_videos", "composed", "pairs"]

log = logging.getLogger(__name__)

MODES = ("split", "side")
CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".m4v": "mp4", ".mkv": "matroska"}

Grey = npt.NDArray[np.float32]

STILL = 2.0
"""Grey levels by which a source's pixel may change and still count as standing still."""

MEASURED_SIDE = 480
"""Long side at which flicker is measured: below it, grain and codec noise average out."""


@dataclass(kw_only=True)
class Flicker:
    """How a video changes from frame to frame, in grey levels (0..255); cuts are left out."""

    tone: float = 0.0
    """Change of the mean brightness."""
    still: float = 0.0
    """Change of pixels that stand still in the source."""


@dataclass(kw_only=True)
class Figures:
    """What a comparison measured."""

    frames: int = 0
    """Frames of the result."""
    psnr_mean: float = math.inf
    """Of the result to the source, mean over the frames, in dB: how much the look changes."""
    psnr_least: float = math.inf
    psnr_least_at: float = 0.0
    """Where that is, in seconds."""
    source: Flicker = field(default_factory=Flicker)
    result: Flicker = field(default_factory=Flicker)
    still_share: float = 0.0
    """Part of the source's pixels that stand still, on average."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite PSNR (equal pictures) becomes None."""
        values = asdict(self)
        return {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in values.items()}

    def lines(self) -> list[str]:
        """A table for people."""
        rows = [
            ("", "source", "result"),
            ("tone flicker", f"{self.source.tone:.3f}", f"{self.result.tone:.3f}"),
            ("flicker of still areas", f"{self.source.still:.3f}", f"{self.result.still:.3f}"),
        ]
        distance = f"{self.psnr_mean:.1f} dB on average, least {self.psnr_least:.1f} dB at {self.psnr_least_at:.2f} s"
        if math.isinf(self.psnr_least):
            distance = "identical"
        return [
            *(f"{name:24}{a:>9}{b:>9}" for name, a, b in rows),
            f"PSNR to the source: {distance} ({self.frames} frames)",
            f"Flicker: mean change from frame to frame in grey levels; {self.still_share:.0%} of the pixels are still",
        ]


class _Meter:
    """Adds up `Figures` frame by frame."""

    def __init__(self) -> None:
        self.figures = Figures()
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._last: tuple[Grey, Grey] | None = None
        self._scene: SceneSignature | None = None

    def add(self, source: Image, result: Image, pts: Fraction) -> None:
        figures = self.figures
        distance = psnr(source, result)
        figures.frames += 1
        if math.isfinite(distance):
            self._note("psnr", distance)
        if distance < figures.psnr_least:
            figures.psnr_least, figures.psnr_least_at = distance, float(pts)
        now, scene = (_grey(source), _grey(result)), SceneSignature.of(source)
        if self._last is not None and self._scene is not None and scene.change(self._scene) < CUT_CONTENT:
            changes = [np.abs(now[i] - self._last[i]) for i in (0, 1)]
            still = changes[0] <= STILL
            self._note("share", float(still.mean()))
            for name, i in (("source", 0), ("result", 1)):
                self._note(f"{name}.tone", abs(float(now[i].mean() - self._last[i].mean())))
                if still.any():
                    self._note(f"{name}.still", float(changes[i][still].mean()))
        self._last, self._scene = now, scene

    def _note(self, name: str, value: float) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + value
        self._counts[name] = self._counts.get(name, 0) + 1

    def done(self) -> Figures:
        def mean(name: str, otherwise: float = 0.0) -> float:
            return self._sums[name] / self._counts[name] if name in self._counts else otherwise

        figures = self.figures
        figures.psnr_mean = mean("psnr", math.inf)
        figures.still_share = mean("share")
        for name, flicker in (("source", figures.source), ("result", figures.result)):
            flicker.tone, flicker.still = mean(f"{name}.tone"), mean(f"{name}.still")
        return figures


def _grey(image: Image) -> Grey:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = MEASURED_SIDE / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.float32)


def pairs(source: Iterator[Frame], result: Iterator[Frame]) -> Iterator[tuple[Frame, Frame]]:
    """For every frame of the result the source's frame that is shown at its time."""
    current = next(source, None)
    following = next(source, None)
    for frame in result:
        # Containers round times to their own ticks: half a millisecond is the same time.
        while following is not None and following.pts <= frame.pts + Fraction(1, 2000):
            current, following = following, next(source, None)
        if current is None:
            return
        yield current, frame


def composed(source: Image, result: Image, mode: str) -> Image:
    """Both pictures of one size in one: `split` left half and right half with a line between, or `side` by side."""
    if mode == "side":
        return np.ascontiguousarray(np.concatenate([source, result], axis=1))
    width = source.shape[1]
    both = result.copy()
    both[:, : width // 2] = source[:, : width // 2]
    line = max(1, width // 960)
    both[:, width // 2 - line : width // 2 + line] = 255
    return both


def compare_videos(
    source: Path,
    result: Path,
    target: Path | None,
    *,
    mode: str = "split",
    progress: Callable[[int, int | None], None] | None = None,
) -> Figures:
    """Measure a result against its source, and write both into `target` (no sound) unless it is None.

    Raises InputError for files that cannot be read or share no frame, OutputError for a target that cannot
    be written, ValueError for a mode or a container that does not exist.
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode, got {mode!r}; allowed: {', '.join(MODES)}")
    before, after = probe_video(source), probe_video(result)
    if before.duration and after.duration and abs(before.duration - after.duration) > 1:
        lasts = " and ".join(f"{info.path.name} {float(info.duration or 0):.1f} s" for info in (before, after))
        log.warning("the two differ in length (%s): is this the result of that source?", lasts)
    meter = _Meter()
    part = None if target is None else target.with_name(f"{target.name}.part")
    try:
        with contextlib.ExitStack() as stack:
            sink = None if target is None or part is None else stack.enter_context(_sink(target, part, after, mode))
            frames = [iter(stack.enter_context(VideoSource(info))) for info in (before, after)]
            for old, new in pairs(*frames):
                picture = _fitted(old.data, new.data.shape[:2])
                meter.add(picture, new.data, new.pts)
                if sink is not None:
                    both = composed(picture, new.data, mode)
                    sink.write(Frame(data=both, index=new.index, pts=new.pts, duration=new.duration))
                if progress is not None:
                    progress(meter.figures.frames, after.frames)
            if meter.figures.frames == 0:
                raise InputError(f"{source} and {result} have no frame to compare: is one of them damaged?")
        if target is not None and part is not None:
            part.replace(target)
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return meter.done()


def _sink(target: Path, part: Path, info: VideoInfo, mode: str) -> VideoSink:
    container = CONTAINERS.get(target.suffix.lower())
    if container is None:
        raise ValueError(f"a comparison is written as {', '.join(CONTAINERS)}, got {target.name}")
    width = info.width * (2 if mode == "side" else 1)
    settings = VideoSettings(codec="h264", crf=18, preset="veryfast")
    return VideoSink(
        part,
        encoder=encoder_for("h264", width=width, height=info.height, rate=info.nominal_rate, settings=settings),
        frames=FrameFormat(
            width=width,
            height=info.height,
            time_base=info.time_base,
            rate=info.nominal_rate,
            sample_aspect_ratio=info.sample_aspect_ratio,
        ),
        container=container,
    )


def _fitted(image: Image, shape: tuple[int, ...]) -> Image:
    if image.shape[:2] == shape:
        return image
    return np.asarray(cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), np.uint8)
