"""Train the model `classic`, in pieces: on a machine that is there only for a while, or on a CPU.

    python scripts/train_default.py pack ../shared/data work/data        # JPEGs, below 60 MB in all
    python scripts/train_default.py train work/data work/run             # call it again until it says done
    python scripts/train_default.py evaluate work/run ../shared/data

Each call of `train` runs for at most nine minutes, then saves; the next call goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click

PACK_LIMIT = 60_000_000

# 200 passes over the photos, as the paper counts them, after a warm-up of 60.  The weak cycle and the whole pair keep
# what the warm-up taught: with a cycle weight of 4 and a blurred pair the colours went back to the photo's.
GPU = {
    "crop": 256, "batch": 8, "epochs": 200, "warmup_steps": 10_000, "workers": 12, "save_every": 500,
    "sample_every": 1000, "lr": 2e-4, "warmup_lr": 6e-4, "identity_every": 2, "lambda_cycle": 1.0, "lambda_detail": 5.0,
}  # fmt: skip
# What made `classic`, in one run instead of three: pseudo-pairs to the end.
CPU = {
    "crop": 128, "batch": 1, "steps": 0, "warmup_steps": 9600, "warmup_lr": 4e-4, "lambda_cycle": 0.0,
    "lambda_flat": 0.25, "lambda_edge": 1.5, "lambda_frame": 0.5, "frame_every": 8, "save_every": 200,
    "sample_every": 400,
}  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Train the model `classic`, in pieces of limited time."""


@main.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--quality", default=88, help="JPEG quality.")
@click.option("--long-side", default=512, help="Longer side of the photos, in pixels.")
def pack(data: Path, out: Path, quality: int, long_side: int) -> None:
    """Copy trainA and trainB of DATA to OUT as JPEGs, small enough to be carried to the machine."""
    from training.data.image_io import fit, image_files, read_rgb, write_rgb
    from training.errors import TrainingError

    total = 0
    try:
        for name, side in (("trainA", long_side), ("trainB", 640)):
            (out / name).mkdir(parents=True, exist_ok=True)
            for path in image_files(data / name):
                target = out / name / f"{path.stem}.jpg"
                write_rgb(target, fit(read_rgb(path), side), quality=quality)
                total += target.stat().st_size
    except TrainingError as error:
        raise click.ClickException(str(error)) from error
    if total > PACK_LIMIT:
        raise click.ClickException(f"{total / 1e6:.0f} MB are more than {PACK_LIMIT / 1e6:.0f}: lower --quality")
    click.echo(f"{out}: {total / 1e6:.1f} MB")


@main.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@click.option("--minutes", default=9.0, help="Time for this call, all in all.")
@click.option("--recipe", type=click.Choice(["auto", "gpu", "cpu"]), default="auto", help="Crop, batch and steps.")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change one setting, as JSON.")
def train(data: Path, run: Path, minutes: float, recipe: str, changes: tuple[str, ...]) -> None:
    """Train for some minutes in the folder RUN, going on where the last call stopped."""
    import time

    started = time.perf_counter()
    import torch
    from tqdm import tqdm

    from training.config import TrainConfig
    from training.errors import TrainingError
    from training.generator.checkpoint import find_state
    from training.trainer import Trainer

    if recipe == "auto":
        recipe = "gpu" if torch.cuda.is_available() else "cpu"
    settings = {**(GPU if recipe == "gpu" else CPU), **dict(_change(c) for c in changes)}
    run.mkdir(parents=True, exist_ok=True)
    try:
        config = TrainConfig(
            photos=str(data / "trainA"), art=str(data / "trainB"), out=str(run.parent), cache=str(data / "flat"),
            **settings,
        )  # fmt: skip
        trainer = Trainer(config, run)
        if any(run.glob("last.*")):
            trainer.resume(find_state(run))
        workers = os.cpu_count() or 1
        if trainer.step == 0:
            with tqdm(total=len(trainer.dataset.photos), desc="flatten", unit="photo") as bar:
                trainer.dataset.flatten_all(bar.update, workers)
        left = minutes - (time.perf_counter() - started) / 60 - 0.3  # the last checkpoint takes its time
        done = trainer.step >= trainer.total_steps or trainer.run(minutes=max(left, 0.1))
    except (TrainingError, ValueError) as error:
        raise click.ClickException(" ".join(str(error).split())) from error
    _report(run, trainer.step, trainer.total_steps)
    click.echo("done" if done else "stopped: call it again to go on")


def _change(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = value
    return name.replace("-", "_"), tuple(parsed) if isinstance(parsed, list) else parsed


def _report(run: Path, step: int, total: int) -> None:
    """Throughput and memory over the last steps."""
    lines = (run / "stats.jsonl").read_text(encoding="utf-8").splitlines()[-200:]
    stats = [json.loads(line) for line in lines]
    if stats:
        rate = sum(s["images_per_s"] for s in stats) / len(stats)
        click.echo(f"step {step} of {total}: {rate:.1f} images/s, {stats[-1]['memory_mib']:.0f} MiB at the most")


@main.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
def evaluate(run: Path, data: Path) -> None:
    """Judge the generator of RUN on testA and testB of DATA."""
    folders = {"--photos": "testA", "--art": "testB", "--train-art": "trainB"}
    options = [part for flag, name in folders.items() for part in (flag, str(data / name))]
    raise SystemExit(subprocess.call([sys.executable, "-m", "training.cli", "evaluate", str(run), *options]))


if __name__ == "__main__":
    main()
