"""Several videos: which file becomes which, and one after the other without one stopping the rest."""

from __future__ import annotations

import glob
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from engine.errors import EngineError
from stylize.errors import InputError, StylizeError
from stylize.frame import FrameTransform
from stylize.media.formats import CONTAINERS
from stylize.media.video.probe import VideoInfo, probe_video
from stylize.media.video.settings import VideoSettings
from stylize.result_name import RESULT, beside
from stylize.video.job import Progress, VideoReport, stylize_video

__all__ = ["VIDEO_SUFFIXES", "VideoTask", "find_tasks", "run_tasks"]

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {*CONTAINERS, ".avi", ".mts", ".m2ts", ".ts", ".3gp", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".vob"}
)
"""What is taken for a video when a folder is given."""


@dataclass(frozen=True)
class VideoTask:
    """One source and its target."""

    source: Path
    target: Path


def find_tasks(sources: Sequence[str], output: Path | None) -> list[VideoTask]:
    """Match sources (files, folders, globs) with targets.

    One file and an output with a suffix: that file.  Otherwise `output` is a folder; without one, results
    stand beside their sources as ``NAME.firewatch.mp4``.  Raises InputError for a source that does not exist
    or a folder without videos, ValueError when two sources would get one target.
    """
    found = [pair for source in sources for pair in _expand(source, output)]
    single = len(found) == 1 and not Path(sources[0]).is_dir()
    tasks: list[VideoTask] = []
    taken: dict[str, Path] = {}
    for path, relative in found:
        if output is None:
            target = beside(path, _suffix(path))
        elif single and (output.suffix or not output.is_dir()) and not str(output).endswith("/"):
            target = output
        else:
            target = output / relative.with_suffix(_suffix(path))
        other = taken.setdefault(str(target).casefold(), path)
        if other != path:
            raise ValueError(f"{other} and {path} would both become {target}: give them in separate runs")
        tasks.append(VideoTask(path, target))
    return tasks


def _expand(source: str, output: Path | None) -> Iterable[tuple[Path, Path]]:
    """Files of one argument, with their paths relative to it."""
    path = Path(source)
    if path.is_dir():
        inside = sorted(
            p
            for p in path.rglob("*")
            if p.suffix.lower() in VIDEO_SUFFIXES
            and p.is_file()
            and not any(part.startswith(".") for part in p.relative_to(path).parts)
            and RESULT not in p.suffixes
            and (output is None or output.resolve() not in p.resolve().parents)
        )
        if not inside:
            raise InputError(f"{source} holds no video ({', '.join(sorted(VIDEO_SUFFIXES))})")
        return [(p, p.relative_to(path)) for p in inside]
    if not path.exists() and (matches := sorted(glob.glob(source, recursive=True))):  # noqa: PTH207  a pattern
        return [(Path(m), Path(Path(m).name)) for m in matches if Path(m).is_file()]
    if not path.exists():
        raise InputError(f"{source} does not exist: check the name")
    return [(path, Path(path.name))]


def _suffix(source: Path) -> str:
    suffix = source.suffix.lower()
    return suffix if suffix in CONTAINERS else ".mp4"


def run_tasks(
    tasks: Sequence[VideoTask],
    transform_for: Callable[[VideoInfo], FrameTransform],
    settings: VideoSettings,
    *,
    transform_key: str,
    progress: Callable[[VideoTask, Progress], None] | None = None,
    finished: Callable[[VideoReport], None] | None = None,
    stop: threading.Event | None = None,
    jobs: int = 1,
    render: Callable[..., VideoReport] = stylize_video,
) -> list[VideoReport]:
    """Stylize every task; a failure becomes a report of status ``failed`` and the next one begins.

    `jobs` videos are in the works at once: while one is in the network, others decode and encode.
    `render` does one, with the arguments of `stylize_video`.
    """
    halt = stop or threading.Event()

    def one(task: VideoTask) -> VideoReport:
        report = VideoReport(source=str(task.source), target=str(task.target))
        if halt.is_set():
            report.status = "left"
        else:
            try:
                report = render(
                    task.source,
                    task.target,
                    transform_for(probe_video(task.source)),
                    settings,
                    transform_key=transform_key,
                    progress=None if progress is None else lambda p: progress(task, p),
                    stop=halt,
                )
            except (StylizeError, EngineError, ValueError) as error:
                log.debug("%s failed", task.source, exc_info=True)
                report.status, report.message = "failed", str(error)
            except KeyboardInterrupt:
                report.status = "interrupted"
        if report.status == "interrupted":
            halt.set()
        if finished is not None:
            finished(report)
        return report

    if jobs == 1:
        return [one(task) for task in tasks]
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(one, task) for task in tasks]
        try:
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            halt.set()
            return [future.result() for future in futures]
