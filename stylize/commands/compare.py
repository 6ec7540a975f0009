"""``stylize compare``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from stylize.commands.progress import progress_bar

__all__ = ["compare"]


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("result", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Both in one.  [default: RESULT.compare.mp4 or .png]"
)
@click.option(
    "--mode",
    type=click.Choice(["split", "side"]),
    default="split",
    show_default=True,
    help="Left half before and right half after, or both side by side.",
)
@click.option("--figures-only", is_flag=True, help="Write no video or picture.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("--json", "json_", is_flag=True, help="Print the figures as JSON.")
@click.pass_context
def compare(
    ctx: click.Context,
    source: Path,
    result: Path,
    output: Path | None,
    mode: str,
    figures_only: bool,
    overwrite: bool,
    json_: bool,
) -> None:
    """Show a SOURCE and its stylized RESULT in one video (without sound) or picture, and measure them.

    The table has the PSNR, which says how far the look is from the source, and the flicker of both: a
    result that is as calm as its source has figures like it.

    \b
    stylize compare hike.mp4 firewatch.mp4
    stylize compare hike.mp4 firewatch.mp4 -o both.mp4 --mode side
    """
    from stylize.errors import InputError
    from stylize.media.formats import READ_SUFFIXES
    from stylize.video.store import check_target

    for path in (source, result):
        if not path.is_file():
            raise InputError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}: name a video or a photo")
    photos = [path.suffix.lower() in READ_SUFFIXES for path in (source, result)]
    if photos[0] != photos[1]:
        raise click.UsageError("compare two videos or two photos, not one of each")
    target = None
    if not figures_only:
        target = output or result.with_name(f"{result.stem}.compare{'.png' if photos[0] else '.mp4'}")
        for path in (source, result):
            if target.exists() and target.samefile(path):
                raise click.UsageError(f"{target} is one of the two: choose another -o")
        check_target(source, target, overwrite=overwrite)
    quiet = bool(ctx.obj["quiet"])
    (_photos if photos[0] else _videos)(source, result, target, mode, json_, quiet)
    if target is not None and not quiet and not json_:
        click.echo(str(target))


def _videos(source: Path, result: Path, target: Path | None, mode: str, json_: bool, quiet: bool) -> None:
    from stylize.commands.options import settings_or_usage
    from stylize.video.comparison import compare_videos

    with progress_bar(unit="frame", quiet=quiet) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        figures = settings_or_usage(
            compare_videos, source=source, result=result, target=target, mode=mode, progress=progress
        )
    if json_ or not quiet:
        click.echo(json.dumps(figures.to_json()) if json_ else "\n".join(figures.lines()))


def _photos(source: Path, result: Path, target: Path | None, mode: str, json_: bool, quiet: bool) -> None:
    import math

    from engine.metrics import psnr
    from stylize.errors import InputError
    from stylize.files import new_file
    from stylize.media.image.read import read_image
    from stylize.video.comparison import composed

    before, after = read_image(source).data, read_image(result).data
    if before.shape != after.shape:
        sizes = " and ".join(f"{image.shape[1]} x {image.shape[0]}" for image in (before, after))
        raise InputError(f"{source} and {result} differ in size ({sizes}): name a photo and its own result")
    distance = psnr(before, after)
    if target is not None:
        from PIL import Image as Pil

        if target.suffix.lower() != ".png":
            raise click.UsageError(f"a comparison of photos is a PNG, got {target.name}: choose -o NAME.png")
        with new_file(target, overwrite=True) as part:
            Pil.fromarray(composed(before, after, mode)).save(part, format="PNG")
    if json_:
        click.echo(json.dumps({"psnr": None if math.isinf(distance) else distance}))
    elif not quiet:
        click.echo(f"PSNR to the source: {distance:.1f} dB")
