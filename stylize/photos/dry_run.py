"""What a folder run would do, without doing it: for `--dry-run`."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

from stylize.files import shown
from stylize.media.image.encode import encode
from stylize.media.image.read import image_size, read_image
from stylize.media.image.settings import ImageSettings, format_of
from stylize.photos.job import FolderRun, Item, Transform, find_photos
from stylize.photos.journal import read_entries
from stylize.photos.report import FolderJob, PhotoReport

__all__ = ["FolderPlan", "PlannedPhoto", "plan_folder"]

SAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class PlannedPhoto:
    """A photo that a run would do."""

    source: str
    target: str
    width: int
    """As stored, before it is turned."""
    height: int


@dataclass(frozen=True, kw_only=True)
class FolderPlan:
    """What a run would do, and what it would take."""

    source: str
    output: str
    photos: tuple[PlannedPhoto, ...]
    others: tuple[PhotoReport, ...]
    """Photos that would be skipped, or whose header already shows that they would fail."""
    ignored: dict[str, int]
    """Files that are no photos: suffix to number."""
    seconds: float | None = None
    """Estimated time, from a few of the photos; None where none was tried."""
    bytes: int | None = None
    """Estimated room on the disk, likewise."""

    @property
    def megapixels(self) -> float:
        """Size of all photos to do."""
        return sum(photo.width * photo.height for photo in self.photos) / 1e6

    def lines(self) -> list[str]:
        """For people: one for each photo, then the totals."""
        about = ""
        if self.seconds is not None and self.bytes is not None:
            about = f": about {self.seconds / 60:.1f} minutes, {self.bytes / 1e6:.1f} MB"
        return [
            *(f"{shown(photo.source)} -> {shown(photo.target)}" for photo in self.photos),
            *(f"{shown(other.source)}: {other.status} ({other.message})" for other in self.others),
            f"{len(self.photos)} photos, {self.megapixels:.1f} megapixels{about}",
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "megapixels": round(self.megapixels, 3)}


def plan_folder(job: FolderJob, transform: Transform | None = None) -> FolderPlan:
    """Plan what `stylize_folder` would do with the same job; writes nothing.

    With `transform`, up to three photos, spread over the sizes there are, are stylized in memory to
    estimate time and room.  Raises what `stylize_folder` raises before its first photo.
    """
    output, scan = find_photos(job)
    run = FolderRun(job, output, scan, read_entries(output))
    others = list(run.early)
    photos: list[PlannedPhoto] = []
    todo: list[Item] = []
    for item in run.items:
        try:
            skipped = run.skipped(item)
            width, height = (0, 0) if skipped else image_size(item.source)
        except Exception as error:  # one photo must not end the rest
            skipped = item.failed(error, time.monotonic())
        if skipped is not None:
            others.append(skipped)
            continue
        photos.append(PlannedPhoto(source=str(item.source), target=str(item.target), width=width, height=height))
        todo.append(item)
    seconds, size = _estimate(todo, photos, job.settings, transform) if transform else (None, None)
    return FolderPlan(
        source=str(job.source),
        output=str(output),
        photos=tuple(photos),
        others=tuple(others),
        ignored=dict(scan.ignored),
        seconds=seconds,
        bytes=size,
    )


def _estimate(
    items: list[Item], photos: list[PlannedPhoto], settings: ImageSettings, transform: Transform
) -> tuple[float | None, int | None]:
    """Time and bytes of all photos, by those per pixel of some."""
    order = sorted(range(len(items)), key=lambda index: photos[index].width * photos[index].height)
    picked = sorted({order[len(order) * part // (SAMPLES + 1)] for part in range(1, SAMPLES + 1)}) if order else []
    times: list[float] = []
    sizes: list[float] = []
    for index in picked:
        started = time.monotonic()
        try:
            picture = read_image(items[index].source, max_megapixels=settings.max_megapixels)
            data, _ = encode(transform(picture.data), picture, format_of(items[index].target) or "jpeg", settings)
        except Exception:  # the run itself will say what is wrong with it
            continue
        pixels = picture.data.shape[0] * picture.data.shape[1]
        times.append((time.monotonic() - started) / pixels)
        sizes.append(len(data) / pixels)
    if not times:
        return None, None
    total = sum(photo.width * photo.height for photo in photos)
    return statistics.median(times) * total, round(statistics.median(sizes) * total)
