"""``stylize video``."""

from __future__ import annotations

import json
import os
import shlex
import threading
from dataclasses import asdict, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from stylize.commands.options import (
    CLUSTER,
    command_text,
    counted,
    open_stylizer,
    refuse_with_ray,
    settings_or_usage,
    shard_option,
    stop_on_terminate,
    style_options,
)
from stylize.commands.progress import progress_bar
from stylize.settings import StyleSettings

if TYPE_CHECKING:
    from stylize.api import Stylizer
    from stylize.sharding import Shard
    from stylize.video.report import Progress, VideoJob, VideoReport

__all__ = ["Bars", "report_lines", "video"]


_OF_THE_RUN = ("output", "shard", "report", "json_", "jobs")
"""Options that are not of one video: messages name the command without them."""


class Rate(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """Frames a second: 25, 23.976 or 30000/1001."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        """A positive fraction."""
        try:
            return Fraction(str(value))
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is no rate: write 25, 23.976 or 30000/1001", param, ctx)


class Words(click.ParamType):  # type: ignore[type-arg]
    """Words as a shell would part them: -tune film -g 48."""

    name = "words"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """A tuple of the words."""
        try:
            return tuple(shlex.split(value)) if isinstance(value, str) else tuple(value)
        except ValueError as error:
            self.fail(f"{error}: close every quotation mark, got {value!r}", param, ctx)


@cloup.command()
@click.argument("sources", nargs=-1, required=True)
@cloup.option_group(
    "Result",
    cloup.option(
        "-o", "--output", type=click.Path(), help="Result; or folder for results: no suffix, or a / at its end."
    ),
    cloup.option("--overwrite", is_flag=True, help="Replace a result that exists."),
    cloup.option("--restart", is_flag=True, help="Begin anew instead of going on with an unfinished run."),
    cloup.option("--fps", type=Rate(), help="Convert to this constant rate.  [default: every frame at its own time]"),
    cloup.option(
        "--verify", is_flag=True, help="Decode the result and compare it with the source before it gets its name."
    ),
)
@cloup.option_group(
    "Encoder",
    cloup.option("--codec", help="h264, hevc, av1, vp9, prores, lossless, h264_nvenc, ...  [default: the container's]"),
    cloup.option("--crf", type=int, help="Constant quality, smaller is better.  [default: the codec's]"),
    cloup.option(
        "--preset", help="Speed of the encoder, in its own words: for h264 ultrafast to placebo, usually faster."
    ),
    cloup.option("--ten-bit", is_flag=True, help="Encode 10 bits a sample: less banding in skies."),
    cloup.option("--encoder-args", type=Words(), default="", help="More ffmpeg output options, in one string."),
)
@cloup.option_group(
    "Run",
    cloup.option("--dry-run", is_flag=True, help="Say what would be done, with an estimate from a few real frames."),
    cloup.option(
        "--report", is_flag=True, help="Write a page with before/after sliders, times and errors: beside the result."
    ),
    cloup.option("--json", "json_", is_flag=True, help="Print one JSON object per video."),
    cloup.option(
        "--jobs", type=click.IntRange(1, 16), default=1, show_default=True, help="Videos in the works at once."
    ),
    cloup.option(
        "--segment",
        "segment_seconds",
        type=Rate(),
        default="10",
        show_default=True,
        help="Seconds that an interruption may lose.",
    ),
    shard_option("Make only share i of n of each video's segments, for job arrays; then: stylize join."),
    *CLUSTER,
)
@style_options(smoothing=True, gpus=True)
@click.pass_context
def video(
    ctx: click.Context,
    /,
    sources: tuple[str, ...],
    output: str | None,
    dry_run: bool,
    shard: Shard | None,
    ray: str | None,
    report: bool,
    json_: bool,
    style: StyleSettings,
    **values: Any,
) -> None:
    """Stylize videos; SOURCES are video files, folders, or patterns for names of them (*.mov).

    Every frame comes out once, at its own time; sound, subtitles, chapters and tags are kept.  An
    interrupted run goes on where it stopped when the same command is given again.

    \b
    stylize video hike.mp4 -o firewatch.mp4
    stylize video hike.mp4 -o firewatch.mp4 --look dusk:night --crf 16
    stylize video day1.mov day2.mp4 clips/ -o firewatch/

    Exit codes: 0 all done, 1 some failed or came damaged, 2 wrong use, 130 interrupted.
    """
    from stylize.media.video.settings import VideoSettings
    from stylize.video.batch import find_tasks, passed_over

    del values["jobs"], values["ray_cpus"]  # read where they are needed, off the context
    settings = settings_or_usage(VideoSettings, **values)
    target, folder = (Path(output), output.endswith(("/", os.sep))) if output else (None, False)
    tasks = settings_or_usage(find_tasks, sources=sources, output=target, folder=folder)
    _check_together(ctx, style, tasks)
    quiet, chosen = ctx.obj["quiet"], asdict(style)
    with stop_on_terminate() as stop, Bars(quiet) as bars:
        jobs = [
            replace(
                task,
                settings=settings,
                shard=shard,
                command=command_text(ctx, task.source, "-o", task.target, without=_OF_THE_RUN),
                progress=partial(bars.update, task.source),
                stop=stop,
            )
            for task in tasks
        ]
        if ray is not None:
            reports = _on_cluster(ctx, jobs, style, bars, stop)
        else:
            with open_stylizer(style, video=True, frame=_first_frame(tasks)) as stylizer:
                chosen |= stylizer.chosen
                if dry_run:
                    ctx.exit(_show_plans(jobs, stylizer, json_))
                reports = _here(ctx, jobs, stylizer, bars)
                chosen |= stylizer.chosen  # now with what look `auto` has mixed
    if report:
        _write_page(reports, {**chosen, **asdict(settings)}, quiet or json_)
    if not quiet and not json_ and (others := passed_over(sources, target)):
        click.echo(f"passed over: {counted(others)}", err=True)
    ctx.exit(exit_code(reports))


def _check_together(ctx: click.Context, style: StyleSettings, tasks: list[VideoJob]) -> None:
    """Options that do not go together are a usage error; a page of the user's is not replaced."""
    if ctx.params["report"]:
        from stylize.html.report import check_report, report_path

        check_report(report_path([task.target for task in tasks]), overwrite=ctx.params["overwrite"])
    if ctx.params["ray"] is not None:
        refuse_with_ray(ctx, style, "shard", "dry_run")
    if ctx.params["shard"] is None:
        return
    if ctx.params["restart"]:
        raise click.UsageError("--restart does not go with --shard: other jobs may be at work; delete the job's folder")
    if ctx.params["report"]:
        raise click.UsageError("--report does not go with --shard: there is no result before stylize join")


def exit_code(reports: list[VideoReport]) -> int:
    """Of a run: 0 where all is well, 130 where it was interrupted, else 1."""
    if any(report.status in ("interrupted", "left") for report in reports):
        return 130
    return 0 if all(report.status in ("done", "shard", "skipped") for report in reports) else 1


def _here(ctx: click.Context, jobs: list[VideoJob], stylizer: Stylizer, bars: Bars) -> list[VideoReport]:
    """All videos on this machine."""
    from stylize.video.batch import run_jobs

    return run_jobs(
        [replace(job, transform_key=stylizer.key) for job in jobs],
        lambda info: stylizer.transform_for(info, jobs[0].settings.fps),
        finished=lambda done: bars.say(report_lines(done, ctx.obj["quiet"], ctx.params["json_"])),
        at_once=ctx.params["jobs"],
    )


def _first_frame(tasks: list[VideoJob]) -> tuple[int, int] | None:
    """Height and width of the first video's frames; None where it cannot be read, which is told when its turn comes."""
    from stylize.errors import StylizeError
    from stylize.media.video.probe import probe_video

    try:
        info = probe_video(tasks[0].source)
    except (StylizeError, IndexError):
        return None
    return info.height, info.width


def _on_cluster(
    ctx: click.Context, jobs: list[VideoJob], style: StyleSettings, bars: Bars, stop: threading.Event
) -> list[VideoReport]:
    """All videos on the workers of a Ray cluster."""
    from stylize.distributed.pool import open_pool
    from stylize.distributed.videos import run_on_cluster

    def finished(done: VideoReport) -> None:
        bars.say(report_lines(done, ctx.obj["quiet"], ctx.params["json_"]))

    with open_pool(ctx.params["ray"], style, video=True, cpus=ctx.params["ray_cpus"]) as pool:
        return run_on_cluster(jobs, pool, finished=finished, stop=stop)


def _write_page(reports: list[VideoReport], settings: dict[str, Any], quiet: bool) -> None:
    """The reports as a page."""
    from stylize.html.report import report_path, video_entries, write_report

    path = report_path([Path(report.target) for report in reports])
    title = f"{Path(reports[0].source).name} stylized" if len(reports) == 1 else f"{len(reports)} videos"
    seconds = sum(report.seconds for report in reports)
    write_report(path, title, video_entries(reports), settings, seconds=seconds)
    if not quiet:
        click.echo(f"report: {path}")


def _show_plans(jobs: list[VideoJob], stylizer: Stylizer, json_: bool) -> int:
    """Say what would become of each video; the exit code."""
    from stylize.errors import fault
    from stylize.media.video.probe import probe_video
    from stylize.video.dry_run import plan_video

    code = 0
    for job in jobs:
        try:
            if (skipped := job.skipped()) is not None:
                click.echo(json.dumps(skipped.to_json()) if json_ else skipped.message)
                continue
            transform = stylizer.transform_for(probe_video(job.source), job.settings.fps)
            plan = plan_video(job.source, job.target, transform, job.settings)
        except Exception as error:  # one video must not end the rest
            click.echo(f"Error: {fault(error, job.source)}", err=True)
            code = 1
        else:
            click.echo(json.dumps(plan.to_json()) if json_ else "\n".join(plan.lines()))
    return code


def report_lines(report: VideoReport, quiet: bool, json_: bool) -> list[tuple[str, bool]]:
    """What is said of a finished video: text, and whether it is for standard error."""
    if json_:
        return [(json.dumps(report.to_json()), False)]
    lines = [] if quiet else [(f"Note: {text}", True) for text in report.warnings]
    lines += [(f"Lost: {text}", True) for text in report.lost]
    if report.status == "failed":
        return [*lines, (f"Error: {report.message}", True)]
    if report.message and not (quiet and report.status in ("shard", "skipped")):
        lines.append((report.message, report.status not in ("shard", "skipped")))
    if not quiet and report.status in ("done", "damaged"):
        speed = f" ({report.fps:.2f} fps)" if report.fps else ""
        lines.append((f"{report.target}  {report.frames_out} frames in {report.seconds:.1f} s{speed}", False))
    return lines


class Bars:
    """A progress bar of frames for the video that reported last."""

    def __init__(self, quiet: bool) -> None:
        self._bar = progress_bar(unit="frame", quiet=quiet)
        self._lock = threading.Lock()
        self._source: Path | None = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, source: Path, progress: Progress) -> None:
        """Show how far a video is."""
        with self._lock:
            if self._source != source:
                self._source = source
                self._bar.reset(total=progress.total)
                self._bar.initial = progress.resumed
            self._bar.total = progress.total
            self._bar.set_description(source.name if progress.stage == "frames" else progress.stage, refresh=False)
            self._bar.update(max(0, progress.done - self._bar.n))

    def say(self, lines: list[tuple[str, bool]]) -> None:
        """Print lines without tearing the bar."""
        with self._lock:
            self._bar.clear()
            for text, is_error in lines:
                click.echo(text, err=is_error)
