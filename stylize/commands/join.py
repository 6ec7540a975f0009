"""``stylize join``."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from stylize.commands.options import stop_on_terminate
from stylize.commands.video import Bars, report_lines

__all__ = ["join"]

log = logging.getLogger(__name__)


@click.command()
@click.argument("targets", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--source", type=click.Path(path_type=Path), help="Where the source is now, if it was moved.")
@click.option("--overwrite", is_flag=True, help="Replace a result that exists.")
@click.option("--verify", is_flag=True, help="Decode the result and compare it with the source.")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object per video.")
@click.pass_context
def join(
    ctx: click.Context,
    targets: tuple[Path, ...],
    source: Path | None,
    overwrite: bool,
    verify: bool,
    json_: bool,
) -> None:
    """Put the segments of videos together that `stylize video --shard` made.

    TARGETS are the results as they were given to the shards, or folders that hold them.  The result is verified
    before it gets its name; where segments are missing, the commands that make them are named.

    \b
    stylize video hike.mp4 -o firewatch.mp4 --shard 1/2
    stylize video hike.mp4 -o firewatch.mp4 --shard 2/2
    stylize join firewatch.mp4
    """
    from engine.errors import EngineError
    from stylize.distributed.shard import find_jobs, join_video
    from stylize.errors import StylizeError
    from stylize.video.batch import VideoTask
    from stylize.video.report import VideoReport

    jobs = [job for target in targets for job in find_jobs(target)]
    if source is not None and len(jobs) > 1:
        raise click.UsageError("--source goes with one target")
    quiet = ctx.obj["quiet"]
    reports: list[VideoReport] = []
    with stop_on_terminate() as stop, Bars(quiet) as bars:
        for target in jobs:
            task = VideoTask(source or target, target)
            report = VideoReport(source=str(source or ""), target=str(target))
            try:
                report = join_video(
                    target,
                    source=source,
                    verify=verify,
                    overwrite=overwrite,
                    progress=lambda progress, task=task: bars.update(task, progress),  # type: ignore[misc]
                    stop=stop,
                )
            except (StylizeError, EngineError, ValueError) as error:
                log.debug("%s failed", target, exc_info=True)
                report.status, report.message = "failed", str(error)
            reports.append(report)
            bars.say(report_lines(report, quiet, json_))
            if report.status == "interrupted":
                ctx.exit(130)
    ctx.exit(0 if all(report.status == "done" for report in reports) else 1)
