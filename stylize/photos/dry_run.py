"""What a folder run would do, without doing it: for `--dry-run`."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stylize.errors import StylizeError
from stylize.media.image.encode import encode
from stylize.media.image.read import image_size, read_image
from stylize.media.image.settings import ImageSettings, format_of
from stylize.photos.job import Item, Transform, decide, find_photos, find_work, result_key
from stylize.photos.journal import read_journal
from stylize.photos.report import PhotoReport
from stylize.photos.scan import output_folder
from stylize.sharding import Shard

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

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "megapixels": round(self.megapixels, 3)}


def plan_folder(
    source: Path,
    target: Path | None,
    settings: ImageSettings,
    *,
    transform_key: str,
    transform: Transform | None = None,
    shard: Shard | None = None,
) -> FolderPlan:
    """Plan what `stylize_folder` would do with the same arguments; writes nothing.

    With `transform`, up to three photos, spread over the sizes there are, are stylized in memory to
    estimate time and room.  Raises what `stylize_folder` raises before its first photo.
    """
    output = output_folder(source, target)
    scan = find_photos(source, output, settings)
    entries = read_journal(output)
    items, others = find_work(scan, source, output, settings, entries, shard)
    photos: list[PlannedPhoto] = []
    todo: list[Item] = []
    for item in items:
        skipped = decide(item, entries.get(item.result), result_key(transform_key, settings), settings)
        if skipped is not None:
            others.append(skipped)
            continue
        try:
            width, height = image_size(item.source)
        except StylizeError as error:
            others.append(item.report("failed", "error", str(error)))
            continue
        photos.append(PlannedPhoto(source=str(item.source), target=str(item.target), width=width, height=height))
        todo.append(item)
    seconds, size = _estimate(todo, photos, settings, transform) if transform else (None, None)
    return FolderPlan(
        source=str(source),
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
        except Exception:  # which the run will report; the others serve for the estimate
            continue
        pixels = picture.data.shape[0] * picture.data.shape[1]
        times.append((time.monotonic() - started) / pixels)
        sizes.append(len(data) / pixels)
    if not times:
        return None, None
    total = sum(photo.width * photo.height for photo in photos)
    return statistics.median(times) * total, round(statistics.median(sizes) * total)
