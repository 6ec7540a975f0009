"""What the page knows: the source that is open, the choice, the jobs, and the folder of uploads; no word of Gradio."""

from __future__ import annotations

import base64
import dataclasses
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from engine.looks.palette_file import shipped_palettes
from stylize.errors import InputError, OutputError, ToolError
from stylize.files import shown
from stylize.frame import Image
from stylize.html.report import Entry, folder_entries, jpeg, pair_figure, pair_of, video_entries
from stylize.media.video.probe import probe_video
from stylize.media.video.settings import VideoSettings
from stylize.photos.dry_run import plan_folder
from stylize.photos.report import FolderJob, FolderReport, PhotoReport
from stylize.preview import Picture
from stylize.settings import StyleSettings
from stylize.ui.choice import Choice, command_text, save_config
from stylize.ui.jobs import UNFINISHED, Job, JobQueue
from stylize.ui.live import SWATCH_SIDE, LivePreview
from stylize.ui.source import Source, Task, open_source, shrunk
from stylize.video.dry_run import plan_video
from stylize.video.report import VideoReport

__all__ = ["Studio", "thumbnail"]

SHOWN_SIDE = 1280
"""Long side of the preview in pixels."""
SHOWN_RESULTS = 12
"""Photos of a folder that are shown as results."""


class Studio:
    """The state behind the page, of one user; a context manager.

    Args:
        folder: where results of uploads go, and ``stylize.toml``.
        data: the program's own folder: the list of jobs, and uploads.  ToolError on entering where another page
            has it.
    """

    def __init__(self, folder: Path, data: Path) -> None:
        from filelock import FileLock

        self.folder, self.uploads = folder, data / "uploads"
        self.source: Source | None = None
        self.choice = Choice()
        self.target: Path | None = None
        """Result of the first task, as the user has it."""
        self.live = LivePreview()
        data.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(data / "lock")
        self.queue = JobQueue(data / "jobs.json")

    def __enter__(self) -> Studio:
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ToolError("stylize ui runs already: use its page, or end it with Ctrl-C first") from error
        self.empty_uploads()
        self.queue.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.queue.__exit__(*exception)
        self.live.close()
        self.empty_uploads()
        self._lock.release()

    def empty_uploads(self) -> None:
        """Delete what was uploaded, but for what unfinished jobs need."""
        needed = [Path(path) for job in self.queue.jobs if job.status in UNFINISHED for path in _files_of(job)]
        for batch in self.uploads.glob("*"):
            if not any(batch in path.parents or batch == path for path in needed):
                shutil.rmtree(batch, ignore_errors=True)

    def take_in(self, files: Sequence[str]) -> Path:
        """Move files that were uploaded into one folder; returns it, or of one file the file.

        Raises InputError where there are none.
        """
        if not files:
            raise InputError("nothing was uploaded: drop a video or some photos")
        batch = self.uploads / time.strftime("photos-%Y%m%d-%H%M%S")
        batch.mkdir(parents=True, exist_ok=True)
        for file in map(Path, files):
            name, number = file.name, 2
            while (batch / name).exists():
                name, number = f"{file.stem}-{number}{file.suffix}", number + 1
            try:
                os.link(file, batch / name)  # the page goes on showing what it was given
            except OSError:
                shutil.move(file, batch / name)
        return batch / name if len(files) == 1 else batch

    def open(self, path: Path) -> Source:
        """Open a file or folder in place of what is open.  Raises StylizeError; what is open stays then."""
        results = self.folder if self.uploads in path.absolute().parents else None
        source = open_source(path, results)
        self.live.forget()
        self.source, self.target = source, source.tasks[0].target
        self.choice = dataclasses.replace(self.choice, frame=0, ends=self.choice.ends if source.video else "")
        return source

    def opened(self) -> Source:
        """What is open.  Raises InputError where nothing is."""
        if self.source is None:
            raise InputError("nothing is open: drop a video or photos, or type a path")
        return self.source

    def style(self) -> StyleSettings:
        """The settings that the choice comes to.  Raises StylizeError or ValueError for what there is not."""
        return self.choice.style(self.own_look())

    def own_look(self) -> str:
        """The name of the look of the wallpaper; empty without one."""
        if not self.choice.wallpaper:
            return ""
        style = StyleSettings(model=self.choice.model, look_from=self.choice.wallpaper)
        return self.live.opened(style, video=self.opened().video).looks.usual

    def looks(self) -> list[str]:
        """Names of the looks that there are."""
        if self.source is None:
            return [*shipped_palettes(), "auto"]
        style = StyleSettings(model=self.choice.model, look_from=self.choice.wallpaper or None)
        return self.live.names(style, video=self.source.video)

    def _picture(self) -> Picture:
        """The one that is chosen."""
        pictures = self.opened().pictures
        return pictures[min(self.choice.frame, len(pictures) - 1)]

    def pair(self) -> str:
        """Before and after of the picture that is chosen, as HTML."""
        picture = self._picture()
        after = self.live.stylized(picture, self.style(), video=self.opened().video)
        return pair_figure(pair_of(picture.data, after, "the picture", SHOWN_SIDE))

    def swatches(self) -> list[dict[str, str]]:
        """Every look on the picture that is chosen: value, label and image of each."""
        names, own = self.looks(), self.own_look()
        styles = [dataclasses.replace(self.choice, look=name, ends="").style(own) for name in names]
        images = self.live.small(self._picture(), styles, video=self.opened().video)
        return [_option(name, name, image) for name, image in zip(names, images, strict=True)]

    def strip(self) -> list[dict[str, str]]:
        """The pictures of the source, of a look that changes over time each in its own light."""
        source = self.opened()
        if source.video and self.choice.ends:
            style = self.style()
            images = [self.live.small(picture, [style], video=True)[0] for picture in source.pictures]
        else:
            images = [picture.data for picture in source.pictures]
        pairs = zip(source.pictures, images, strict=True)
        return [_option(str(number), picture.label, image) for number, (picture, image) in enumerate(pairs)]

    def tasks(self) -> list[Task]:
        """What is to be done, the first with the result that the user has named."""
        first, *others = self.opened().tasks
        return [dataclasses.replace(first, target=self.target or first.target), *others]

    def command(self) -> str:
        """The commands that do the same, a line for each."""
        style = self.style()
        return "\n".join(command_text(task, style) for task in self.tasks())

    def save(self) -> Path:
        """Write ``stylize.toml`` into the folder.  Raises OutputError where there is one."""
        try:
            return save_config(self.folder, self.tasks()[0], self.style())
        except OutputError as error:
            if os.path.lexists(self.folder / "stylize.toml"):
                raise OutputError(f"{self.folder / 'stylize.toml'} exists already: move it away first") from error
            raise

    def plan(self) -> str:
        """What a start would do, in lines.  Raises what would end it at once."""
        source, style = self.opened(), self.style()
        lines: list[str] = []
        with self.live.held():
            for task in self.tasks():
                stylizer = self.live.opened(style, video=source.video)
                if task.command == "video":
                    transform = stylizer.transform_for(probe_video(task.source))
                    lines += plan_video(task.source, task.target, transform, VideoSettings()).lines()
                elif task.command == "folder":
                    job = FolderJob(source=task.source, target=task.target, transform_key=stylizer.key)
                    lines += plan_folder(job, stylizer.image).lines()[-12:]
                else:
                    _check_photo(task)
                    lines.append(f"{shown(task.source)} -> {shown(task.target)}")
        return "\n".join(lines)

    def start(self) -> list[Job]:
        """Put the tasks into the queue.  Raises StylizeError or ValueError; nothing is started then."""
        style, tasks = self.style(), self.tasks()
        for task in tasks:
            if task.command == "image":
                _check_photo(task)
        return [self.queue.add(task, style) for task in tasks]

    def results(self, name: str) -> str:
        """Before and after of a finished job, as HTML."""
        job = self.queue.find(name)
        if job is None:
            return ""
        return "".join(pair_figure(pair) for entry in _entries(job) for pair in entry.pairs[:SHOWN_RESULTS])


def thumbnail(image: Image) -> str:
    """A small copy of a picture, RGB uint8, as an address that holds it whole."""
    small = shrunk(image, min(1.0, SWATCH_SIDE / max(image.shape[:2])))
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(small)).decode()


def _option(value: str, label: str, image: Image) -> dict[str, str]:
    return {"value": value, "label": label, "image": thumbnail(image)}


def _check_photo(task: Task) -> None:
    if os.path.lexists(task.target):
        raise OutputError(f"{shown(task.target)} exists already: name another result")


def _files_of(job: Job) -> list[str]:
    """What a job reads."""
    return [str(job.task.source), *([job.style.look_from] if job.style.look_from else [])]


def _entries(job: Job) -> list[Entry]:
    source, target = str(job.task.source), str(job.task.target)
    if job.task.command == "video":
        return list(video_entries([VideoReport(source=source, target=target, status="done")]))
    if job.task.command == "image":
        photo = PhotoReport(source=source, target=target, status="done")
        return list(folder_entries(FolderReport(source=source, output=target, photos=(photo,), ignored={}, seconds=0)))
    photos: list[PhotoReport] = []
    if isinstance(job.report, FolderReport):
        photos = [photo for photo in job.report.photos if photo.status in ("done", "skipped")][:SHOWN_RESULTS]
    report = FolderReport(source=source, output=target, photos=tuple(photos), ignored={}, seconds=0)
    return list(folder_entries(report))
