"""The work of `train-generator evaluate`: run every method, measure, report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training.data.contact_sheet import contact_sheet
from training.data.image_io import U8, write_rgb
from training.devices import pick_device
from training.errors import DataError, TrainingError
from training.evaluation.judge import (
    Judge,
    Method,
    Score,
    baselines,
    generator_method,
    pseudo_pair,
    read_at,
    score_clips,
)
from training.evaluation.metrics import PATCHES
from training.evaluation.report import table, targets, write_json
from training.files import write_text
from training.generator.checkpoint import load_generator
from training.generator.networks import LightGenerator, ResnetGenerator
from training.look_names import ANCHORS, AUTO

__all__ = ["EvaluateConfig", "evaluate_checkpoints"]

EACH = "each"
PSEUDO_PAIRS = "pseudo-pairs"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What to judge, on what."""

    checkpoints: Sequence[Path]
    """Run folders or generator files."""
    photos: Path
    """Folder of photos that no generator has seen."""
    art: Path
    """Folder of art that no generator has seen."""
    train_art: Path | None = None
    """Folder of the art that distances are taken to; None: every other image of `art`."""
    clips: Path | None = None
    """Folder of videos for the warping error."""
    out: Path | None = None
    """Folder for the results; None: `evaluation` beside the first checkpoint."""
    look: str | None = None
    """Look to judge; None: the generator's first; `each`: the looks in turns, photo by photo, as one set."""
    size: int = 640
    """Longer side of all images, in pixels."""
    limit: int | None = None
    """How many photos; None: all."""
    patches: int = PATCHES
    """Patches of each set and pyramid level: fewer are quicker and noisier."""
    baselines: bool = True
    """Judge the methods without a network as well."""
    fidelity: bool = False
    """FID and KID by torch-fidelity as well."""
    device: str = "auto"
    """Where generators run."""


def evaluate_checkpoints(config: EvaluateConfig, *, echo: Callable[[str], object]) -> dict[str, Score]:
    """Measure everything that `config` asks for, write the results, print the table through `echo`.

    Raises:
        TrainingError: a folder or checkpoint cannot be used, or the results cannot be written.
    """
    nets = _nets(config)
    device = pick_device(config.device)
    generators = {
        name: [generator_method(net, look, device) for look in _looks(net, config.look)] for name, net in nets.items()
    }
    out = config.out or _folder_of(config.checkpoints[0]) / "evaluation"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{out} cannot be created ({error}): choose another --out") from error
    names, photos = read_at(config.photos, config.size, config.limit)
    art, train_art = _art(config)
    # A method for every photo in turn: one, or with `each` one for every look.
    methods: dict[str, list[Method]] = {}
    if config.baselines:
        methods = {name: [method] for name, method in baselines(train_art).items()}
        methods[PSEUDO_PAIRS] = _pseudo_pairs(train_art, next(iter(nets.values())), config.look)
    methods |= generators
    judge = Judge(photos, art, train_art, patches=config.patches)
    outputs = {
        name: [turn[i % len(turn)](p) for i, p in enumerate(tqdm(photos, desc=name, unit="photo"))]
        for name, turn in methods.items()
    }
    warping = _warping(config, {name: turn[0] for name, turn in methods.items() if name != PSEUDO_PAIRS}, echo)
    scores = {name: judge.score(images, warping.get(name)) for name, images in outputs.items()}
    facts: dict[str, Any] = {
        "size": config.size,
        "look": config.look,
        "photo_count": len(photos),
        "art_count": len(art),
    }
    if config.fidelity:
        facts["fidelity"] = {name: _fidelity(outputs[name], train_art) for name in generators}
    for name in generators:
        for path, image in zip(names, outputs[name], strict=True):
            folder = out / name
            folder.mkdir(exist_ok=True)
            write_rgb(folder / f"{path.stem}.jpg", image, quality=95)
    contact_sheet(out / "sheet.jpg", {"photo": photos, **outputs})
    text = table(judge, scores)
    write_text(out / "table.md", text + "\n")
    checks = {name: targets(judge, scores, name) for name in generators}
    write_json(out / "evaluation.json", judge, scores, **facts, targets=checks)
    echo(text)
    for name, found in checks.items():
        for what, reached in found:
            echo(f"{'reached' if reached else 'MISSED '}  {name}: {what}")
    echo(f"{out / 'evaluation.json'}, table.md, sheet.jpg and the pictures beside them")
    return scores


def _nets(config: EvaluateConfig) -> dict[str, ResnetGenerator | LightGenerator]:
    found: dict[str, ResnetGenerator | LightGenerator] = {}
    for checkpoint in config.checkpoints:
        path = checkpoint / "generator.safetensors" if checkpoint.is_dir() else checkpoint
        name = path.parent.name if path.name == "generator.safetensors" else path.stem
        name = name if name and name not in found else f"{name or 'generator'}-{len(found)}"
        found[name] = load_generator(path)
    return found


def _looks(net: ResnetGenerator | LightGenerator, look: str | None) -> Sequence[str | None]:
    """The looks to judge in turns."""
    return net.config.looks if look == EACH else [look]


def _pseudo_pairs(art: Sequence[U8], net: ResnetGenerator | LightGenerator, look: str | None) -> list[Method]:
    """The targets of the looks to judge; those of `auto` for a generator of one look with another name."""
    names = [name or net.config.looks[0] for name in _looks(net, look)]
    return [pseudo_pair(art, name if name in ANCHORS else AUTO) for name in names]


def _folder_of(checkpoint: Path) -> Path:
    return checkpoint if checkpoint.is_dir() else checkpoint.parent


def _art(config: EvaluateConfig) -> tuple[list[U8], list[U8]]:
    _, art = read_at(config.art, config.size)
    if config.train_art is not None:
        return art, read_at(config.train_art, config.size)[1]
    if len(art) < 2:
        raise DataError(f"{config.art} holds one image: give more, or --train-art")
    return art[::2], art[1::2]


def _warping(
    config: EvaluateConfig, methods: Mapping[str, Method], echo: Callable[[str], object]
) -> dict[str, dict[str, float]]:
    """For each method the ratio of every clip."""
    found: dict[str, dict[str, float]] = {name: {} for name in methods}
    if config.clips is None:
        return found
    for clip, ratios in tqdm(score_clips(config.clips, methods), desc="clips", unit="clip"):
        if isinstance(ratios, DataError):
            echo(f"left out: {ratios}")
            continue
        for name, ratio in ratios.items():
            found[name][clip] = ratio
    return found


def _fidelity(images: Sequence[U8], art: Sequence[U8]) -> dict[str, float]:
    """FID (Heusel et al. 2017) and KID (Binkowski et al. 2018) by torch-fidelity, which loads its own network."""
    try:
        import torch_fidelity
    except ImportError as error:
        raise TrainingError(
            "torch-fidelity is not installed: pip install torch-fidelity, or leave --fidelity out"
        ) from error
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / name for name in ("images", "art")]
        for folder, kept in zip(folders, (images, art), strict=True):
            folder.mkdir()
            for i, image in enumerate(kept):
                write_rgb(folder / f"{i:05d}.png", image)
        subset = min(1000, len(images), len(art))
        measured = torch_fidelity.calculate_metrics(
            input1=str(folders[0]), input2=str(folders[1]), fid=True, kid=True, kid_subset_size=subset, verbose=False
        )
    return {name: float(value) for name, value in measured.items()}
