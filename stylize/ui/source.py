"""What was opened on the page: a video, a photo, or a folder, with a few of its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from stylize.errors import InputError, StylizeError
from stylize.files import shown
from stylize.frame import Image
from stylize.media.formats import READ_SUFFIXES
from stylize.media.image.read import read_image
from stylize.media.image.settings import ImageSettings
from stylize.photos.job import FolderJob, find_photos
from stylize.preview import Picture, video_pictures
from stylize.result_name import beside
from stylize.settings import BASE_SIDE
from stylize.video.batch import find_tasks

__all__ = ["STRIP", "Source", "Task", "open_source"]

STRIP = 6
"""Pictures in the strip at the most."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One run of a command."""

    command: str
    """video, image or folder."""
    source: Path
    target: Path


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """What was opened."""

    path: Path
    tasks: tuple[Task, ...]
    """What is to be done with it; the first decides which model `auto` is."""
    pictures: tuple[Picture, ...]
    """At least one, with long sides of at most 1920 pixels."""

    @property
    def video(self) -> bool:
        """Whether it begins with a video."""
        return self.tasks[0].command == "video"


def open_source(path: Path, results: Path | None = None) -> Source:
    """Open a file or folder, and find pictures to show.

    Args:
        path: a video, a photo, or a folder with some of either.
        results: folder for the results; None: beside the source, as the commands have it.

    Raises StylizeError where there is none, or none can be read.
    """
    path = path.expanduser().absolute()
    if not path.exists():
        raise InputError(f"{shown(path)} does not exist: check the name")
    tasks = tuple(_tasks(path, results))
    first = tasks[0]
    found = _video_strip(first.source) if first.command == "video" else list(_photos(path))
    return Source(path=path, tasks=tasks, pictures=tuple(_small(picture) for picture in found))


def _tasks(path: Path, results: Path | None) -> Iterator[Task]:
    if path.is_file():
        if path.suffix.lower() in READ_SUFFIXES:
            target = beside(path, ImageSettings().suffix_for(path))
            yield Task(command="image", source=path, target=target if results is None else results / target.name)
            return
        (job,) = find_tasks([str(path)], None)
        yield Task(command="video", source=path, target=job.target if results is None else results / job.target.name)
        return
    target = path / "stylized" if results is None else results / f"{path.name}.firewatch"
    photos: StylizeError | None = None
    try:
        find_photos(FolderJob(source=path, target=target))
        yield Task(command="folder", source=path, target=target)
    except InputError as error:
        photos = error
    try:
        jobs = find_tasks([str(path)], results)
    except InputError:
        if photos is not None:
            raise InputError(f"{shown(path)} holds neither photos nor videos: name a folder with some") from photos
        return
    for job in jobs:
        yield Task(command="video", source=job.source, target=job.target)


def _photos(path: Path) -> Iterator[Picture]:
    """The photo, or some of a folder's, evenly spread; those that cannot be read are passed over if others can."""
    if path.is_file():
        yield Picture(data=read_image(path).data, label=path.name)
        return
    _, scan = find_photos(FolderJob(source=path))
    picked = {len(scan.photos) * i // STRIP for i in range(STRIP)} if scan.photos else set()
    last: StylizeError | None = None
    count = 0
    for number in sorted(picked):
        try:
            data = read_image(path / scan.photos[number]).data
        except StylizeError as error:
            last = error
            continue
        count += 1
        yield Picture(data=data, label=scan.photos[number].as_posix())
    if not count:
        raise last or InputError(f"{shown(path)}: no photo in it can be read")


def _video_strip(path: Path) -> list[Picture]:
    """One frame for each scene; where there are few scenes, the best of each part of the video."""
    from stylize.media.video.probe import probe_video
    from stylize.video.frame_choice import choose, samples

    found = list(samples(probe_video(path)))
    if not found:
        raise InputError(f"{shown(path)}: no frame of its video can be decoded: is it damaged?")
    chosen = choose(found, STRIP)
    if len(chosen) < STRIP:
        edges = [len(found) * i // STRIP for i in range(STRIP + 1)]
        chosen = [max(found[a:b], key=lambda sample: sample.score) for a, b in pairwise(edges) if b > a]
    times: list[Fraction] = [sample.pts for sample in chosen]
    return video_pictures(path, len(times), times)


def _small(picture: Picture) -> Picture:
    scale = BASE_SIDE / max(picture.data.shape[:2])
    if scale >= 1:
        return picture
    return Picture(data=shrunk(picture.data, scale), label=picture.label, position=picture.position)


def shrunk(image: Image, scale: float) -> Image:
    """A picture, RGB uint8, made smaller."""
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
