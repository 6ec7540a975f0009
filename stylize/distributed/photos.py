"""Photos on a cluster: bytes go to a worker, the encoded result comes back and is written here.

Photos need no shared disk.  Names, journal and everything that is decided about a photo are those of
`stylize.photos.job`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from stylize.distributed.pool import Pool, Work
from stylize.distributed.worker import Failed, PhotoDone
from stylize.files import write_bytes
from stylize.media.image.settings import ImageSettings
from stylize.photos.job import FolderJob, FolderReport, FolderRun, Item, PhotoReport, run_folder
from stylize.video.report import StoppedError

__all__ = ["stylize_folder_on_cluster"]


def stylize_folder_on_cluster(job: FolderJob, pool: Pool) -> FolderReport:
    """What `stylize_folder` does, on the workers of `pool`.

    Raises ClusterError, too, where there are no workers any more; what is done is kept.
    """

    def work(run: FolderRun) -> None:
        try:
            pool.run(_work(run), job.stop)
        except StoppedError:
            run.halted = "interrupted"

    return run_folder(replace(job, transform_key=pool.key), work)


def _work(run: FolderRun) -> Iterator[Work]:
    """The photos that are to be done."""
    for item in run.items:
        if run.halted:
            return
        try:
            skipped = run.skipped(item)
        except Exception as error:  # one photo must not end the run
            skipped = item.failed(error, time.monotonic())
        if skipped is None:
            yield _Photo(run, item).work()
        else:
            run.add(skipped)


class _Photo:
    """One photo on its way."""

    def __init__(self, run: FolderRun, item: Item) -> None:
        self._run, self._item = run, item
        self._began = 0.0

    def work(self) -> Work:
        """What a worker does for it."""
        return Work(method="photo", arguments=self._arguments, done=self._take, wanted=lambda: self._run.halted is None)

    def _arguments(self) -> tuple[str, bytes, str, ImageSettings]:
        self._began = time.monotonic()
        source, target = self._item.source, self._item.target
        return str(source), source.read_bytes(), str(target), self._run.job.settings

    def _take(self, result: PhotoDone | Failed) -> None:
        item = self._item
        if isinstance(result, Failed):
            self._run.add(item.report("failed", "error", result.message, time.monotonic() - self._began))
            return
        try:
            self._write(result)
        except Exception as error:  # one photo must not end the run
            self._run.add(item.failed(error, self._began))
            return
        self._run.add(
            PhotoReport(
                source=str(item.source),
                target=str(item.target),
                status="done",
                seconds=time.monotonic() - self._began,
                width=result.width,
                height=result.height,
                notes=result.notes,
            )
        )

    def _write(self, result: PhotoDone) -> None:
        """The result gets its name after its line in the journal."""
        item, settings = self._item, self._run.job.settings
        status, note = item.source.stat(), self._run.noted(item)
        times = (status.st_atime_ns, status.st_mtime_ns) if settings.keep_times else None
        write_bytes(item.target, result.data, overwrite=settings.overwrite, times=times, before_rename=note)
