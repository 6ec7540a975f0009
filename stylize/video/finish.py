"""The end of a video job, wherever its segments were made: join, verify, rename, and say what there is to say."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from stylize.errors import InputError, MediaError, OutputError
from stylize.files import sync_folder
from stylize.media.ffmpeg import find_ffmpeg
from stylize.media.video.loss import missing_frames
from stylize.media.video.output import OutputPlan, deliver
from stylize.media.video.settings import VideoSettings
from stylize.video.report import VideoReport, Watch
from stylize.video.store import VERSION, FrameTimes, SegmentStore

__all__ = ["fingerprint", "finish_video", "job_header"]


def job_header(plan: OutputPlan, settings: VideoSettings, transform_key: str) -> dict[str, Any]:
    """All that decides the encoded frames: segments may only be joined where it is the same.

    Raises InputError where the source cannot be read.
    """
    suffix = f" {plan.image_suffix}" if plan.kind == "images" else ""  # a film's segments fit into any container
    return {
        "version": VERSION,
        "source": fingerprint(plan.info.path),
        "transform": transform_key,
        "settings": f"{settings.fps} {settings.segment_seconds}",
        "format": f"{plan.kind}{suffix} {plan.encoder.arguments} {plan.encoder.pixel_format}",
        "ffmpeg": find_ffmpeg().version,
    }


def fingerprint(path: Path) -> str:
    """Size and 32 samples of 64 KiB: the same for a copy, different for any other recording.

    Raises InputError where the file cannot be read.
    """
    block = 1 << 16
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with path.open("rb") as file:
            for number in range(32):
                file.seek(max(0, (size - block) * number // 31))
                digest.update(file.read(block))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check that it is still there") from error
    return digest.hexdigest()


def finish_video(
    plan: OutputPlan,
    settings: VideoSettings,
    store: SegmentStore,
    records: Sequence[dict[str, Any]],
    times: FrameTimes,
    report: VideoReport,
    watch: Watch,
) -> None:
    """Make the target out of all segments, and complete the report.

    Args:
        plan: what the target is to be.
        settings: of the job.
        store: where the segments are.
        records: every segment in order, as `SegmentWriter` tells of it.
        times: of all frames.
        report: takes the figures.
        watch: told what is being done: "join", "verify"; ends the join early.

    Raises:
        StylizeError: the target cannot be made; nothing stands under its name.
    """
    began = time.perf_counter()
    try:
        complaints = deliver(
            plan,
            [store.folder / record["file"] for record in records],
            ticks=times.ticks,
            work=store.folder,
            settings=settings,
            stop=watch.stop,
            stage=watch.enter,
            damaged=any(record["errors"] for record in records),
        )
    except (MediaError, OutputError) as error:
        other = " or with -o and another container" if plan.kind == "video" else ""
        hint = (
            f"all rendered frames are kept in {store.folder}: run the same command again{other}, it goes on from them"
        )
        raise type(error)(f"{error}; {hint}") from error
    sync_folder(plan.target.parent)
    report.split["join"] = time.perf_counter() - began
    info = plan.info
    moments = [tick * plan.time_base for tick in times.ticks]
    report.frames_in = report.frames_out = len(moments)
    step = (moments[-1] - moments[0]) / (len(moments) - 1) if len(moments) > 1 else 1 / (plan.rate or Fraction(25))
    report.duration = float(moments[-1] - moments[0] + step)
    _note_losses(report, plan, settings, moments, sum(record["errors"] for record in records))
    if times.retimed:
        report.warnings.append(f"{times.retimed} frames had no increasing time and were moved by a tick")
    resized = max([times.resized, *(record["resized"] for record in records)])
    if resized:
        report.warnings.append(
            f"the picture changes its size or format {resized} times: kept at {info.width}x{info.height}"
        )
    if complaints:
        report.lost.append(f"other streams: {complaints[0]}")
    if report.lost:
        report.status = "damaged"


def _note_losses(
    report: VideoReport, plan: OutputPlan, settings: VideoSettings, times: Sequence[Fraction], errors: int
) -> None:
    if errors and settings.fps is None:
        report.lost = missing_frames(plan.info, times)
    if errors and not report.lost:
        report.lost.append(f"{errors} decoding errors: some pictures may be broken")
