"""Photos to stylized photos: one file, or a folder and all below it.

    scan -> names -> [ decide -> read ] -> transform -> [ encode -> journal -> rename ]

The bracketed parts run in two threads beside the transform: while one photo is in the network the next
is read and the last one written.  At most three pictures are in memory, of large ones a single one.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from engine.spec import sha256
from stylize.errors import InputError, fault
from stylize.files import DiskFullError, Written, shown
from stylize.frame import Image
from stylize.media.formats import READ_SUFFIXES
from stylize.media.image.read import Picture, image_size, read_image
from stylize.media.image.settings import ImageSettings
from stylize.media.image.write import check_target, write_image
from stylize.photos.journal import Entry, FolderJournal
from stylize.photos.report import FolderJob, FolderReport, PhotoReport
from stylize.photos.scan import Scan, output_folder, scan_folder
from stylize.result_name import assign_results
from stylize.settings import option_changes

__all__ = [
    "FolderJob", "FolderReport", "FolderRun", "Item", "PhotoReport", "Transform", "find_photos", "run_folder",
    "stylize_folder", "stylize_image",
]  # fmt: skip

Transform = Callable[[Image], Image]
"""sRGB uint8 ``(H, W, 3)`` to the same size and type; called from `at_once` threads at a time."""

LARGE_MEGAPIXELS: Final = 50
"""From here on a picture is alone in memory."""


def stylize_image(source: Path, target: Path, transform: Transform, settings: ImageSettings) -> PhotoReport:
    """Stylize one photo; the suffix of `target` says the format.

    Raises InputError where the source is no readable photo, OutputError where the target cannot be written
    or exists without `settings.overwrite`; nothing is left under its name then.
    """
    started = time.monotonic()
    check_target(target, settings, source=source)
    picture = read_image(source, max_megapixels=settings.max_megapixels)
    written = write_image(target, _applied(transform, picture), picture, settings)
    return _done(source, target, picture, written, started)


def _applied(transform: Transform, picture: Picture) -> Image:
    result = transform(picture.data)
    if result.shape != picture.data.shape or result.dtype != picture.data.dtype:
        raise ValueError(f"a transform keeps size and type, got {result.shape = }, {picture.data.shape = }")
    return result


def _done(source: Path, target: Path, picture: Picture, written: Written, started: float) -> PhotoReport:
    height, width = picture.data.shape[:2]
    return PhotoReport(
        source=str(source),
        target=str(target),
        status="done",
        seconds=time.monotonic() - started,
        width=width,
        height=height,
        notes=picture.notes + written.notes,
    )


@dataclass(frozen=True, kw_only=True)
class Item:
    """A photo of a folder run and the place of its result."""

    name: PurePath
    """Photo, relative to the source folder."""
    source: Path
    target: Path
    result: str
    """Result, relative to the output folder, as a POSIX path."""

    def report(self, status: str, reason: str, message: str, seconds: float = 0.0) -> PhotoReport:
        """A report on a photo that was not done."""
        return PhotoReport(
            source=str(self.source),
            target=str(self.target),
            status=status,
            reason=reason,
            message=message,
            seconds=seconds,
        )

    def failed(self, error: Exception, started: float) -> PhotoReport:
        """A report on a photo that failed, in one line."""
        reason = "disk-full" if isinstance(error, DiskFullError) else "error"
        return self.report("failed", reason, shown(fault(error, shown(self.source))), time.monotonic() - started)


HALTS: Final = {
    "interrupted": "stopped: run the same command again to go on",
    "disk-full": "the disk is full: free some space and run the same command again to go on",
}


def find_photos(job: FolderJob) -> tuple[Path, Scan]:
    """The folder of results, and what there is to do.

    Raises InputError where the source is no folder or holds no photo, OutputError where source and output overlap.
    """
    output = output_folder(job.source, job.target)
    scan = scan_folder(job.source, output, recursive=job.settings.recursive)
    if not scan.photos and not scan.problems:
        kinds = ", ".join(sorted(READ_SUFFIXES))
        raise InputError(f"{shown(job.source)}: holds no photos: name a folder with some of {kinds}")
    return output, scan


class FolderRun:
    """What a run over a folder is to do, what the journal says of it, and what has become of it so far."""

    def __init__(self, job: FolderJob, output: Path, scan: Scan, entries: dict[str, Entry]) -> None:
        self.job, self.output, self.entries = job, output, entries
        self.key = f"{job.transform_key} {job.settings.output_key()}"
        """What a result depends on beside its photo, as one line."""
        self.halted: str | None = None
        """What ended the run early: a key of `HALTS`."""
        self.journal: FolderJournal | None = None
        self._scan = scan
        self.items = list(self._items())
        """The photos of this run, with the places of their results."""
        self.early = list(self._early())
        """What is reported at once."""
        self._reports: dict[str, PhotoReport] = {}

    def _is_ours(self, name: PurePath) -> bool:
        return self.job.shard is None or self.job.shard.has_file(name.as_posix())

    def _items(self) -> Iterator[Item]:
        known = {entry.target: entry.source for entry in self.entries.values()}
        results = assign_results(self._scan.photos, self.job.settings.suffix_for, known=known)
        for name, result in results.items():
            if self._is_ours(name):
                places = {"source": self.job.source / name, "target": self.output / result}
                yield Item(name=name, result=result.as_posix(), **places)

    def _early(self) -> Iterator[PhotoReport]:
        for name, why in filter(lambda found: self._is_ours(found[0]), self._scan.problems):
            source = str(self.job.source / name)
            yield PhotoReport(source=source, status="failed", reason="unreadable", message=f"{shown(name)}: {why}")
        for name in filter(self._is_ours, self._scan.links):
            source = str(self.job.source / name)
            yield PhotoReport(source=source, status="skipped", reason="link", message="a link to a photo of this run")

    def skipped(self, item: Item) -> PhotoReport | None:
        """None where a photo is to be done, else why it is not.

        A result that is up to date is skipped, `overwrite` or not; one that differs in source or settings, or that
        no run wrote, is replaced only with `overwrite`.  Raises OutputError where the result cannot be written.
        """
        entry, settings = self.entries.get(item.result), self.job.settings
        if not os.path.lexists(item.target):
            check_target(item.target, settings, source=item.source)
            return None
        if entry is None or entry.source != item.name.as_posix():
            reason, message = "exists", "a file of this name is there already"
        elif not entry.is_result(item.target):
            reason, message = "result-changed", "the result was changed since it was written"
        elif entry.key != self.key:
            reason, message = "other-settings", "the result was made with other settings"
            changes = option_changes(entry.key.rsplit(" ", 6)[0], self.job.transform_key)
            message += f" ({'; '.join(changes)})" if changes else ""
        elif not item.source.exists() or entry.is_source(item.source):
            return item.report("skipped", "up-to-date", "done already")
        else:
            reason, message = "source-changed", "the photo was changed since its result was made"
        if not settings.overwrite:
            return item.report("skipped", reason, f"{message}: --overwrite replaces it")
        check_target(item.target, settings, source=item.source)
        return None

    def noted(self, item: Item) -> Callable[[Written], None]:
        """What notes the result of a photo in the journal, before it gets its name.

        Raises InputError where the photo is gone.
        """
        try:
            status = item.source.stat()
            digest = sha256(item.source)
        except OSError as error:
            raise InputError(f"{shown(item.source)}: gone or unreadable ({error.strerror}): restore it") from error

        def note(written: Written) -> None:
            assert self.journal is not None
            self.journal.record(
                Entry(
                    target=item.result,
                    source=item.name.as_posix(),
                    source_size=status.st_size,
                    source_mtime_ns=status.st_mtime_ns,
                    source_sha256=digest,
                    key=self.key,
                    size=written.size,
                    mtime_ns=written.mtime_ns,
                    sha256=written.sha256,
                )
            )

        return note

    def add(self, report: PhotoReport) -> None:
        """Something has become of a photo."""
        self._reports[report.source] = report
        if report.reason == "disk-full":
            self.halted = "disk-full"
        if self.job.progress is not None:
            self.job.progress(report, len(self._reports), len(self.early) + len(self.items))

    def report(self, seconds: float) -> FolderReport:
        """What has become of all photos, in their order."""
        left = [item.report("left", self.halted or "", "not reached") for item in self.items]
        return FolderReport(
            source=str(self.job.source),
            output=str(self.output),
            photos=tuple(self._reports.get(report.source, report) for report in [*self.early, *left]),
            ignored=dict(self._scan.ignored),
            seconds=seconds,
            interrupted=self.halted == "interrupted",
            message=HALTS.get(self.halted or ""),
        )


def run_folder(job: FolderJob, work: Callable[[FolderRun], None]) -> FolderReport:
    """Do a folder: `work` takes the photos of a run one by one, and adds a report for each.

    Ctrl-C and `job.stop` end the run after what is being written; the same call goes on later.  A photo that fails
    is reported and does not stop the others; a full disk does.

    Raises InputError where the folder is missing or holds no photo, OutputError where the output folder
    cannot be written or another run writes there.
    """
    started = time.monotonic()
    output, scan = find_photos(job)
    with FolderJournal(output, job.shard) as journal:
        run = FolderRun(job, output, scan, journal.entries)
        run.journal = journal
        try:
            for report in run.early:
                run.add(report)
            work(run)
        except KeyboardInterrupt:
            run.halted = "interrupted"
    return run.report(time.monotonic() - started)


def stylize_folder(job: FolderJob, transform: Transform, *, at_once: int = 1) -> FolderReport:
    """Stylize all photos of a folder on this machine; `run_folder` says how it ends, and what it raises.

    `at_once` photos are in the network at the same time: as many as there are GPUs.
    """
    return run_folder(job, lambda run: _Loop(run, transform, at_once).go())


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """A photo on its way to the network."""

    item: Item
    picture: Picture
    note: Callable[[Written], None]
    started: float
    large: bool


class _Loop:
    """Reads ahead, transforms in the calling thread, writes behind.

    Where several photos are in the network at once, each is transformed in a thread of its own.
    """

    def __init__(self, run: FolderRun, transform: Transform, at_once: int) -> None:
        self._run = run
        self._settings = run.job.settings
        self._transform = transform
        self._at_once = at_once
        self._under_way: deque[tuple[_Loaded, Future[Image]]] = deque()
        self._writing: Future[PhotoReport] | None = None

    def go(self) -> None:
        """Do all photos."""
        with (
            ThreadPoolExecutor(self._at_once, thread_name_prefix="network") as network,
            ThreadPoolExecutor(2, thread_name_prefix="photos") as pool,
        ):
            try:
                self._all(pool, network)
                self._take_in(pool, leave=0)
            finally:
                self._settle()

    def _all(self, pool: Executor, network: Executor) -> None:
        ahead: Future[PhotoReport | _Loaded | None] | None = None
        for number, item in enumerate(self._run.items):
            if self._run.job.stop.is_set():
                self._run.halted = self._run.halted or "interrupted"
            if self._run.halted:
                return
            loaded = (ahead or pool.submit(self._load, item, alone=False)).result()
            if loaded is None:  # a large one, which has to wait until the memory is free
                self._take_in(pool, leave=0)
                self._settle()
                loaded = pool.submit(self._load, item, alone=True).result()
            ahead = None
            following = self._run.items[number + 1 : number + 2]
            if following and self._settings.jobs > 1 and not (isinstance(loaded, _Loaded) and loaded.large):
                ahead = pool.submit(self._load, following[0], alone=False)
            self._step(loaded, pool, network)

    def _settle(self) -> None:
        """Wait for the photo that is being written."""
        if self._writing is not None:
            report = self._writing.result()
            self._writing = None
            self._run.add(report)

    def _step(self, loaded: PhotoReport | _Loaded | None, pool: Executor, network: Executor) -> None:
        """Take one photo through the network and hand it on to be written."""
        if isinstance(loaded, PhotoReport):
            self._run.add(loaded)
            return
        assert loaded is not None
        if self._at_once == 1:
            self._write_behind(loaded, lambda: _applied(self._transform, loaded.picture), pool)
            return
        self._under_way.append((loaded, network.submit(_applied, self._transform, loaded.picture)))
        self._take_in(pool, leave=0 if loaded.large else self._at_once - 1)

    def _take_in(self, pool: Executor, *, leave: int) -> None:
        """Wait for the oldest photos in the network until no more than `leave` are left there."""
        while len(self._under_way) > leave:
            loaded, result = self._under_way.popleft()
            self._write_behind(loaded, result.result, pool)

    def _write_behind(self, loaded: _Loaded, transformed: Callable[[], Image], pool: Executor) -> None:
        """Hand a photo on to be written as soon as the one before it is."""
        try:
            result = transformed()
        except Exception as error:  # one photo must not end the run
            self._run.add(loaded.item.failed(error, loaded.started))
            return
        self._settle()
        if self._run.halted:
            return
        self._writing = pool.submit(self._write, loaded, result)
        if self._settings.jobs < 3 or loaded.large:
            self._settle()

    def _load(self, item: Item, *, alone: bool) -> PhotoReport | _Loaded | None:
        """Decide and read; None where the picture is large and not `alone`."""
        started = time.monotonic()
        try:
            skipped = self._run.skipped(item)
            if skipped is not None:
                return skipped
            width, height = image_size(item.source)
            large = width * height > LARGE_MEGAPIXELS * 1_000_000
            if large and not alone:
                return None
            picture = read_image(item.source, max_megapixels=self._settings.max_megapixels)
            note = self._run.noted(item)
        except Exception as error:  # one photo must not end the run
            return item.failed(error, started)
        return _Loaded(item=item, picture=picture, note=note, started=started, large=large)

    def _write(self, loaded: _Loaded, result: Image) -> PhotoReport:
        item = loaded.item
        try:
            written = write_image(item.target, result, loaded.picture, self._settings, before_rename=loaded.note)
        except Exception as error:  # one photo must not end the run
            return item.failed(error, loaded.started)
        return _done(item.source, item.target, loaded.picture, written, loaded.started)
