"""The end of a video job, wherever its segments were made: join, verify, rename, and say what there is to say."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from stylize.errors import InputError
from stylize.media.ffmpeg import find_ffmpeg
from stylize.media.video.loss import missing_frames
from stylize.media.video.output import OutputPlan, deliver
from stylize.media.video.settings import VideoSettings
from stylize.video.journal import sync_folder
from stylize.video.report import VideoReport

__all__ = ["fingerprint", "finish_video", "job_header"]


def job_header(plan: OutputPlan, settings: VideoSettings, transform_key: str) -> dict[str, Any]:
    """All that decides the encoded frames: segments may only be joined where it is the same.

    Raises InputError where the source cannot be read.
    """
    suffix = f" {plan.image_suffix}" if plan.kind == "images" else ""  # a film's segments fit into any container
    return {
        "version": 2,
        "source": fingerprint(plan.info.path),
        "transform": transform_key,
        "settings": settings.key(),
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
    records: Sequence[dict[str, Any]],
    *,
    retimed: int,
    resized: int,
    work: Path,
    report: VideoReport,
    stop: threading.Event,
    stage: Callable[[str], None],
) -> None:
    """Make the target out of all segments, and complete the report.

    Args:
        plan: what the target is to be.
        settings: of the job.
        records: every segment in order, as `SegmentWriter` tells of it; files are relative to `work`.
        retimed: frames of the source whose time had to be moved.
        resized: how often the source changes its size.
        work: the folder of the segments, on the target's disk.
        report: takes the figures.
        stop: ends the join early.
        stage: told what is being done: "join", "verify".

    Raises:
        StylizeError: the target cannot be made; nothing stands under its name.
    """
    ticks = [tick for record in records for tick in record["times"]]
    began = time.perf_counter()
    complaints = deliver(
        plan,
        [work / record["file"] for record in records],
        ticks=ticks,
        work=work,
        settings=settings,
        stop=stop,
        stage=stage,
        damaged=any(record["errors"] for record in records),
    )
    sync_folder(plan.target.parent)
    report.split["join"] = time.perf_counter() - began
    info = plan.info
    times = [tick * plan.time_base for tick in ticks]
    report.frames_in = report.frames_out = len(ticks)
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1 / (plan.rate or Fraction(25))
    report.duration = float(times[-1] - times[0] + step)
    _note_losses(report, plan, settings, times, sum(record["errors"] for record in records))
    if retimed:
        report.warnings.append(f"{retimed} frames had no increasing time and were moved by a tick")
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
