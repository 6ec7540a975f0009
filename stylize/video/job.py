"""One video from source to target: the map of the video side.

probe -> plan -> decode -> transform -> encode segments -> join -> verify -> final name.  Decoding, the transform
and encoding overlap; each finished segment is in the journal, so that a run that was stopped goes on behind it.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from stylize.errors import InputError, MediaError, OutputError, StylizeError
from stylize.frame import Frame, FrameTransform
from stylize.media.video.output import OutputPlan, plan_output
from stylize.media.video.probe import probe_video
from stylize.media.video.settings import VideoSettings
from stylize.media.video.source import VideoSource
from stylize.video.finish import finish_video, job_header
from stylize.video.journal import Journal, rendered
from stylize.video.report import Progress, StoppedError, VideoReport
from stylize.video.resume import checksum, open_at
from stylize.video.segments import SegmentWriter, clear_parts, usable_records
from stylize.video.work_folder import check_target, locked, work_folder

__all__ = ["Progress", "VideoReport", "stylize_video"]

MANY = 2**62
"""More frames than any video has: the end of an open range."""

ENCODE_QUEUE_BYTES = 32 << 20


def stylize_video(
    source: Path,
    target: Path,
    transform: FrameTransform,
    settings: VideoSettings,
    *,
    transform_key: str,
    progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
) -> VideoReport:
    """Turn `source` into `target`: every frame through `transform` and out at its own time, all else kept.

    A run that is stopped (event, Ctrl-C, or killed) keeps its finished segments in `work_folder`; the same call
    goes on behind them and gives the same output as an uninterrupted run.

    Args:
        source: any video that ffmpeg reads.
        target: what to write; its suffix tells the container (see `output_kind`).
        transform: frames in, frames out.
        settings: everything about the output that is not the look.
        transform_key: names generator and look; a run is only continued with the same.
        progress: called after each frame and at each stage.
        stop: set it (from a signal handler, say) to end cleanly.

    Returns:
        What was done; status "interrupted" if it was stopped.

    Raises:
        StylizeError: one clear line on what is wrong and what to do; nothing stands under the target's name.
        ValueError: settings that do not go together.
    """
    began = time.perf_counter()
    report = VideoReport(source=str(source), target=str(target))
    check_target(source, target, overwrite=settings.overwrite)
    plan = plan_output(probe_video(source), target, settings)
    report.warnings += plan.notes
    work = work_folder(target)
    if not settings.restart:
        report.warnings += take_over(work, job_header(plan, settings, transform_key))
    try:
        with locked(work):
            job = _Job(plan, transform, settings, transform_key, work, report, progress, stop)
            job.run()
            if not settings.keep_work:
                shutil.rmtree(work, ignore_errors=True)
    except (KeyboardInterrupt, StoppedError):
        report.status = "interrupted"
        report.message = f"stopped; run the same command again to go on (finished segments are in {work})"
    except (MediaError, OutputError) as error:
        if not source.exists():
            raise InputError(
                f"{source} has vanished: put it back and run the same command again (finished segments are kept)"
            ) from error
        raise
    report.seconds = time.perf_counter() - began
    fresh = report.frames_out - report.frames_resumed
    report.fps = fresh / report.seconds if report.seconds > 0 else 0.0
    return report


@contextlib.contextmanager
def _kept(work: Path, plan: OutputPlan) -> Iterator[None]:
    """Where the rendered frames cannot be put together, say where they are and what uses them."""
    try:
        yield
    except (MediaError, OutputError) as error:
        other = " or with -o and another container" if plan.kind == "video" else ""
        hint = f"all rendered frames are kept in {work}: run the same command again{other}, it goes on from them"
        raise type(error)(f"{error}; {hint}") from error


def take_over(work: Path, header: dict[str, Any]) -> list[str]:
    """Give `work` the frames that another target in its folder could not be made of, and say so.

    Only a job that rendered all of them, of the same source and in the same way (`header`), and delivered nothing.
    """
    if work.exists() and any(work.iterdir()):
        return []
    for journal in sorted(work.parent.glob(".*.stylize/journal.jsonl")):
        other = journal.parent
        target = work.parent / other.name.removeprefix(".").removesuffix(".stylize")
        with contextlib.suppress(StylizeError, OSError):
            if target.exists() or not rendered(journal, header):
                continue
            with locked(other):
                other.rename(work)
            return [f"the frames were rendered already, for {target.name}: used again"]
    return []


class _Job:
    """One run of `stylize_video` inside its locked work folder."""

    def __init__(
        self,
        plan: OutputPlan,
        transform: FrameTransform,
        settings: VideoSettings,
        transform_key: str,
        work: Path,
        report: VideoReport,
        progress: Callable[[Progress], None] | None,
        stop: threading.Event | None,
    ) -> None:
        self.plan = plan
        self.transform = transform
        self.settings = settings
        self.work = work
        self.report = report
        self.progress = progress
        self.stop = stop or threading.Event()
        self.began = time.perf_counter()
        self.stage = "frames"
        self.header = job_header(plan, settings, transform_key)

    def run(self) -> None:
        """Do what is missing, then deliver."""
        if self.settings.restart:
            _empty(self.work)
        clear_parts(self.work)
        advice = f"use --restart to begin anew, or delete that folder; target {self.plan.target.name}"
        with Journal(self.work / "journal.jsonl", self.header, advice=advice) as journal:
            records = usable_records(journal, self.work)
            if not any("end" in record for record in journal.records):
                self._frames(journal, records)
            records = usable_records(journal, self.work)
            end = next(record for record in journal.records if "end" in record)
            with _kept(self.work, self.plan):
                finish_video(
                    self.plan,
                    self.settings,
                    records,
                    retimed=end["retimed"],
                    resized=end["resized"],
                    work=self.work,
                    report=self.report,
                    stop=self.stop,
                    stage=lambda stage: self._enter(stage, end["end"]),
                )

    def _enter(self, stage: str, done: int) -> None:
        if self.stop.is_set():
            raise StoppedError
        self.stage = stage
        self._tell(done)

    def _frames(self, journal: Journal, records: list[dict[str, Any]]) -> None:
        """Decode, transform and encode all that is not done yet."""
        done = sum(len(record["times"]) for record in records)
        self.report.frames_resumed = done
        context = self.transform.context
        first_time: Fraction | None = records[0]["times"][0] * self.plan.time_base if records else None

        def segment_of(pts: Fraction) -> int:
            nonlocal first_time
            first_time = pts if first_time is None else first_time
            return int((pts - first_time) // self.settings.segment_seconds)

        clock = _Clock()
        checks: dict[int, int] = {}
        with contextlib.ExitStack() as stack:
            source, frames = open_at(
                stack, self.plan.info, records=records, context=context, fps=self.settings.fps, halt=self.stop
            )
            writer = stack.enter_context(self._writer(journal, segment_of, source))
            given = self._given(frames, checks, clock)
            for frame in self.transform(given, range(done, MANY)):
                self._check(frame, done)
                clock.pause()
                writer.put(frame, checks.pop(frame.index, 0), self.stop)
                clock.go_on()
                done += 1
                for index in [index for index in checks if index < done]:
                    del checks[index]
                self._tell(done)
            clock.pause()
            writer.finish(self.stop)
            if done == 0:
                raise InputError(f"{self.plan.info.path}: no frame of its video can be decoded: is it damaged?")
            self._note_split(source, clock, writer)
            journal.add({"end": done, "retimed": source.retimed, "resized": source.resized})

    def _writer(self, journal: Journal, segment_of: Callable[[Fraction], int], source: VideoSource) -> SegmentWriter:
        frame_bytes = self.plan.info.width * self.plan.info.height * 3
        return SegmentWriter(
            self.work,
            journal,
            make_sink=self.plan.sink,
            images=self.plan.kind == "images",
            segment_of=segment_of,
            time_base=self.plan.time_base,
            errors_now=lambda: source.errors,
            room=max(1, min(16, ENCODE_QUEUE_BYTES // max(1, frame_bytes))),
        )

    def _given(self, frames: Iterator[Frame], checks: dict[int, int], clock: _Clock) -> Iterator[Frame]:
        """The source's frames on their way into the transform."""
        while True:
            if self.stop.is_set():
                raise StoppedError
            clock.pause()
            frame = next(frames, None)
            clock.go_on()
            if frame is None:
                return
            checks[frame.index] = checksum(frame)
            yield frame

    def _check(self, frame: Frame, expected: int) -> None:
        shape = (self.plan.info.height, self.plan.info.width, 3)
        if frame.index != expected or frame.data.shape != shape:
            raise ValueError(f"the transform gave frame {frame.index} {frame.data.shape}, not {expected} {shape}")

    def _tell(self, done: int) -> None:
        if self.progress is None:
            return
        info, fps = self.plan.info, self.settings.fps
        total = info.frames if fps is None else round(info.duration * fps) if info.duration else None
        self.progress(
            Progress(
                stage=self.stage,
                done=done,
                total=total,
                resumed=self.report.frames_resumed,
                seconds=time.perf_counter() - self.began,
            )
        )

    def _note_split(self, source: VideoSource, clock: _Clock, writer: SegmentWriter) -> None:
        self.report.split = {"decode": source.waited, "transform": clock.seconds, "encode": writer.seconds}
        self.report.split.update(getattr(self.transform, "seconds", {}))


class _Clock:
    """Adds up the time between `go_on` and `pause`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since: float | None = time.perf_counter()

    def pause(self) -> None:
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None

    def go_on(self) -> None:
        self._since = time.perf_counter()


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == "lock":
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
