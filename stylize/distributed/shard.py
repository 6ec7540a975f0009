"""One video on several machines without a cluster: each job makes its share of the segments, one joins them."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stylize.distributed.segment_render import PlanDiffersError, checked_records, find_frames, render_segments
from stylize.distributed.segment_store import FramePlan, JobFacts, Segment, SegmentStore, ranges, runs
from stylize.errors import InputError, MediaError, OutputError, StylizeError
from stylize.frame import FrameTransform
from stylize.media.video.output import OutputPlan, plan_output
from stylize.media.video.probe import probe_video
from stylize.media.video.settings import VideoSettings
from stylize.sharding import Shard, shard_of_segment
from stylize.video.finish import finish_video, job_header
from stylize.video.report import Progress, StoppedError, VideoReport
from stylize.video.work_folder import check_target, locked, work_folder

__all__ = ["MissingSegmentsError", "find_jobs", "join_video", "segment_store", "stylize_shard"]

ATTEMPTS = 3
"""How often the frames of a video are looked for anew when they turn out to be others."""


class MissingSegmentsError(StylizeError):
    """Segments have still to be made; the message says which, and by what command."""


def segment_store(target: Path) -> SegmentStore:
    """Where the segments of `target` are kept until they are joined."""
    return SegmentStore(work_folder(target) / "shards")


@dataclass(frozen=True)
class _Bar:
    """Progress of one run."""

    show: Callable[[Progress], None] | None
    began: float
    total: int
    resumed: int

    def tell(self, done: int, stage: str = "frames") -> None:
        if self.show is not None:
            seconds = time.perf_counter() - self.began
            self.show(Progress(stage=stage, done=done, total=self.total, resumed=self.resumed, seconds=seconds))


def stylize_shard(
    source: Path,
    target: Path,
    transform: FrameTransform,
    settings: VideoSettings,
    *,
    transform_key: str,
    shard: Shard,
    command: str = "",
    progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
) -> VideoReport:
    """Make this shard's segments of a video; those that are there are kept.

    Args:
        source: any video that ffmpeg reads.
        target: what `join_video` will write; the segments are kept beside it, see `segment_store`.
        transform: frames in, frames out.
        settings: the same for every shard.
        transform_key: names generator and look; the same for every shard.
        shard: which share.
        command: the command line without its share, for messages.
        progress: called after each frame.
        stop: set it to end cleanly; finished segments are kept.

    Returns:
        What was done, in frames of this share; status "shard", or "interrupted".

    Raises:
        StylizeError: one clear line on what is wrong and what to do.
    """
    began = time.perf_counter()
    report = VideoReport(source=str(source), target=str(target), status="shard")
    check_target(source, target, overwrite=settings.overwrite)
    plan = plan_output(probe_video(source), target, settings)
    report.warnings += plan.notes
    store = segment_store(target)
    facts = JobFacts.of(source, target, settings, command=command, shards=shard.count)
    store.begin(job_header(plan, settings, transform_key), facts)
    halt = stop or threading.Event()
    for attempt in range(ATTEMPTS):
        try:
            frames = find_frames(store, plan, settings, decode=attempt > 0, stop=halt)
            segments = frames.segments(settings.segment_seconds, plan.time_base)
            places = [i for i in range(len(segments)) if shard.has_segment(i, len(segments), target.name)]
            mine = [segments[place] for place in places]
            _make(mine, frames, plan, settings, transform, store, report, began, progress, halt)
        except PlanDiffersError:
            continue
        except (KeyboardInterrupt, StoppedError):
            report.status = "interrupted"
            report.message = f"stopped; run the same command again to go on (finished segments are in {store.folder})"
        else:
            numbers = ranges(place + 1 for place in places)
            what = f"has segments {numbers} of {len(segments)}" if mine else f"has none of {len(segments)} segments"
            report.message = f"{target}: shard {shard} {what}; when all are done: stylize join {target}"
        break
    else:
        raise MediaError(f"{source} decodes to other frames each time: check the disk that it is on")
    report.seconds = time.perf_counter() - began
    report.fps = (report.frames_out - report.frames_resumed) / report.seconds
    return report


def _make(
    mine: Sequence[Segment],
    frames: FramePlan,
    plan: OutputPlan,
    settings: VideoSettings,
    transform: FrameTransform,
    store: SegmentStore,
    report: VideoReport,
    began: float,
    progress: Callable[[Progress], None] | None,
    stop: threading.Event,
) -> None:
    """Make those of `mine` that are not there, and count in the report."""
    missing = [segment for segment in mine if store.record(segment, frames) is None]
    total = sum(segment.stop - segment.first for segment in mine)
    done = total - sum(segment.stop - segment.first for segment in missing)
    report.frames_resumed = report.frames_out = done
    bar = _Bar(progress, began, total, done)
    for run in runs(missing):
        before = done
        render_segments(
            run,
            frames,
            plan,
            settings,
            transform,
            store,
            stop=stop,
            progress=lambda count, before=before: bar.tell(before + count),  # type: ignore[misc]  # bound now
        )
        done += run[-1].stop - run[0].first
        report.frames_in = report.frames_out = done


def find_jobs(path: Path) -> list[Path]:
    """Targets with segments to be joined: `path` itself, or all below the folder `path`.

    Raises InputError where there are none.
    """
    if (segment_store(path).folder / "job.json").is_file():
        return [path]
    found: list[Path] = []
    if path.is_dir():
        for job in sorted(path.rglob("shards/job.json")):
            facts = SegmentStore(job.parent).job()[1]
            found.append(job.parents[2] / Path(facts.target).name)
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
    began = time.perf_counter()
    store = segment_store(target)
    header, facts = store.job()
    source = source or Path(facts.source)
    kept = facts.settings
    settings = facts.video_settings(verify=verify or kept["verify"], overwrite=overwrite or kept["overwrite"])
    report = VideoReport(source=str(source), target=str(target))
    check_target(source, target, overwrite=settings.overwrite)
    plan = plan_output(probe_video(source), target, settings)
    report.warnings += plan.notes
    halt = stop or threading.Event()
    with locked(work_folder(target)):
        store.check(job_header(plan, settings, header["transform"]))
        frames = find_frames(store, plan, settings)
        segments = frames.segments(settings.segment_seconds, plan.time_base)
        records, missing = checked_records(segments, frames, store)
        if missing:
            raise MissingSegmentsError(_missing(target, facts, segments, missing))
        bar = _Bar(progress, began, len(frames.ticks), len(frames.ticks))

        def enter(stage: str) -> None:
            if halt.is_set():
                raise StoppedError
            bar.tell(len(frames.ticks), stage)

        try:
            finish_video(
                plan,
                settings,
                records,
                retimed=frames.retimed,
                resized=max([frames.resized, *(record["resized"] for record in records)]),
                work=store.folder,
                report=report,
                stop=halt,
                stage=enter,
            )
        except (MediaError, OutputError) as error:
            raise type(error)(f"{error}; all segments are kept in {store.folder}: stylize join again") from error
        except (KeyboardInterrupt, StoppedError):
            report.status = "interrupted"
            report.message = f"stopped; stylize join {target} begins the join again"
        else:
            if not settings.keep_work:
                shutil.rmtree(work_folder(target), ignore_errors=True)
    report.frames_resumed = report.frames_out
    report.seconds = time.perf_counter() - began
    return report


def _missing(target: Path, facts: JobFacts, segments: Sequence[Segment], missing: Sequence[Segment]) -> str:
    """Which segments are missing, and how they are made."""
    place_of = {segment.number: place for place, segment in enumerate(segments)}
    places = [place_of[segment.number] for segment in missing]
    text = f"{target}: {len(places)} of {len(segments)} segments missing ({ranges(p + 1 for p in places)})"
    command = facts.command or f"stylize video {facts.source} -o {target}"
    if not facts.shards:
        return f"{text}: run {command} again"
    name = Path(facts.target).name
    owners = sorted({shard_of_segment(place, len(segments), facts.shards, name) for place in places})
    wanted = [f"{owner}/{facts.shards}" for owner in owners]
    shown = ", ".join(wanted[:8]) + (f" and {len(wanted) - 8} more" if len(wanted) > 8 else "")
    each = f", and with {shown[len(wanted[0]) + 2 :]}" if len(wanted) > 1 else ""
    return f"{text}: run `{command} --shard {wanted[0]}`{each}, then join again"
