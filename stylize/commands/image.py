"""``stylize image``."""

from __future__ import annotations

from pathlib import Path

import click
import cloup

from stylize.commands.options import open_stylizer, settings_or_usage, style_options
from stylize.result_name import beside
from stylize.settings import StyleSettings

__all__ = ["image"]


@cloup.command()
@click.argument("source", type=click.Path(path_type=Path))
@cloup.option_group(
    "Result",
    cloup.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        help="Result; its suffix is the format.  [default: NAME.firewatch.jpg beside the photo]",
    ),
    cloup.option("--overwrite", is_flag=True, help="Replace a result that exists."),
    cloup.option("--quality", type=int, default=92, show_default=True, help="JPEG and WebP quality, 1 to 100."),
    cloup.option("--keep-times", is_flag=True, help="Give the result the file times of its source."),
)
@style_options()
@click.pass_context
def image(
    ctx: click.Context,
    source: Path,
    output: Path | None,
    overwrite: bool,
    quality: int,
    keep_times: bool,
    style: StyleSettings,
) -> None:
    """Stylize one photo; SOURCE may be JPEG, PNG, WebP, TIFF, BMP, HEIC or AVIF.

    \b
    stylize image lake.jpg
    stylize image lake.jpg -o lake.png
    stylize image lake.heic -o lake.jpg --look dusk --strength 0.8
    """
    from stylize.media.image.settings import ImageSettings
    from stylize.photos.job import stylize_image

    settings = settings_or_usage(ImageSettings, quality=quality, overwrite=overwrite, keep_times=keep_times)
    if output is None:
        output = beside(source, settings.suffix_for(source))
    with open_stylizer(style) as stylizer:
        report = stylize_image(source, output, stylizer.image, settings)
    if not ctx.obj["quiet"]:
        for note in report.notes:
            click.echo(f"Note: {note}", err=True)
        click.echo(f"{report.target}  {report.width} x {report.height}  {report.seconds:.1f} s")
