"""Train several recipes on equal compute and judge them side by side.

    python scripts/compare_recipes.py ../shared/data work/recipes --minutes 20
    python scripts/compare_recipes.py ../shared/data work/recipes --only seed,skips --minutes 20

Every recipe gets the same wall time on the same machine, one after the other.  A call that is cut
off goes on where it stopped.  The table and the sheet are those of `train-generator evaluate`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

RECIPES: dict[str, tuple[str, dict[str, object]]] = {
    "seed": (
        "the plain generator, no warm-up, crops by themselves: the CycleGAN paper",
        {"architecture": "resnet9", "warmup_steps": 0, "lambda_pair": 0.0, "lambda_frame": 0.0, "looks": ["auto"],
         "views": False},
    ),
    "seed-warm": (
        "the plain generator with the pseudo-pair warm-up",
        {"architecture": "resnet9", "looks": ["auto"]},
    ),
    "skips-content": (
        "feature skips, warm-up on content alone",
        {"architecture": "resnet9-skip", "warmup": "content", "lambda_pair": 0.0, "looks": ["auto"]},
    ),
    "skips": ("feature skips and the pseudo-pair warm-up", {"architecture": "resnet9-skip", "looks": ["auto"]}),
    "skips-looks": ("the same, seven looks in one net", {"architecture": "resnet9-skip"}),
    "pairs": (
        "feature skips, seven looks, pseudo-pairs to the end: what ships as classic",
        {"architecture": "resnet9-skip", "steps": 0, "lambda_cycle": 0.0},
    ),
    "pairs-crops": (
        "the same, crops normalised by themselves",
        {"architecture": "resnet9-skip", "steps": 0, "lambda_cycle": 0.0, "views": False, "batch": 2},
    ),
    "light": (
        "the small generator (40 channels), the same way",
        {"architecture": "light", "ngf": 40, "n_blocks": 6, "steps": 0, "lambda_cycle": 0.0, "batch": 3,
         "warmup_lr": 6e-4},
    ),
}  # fmt: skip
COMMON: dict[str, object] = {"crop": 128, "batch": 1, "identity_every": 4, "save_every": 100, "sample_every": 500}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--minutes", default=20.0, help="Training time of each recipe.")
@click.option("--warmup-share", default=0.6, type=click.FloatRange(0, 1), help="Share of the steps for the warm-up.")
@click.option("--only", help="Names of recipes, with commas; default: all.")
@click.option("--steps-per-minute", default=60.0, help="Rough speed, to place the end of the warm-up and the decay.")
@click.option("--threads", default=0, help="CPU threads; 0: all.")
@click.option("--limit", type=int, help="Test photos to judge on.")
@click.option("--size", default=640, help="Longer side of the test photos, in pixels.")
@click.option("--patches", default=16_384, help="Patches of each set, for the distances.")
def main(
    data: Path,
    out: Path,
    minutes: float,
    warmup_share: float,
    only: str | None,
    steps_per_minute: float,
    threads: int,
    limit: int | None,
    patches: int,
    size: int,
) -> None:
    """Train recipes for the same time each, then write one table and one sheet to OUT."""
    from training.config import TrainConfig
    from training.errors import TrainingError
    from training.evaluation.evaluate import EvaluateConfig, evaluate_checkpoints

    names = [n.strip() for n in only.split(",")] if only else list(RECIPES)
    unknown = set(names) - set(RECIPES)
    if unknown:
        raise click.UsageError(f"unknown recipe {min(unknown)!r}; there are {', '.join(RECIPES)}")
    total = int(minutes * steps_per_minute)
    base = TrainConfig(
        photos=str(data / "trainA"), art=str(data / "trainB"), out=str(out), cache=str(out / "flat"), threads=threads,
        warmup_steps=int(total * warmup_share), steps=total - int(total * warmup_share),
    )  # fmt: skip
    try:
        for name in names:
            changes = {k: tuple(v) if isinstance(v, list) else v for k, v in {**COMMON, **RECIPES[name][1]}.items()}
            if changes.get("warmup_steps") == 0:
                changes["steps"] = total
            if changes.get("steps") == 0:
                changes["warmup_steps"] = total
            _train(dataclasses.replace(base, **changes), out / name, minutes)  # type: ignore[arg-type]
        judged = EvaluateConfig(
            checkpoints=[out / n for n in names], photos=data / "testA", art=data / "testB",
            train_art=data / "trainB", out=out / "evaluation", limit=limit,
            patches=patches, size=size,
        )  # fmt: skip
        evaluate_checkpoints(judged, echo=click.echo)
    except TrainingError as error:
        raise click.ClickException(" ".join(str(error).split())) from error
    lines = [f"- `{n}`: {RECIPES[n][0]}; {_spent(out / n)}" for n in names]
    (out / "recipes.md").write_text(
        "\n".join([*lines, "", (out / "evaluation" / "table.md").read_text(encoding="utf-8")]), encoding="utf-8"
    )
    click.echo(f"{out / 'recipes.md'}, {out / 'evaluation' / 'sheet.jpg'}")


def _train(config: object, folder: Path, minutes: float) -> None:
    """Spend what is left of a recipe's time."""
    from training.config import TrainConfig
    from training.generator.checkpoint import find_state
    from training.trainer import Trainer

    assert isinstance(config, TrainConfig)
    folder.mkdir(parents=True, exist_ok=True)
    left = minutes - sum(s["seconds"] for s in _stats(folder)) / 60
    if left <= 0:
        return
    trainer = Trainer(config, folder)
    if any(folder.glob("last.*")):
        trainer.resume(find_state(folder))
    click.echo(f"{folder.name}: {left:.1f} minutes")
    if trainer.step < trainer.total_steps:
        trainer.run(minutes=left)


def _stats(folder: Path) -> list[dict[str, float]]:
    path = folder / "stats.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _spent(folder: Path) -> str:
    stats = _stats(folder)
    return f"{len(stats)} steps in {sum(s['seconds'] for s in stats) / 60:.1f} minutes"


if __name__ == "__main__":
    main()
