"""Videos on a cluster: every segment is a piece of work; a video is joined when its last one is there.

The segments lie in the work folder of `stylize.video.store`, so an interrupted run goes on where it was, with the
cluster, with `--shard`, or on one machine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from stylize.distributed.pool import Pool, Work
from stylize.distributed.worker import Failed
from stylize.errors import fault
from stylize.media.video.output import plan_output
from stylize.media.video.probe import probe_video
from stylize.sharding import Shard, shard_of_segment
from stylize.video.finish import job_header
from stylize.video.job import join_video
from stylize.video.render import find_frames
from stylize.video.report import Progress, StoppedError, VideoJob, VideoReport, Watch
from stylize.video.store import Segment, SegmentStore, check_target, locked, with_unfinished

__all__ = ["run_on_cluster"]

ROUNDS = 4
"""How often segments of one video are handed out anew because they do not fit together."""


def run_on_cluster(
    jobs: Sequence[VideoJob],
    pool: Pool,
    *,
    finished: Callable[[VideoReport], None] | None = None,
    stop: threading.Event | None = None,
) -> list[VideoReport]:
    """Make every video on the workers of `pool`; sources and targets are on a disk that all machines see.

    Args:
        jobs: the videos; their segments are made in this order.
        pool: an open pool.
        finished: called with each report as it comes, from a thread.
        stop: set it to end cleanly; finished segments are kept.

    Returns:
        A report for each job, in their order.

    Raises:
        ClusterError: there are no workers any more; finished segments are kept.
    """
    halt = stop or threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="join") as joiner:
        jobs = [replace(job, transform_key=pool.key, stop=halt) for job in jobs]
        videos = [_Video(job, pool, joiner, finished) for job in jobs]
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
        job: VideoJob,
        pool: Pool,
        joiner: ThreadPoolExecutor,
        finished: Callable[[VideoReport], None] | None,
    ) -> None:
        self.job = job
        self.pool = pool
        self.joiner = joiner
        self.report = VideoReport(source=str(job.source), target=str(job.target), status="left")
        self.joining: Future[None] | None = None
        self._finished = finished
        self._store = SegmentStore(job.target)
        self._missing: dict[Shard, Segment] = {}
        self._rounds = 0

    def begin(self) -> Iterator[Work]:
        """Look at the source, and give the work that is to be done."""
        self._watch = Watch(self.job.progress, self.job.stop)
        self.report.status = "interrupted"
        try:
            skipped = self.job.skipped()
            if skipped is not None:
                self._end(skipped)
                return
            self._prepare()
            self._look()
        except StoppedError:
            return
        except Exception as error:  # one video must not end the run
            self._fail(fault(error, self.job.source))
            return
        self._watch.resumed = self._done
        yield from [self._work(shard) for shard in self._missing]

    def _prepare(self) -> None:
        job = self.job
        check_target(job.source, job.target, overwrite=job.settings.overwrite)
        self.output = plan_output(probe_video(job.source), job.target, job.settings)
        if job.settings.restart:
            with locked(self._store.folder):
                self._store.clear(everything=True)

    def _look(self) -> None:
        """Find which segments are missing; with none, the join begins."""
        job, settings = self.job, self.job.settings
        with self._store.writing(job_header(self.output, settings, job.transform_key), job, shared=True):
            times = find_frames(self._store, self.output, settings, stop=job.stop)
        segments = times.segments(settings.segment_seconds, self.output.time_base)
        missing = self._store.chain(segments, times)[1]
        self._watch.total = len(times.ticks)
        self._missing = {}
        for place, segment in enumerate(segments):
            if segment in missing:  # every segment is a share of its own
                number = shard_of_segment(place, len(segments), len(segments), job.target.name)
                self._missing[Shard(number=number, count=len(segments))] = segment
        if not missing:
            self.joining = self.joiner.submit(self._join)

    @property
    def _done(self) -> int:
        return (self._watch.total or 0) - sum(segment.frames for segment in self._missing.values())

    def _work(self, shard: Shard) -> Work:
        source, target = str(self.job.source.absolute()), str(self.job.target.absolute())
        settings = replace(self.job.settings, restart=False)
        return Work(
            method="segment",
            arguments=lambda: (source, target, settings, shard),
            done=lambda result: self._take(shard, result),
            wanted=lambda: self.report.status == "interrupted" and shard in self._missing,
        )

    def _take(self, shard: Shard, result: VideoReport | Failed) -> None:
        """A segment is there, or not."""
        if self.report.status != "interrupted" or self.joining is not None:
            return
        if isinstance(result, Failed):
            self._fail(result.message)
            return
        if self._missing.pop(shard, None) is not None:
            self._watch.tell(self._done)
            if not self._missing:
                self._again()

    def _again(self) -> None:
        """All should be there: see whether it is, as workers may have found other frames than thought."""
        self._rounds += 1
        try:
            self._look()
        except Exception as error:  # one video must not end the run
            self._fail(fault(error, self.job.source))
            return
        if self._missing and self._rounds >= ROUNDS:
            self._fail(f"{self.job.source} decodes to other frames each time: check the disk that it is on")
            return
        for shard in self._missing:
            self.pool.add(self._work(shard))

    def _join(self) -> None:
        if self.job.stop.is_set():
            return

        def progress(now: Progress) -> None:
            self._watch.tell(now.done, now.stage)

        settings = self.job.settings
        try:
            self.report = join_video(
                self.job.target,
                source=self.job.source,
                progress=progress,
                stop=self.job.stop,
                verify=settings.verify,
                overwrite=settings.overwrite,
            )
        except Exception as error:  # one video must not end the run
            self._fail(fault(error, self.job.source))
            return
        self.report.frames_resumed = self._watch.resumed
        self.report.end(self._watch)
        if self.report.status != "interrupted":
            self._end(self.report)

    def _fail(self, message: str) -> None:
        self.report.status, self.report.message = "failed", with_unfinished(message, self.job.target)
        self.report.seconds = self._watch.seconds
        self._end(self.report)

    def _end(self, report: VideoReport) -> None:
        self.report = report
        if self._finished is not None:
            self._finished(report)

    def leave(self) -> None:
        """The run is over: say so of a video that is not done."""
        if self.report.status in ("interrupted", "left"):
            if self.report.status == "interrupted":
                self.report.message = with_unfinished("stopped; run the same command again to go on", self.job.target)
            self._end(self.report)
