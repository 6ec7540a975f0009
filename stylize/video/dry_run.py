"""What a video job would do, how long it would take and how much room it needs: the dry run."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from stylize.errors import InputError
from stylize.frame import Frame, FrameTransform
from stylize.media.video.output import OutputPlan, plan_output
from stylize.media.video.probe import probe_video
from stylize.media.video.settings import VideoSettings
from stylize.media.video.source import VideoSource
from stylize.video.render import expected_frames
from stylize.video.store import SegmentStore, check_target

__all__ = ["VideoPlan", "plan_video"]


@dataclass(frozen=True, kw_only=True)
class VideoPlan:
    """The dry run's answer."""

    source: str
    """The source's path."""
    target: str
    """The target's path."""
    size: tuple[int, int]
    """Width and height of the output."""
    frames: int | None
    """Frames in all, as far as the container lets guess."""
    duration: float | None
    """Seconds of film."""
    codec: str
    """How the output is encoded."""
    pixel_format: str
    """How its samples are stored."""
    streams: tuple[str, ...]
    """What becomes of the other streams, a line each."""
    notes: tuple[str, ...]
    """What the user should know."""
    seconds: float | None
    """Estimated time, from the frames that were tried; the first one, which warms up, is left out."""
    disk_bytes: int | None
    """Estimated room needed in the target's folder while the job runs: segments, then the joined file."""
    disk_free: int
    """Room that is free there now."""
    resumes: bool
    """An unfinished run is there to be continued."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same for people."""
        frames = "an unknown number of" if self.frames is None else self.frames
        lines = [
            f"{self.source} -> {self.target}",
            f"  {self.size[0]} x {self.size[1]}, {frames} frames, {self.codec} {self.pixel_format}",
            *(f"  {text}" for text in (*self.streams, *self.notes)),
        ]
        if self.seconds is not None and self.disk_bytes is not None:
            room = f"{self.disk_bytes / 1e6:.0f} MB of {self.disk_free / 1e6:.0f} MB that are free"
            lines.append(f"  about {self.seconds / 60:.1f} minutes, {room}")
        if self.resumes:
            lines.append("  goes on with an unfinished run")
        return lines


def plan_video(
    source: Path, target: Path, transform: FrameTransform, settings: VideoSettings, *, frames: int = 3
) -> VideoPlan:
    """Say what `stylize_video` would do with the same arguments; nothing is written beside a temporary file.

    Args:
        source: the video.
        target: what would be written.
        transform: frames in, frames out; tried on the first frames.
        settings: everything about the output that is not the look.
        frames: how many frames to time, after one to warm up.

    Raises:
        StylizeError: the job would fail at once, and why.
        ValueError: settings that do not go together.
    """
    check_target(source, target, overwrite=settings.overwrite)
    info = probe_video(source)
    plan = plan_output(info, target, settings)
    total = expected_frames(info, settings.fps)
    per_frame, bytes_per_frame = _try(plan, transform, settings, frames)
    streams = [
        f"{item.stream.kind} {item.stream.index}: {item.action}"
        + (f" ({item.encoder[0]})" if item.action == "convert" else "")
        for item in plan.streams
    ]
    other_bytes = _other_bytes(plan)
    return VideoPlan(
        source=str(source),
        target=str(target),
        size=(info.width, info.height),
        frames=total,
        duration=float(info.duration) if info.duration is not None else None,
        codec=plan.encoder.codec,
        pixel_format=plan.encoder.pixel_format,
        streams=tuple(streams),
        notes=plan.notes,
        seconds=per_frame * total if total is not None else None,
        disk_bytes=int(2 * bytes_per_frame * total + other_bytes) if total is not None else None,
        disk_free=shutil.disk_usage(target.parent).free,
        resumes=any(SegmentStore(target).folder.glob("*.jsonl")),
    )


def _try(plan: OutputPlan, transform: FrameTransform, settings: VideoSettings, frames: int) -> tuple[float, float]:
    """Seconds and bytes a frame."""
    done: list[Frame] = []
    moments: list[float] = []
    with VideoSource(plan.info, fps=settings.fps) as source:
        some = itertools.islice(source, frames + 1 + transform.context)
        for frame in transform(some, range(frames + 1)):
            done.append(frame)
            moments.append(time.perf_counter())
    if not done:
        raise InputError(f"{plan.info.path}: no frame of its video can be decoded: is it damaged?")
    with tempfile.TemporaryDirectory(prefix="stylize-plan-") as folder:
        path = Path(folder) / "trial"
        if plan.kind == "images":
            path.mkdir()
        began = time.perf_counter()
        with plan.sink(path) as sink:
            for frame in done:
                sink.write(frame)
        encoding = (time.perf_counter() - began) / len(done)
        size = sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))
    timed = (moments[-1] - moments[0]) / (len(moments) - 1) if len(moments) > 1 else encoding
    return max(timed, encoding / 2), size / len(done)  # encoding overlaps; a start of ffmpeg is in its time


def _other_bytes(plan: OutputPlan) -> int:
    """Room for sound and the rest: no more than a share of the source, 40 kB/s where it is short of pictures."""
    if not any(item.action != "drop" for item in plan.streams):
        return 0
    return int((plan.info.duration or Fraction(0)) * 40_000)
