"""Several videos: which file becomes which, and one after the other without one stopping the rest."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stylize.errors import InputError, fault
from stylize.frame import FrameTransform
from stylize.media.formats import CONTAINERS, VIDEO_SUFFIXES
from stylize.media.video.probe import VideoInfo, probe_video
from stylize.result_name import RESULT, assign_results
from stylize.video.job import run_video
from stylize.video.report import VideoJob, VideoReport
from stylize.video.store import with_unfinished

__all__ = ["find_tasks", "passed_over", "run_jobs"]


def find_tasks(sources: Sequence[str], output: Path | None, *, folder: bool = False) -> list[VideoJob]:
    """Match sources (files, folders, globs) with targets.

    One file, and an output with a suffix that is no folder: that file.  Otherwise, or with `folder`, `output` is a
    folder, which need not exist; without one, results stand beside their sources as ``NAME.firewatch.mp4``.  Where
    two would have one name, one is called by the whole name of its source: ``NAME.avi.mp4``.

    Raises InputError for a source that does not exist or a folder without videos,
    ValueError when two sources of one name would go to one folder.
    """
    found = [pair for source in sources for pair in _expand(source, output)]
    several = len(found) > 1 or Path(sources[0]).is_dir()
    named = output is not None and bool(output.suffix) and not folder and not output.is_dir()
    if output is not None and named and not several:
        return [VideoJob(source=found[0][0], target=output)]
    places: dict[Path, Path] = {}
    for path, relative in found:
        place = path if output is None else output / relative
        other = places.setdefault(place, path)
        if other != path:
            raise ValueError(f"{other} and {path} would both become {place}: give them in separate runs")
    results = assign_results(places, _suffix, mark=RESULT if output is None else "")
    return [VideoJob(source=path, target=results[place], skip_existing=several) for place, path in places.items()]


def _files(folder: Path, output: Path | None) -> list[Path]:
    """Visible files in a folder and below, but for those in the folder of results."""
    away = None if output is None else output.resolve()
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and (away is None or away not in path.resolve().parents)
    )


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and RESULT not in path.suffixes


def passed_over(sources: Sequence[str], output: Path | None) -> Counter[str]:
    """Files of the folders among `sources` that are no videos: suffix in lower case to number."""
    folders = [Path(source) for source in sources if Path(source).is_dir()]
    files = [path for folder in folders for path in _files(folder, output)]
    return Counter(path.suffix.lower() or path.name for path in files if path.suffix.lower() not in VIDEO_SUFFIXES)


def _expand(source: str, output: Path | None) -> Iterable[tuple[Path, Path]]:
    """Files of one argument, with their paths relative to it."""
    path = Path(source)
    if path.is_dir():
        inside = [file for file in _files(path, output) if _is_video(file)]
        if not inside:
            raise InputError(f"{source} holds no video ({', '.join(sorted(VIDEO_SUFFIXES))})")
        return [(file, file.relative_to(path)) for file in inside]
    if not path.exists() and (matches := sorted(glob.glob(source, recursive=True))):  # noqa: PTH207  a pattern
        return [(Path(m), Path(Path(m).name)) for m in matches if Path(m).is_file()]
    if not path.exists():
        raise InputError(f"{source} does not exist: check the name")
    return [(path, Path(path.name))]


def _suffix(source: Path) -> str:
    suffix = source.suffix.lower()
    return suffix if suffix in CONTAINERS else ".mp4"


def run_jobs(
    jobs: Sequence[VideoJob],
    transform_for: Callable[[VideoInfo], FrameTransform],
    *,
    finished: Callable[[VideoReport], None] | None = None,
    at_once: int = 1,
) -> list[VideoReport]:
    """Make every video; a failure becomes a report of status ``failed`` and the next one begins.

    `at_once` videos are in the works: while one is in the network, others decode and encode.  All jobs have one stop
    event; one that is interrupted sets it.
    """

    def one(job: VideoJob) -> VideoReport:
        report = VideoReport(source=str(job.source), target=str(job.target))
        if job.stop.is_set():
            report.status = "left"
        else:
            try:
                report = job.skipped() or run_video(job, transform_for(probe_video(job.source)))
            except Exception as error:  # one video must not end the run
                report.status, report.message = "failed", with_unfinished(fault(error, job.source), job.target)
            except KeyboardInterrupt:
                report.status = "interrupted"
        if report.status == "interrupted":
            job.stop.set()
        if finished is not None:
            finished(report)
        return report

    if at_once == 1:
        return [one(job) for job in jobs]
    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(one, job) for job in jobs]
        try:
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            for job in jobs:
                job.stop.set()
            return [future.result() for future in futures]
