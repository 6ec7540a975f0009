"""``stylize folder``."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from stylize.commands.options import (
    CLUSTER,
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
    from stylize.photos.dry_run import FolderPlan
    from stylize.photos.report import FolderReport, PhotoReport, Progress
    from stylize.sharding import Shard

__all__ = ["folder"]


@cloup.command()
@click.argument("source", type=click.Path(path_type=Path))
@cloup.option_group(
    "Result",
    cloup.option(
        "-o", "--output", type=click.Path(path_type=Path), help="Folder for results.  [default: SOURCE/stylized]"
    ),
    cloup.option(
        "--overwrite", is_flag=True, help="Redo what was made with other settings; replace what stands there."
    ),
    cloup.option(
        "--format",
        "format_",
        type=click.Choice(["keep", "jpeg", "png", "webp", "tiff", "bmp"]),
        default="keep",
        show_default=True,
        help="Format of the results; keep: as the source, HEIC and AVIF as JPEG.",
    ),
    cloup.option("--quality", type=int, default=92, show_default=True, help="JPEG and WebP quality, 1 to 100."),
    cloup.option("--lossless", is_flag=True, help="WebP without loss."),
    cloup.option(
        "--profile",
        type=click.Choice(["keep", "srgb"]),
        default="keep",
        show_default=True,
        help="Colour profile of the results: the source's, or sRGB.",
    ),
    cloup.option("--strip-metadata", is_flag=True, help="Leave out EXIF, XMP and IPTC (position, camera, dates)."),
    cloup.option("--keep-times", is_flag=True, help="Give results the file times of their sources."),
)
@cloup.option_group(
    "Run",
    cloup.option("--recursive/--flat", default=True, show_default=True, help="Go through sub-folders, too."),
    cloup.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
    cloup.option(
        "--report", is_flag=True, help="Write a page with before/after sliders, times and errors: OUTPUT/report.html."
    ),
    cloup.option("--json", "json_", is_flag=True, help="Print the report as JSON."),
    cloup.option(
        "--jobs", type=click.IntRange(1, 3), default=3, show_default=True, help="Photos in the works at once."
    ),
    shard_option("Do only share i of n of the photos, for job arrays."),
    *CLUSTER,
)
@style_options(gpus=True)
@click.pass_context
def folder(
    ctx: click.Context,
    /,
    source: Path,
    output: Path | None,
    format_: str,
    strip_metadata: bool,
    shard: Shard | None,
    ray: str | None,
    ray_cpus: int | None,
    dry_run: bool,
    report: bool,
    json_: bool,
    style: StyleSettings,
    **values: Any,
) -> None:
    """Stylize all photos of a folder and below; SOURCE itself is left as it is.

    The tree is mirrored, what is done is skipped, and one bad file does not stop the rest.

    \b
    stylize folder ./photos
    stylize folder ./photos -o ./firewatch --look violet --format jpeg
    """
    from stylize.distributed.photos import stylize_folder_on_cluster
    from stylize.distributed.pool import open_pool
    from stylize.media.image.settings import ImageSettings
    from stylize.photos.dry_run import plan_folder
    from stylize.photos.job import FolderJob, stylize_folder

    settings = settings_or_usage(ImageSettings, format=format_, metadata=not strip_metadata, **values)
    chosen = asdict(style)
    page = f"report-{shard.number}-of-{shard.count}.html" if shard else "report.html"
    if report:
        from stylize.html.report import check_report
        from stylize.photos.scan import output_folder

        check_report(output_folder(source, output) / page, overwrite=settings.overwrite)
    job = FolderJob(source=source, target=output, settings=settings, shard=shard)
    if ray is not None:
        refuse_with_ray(ctx, style, "shard", "dry_run")
        with open_pool(ray, style, video=False, cpus=ray_cpus) as pool, _run(ctx) as (stop, progress):
            result = stylize_folder_on_cluster(replace(job, progress=progress, stop=stop), pool)
    else:
        with open_stylizer(style) as stylizer:
            job = replace(job, transform_key=stylizer.key)
            chosen |= stylizer.chosen
            if dry_run:
                ctx.exit(_show_plan(plan_folder(job, stylizer.image), json_))
            with _run(ctx) as (stop, progress):
                at_once = max(1, len(style.gpu_numbers))
                result = stylize_folder(replace(job, progress=progress, stop=stop), stylizer.image, at_once=at_once)
            chosen |= stylizer.chosen  # now with what look `auto` has mixed
    click.echo(json.dumps(result.as_dict(), indent=2)) if json_ else _summary(result, ctx.obj["quiet"])
    if report:
        _write_page(Path(result.output) / page, result, {**chosen, **asdict(settings)}, ctx.obj["quiet"] or json_)
    if result.interrupted:
        ctx.exit(130)
    ctx.exit(0 if result.complete else 1)


@contextmanager
def _run(ctx: click.Context) -> Iterator[tuple[threading.Event, Progress]]:
    """What stops a run, and what shows how far it is."""
    with progress_bar(unit="photo", quiet=ctx.obj["quiet"]) as bar, stop_on_terminate() as stop:

        def progress(photo: PhotoReport, done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            if photo.status == "failed":
                bar.write(f"Error: {photo.message}", file=sys.stderr)

        yield stop, progress


def _write_page(path: Path, result: FolderReport, settings: dict[str, Any], quiet: bool) -> None:
    """The report as a page."""
    from stylize.html.report import folder_entries, write_report

    write_report(path, f"Photos of {result.source}", folder_entries(result), settings, seconds=result.seconds)
    if not quiet:
        click.echo(f"report: {path}")


def _show_plan(plan: FolderPlan, json_: bool) -> int:
    """One line per photo, and the totals; the exit code."""
    code = 1 if any(other.status == "failed" for other in plan.others) else 0
    if json_:
        click.echo(json.dumps(plan.as_dict(), indent=2))
        return code
    click.echo("\n".join(plan.lines()) + _passed_over(plan.ignored))
    return code


def _passed_over(ignored: dict[str, int]) -> str:
    return f"; passed over {counted(ignored)}" if ignored else ""


def _summary(report: FolderReport, quiet: bool) -> None:
    """What became of the photos, in a few lines."""
    from stylize.files import shown

    for photo in report.photos if not quiet else ():
        for note in photo.notes:
            click.echo(f"{shown(photo.source)}: {note}", err=True)
    reasons: dict[str, int] = {}
    for photo in report.photos:
        if photo.status == "skipped":
            reasons[photo.reason] = reasons.get(photo.reason, 0) + 1
    if not quiet:
        skipped = "".join(f", {count} skipped ({reason})" for reason, count in reasons.items())
        failed = f", {report.count('failed')} failed" if report.count("failed") else ""
        left = f", {report.count('left')} left" if report.count("left") else ""
        click.echo(
            f"{report.count('done')} done{skipped}{failed}{left} in {report.seconds:.1f} s -> {report.output}"
            f"{_passed_over(report.ignored)}"
        )
        if reasons.get("other-settings"):
            click.echo("Some results were made with other settings: --overwrite makes them anew.", err=True)
    if report.message:
        click.echo(report.message, err=True)
