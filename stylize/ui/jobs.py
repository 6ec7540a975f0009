"""The queue of the page: jobs of the library one after the other, that outlive the page and the program.

What a job has done is in the library's own journal.  Kept here is what was asked for, in a file, so that an unfinished
job can be gone on with later: by the page, or by the same command.
"""

from __future__ import annotations

import json
import secrets
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stylize.api import Stylizer
from stylize.errors import fault
from stylize.files import write_bytes
from stylize.media.image.settings import ImageSettings
from stylize.media.video.probe import probe_video
from stylize.media.video.settings import VideoSettings
from stylize.photos.job import FolderJob, stylize_folder, stylize_image
from stylize.photos.report import FolderReport, PhotoReport
from stylize.settings import StyleSettings
from stylize.ui.choice import command_text
from stylize.ui.source import Task
from stylize.video.job import run_video
from stylize.video.report import Progress, VideoJob, VideoReport

__all__ = ["UNFINISHED", "Job", "JobQueue", "video_job"]

UNFINISHED = ("waiting", "running", "paused", "interrupted", "cancelled", "failed")
"""States of jobs that may be gone on with."""


@dataclass(kw_only=True)
class Job:
    """A job, and how far it is."""

    task: Task
    style: StyleSettings
    id: str = field(default_factory=lambda: secrets.token_hex(4))
    status: str = "waiting"
    """waiting, running, paused; interrupted (the program ended), cancelled, failed; done, damaged."""
    done: int = 0
    """Frames or photos that are finished."""
    total: int | None = None
    fps: float = 0.0
    """Frames or photos a second."""
    message: str = ""
    """What went wrong, or what there is to know; lines."""
    stop: threading.Event = field(default_factory=threading.Event, repr=False)
    going: threading.Event = field(default_factory=threading.Event, repr=False)
    """Not set while the job is paused."""
    report: VideoReport | FolderReport | None = field(default=None, repr=False)
    """Of this run of the program."""

    def __post_init__(self) -> None:
        self.going.set()

    @property
    def unit(self) -> str:
        """What is counted."""
        return "frames" if self.task.command == "video" else "photos"

    @property
    def seconds_left(self) -> float | None:
        """Estimated; None where nothing is known."""
        if self.total is None or self.fps <= 0:
            return None
        return max(0, self.total - self.done) / self.fps

    @property
    def command(self) -> str:
        """The command that goes on with it, or does it anew."""
        return command_text(self.task, self.style)

    def to_json(self) -> dict[str, Any]:
        """What is kept."""
        return {
            "id": self.id,
            "status": "interrupted" if self.status in ("waiting", "running", "paused") else self.status,
            "command": self.task.command,
            "source": str(self.task.source),
            "target": str(self.task.target),
            "style": asdict(self.style),
            "done": self.done,
            "total": self.total,
            "message": self.message,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Job:
        """What was kept."""
        task = Task(command=values["command"], source=Path(values["source"]), target=Path(values["target"]))
        kept = {name: values[name] for name in ("id", "status", "done", "total", "message")}
        return cls(task=task, style=StyleSettings(**values["style"]), **kept)


def video_job(task: Task, style: StyleSettings, key: str, **more: Any) -> VideoJob:
    """The job that `stylize video` would make of the same command."""
    return VideoJob(
        source=task.source,
        target=task.target,
        settings=VideoSettings(),
        transform_key=key,
        command=command_text(task, style),
        **more,
    )


class JobQueue:
    """Jobs, one at a time in a thread of its own; a context manager, which ends the running one cleanly.

    Args:
        file: where the list of jobs is kept; it need not exist.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._changed = threading.Condition()
        self._closed = False
        self.jobs: list[Job] = _read(file)
        """All that were not removed, in the order in which they were started."""
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)

    def __enter__(self) -> JobQueue:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            for job in self.jobs:
                if job.status in ("running", "paused"):
                    job.stop.set()
            self._changed.notify_all()
        self._thread.join()
        self._keep()

    def add(self, task: Task, style: StyleSettings) -> Job:
        """Put a job at the end.  Raises ValueError where one for the same result is unfinished."""
        with self._changed:
            for other in self.jobs:
                if other.task.target == task.target and other.status in ("waiting", "running", "paused"):
                    raise ValueError(f"{task.target} is in the queue already: choose another result")
            self.jobs = [j for j in self.jobs if j.task.target != task.target]  # what it was once asked for differently
            job = Job(task=task, style=style)
            self.jobs.append(job)
            self._tell()
        return job

    def find(self, name: str) -> Job | None:
        """The job of an id."""
        return next((job for job in self.jobs if job.id == name), None)

    def do(self, action: str, name: str) -> None:
        """pause, resume, cancel or remove the job of an id; what does not suit its state does nothing."""
        with self._changed:
            job = self.find(name)
            if job is None:
                return
            if action == "pause" and job.status == "running":
                job.going.clear()
                job.status = "paused"
            elif action == "resume" and job.status == "paused":
                job.status = "running"
                job.going.set()
            elif action == "resume" and job.status in UNFINISHED and job.status not in ("waiting", "running"):
                job.stop.clear()
                job.status, job.message = "waiting", ""
            elif action == "cancel" and job.status in ("running", "paused"):
                job.message = "stopping ..."
                job.stop.set()
            elif action == "cancel" and job.status == "waiting":
                job.status = "cancelled"
            elif action == "remove" and job.status not in ("running", "paused"):
                self.jobs = [other for other in self.jobs if other is not job]
            self._tell()

    def _tell(self) -> None:
        self._keep()
        self._changed.notify_all()

    def _keep(self) -> None:
        lines = json.dumps([job.to_json() for job in self.jobs], indent=1)
        write_bytes(self._file, lines.encode(), overwrite=True)

    def _next(self) -> Job | None:
        """Wait for a job; None at the end."""
        with self._changed:
            while not self._closed:
                job = next((job for job in self.jobs if job.status == "waiting"), None)
                if job is not None:
                    job.status, job.message, job.fps = "running", "", 0.0
                    return job
                self._changed.wait()
        return None

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                _run(job)
            except Exception as error:  # one job must not end the rest
                status, message = "failed", fault(error, job.task.source)
            else:
                status, message = _outcome(job)
            with self._changed:
                if status == "interrupted" and not self._closed:
                    status, message = "cancelled", "what is finished is kept: resume goes on behind it"
                job.status, job.message = status, message
                job.going.set()
                self._tell()


def _read(file: Path) -> list[Job]:
    try:
        return [Job.from_json(values) for values in json.loads(file.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):  # of another version, or damaged: the journals are still there
        return []


def _run(job: Job) -> None:
    video = job.task.command == "video"
    with Stylizer(job.style, video=video) as stylizer:
        if job.task.command == "video":
            info = probe_video(job.task.source)
            made = video_job(job.task, job.style, stylizer.key, progress=lambda now: _frames(job, now), stop=job.stop)
            job.report = run_video(made, stylizer.transform_for(info))
        elif job.task.command == "image":
            job.total = 1
            stylize_image(job.task.source, job.task.target, stylizer.image, ImageSettings())
            job.done = 1
        else:
            photos = FolderJob(
                source=job.task.source,
                target=job.task.target,
                transform_key=stylizer.key,
                progress=lambda photo, done, total: _photos(job, photo, done, total),
                stop=job.stop,
            )
            job.report = stylize_folder(photos, stylizer.image)


def _wait(job: Job) -> None:
    """Hold the run while it is paused."""
    while not job.going.wait(0.2) and not job.stop.is_set():
        pass


def _frames(job: Job, now: Progress) -> None:
    job.done, job.total, job.fps = now.done, now.total, now.fps
    _wait(job)


def _photos(job: Job, photo: PhotoReport, done: int, total: int) -> None:
    job.done, job.total = done, total
    if photo.seconds > 0:
        job.fps = 1 / photo.seconds
    _wait(job)


def _outcome(job: Job) -> tuple[str, str]:
    """Status and message of a run that came to its end."""
    report = job.report
    if isinstance(report, VideoReport):
        lines = [*report.warnings, *(f"lost: {text}" for text in report.lost)]
        return report.status, "\n".join(lines)
    if isinstance(report, FolderReport):
        failed = [photo.message for photo in report.photos if photo.status == "failed"]
        if report.interrupted:
            return "interrupted", ""
        if report.message:
            return "failed", report.message
        return ("damaged" if failed else "done"), "\n".join(failed)
    return "done", ""
