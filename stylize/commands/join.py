"""``stylize join``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from stylize.commands.options import stop_on_terminate
from stylize.commands.video import Bars, exit_code, report_lines

__all__ = ["join"]


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
    from stylize.errors import fault
    from stylize.video.job import MissingSegmentsError, find_jobs, join_video
    from stylize.video.report import VideoReport
    from stylize.video.store import with_unfinished

    jobs = [job for target in targets for job in find_jobs(target)]
    if source is not None and len(jobs) > 1:
        raise click.UsageError("--source goes with one target")
    quiet = ctx.obj["quiet"]
    reports: list[VideoReport] = []
    with stop_on_terminate() as stop, Bars(quiet) as bars:
        for target in jobs:
            report = VideoReport(source=str(source or ""), target=str(target))
            try:
                report = join_video(
                    target,
                    source=source,
                    verify=verify,
                    overwrite=overwrite,
                    progress=partial(bars.update, source or target),
                    stop=stop,
                )
            except Exception as error:  # one video must not end the rest
                report.status, report.message = "failed", fault(error, target)
                if not isinstance(error, MissingSegmentsError):
                    report.message = with_unfinished(report.message, target)
            reports.append(report)
            bars.say(report_lines(report, quiet, json_))
            if report.status == "interrupted":
                ctx.exit(130)
    ctx.exit(exit_code(reports))
