"""Photos to stylized photos: one file, or a folder and all below it.

    scan -> names -> [ decide -> read ] -> transform -> [ encode -> journal -> rename ]

The bracketed parts run in two threads beside the transform: while one photo is in the network the next
is read and the last one written.  At most three pictures are in memory, of large ones a single one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Final

from engine.spec import sha256
from stylize.errors import InputError, StylizeError
from stylize.files import DiskFullError, Written, shown
from stylize.frame import Image
from stylize.media.formats import READ_SUFFIXES
from stylize.media.image.read import Picture, image_size, read_image
from stylize.media.image.settings import ImageSettings
from stylize.media.image.write import check_target, write_image
from stylize.photos.journal import Entry, FolderJournal
from stylize.photos.report import FolderReport, PhotoReport, Progress
from stylize.photos.scan import Scan, assign_targets, output_folder, scan_folder
from stylize.sharding import Shard

__all__ = ["FolderReport", "PhotoReport", "Transform", "stylize_folder", "stylize_image"]

_log = logging.getLogger(__name__)

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


def find_photos(source: Path, output: Path, settings: ImageSettings) -> Scan:
    """Scan `source`.  Raises InputError where there is neither a photo nor a problem to report."""
    scan = scan_folder(source, output, recursive=settings.recursive)
    if not scan.photos and not scan.problems:
        kinds = ", ".join(sorted(READ_SUFFIXES))
        raise InputError(f"{shown(source)}: holds no photos: name a folder with some of {kinds}")
    return scan


def find_work(
    scan: Scan,
    source: Path,
    output: Path,
    settings: ImageSettings,
    entries: dict[str, Entry],
    shard: Shard | None = None,
) -> tuple[list[Item], list[PhotoReport]]:
    """The photos of a scan with the places of their results, and what is reported at once; of a shard its share."""
    targets = assign_targets(scan.photos, settings, {entry.target: entry.source for entry in entries.values()})
    items = [
        Item(name=name, source=source / name, target=output / target, result=target.as_posix())
        for name, target in targets.items()
        if shard is None or shard.has_file(name.as_posix())
    ]
    reports = [
        PhotoReport(source=str(source / name), status="failed", reason="unreadable", message=f"{shown(name)}: {why}")
        for name, why in scan.problems
        if shard is None or shard.has_file(name.as_posix())
    ]
    reports += [
        PhotoReport(source=str(source / name), status="skipped", reason="link", message="a link to a photo of this run")
        for name in scan.links
        if shard is None or shard.has_file(name.as_posix())
    ]
    return items, reports


def result_key(transform_key: str, settings: ImageSettings) -> str:
    """What a result depends on beside its photo, as one line."""
    return f"{transform_key} {settings.output_key()}"


def decide(item: Item, entry: Entry | None, key: str, settings: ImageSettings) -> PhotoReport | None:
    """None where the photo is to be done, else why it is skipped.

    A result that is up to date is skipped, `overwrite` or not; one that differs in source or settings, or
    that no run wrote, is replaced only with `overwrite`.
    """
    if not os.path.lexists(item.target):
        return None
    if entry is None or entry.source != item.name.as_posix():
        reason, message = "exists", "a file of this name is there already"
    elif not entry.is_result(item.target):
        reason, message = "result-changed", "the result was changed since it was written"
    elif entry.key != key:
        reason, message = "other-settings", "the result was made with other settings"
    elif not item.source.exists() or entry.is_source(item.source):
        return item.report("skipped", "up-to-date", "done already")
    else:
        reason, message = "source-changed", "the photo was changed since its result was made"
    return None if settings.overwrite else item.report("skipped", reason, f"{message}: --overwrite replaces it")


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """A photo on its way to the network."""

    item: Item
    picture: Picture
    entry: Entry
    """What the journal will say, but for the result itself."""
    started: float
    large: bool


def stylize_folder(
    source: Path,
    target: Path | None,
    transform: Transform,
    settings: ImageSettings,
    *,
    transform_key: str,
    shard: Shard | None = None,
    at_once: int = 1,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> FolderReport:
    """Stylize all photos below `source` into `target` (``<source>/stylized`` where None), the tree mirrored.

    `transform_key` names the network and its settings: results made by another are not up to date.
    With a `shard` only its share of the photos is done; other shards may run at the same time.
    `at_once` photos are in the network at the same time: as many as there are GPUs.
    `progress` is called in this thread with each report as it comes, how many there are, and how many
    there will be.  Ctrl-C and `stop` end the run after what is being written; the same call goes on
    later.  A photo that fails is reported and does not stop the others; a full disk does.

    Raises InputError where the folder is missing or holds no photo, OutputError where the output folder
    cannot be written or another run writes there.
    """
    started = time.monotonic()
    output = output_folder(source, target)
    scan = find_photos(source, output, settings)
    with FolderJournal(output, shard) as journal:
        items, reports = find_work(scan, source, output, settings, journal.entries, shard)
        run = _Run(items, reports, transform, settings, journal, result_key(transform_key, settings), at_once)
        halted = run.go(progress, stop or threading.Event())
    return FolderReport(
        source=str(source),
        output=str(output),
        photos=tuple(run.reports),
        ignored=dict(scan.ignored),
        seconds=time.monotonic() - started,
        interrupted=halted == "interrupted",
        message=HALTS.get(halted or ""),
    )


HALTS: Final = {
    "interrupted": "stopped: run the same command again to go on",
    "disk-full": "the disk is full: free some space and run the same command again to go on",
}


class _Run:
    """The loop of a folder run: reads ahead, transforms in the calling thread, writes behind.

    Where several photos are in the network at once, each is transformed in a thread of its own.
    """

    def __init__(
        self,
        items: list[Item],
        reports: list[PhotoReport],
        transform: Transform,
        settings: ImageSettings,
        journal: FolderJournal,
        key: str,
        at_once: int = 1,
    ) -> None:
        self.items = items
        self.reports: list[PhotoReport] = []
        self._early = reports
        self._transform = transform
        self._settings = settings
        self._journal = journal
        self._key = key
        self._at_once = at_once
        self._under_way: deque[tuple[_Loaded, Future[Image]]] = deque()
        self._progress: Progress | None = None
        self._writing: Future[PhotoReport] | None = None
        self._halt: str | None = None

    def go(self, progress: Progress | None, stop: threading.Event) -> str | None:
        """Do all items; return what ended the run early (a key of `HALTS`), or None."""
        self._progress = progress
        reached = 0
        with (
            ThreadPoolExecutor(self._at_once, thread_name_prefix="network") as network,
            ThreadPoolExecutor(2, thread_name_prefix="photos") as pool,
        ):
            try:
                for report in self._early:
                    self._add(report)
                ahead: Future[PhotoReport | _Loaded | None] | None = None
                for reached, item in enumerate(self.items):
                    if self._halt or stop.is_set():
                        break
                    loaded = (ahead or pool.submit(self._load, item, alone=False)).result()
                    if loaded is None:  # a large one, which has to wait until the memory is free
                        self._take_in(pool, leave=0)
                        self._settle()
                        loaded = pool.submit(self._load, item, alone=True).result()
                    ahead = None
                    following = self.items[reached + 1 : reached + 2]
                    if following and self._settings.jobs > 1 and not (isinstance(loaded, _Loaded) and loaded.large):
                        ahead = pool.submit(self._load, following[0], alone=False)
                    self._step(loaded, pool, network)
                    reached += 1
                self._take_in(pool, leave=0)
                self._settle()
            except KeyboardInterrupt:
                self._halt = "interrupted"
                self._settle()
        if stop.is_set() and reached < len(self.items):
            self._halt = self._halt or "interrupted"
        seen = {report.source for report in self.reports}
        for item in self.items:
            if str(item.source) not in seen:
                self.reports.append(item.report("left", self._halt or "", "not reached"))
        order = {str(item.source): number for number, item in enumerate(self.items)}
        self.reports.sort(key=lambda report: order.get(report.source, -1))  # stable: early ones stay first
        return self._halt

    def _add(self, report: PhotoReport) -> None:
        self.reports.append(report)
        if report.reason == "disk-full":
            self._halt = "disk-full"
        if self._progress is not None:
            self._progress(report, len(self.reports), len(self._early) + len(self.items))

    def _settle(self) -> None:
        """Wait for the photo that is being written."""
        if self._writing is not None:
            report = self._writing.result()
            self._writing = None
            self._add(report)

    def _step(self, loaded: PhotoReport | _Loaded | None, pool: Executor, network: Executor) -> None:
        """Take one photo through the network and hand it on to be written."""
        if isinstance(loaded, PhotoReport):
            self._add(loaded)
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
            self._add(_failure(loaded.item, error, loaded.started))
            return
        self._settle()
        if self._halt:
            return
        self._writing = pool.submit(self._write, loaded, result)
        if self._settings.jobs < 3 or loaded.large:
            self._settle()

    def _load(self, item: Item, *, alone: bool) -> PhotoReport | _Loaded | None:
        """Decide and read; None where the picture is large and not `alone`."""
        started = time.monotonic()
        try:
            skipped = decide(item, self._journal.entries.get(item.result), self._key, self._settings)
            if skipped is not None:
                return skipped
            check_target(item.target, self._settings, source=item.source)
            width, height = image_size(item.source)
            large = width * height > LARGE_MEGAPIXELS * 1_000_000
            if large and not alone:
                return None
            picture = read_image(item.source, max_megapixels=self._settings.max_megapixels)
            entry = entry_of(item, self._key)
        except Exception as error:  # one photo must not end the run
            return _failure(item, error, started)
        return _Loaded(item=item, picture=picture, entry=entry, started=started, large=large)

    def _write(self, loaded: _Loaded, result: Image) -> PhotoReport:
        def note(written: Written) -> None:
            self._journal.record(
                replace(loaded.entry, size=written.size, mtime_ns=written.mtime_ns, sha256=written.sha256)
            )

        item = loaded.item
        try:
            written = write_image(item.target, result, loaded.picture, self._settings, before_rename=note)
        except Exception as error:  # one photo must not end the run
            return _failure(item, error, loaded.started)
        return _done(item.source, item.target, loaded.picture, written, loaded.started)


def entry_of(item: Item, key: str) -> Entry:
    """What the journal will say of a photo, but for its result.  Raises InputError where it is gone."""
    try:
        status = item.source.stat()
        digest = sha256(item.source)
    except OSError as error:
        raise InputError(f"{shown(item.source)}: gone or unreadable ({error.strerror}): restore it") from error
    return Entry(
        target=item.result,
        source=item.name.as_posix(),
        source_size=status.st_size,
        source_mtime_ns=status.st_mtime_ns,
        source_sha256=digest,
        key=key,
        size=0,
        mtime_ns=0,
        sha256="",
    )


def _failure(item: Item, error: Exception, started: float) -> PhotoReport:
    """Report a failed photo in one line; errors that are not the world's are logged with their trace."""
    reason = "disk-full" if isinstance(error, DiskFullError) else "error"
    message = str(error)
    if not isinstance(error, StylizeError):
        _log.debug("%s failed", shown(item.source), exc_info=error)
        message = f"{shown(item.source)}: {shown(' '.join(f'{type(error).__name__}: {error}'.split()))}"
    return item.report("failed", reason, message, time.monotonic() - started)
