"""Videos on a cluster: every segment is a piece of work; a video is joined when its last one is there.

The segments lie in the job folder of `stylize.distributed.segment_store`, so an interrupted run goes on where it
was, with the cluster or with `--shard`.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from engine.errors import EngineError
from stylize.distributed.pool import Pool, Work
from stylize.distributed.segment_render import checked_records, find_frames
from stylize.distributed.segment_store import JobFacts, Segment
from stylize.distributed.shard import join_video, segment_store
from stylize.distributed.worker import Failed, SegmentDone
from stylize.errors import StylizeError
from stylize.media.video.output import plan_output
from stylize.media.video.probe import probe_video
from stylize.media.video.settings import VideoSettings
from stylize.video.batch import VideoTask
from stylize.video.finish import job_header
from stylize.video.report import Progress, StoppedError, VideoReport
from stylize.video.work_folder import check_target, locked, work_folder

__all__ = ["run_on_cluster"]

log = logging.getLogger(__name__)

ROUNDS = 4
"""How often segments of one video are handed out anew because they do not fit together."""

_FAULTS = (StylizeError, EngineError, ValueError)


def run_on_cluster(
    tasks: Sequence[VideoTask],
    settings: VideoSettings,
    pool: Pool,
    *,
    command: Callable[[VideoTask], str] = lambda task: "",
    progress: Callable[[VideoTask, Progress], None] | None = None,
    finished: Callable[[VideoReport], None] | None = None,
    stop: threading.Event | None = None,
) -> list[VideoReport]:
    """Stylize every task on the workers of `pool`; sources and targets are on a disk that all machines see.

    Args:
        tasks: the videos; their segments are made in this order.
        settings: everything about the output that is not the look.
        pool: an open pool.
        command: the command line of one task, for messages.
        progress: called with each segment, and at each stage of a join.
        finished: called with each report as it comes, from a thread.
        stop: set it to end cleanly; finished segments are kept.

    Returns:
        A report for each task, in the order of the tasks.

    Raises:
        ClusterError: there are no workers any more; finished segments are kept.
    """
    halt = stop or threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="join") as joiner:
        videos = [_Video(task, settings, pool, joiner, command(task), progress, finished, halt) for task in tasks]
        try:
            pool.run((work for video in videos for work in video.begin()), halt)
            for video in videos:
                if video.joining is not None:
                    video.joining.result()
        except (KeyboardInterrupt, StoppedError):
            halt.set()
    for video in videos:
        video.leave()
    return [video.report for video in videos]


class _Video:
    """One video on its way."""

    def __init__(
        self,
        task: VideoTask,
        settings: VideoSettings,
        pool: Pool,
        joiner: ThreadPoolExecutor,
        command: str,
        progress: Callable[[VideoTask, Progress], None] | None,
        finished: Callable[[VideoReport], None] | None,
        stop: threading.Event,
    ) -> None:
        self.task = task
        self.settings = settings
        self.pool = pool
        self.joiner = joiner
        self.command = command
        self.report = VideoReport(source=str(task.source), target=str(task.target), status="left")
        self.joining: Future[None] | None = None
        self._progress = progress
        self._told = finished
        self._stop = stop
        self._store = segment_store(task.target)
        self._missing: dict[int, Segment] = {}
        self._total = 0
        self._resumed: int | None = None
        self._rounds = 0
        self._began = 0.0

    def begin(self) -> Iterator[Work]:
        """Look at the source, and give the work that is to be done."""
        self._began = time.perf_counter()
        self.report.status = "interrupted"
        try:
            self._prepare()
            self._look()
        except _FAULTS as error:
            self._fail(str(error))
            return
        yield from [self._work(segment) for segment in self._missing.values()]

    def _prepare(self) -> None:
        source, target = self.task.source, self.task.target
        check_target(source, target, overwrite=self.settings.overwrite)
        self.plan = plan_output(probe_video(source), target, self.settings)
        if self.settings.restart:
            with locked(work_folder(target)):
                shutil.rmtree(self._store.folder, ignore_errors=True)
        facts = JobFacts.of(source, target, self.settings, command=self.command)
        self._store.begin(job_header(self.plan, self.settings, self.pool.key), facts)

    def _look(self) -> None:
        """Find which segments are missing; with none, the join begins."""
        frames = find_frames(self._store, self.plan, self.settings, stop=self._stop)
        segments = frames.segments(self.settings.segment_seconds, self.plan.time_base)
        missing = checked_records(segments, frames, self._store)[1]
        self._missing = {segment.number: segment for segment in missing}
        self._total = len(frames.ticks)
        if self._resumed is None:
            self._resumed = self._done
        if not missing:
            self.joining = self.joiner.submit(self._join)

    @property
    def _done(self) -> int:
        return self._total - sum(segment.stop - segment.first for segment in self._missing.values())

    def _work(self, segment: Segment) -> Work:
        source, target = str(self.task.source.absolute()), str(self.task.target.absolute())
        return Work(
            method="segment",
            arguments=lambda: (source, target, self.settings, segment.number),
            done=lambda result: self._take(segment, result),
            wanted=lambda: self.report.status == "interrupted" and self._missing.get(segment.number) == segment,
        )

    def _take(self, segment: Segment, result: SegmentDone | Failed) -> None:
        """A segment is there, or not."""
        if self.report.status != "interrupted" or self.joining is not None:
            return
        if isinstance(result, Failed):
            self._fail(result.message)
            return
        if not result.moved and self._missing.pop(segment.number, None) is not None:
            self._tell("frames", self._done)
        if result.moved or not self._missing:
            self._again()

    def _again(self) -> None:
        """The frames were others than thought, or all segments are there: see what is missing now."""
        self._rounds += 1
        try:
            self._look()
        except _FAULTS as error:
            self._fail(str(error))
            return
        if self._missing and self._rounds >= ROUNDS:
            self._fail(f"{self.task.source} decodes to other frames each time: check the disk that it is on")
            return
        for segment in self._missing.values():
            self.pool.add(self._work(segment))

    def _join(self) -> None:
        if self._stop.is_set():
            return
        source, target = self.task.source, self.task.target
        try:
            report = join_video(
                target,
                source=source,
                progress=lambda progress: self._tell(progress.stage, self._total),
                stop=self._stop,
                verify=self.settings.verify,
                overwrite=self.settings.overwrite,
            )
        except _FAULTS as error:
            self._fail(str(error))
            return
        report.frames_resumed = self._resumed or 0
        report.seconds = time.perf_counter() - self._began
        report.fps = (report.frames_out - report.frames_resumed) / report.seconds
        self.report = report
        if report.status != "interrupted" and self._told is not None:
            self._told(report)

    def _fail(self, message: str) -> None:
        log.debug("%s failed: %s", self.task.source, message)
        self.report.status, self.report.message = "failed", message
        self.report.seconds = time.perf_counter() - self._began
        if self._told is not None:
            self._told(self.report)

    def _tell(self, stage: str, done: int) -> None:
        if self._progress is not None:
            seconds = time.perf_counter() - self._began
            resumed = self._resumed or 0
            state = Progress(stage=stage, done=done, total=self._total, resumed=resumed, seconds=seconds)
            self._progress(self.task, state)

    def leave(self) -> None:
        """The run is over: say so of a video that is not done."""
        if self.report.status in ("interrupted", "left"):
            if self.report.status == "interrupted":
                self.report.message = "stopped; run the same command again to go on (finished segments are kept)"
            if self._told is not None:
                self._told(self.report)
