"""``stylize preview``."""

from __future__ import annotations

import dataclasses
import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from stylize.commands.options import open_stylizer, settings_or_usage, style_options
from stylize.commands.progress import progress_bar
from stylize.settings import StyleSettings

if TYPE_CHECKING:
    from stylize.api import Stylizer
    from stylize.frame import Image
    from stylize.preview import Cell, Picture

__all__ = ["preview"]


class Time(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A place in a video: 80, 1:20 or 0:01:20.5."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        """Seconds."""
        seconds = Fraction(0)
        try:
            for part in str(value).split(":"):
                seconds = seconds * 60 + Fraction(part)
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is no time: write 80, 1:20 or 0:01:20.5", param, ctx)
        if seconds < 0 or str(value).count(":") > 2:
            self.fail(f"{value!r} is no time: write 80, 1:20 or 0:01:20.5", param, ctx)
        return seconds


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Numbers with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        """A list of numbers."""
        try:
            return [float(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r} is no list of numbers: write 0.5,0.75,1", param, ctx)


@cloup.command()
@click.argument("source", type=click.Path(path_type=Path))
@cloup.option_group(
    "Sheet",
    cloup.option("-o", "--output", type=click.Path(path_type=Path), help="Sheet, PNG.  [default: SOURCE.preview.png]"),
    cloup.option("--overwrite", is_flag=True, help="Replace a sheet that exists."),
    cloup.option("--at", type=Time(), multiple=True, help="Frame at this time (1:20); repeat for more."),
    cloup.option("--frames", type=click.IntRange(1, 12), help="Scenes to show.  [default: 4; of a grid 2]"),
    cloup.option("--looks", help="A column for each look: all, or names and mixtures with ';' between them."),
    cloup.option("--strengths", type=Numbers(), help="A column for each strength: 0.5,0.75,1."),
    cloup.option("--details", type=Numbers(), help="A column for each detail: 0.25,0.5,1."),
)
@style_options()
@click.pass_context
def preview(
    ctx: click.Context,
    source: Path,
    output: Path | None,
    at: tuple[Fraction, ...],
    frames: int | None,
    looks: str | None,
    strengths: list[float] | None,
    details: list[float] | None,
    overwrite: bool,
    style: StyleSettings,
) -> None:
    """Show a few frames of a video, or a photo, before and after, on one sheet; a look before a long run.

    Frames are taken one for each scene.  With --looks, --strengths or --details the sheet is a grid.
    The command line for each column is printed, and written beside the sheet.

    \b
    stylize preview hike.mp4
    stylize preview hike.mp4 --at 1:20 --looks all
    stylize preview lake.jpg --strengths 0.5,0.75,1 --details 0.25,1
    """
    from stylize.media.formats import READ_SUFFIXES
    from stylize.preview import command_for, render_sheet

    target = _checked_target(source, output, overwrite=overwrite)
    video = source.suffix.lower() not in READ_SUFFIXES
    grid = bool(looks or strengths or details)
    with open_stylizer(style, video=video) as stylizer:
        columns = _columns(stylizer, style, looks or "", strengths or [], details or [])
        pictures = _pictures(source, video, frames or (2 if grid else 4), at)
        total = len(pictures) * len(columns)
        with progress_bar(total=total, unit="picture", quiet=ctx.obj["quiet"]) as bar:
            sheet = render_sheet(stylizer, pictures, columns, progress=lambda done: bar.update(done - bar.n) and None)
        model = style.model if style.model != "auto" else stylizer.spec.name
    command = "video" if video else "image"
    lines = [
        f"{cell.label}: {command_for(source, dataclasses.replace(cell.settings), command=command, model=model)}"
        for cell in columns
    ]
    _write(target, sheet, lines, overwrite=overwrite)
    if not ctx.obj["quiet"]:
        click.echo("\n".join(lines))
        click.echo(f"{target}  {sheet.shape[1]} x {sheet.shape[0]}; the commands are in {target.with_suffix('.txt')}")


def _checked_target(source: Path, output: Path | None, *, overwrite: bool) -> Path:
    """Where the sheet goes; what is wrong with source or target is said before any work."""
    from stylize.errors import InputError, OutputError
    from stylize.media.image.settings import ImageSettings
    from stylize.media.image.write import check_target

    if not source.is_file():
        raise InputError(f"{source} {'is a folder' if source.is_dir() else 'does not exist'}: name a video or a photo")
    target = output or source.with_name(f"{source.stem}.preview.png")
    if target.suffix.lower() != ".png":
        raise click.UsageError(f"a sheet is a PNG, got {target.name}: choose -o NAME.png")
    check_target(target, settings_or_usage(ImageSettings, overwrite=overwrite), source=source)
    if os.path.lexists(target.with_suffix(".txt")) and not overwrite:
        raise OutputError(
            f"{target.with_suffix('.txt')}, for the commands, exists already: choose another -o, or --overwrite"
        )
    return target


def _columns(
    stylizer: Stylizer, style: StyleSettings, looks: str, strengths: list[float], details: list[float]
) -> list[Cell]:
    """The columns of the sheet; a look that does not exist is a usage error."""
    from stylize.preview import cells

    names = list(stylizer.looks.names) if looks == "all" else [part.strip() for part in looks.split(";") if part]
    usual = stylizer.looks.usual
    columns = settings_or_usage(
        cells, base=style, usual_look=usual, looks=names, strengths=strengths, details=details
    )  # fmt: skip
    for cell in columns:
        settings_or_usage(stylizer.restyled, look=cell.settings.look)
    return columns


def _pictures(source: Path, video: bool, count: int, at: tuple[Fraction, ...]) -> list[Picture]:
    from stylize.preview import Picture, video_pictures

    if video:
        return video_pictures(source, count, at)
    if at:
        raise click.UsageError("a photo has no times: leave --at out")
    from stylize.files import shown
    from stylize.media.image.read import read_image

    return [Picture(data=read_image(source).data, label=shown(source.name))]


def _write(target: Path, sheet: Image, lines: list[str], *, overwrite: bool) -> None:
    """The sheet with its commands inside, and beside it as text."""
    from PIL import Image as Pil
    from PIL import PngImagePlugin

    from stylize.files import new_file, write_bytes

    text = "\n".join(lines)
    inside = PngImagePlugin.PngInfo()
    inside.add_text("Comment", text.encode("utf-8", "replace").decode())
    with new_file(target, overwrite=overwrite) as part:
        Pil.fromarray(sheet).save(part, format="PNG", pnginfo=inside, compress_level=4)
    write_bytes(target.with_suffix(".txt"), f"{text}\n".encode("utf-8", "surrogateescape"), overwrite=overwrite)
