"""``stylize looks``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from engine.looks.palette import Palette

__all__ = ["looks"]


@click.command()
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.option(
    "--write",
    nargs=2,
    metavar="LOOK FILE",
    help="Write the palette of a look, or of a mixture (dusk=0.7,night=0.3), as a file to start from.",
)
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@click.pass_context
def looks(ctx: click.Context, json_: bool, write: tuple[str, str] | None, overwrite: bool) -> None:
    """List the looks of models that paint in layers, with their colours; write one as a file to start from.

    \b
    stylize looks
    stylize looks --write dusk my.toml
    stylize image lake.jpg --look-file my.toml
    """
    from engine.looks.auto_look import AUTO
    from engine.looks.palette_file import shipped_palettes

    if write is not None:
        _write(*write, overwrite=overwrite)
        if not ctx.obj["quiet"]:
            click.echo(f"{write[1]}: change its colours and try --look-file {write[1]}")
        return
    palettes = shipped_palettes()
    if json_:
        values = {
            name: {"sky": p.sky, "land": p.land, "lit": p.lit, "sun": p.sun or None} for name, p in palettes.items()
        }
        click.echo(json.dumps(values, indent=2))
        return
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for name, palette in palettes.items():
        click.echo(f"{name:8} {_swatches(palette) if coloured else _words(palette)}", color=coloured or None)
    click.echo(f"{AUTO:8} mixes them by the light and the colours of each picture")
    if not ctx.obj["quiet"]:
        click.echo("Mix: --look dusk=0.7,night=0.3; your own: stylize looks --write dusk my.toml", err=True)


def _swatches(palette: Palette) -> str:
    """The colours as fields, sky, land, lit and sun, in the terminal's 24-bit colours."""

    def fields(colours: Sequence[str]) -> str:
        return "".join(click.style("   ", bg=_rgb(colour)) for colour in colours)

    parts = (palette.sky, palette.land, (palette.lit,), (palette.sun,) if palette.sun else ())
    return "  ".join(fields(part) for part in parts if part)


def _words(palette: Palette) -> str:
    sun = f"  sun {palette.sun}" if palette.sun else ""
    return f"sky {' '.join(palette.sky)}  land {' '.join(palette.land)}  lit {palette.lit}{sun}"


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def _write(look: str, file: str, *, overwrite: bool) -> None:
    from engine.looks.palette import mixed_palette
    from engine.looks.palette_file import palette_text, shipped_palettes
    from engine.spec import look_weights
    from stylize.errors import OutputError
    from stylize.files import new_file

    palettes = shipped_palettes()
    try:
        weights = look_weights(tuple(palettes), look, "stylize")
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    palette = mixed_palette([(p, float(w)) for p, w in zip(palettes.values(), weights, strict=True) if w > 0])
    target = Path(file)
    if os.path.lexists(target) and not overwrite:
        raise OutputError(f"{target} exists already: choose another name, or --overwrite")
    try:
        with new_file(target, overwrite=overwrite) as part:
            part.write_text(palette_text(palette, f"{look}, written by 'stylize looks'"), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{target} cannot be written ({error.strerror or error}): choose another name") from error
