"""Photos on a cluster: bytes go to a worker, the encoded result comes back and is written here.

Photos need no shared disk.  Names, journal and everything that is decided about a photo are those of
`stylize.photos.job`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stylize.distributed.pool import Pool, Work
from stylize.distributed.worker import Failed, PhotoDone
from stylize.errors import InputError, StylizeError
from stylize.files import DiskFullError, Written, shown, write_bytes
from stylize.media.image.settings import ImageSettings
from stylize.media.image.write import check_target
from stylize.photos.job import HALTS, Item, decide, entry_of, find_photos, find_work, result_key
from stylize.photos.journal import FolderJournal
from stylize.photos.report import FolderReport, PhotoReport, Progress
from stylize.photos.scan import output_folder
from stylize.video.report import StoppedError

__all__ = ["stylize_folder_on_cluster"]


def stylize_folder_on_cluster(
    source: Path,
    target: Path | None,
    settings: ImageSettings,
    pool: Pool,
    *,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> FolderReport:
    """What `stylize_folder` does, on the workers of `pool`; arguments, result and errors are the same.

    Raises ClusterError, too, where there are no workers any more; what is done is kept.
    """
    started = time.monotonic()
    output = output_folder(source, target)
    scan = find_photos(source, output, settings)
    halt = stop or threading.Event()
    with FolderJournal(output) as journal:
        items, early = find_work(scan, source, output, settings, journal.entries)
        run = _Run(items, early, settings, journal, result_key(pool.key, settings), progress)
        try:
            pool.run(run.work(), halt)
        except (KeyboardInterrupt, StoppedError):
            run.halted = "interrupted"
    return FolderReport(
        source=str(source),
        output=str(output),
        photos=tuple(run.in_order()),
        ignored=dict(scan.ignored),
        seconds=time.monotonic() - started,
        interrupted=run.halted == "interrupted",
        message=HALTS.get(run.halted or ""),
    )


class _Run:
    """The state of a folder run; all of it in the pool's thread."""

    def __init__(
        self,
        items: list[Item],
        early: list[PhotoReport],
        settings: ImageSettings,
        journal: FolderJournal,
        key: str,
        progress: Progress | None,
    ) -> None:
        self._items = items
        self._early = early
        self._settings = settings
        self._journal = journal
        self._key = key
        self._progress = progress
        self._reports: dict[str, PhotoReport] = {}
        self._count = 0
        self.halted: str | None = None
        """What ended the run early."""

    def work(self) -> Iterator[Work]:
        """The photos that are to be done."""
        for report in self._early:
            self._tell(report)
        for item in self._items:
            if self.halted:
                return
            try:
                skipped = decide(item, self._journal.entries.get(item.result), self._key, self._settings)
                if skipped is None:
                    check_target(item.target, self._settings, source=item.source)
            except StylizeError as error:
                skipped = item.report("failed", "error", str(error))
            if skipped is not None:
                self._add(item, skipped)
            else:
                yield self._work(item)

    def _work(self, item: Item) -> Work:
        began: list[float] = []

        def arguments() -> tuple[str, bytes, str, ImageSettings]:
            began.append(time.monotonic())
            try:
                data = item.source.read_bytes()
            except OSError as error:
                raise InputError(
                    f"{shown(item.source)}: cannot be read ({error.strerror}): check its rights"
                ) from error
            return str(item.source), data, str(item.target), self._settings

        return Work(
            method="photo",
            arguments=arguments,
            done=lambda result: self._take(item, result, began[0]),
            wanted=lambda: self.halted is None,
        )

    def _take(self, item: Item, result: PhotoDone | Failed, began: float) -> None:
        if isinstance(result, Failed):
            self._add(item, item.report("failed", "error", result.message, time.monotonic() - began))
            return
        try:
            self._write(item, result)
        except (StylizeError, OSError) as error:
            reason = "disk-full" if isinstance(error, DiskFullError) else "error"
            self.halted = "disk-full" if reason == "disk-full" else self.halted
            self._add(item, item.report("failed", reason, str(error), time.monotonic() - began))
            return
        report = PhotoReport(
            source=str(item.source),
            target=str(item.target),
            status="done",
            seconds=time.monotonic() - began,
            width=result.width,
            height=result.height,
            notes=result.notes,
        )
        self._add(item, report)

    def _write(self, item: Item, result: PhotoDone) -> None:
        """The result gets its name after its line in the journal."""
        entry = entry_of(item, self._key)
        status = item.source.stat()

        def note(written: Written) -> None:
            self._journal.record(replace(entry, size=written.size, mtime_ns=written.mtime_ns, sha256=written.sha256))

        times = (status.st_atime_ns, status.st_mtime_ns) if self._settings.keep_times else None
        write_bytes(item.target, result.data, overwrite=self._settings.overwrite, times=times, before_rename=note)

    def _add(self, item: Item, report: PhotoReport) -> None:
        self._reports[str(item.source)] = report
        self._tell(report)

    def _tell(self, report: PhotoReport) -> None:
        self._count += 1
        if self._progress is not None:
            self._progress(report, self._count, len(self._early) + len(self._items))

    def in_order(self) -> list[PhotoReport]:
        """Reports as a run on one machine gives them."""
        left = [item.report("left", self.halted or "", "not reached") for item in self._items]
        return [*self._early, *(self._reports.get(report.source, report) for report in left)]
