"""``stylize folder``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from stylize.commands.options import open_stylizer, settings_or_usage, shard_option, stop_on_terminate, style_options
from stylize.settings import StyleSettings

if TYPE_CHECKING:
    from stylize.folder_plan import FolderPlan
    from stylize.folder_report import FolderReport, PhotoReport
    from stylize.sharding import Shard

__all__ = ["folder"]


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for results.  [default: SOURCE/stylized]")
@click.option("--overwrite", is_flag=True, help="Redo what was made with other settings; replace what stands there.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["keep", "jpeg", "png", "webp", "tiff", "bmp"]),
    default="keep",
    show_default=True,
    help="Format of the results; keep: as the source, HEIC and AVIF as JPEG.",
)
@click.option("--quality", type=int, default=92, show_default=True, help="JPEG and WebP quality, 1 to 100.")
@click.option("--lossless", is_flag=True, help="WebP without loss.")
@click.option(
    "--profile",
    type=click.Choice(["keep", "srgb"]),
    default="keep",
    show_default=True,
    help="Colour profile of the results: the source's, or sRGB.",
)
@click.option("--strip-metadata", is_flag=True, help="Leave out EXIF, XMP and IPTC (position, camera, dates).")
@click.option("--jobs", type=click.IntRange(1, 3), default=3, show_default=True, help="Photos in the works at once.")
@click.option("--keep-times", is_flag=True, help="Give results the file times of their sources.")
@click.option("--recursive/--flat", default=True, show_default=True, help="Go through sub-folders, too.")
@shard_option("Do only share i of n of the photos, for job arrays.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option(
    "--report", is_flag=True, help="Write a page with before/after sliders, times and errors: OUTPUT/report.html."
)
@click.option("--json", "json_", is_flag=True, help="Print the report as JSON.")
@style_options()
@click.pass_context
def folder(
    ctx: click.Context,
    /,
    source: Path,
    output: Path | None,
    format_: str,
    strip_metadata: bool,
    shard: Shard | None,
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
    from stylize.folder_job import stylize_folder
    from stylize.folder_plan import plan_folder
    from stylize.media.image_settings import ImageSettings

    settings = settings_or_usage(ImageSettings, format=format_, metadata=not strip_metadata, **values)
    with open_stylizer(style) as stylizer:
        if dry_run:
            plan = plan_folder(
                source, output, settings, transform_key=stylizer.key, transform=stylizer.image, shard=shard
            )
            click.echo(json.dumps(plan.as_dict(), indent=2)) if json_ else _show_plan(plan)
            return
        with tqdm(unit="photo", dynamic_ncols=True, disable=ctx.obj["quiet"] or None) as bar:

            def progress(photo: PhotoReport, done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)
                if photo.status == "failed":
                    bar.write(f"Error: {photo.message}", file=sys.stderr)

            with stop_on_terminate() as stop:
                result = stylize_folder(
                    source,
                    output,
                    stylizer.image,
                    settings,
                    transform_key=stylizer.key,
                    shard=shard,
                    progress=progress,
                    stop=stop,
                )
    click.echo(json.dumps(result.as_dict(), indent=2)) if json_ else _summary(result, ctx.obj["quiet"])
    if report:
        name = f"report-{shard.number}-of-{shard.count}.html" if shard else "report.html"
        path = Path(result.output) / name
        _write_page(path, result, {**asdict(style), **asdict(settings)}, ctx.obj["quiet"] or json_)
    if result.interrupted:
        ctx.exit(130)
    ctx.exit(0 if result.complete else 1)


def _write_page(path: Path, result: FolderReport, settings: dict[str, Any], quiet: bool) -> None:
    """The report as a page."""
    from stylize.report import folder_entries, write_report

    write_report(path, f"Photos of {result.source}", folder_entries(result), settings, seconds=result.seconds)
    if not quiet:
        click.echo(f"report: {path}")


def _show_plan(plan: FolderPlan) -> None:
    """One line per photo, and the totals."""
    from stylize.media.image_settings import shown

    for photo in plan.photos:
        click.echo(f"{shown(photo.source)} -> {shown(photo.target)}")
    for other in plan.others:
        click.echo(f"{shown(other.source)}: {other.status} ({other.message})")
    estimate = ""
    if plan.seconds is not None and plan.bytes is not None:
        estimate = f": about {plan.seconds / 60:.1f} minutes, {plan.bytes / 1e6:.1f} MB"
    click.echo(f"{len(plan.photos)} photos, {plan.megapixels:.1f} megapixels{estimate}")


def _summary(report: FolderReport, quiet: bool) -> None:
    """What became of the photos, in a few lines."""
    from stylize.media.image_settings import shown

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
        click.echo(f"{report.count('done')} done{skipped}{failed}{left} in {report.seconds:.1f} s -> {report.output}")
        if reasons.get("other-settings"):
            click.echo("Some results were made with other settings: --overwrite makes them anew.", err=True)
    if report.message:
        click.echo(report.message, err=True)
