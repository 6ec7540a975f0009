"""One video from source to target: the map of the video side.

probe -> output -> [ decode -> transform -> encode segments ] -> join -> verify -> final name.  What is in brackets
overlaps, and each finished segment is in the journal, so that a run that was stopped goes on behind it.  A run on one
machine makes all segments and joins them; a shard makes its share of them, and `join_video` does the rest.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stylize.errors import InputError, MediaError, OutputError, StylizeError
from stylize.frame import FrameTransform
from stylize.media.video.output import OutputPlan, plan_output
from stylize.media.video.probe import probe_video
from stylize.sharding import shard_of_segment
from stylize.video.finish import finish_video, job_header
from stylize.video.render import FramesDifferError, SegmentRenderer, expected_frames, find_frames
from stylize.video.report import Progress, StoppedError, VideoJob, VideoReport, Watch
from stylize.video.store import (
    SHARED,
    SUFFIX,
    FrameTimes,
    Segment,
    SegmentStore,
    check_target,
    locked,
    with_unfinished,
)

__all__ = [
    "MissingSegmentsError", "Progress", "VideoJob", "VideoReport", "find_jobs", "join_video", "ranges", "run_video",
]  # fmt: skip

ATTEMPTS = 3
"""How often the frames of a video are looked for anew when they turn out to be others."""


class MissingSegmentsError(StylizeError):
    """Segments have still to be made; the message says which, and by what command."""


def run_video(job: VideoJob, transform: FrameTransform) -> VideoReport:
    """Make a video: every frame through `transform` and out at its own time, all else kept.

    A run that is stopped (event, Ctrl-C, or killed) keeps its finished segments in the folder of `SegmentStore`; the
    same call goes on behind them and gives the same output as an uninterrupted run.

    Args:
        job: what to make, and of a shard the share.
        transform: frames in, frames out.

    Returns:
        What was done, of a shard in frames of its share; status "interrupted" if it was stopped.

    Raises:
        StylizeError: one clear line on what is wrong and what to do; nothing stands under the target's name.
        ValueError: settings that do not go together.
    """
    report = VideoReport(source=str(job.source), target=str(job.target), status="shard" if job.shard else "done")
    watch = Watch(job.progress, job.stop)
    check_target(job.source, job.target, overwrite=job.settings.overwrite)
    output = plan_output(probe_video(job.source), job.target, job.settings)
    report.warnings += output.notes
    store = SegmentStore(job.target)
    header = job_header(output, job.settings, job.transform_key)
    if not job.shard and not job.settings.restart:
        report.warnings += store.take_over(header)
    try:
        with contextlib.nullcontext() if job.shard else locked(store.folder):
            if job.settings.restart:
                store.clear(everything=True)
            with store.writing(header, job, shared=job.shard is not None):
                _Run(job, transform, output, store, report, watch).go()
            if not job.shard and not job.settings.keep_work:
                store.remove()
    except (KeyboardInterrupt, StoppedError):
        report.status = "interrupted"
        report.message = with_unfinished("stopped; run the same command again to go on", job.target)
    except (MediaError, OutputError) as error:
        if not job.source.exists():
            raise InputError(
                f"{job.source} has vanished: put it back and run the same command again (finished segments are kept)"
            ) from error
        raise
    report.end(watch)
    return report


class _Run:
    """One run of a job, in a store that is open to be written."""

    def __init__(
        self,
        job: VideoJob,
        transform: FrameTransform,
        output: OutputPlan,
        store: SegmentStore,
        report: VideoReport,
        watch: Watch,
    ) -> None:
        self.job, self.output, self.store, self.report, self.watch = job, output, store, report, watch
        self.transform = transform
        self.renderer = SegmentRenderer(
            output=output, settings=job.settings, transform=transform, store=store, stop=job.stop, split=report.split
        )

    def go(self) -> None:
        """Make the share, and if it is the whole the target."""
        times, segments = self._render()
        if not self.job.shard:
            records, _ = self.store.chain(segments, times)
            finish_video(self.output, self.job.settings, self.store, records, times, self.report, self.watch)
            return
        places = self._places(segments)
        what = f"segments {ranges(place + 1 for place in places)}" if places else "none"
        self.report.message = (
            f"{self.job.target}: shard {self.job.shard} has {what} of {len(segments)} segments; "
            f"when all are done: stylize join {self.job.target}"
        )

    def _places(self, segments: Sequence[Segment]) -> list[int]:
        """Which of the segments are this run's."""
        shard, total = self.job.shard, len(segments)
        return [i for i in range(total) if shard is None or shard.has_segment(i, total, self.job.target.name)]

    def _render(self) -> tuple[FrameTimes, list[Segment]]:
        """Make what is missing of this run's segments."""
        decode = False
        for _ in range(ATTEMPTS):
            try:
                if not self.job.shard and not decode and self.store.frames() is None:
                    self._from_the_start()
                times = find_frames(self.store, self.output, self.job.settings, decode=decode, stop=self.job.stop)
                segments = times.segments(self.job.settings.segment_seconds, self.output.time_base)
                mine = [segments[place] for place in self._places(segments)]
                self._missing(mine, self.store.chain(segments, times)[1], times)
            except FramesDifferError:
                decode = True
                continue
            return times, segments
        raise MediaError(f"{self.job.source} decodes to other frames each time: check the disk that it is on")

    def _from_the_start(self) -> None:
        """Make all segments, and find out meanwhile which frames there are."""
        self.store.clear()
        begun = self.store.begun()
        first = len(begun.ticks)
        self._count(expected_frames(self.output.info, self.job.settings.fps), first)
        self.renderer.tell = lambda count: self.watch.tell(first + count)
        self.store.add_frames(self.renderer.stretch(first, None, begun))

    def _missing(self, mine: Sequence[Segment], missing: Sequence[Segment], times: FrameTimes) -> None:
        """Make those of `mine` that are missing, stretch by stretch."""
        wanted = [segment for segment in missing if segment in mine]
        total = sum(segment.frames for segment in mine)
        done = total - sum(segment.frames for segment in wanted)
        if wanted or self.watch.total is None:
            self._count(total, done)
        for stretch in runs(wanted):
            before, first, stop = done, stretch[0].first, stretch[-1].stop
            self.renderer.tell = lambda count, before=before: self.watch.tell(before + count)  # type: ignore[misc]
            self.renderer.stretch(first, stop, times)
            done += stop - first
        self.report.frames_in = self.report.frames_out = total

    def _count(self, total: int | None, done: int) -> None:
        self.watch.total, self.watch.resumed, self.watch.done = total, done, done
        self.report.frames_resumed = self.report.frames_out = done


def find_jobs(path: Path) -> list[Path]:
    """Targets with segments to be joined: `path` itself, or all below the folder `path`.

    Raises InputError where there are none.
    """
    with contextlib.suppress(InputError):
        SegmentStore(path).read()
        return [path]
    found: list[Path] = []
    if path.is_dir():
        for folder in sorted({journal.parent for journal in path.rglob(f".*{SUFFIX}/{SHARED}-*.jsonl")}):
            found.append(folder.parent / SegmentStore.at(folder).read().target.name)
    if not found:
        done = " (it is there already)" if path.is_file() else ""
        raise InputError(f"{path}: no segments to join{done}: name the target that stylize video --shard was given")
    return found


def join_video(
    target: Path,
    *,
    source: Path | None = None,
    verify: bool = False,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
) -> VideoReport:
    """Put the segments of `target` together, verify the result, and remove them.

    Args:
        target: as it was given to the shards.
        source: where the source is now; None: where the shards found it.
        verify: decode the result and compare it with the source.
        overwrite: replace a target that exists.
        progress: called at each stage.
        stop: set it to end cleanly; the segments are kept.

    Raises:
        MissingSegmentsError: some are not there; the message names the commands that make them.
        StylizeError: the target cannot be made; nothing stands under its name.
    """
    watch = Watch(progress, stop or threading.Event())
    store = SegmentStore(target)
    asked = store.read()
    source, kept = source or asked.source, asked.settings
    settings = replace(kept, verify=verify or kept.verify, overwrite=overwrite or kept.overwrite)
    report = VideoReport(source=str(source), target=str(target))
    check_target(source, target, overwrite=settings.overwrite)
    output = plan_output(probe_video(source), target, settings)
    report.warnings += output.notes
    with locked(store.folder):
        store.check(job_header(output, settings, asked.transform_key), asked)
        times = store.frames()
        if times is None:
            raise MissingSegmentsError(f"{target}: the video is not done: run {_command(asked)} again")
        segments = times.segments(settings.segment_seconds, output.time_base)
        records, missing = store.chain(segments, times)
        if missing:
            raise MissingSegmentsError(_missing(target, asked, segments, missing))
        watch.total = watch.done = watch.resumed = len(times.ticks)
        try:
            finish_video(output, settings, store, records, times, report, watch)
        except (KeyboardInterrupt, StoppedError):
            report.status = "interrupted"
            report.message = f"stopped; stylize join {target} begins the join again"
        else:
            if not settings.keep_work:
                store.remove()
    report.frames_resumed = report.frames_out
    report.end(watch)
    return report


def _command(job: VideoJob) -> str:
    return job.command or f"stylize video {job.source} -o {job.target}"


def _missing(target: Path, job: VideoJob, segments: Sequence[Segment], missing: Sequence[Segment]) -> str:
    """Which segments are missing, and how they are made."""
    places = [place for place, segment in enumerate(segments) if segment in missing]
    text = f"{target}: {len(places)} of {len(segments)} segments missing ({ranges(p + 1 for p in places)})"
    if job.shard is None:
        return f"{text}: run {_command(job)} again"
    count = job.shard.count
    owners = sorted({shard_of_segment(place, len(segments), count, job.target.name) for place in places})
    wanted = [f"{owner}/{count}" for owner in owners]
    shown = ", ".join(wanted[:8]) + (f" and {len(wanted) - 8} more" if len(wanted) > 8 else "")
    each = f", and with {shown[len(wanted[0]) + 2 :]}" if len(wanted) > 1 else ""
    return f"{text}: run `{_command(job)} --shard {wanted[0]}`{each}, then join again"


def ranges(numbers: Any) -> str:
    """Numbers in order, in short: ``1-3, 7``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)


def runs(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Segments that follow one another without a gap, together."""
    found: list[list[Segment]] = []
    for segment in segments:
        if found and found[-1][-1].stop == segment.first:
            found[-1].append(segment)
        else:
            found.append([segment])
    return found
