"""``stylize models``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

__all__ = ["models"]


@click.group(invoke_without_command=True)
@click.pass_context
def models(ctx: click.Context) -> None:
    """List, show and import models, and choose the usual one.

    \b
    stylize models
    stylize models show light
    stylize models import latest_net_G_A.pth --name monet
    stylize models set-default monet
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_models)


@models.command("list")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.pass_context
def list_models(ctx: click.Context, json_: bool = False) -> None:
    """List the models that can be called by name; '*' marks the one that is used by default."""
    from engine.model_store import all_models, user_folder
    from stylize.commands.model_report import default_model, summary

    usual = default_model(ctx.find_root().command)
    rows = [summary(entry, usual) for entry in all_models()]
    if json_:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        mark = "*" if row["default"] else " "
        if "error" in row:
            click.echo(f"{mark} {row['name']:16} cannot be used: {row['error']}")
            continue
        click.echo(
            f"{mark} {row['name']:16} {row['origin']:8} {row['parameters'] / 1e6:5.2f} M parameters, "
            f"{row['gflop_1080p']:5.0f} GFLOP per 1080p frame, looks: {', '.join(row['looks'])}"
        )
    if usual == "auto":
        click.echo("  Used by default: light for video on a CPU, else full.")
    if not rows:
        click.echo("No models. 'stylize models import FILE' takes a checkpoint.")
    if not ctx.obj["quiet"]:
        click.echo(f"Your models are kept in {user_folder()}", err=True)


@models.command("show")
@click.argument("name")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def show(name: str, json_: bool) -> None:
    """Show all about a model, given by name or folder; its files are compared with their hashes."""
    from stylize.commands.model_report import card

    values = card(name)
    if json_:
        click.echo(json.dumps(values, indent=2))
        return
    text = values.pop("card")
    for key, value in values.items():
        click.echo(f"{key.replace('_', ' '):22} {_shown(value)}")
    if text:
        click.echo(f"\n{text}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(item)}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@models.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--name", help="What the model is to be called.  [default: from the file's name]")
@click.option("--look", default="auto", show_default=True, help="Name of the look of a model that has but one.")
@click.option("--generator", metavar="NAME", help="Which generator of a TensorFlow checkpoint.  [default: A to B]")
@click.option("--overwrite", is_flag=True, help="Replace a model of your own that has this name.")
@click.option("--default", "as_default", is_flag=True, help="Make it the model that is used by default.")
def import_(
    source: Path, name: str | None, look: str, generator: str | None, overwrite: bool, as_default: bool
) -> None:
    """Import a checkpoint, or a folder with an ONNX pair, so that it can be called by name.

    SOURCE is a checkpoint of train-generator (.safetensors), of the PyTorch CycleGAN
    (latest_net_G_A.pth; needs the extra [torch]), of CycleGAN-Keras (.hdf5, .weights.h5; needs the extra
    [keras]), of CycleGAN-tensorflow (the .index file or the folder; needs the extra [tensorflow]), or a folder
    with spec.json, probe.onnx and render.onnx.  No code of the file is run.  What comes out is compared with
    the original layers.

    \b
    stylize models import checkpoints/monet/latest_net_G_A.pth --name monet
    stylize models import G_A2B_model_weights_epoch_200.hdf5 --name ukiyoe --look print
    stylize models import checkpoint/vangogh2photo_256 --name vangogh --generator generatorB2A
    """
    from engine.errors import ModelError
    from engine.importers.check import decibels, import_model
    from engine.model_store import check_name, user_folder
    from stylize.commands.config_file import set_user_value
    from stylize.commands.options import settings_or_usage

    name = settings_or_usage(check_name, name=name or source.resolve().stem)
    folder = user_folder() / name
    if folder.exists() and not overwrite:
        raise ModelError(f"you have a model {name} already: choose another --name, or --overwrite to replace it")
    report = import_model(source, folder, name=name, look=look, generator=generator)
    click.echo(f"{name}  {report.kind}, {_facts(report.spec.config)} -> {folder}")
    if report.error is not None and report.psnr is not None:
        click.echo(
            f"Compared with the original layers: float32 graphs within {report.error:.1e} (of -1..1), "
            f"as stored {decibels(report.psnr)}"
        )
    for note in report.notes:
        click.echo(f"Note: {note}", err=True)
    if as_default:
        click.echo(f"It is the default now, by {set_user_value('model', name)}")
    else:
        click.echo(f"Try it: stylize preview hike.mp4 --model {name}")


def _facts(config: Any) -> str:
    return f"{config['n_blocks']} blocks, {config['ngf']} channels at full size"


@models.command("set-default")
@click.argument("name")
def set_default(name: str) -> None:
    """Use this model whenever no --model is given; kept in your stylize.toml."""
    from engine.model_store import all_models, find_model
    from stylize.commands.config_file import set_user_value

    folder = find_model(name)
    value = name if any(entry.name == name for entry in all_models()) else str(folder.resolve())
    click.echo(f"{value} is the default now, by {set_user_value('model', value)}")
