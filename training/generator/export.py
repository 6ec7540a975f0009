"""From a run to the generator alone: the averaged or the last weights, in some or all looks."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from training.errors import CheckpointError
from training.generator.checkpoint import find_state, load_generator, load_state, save_generator
from training.generator.config import GeneratorConfig, LayersConfig

__all__ = ["export_generator", "export_model_folder", "select_looks"]


def export_generator(
    source: Path, out: Path, *, average: bool = True, looks: Sequence[str] = ()
) -> GeneratorConfig | LayersConfig:
    """Write the generator of a run folder, of its state, or of another generator file.

    Args:
        source: a run folder, its state, or a ``generator.safetensors``.
        out: the file to write.
        average: the moving average of the weights; False takes those of the last step.
        looks: names of the looks to keep, in this order; empty keeps all.

    Returns:
        What the written generator looks like.

    Raises:
        CheckpointError: the source cannot be read or has no such look, or `out` cannot be written.
    """
    facts: dict[str, object] = {"source": source.name}
    layers = _layers(source)
    if layers is not None:
        if looks:
            raise CheckpointError(f"{source} paints in layers: its looks are palettes, none of them is in the weights")
        save_generator(out, layers[1], layers[0], **facts)
        return layers[0]
    if source.suffix == ".safetensors":
        if not average:
            raise CheckpointError(f"{source} holds the averaged weights alone: give the run folder for the last ones")
        net = load_generator(source)
        config, weights = net.config, dict(net.state_dict())
    else:
        state = load_state(find_state(source))
        config = GeneratorConfig.from_dict(json.loads(state["generator"]))
        weights = state["ema"] if average else state["nets"]["netG_A"]
        facts["step"] = state["step"]
    if looks:
        config, weights = select_looks(config, weights, looks)
    save_generator(out, weights, config, **facts)
    return config


def export_model_folder(
    source: Path, out: Path, *, average: bool = True, looks: Sequence[str] = ()
) -> GeneratorConfig | LayersConfig:
    """Make the folder that ``stylize --model`` takes; it appears whole or not at all, in place of what was there.

    Args and Returns: as of `export_generator`, but for `out`, the folder.

    Raises:
        CheckpointError: as there, `out` is another kind of folder, or its weights do not fit into a model.
    """
    from engine.errors import EngineError
    from engine.files import new_folder
    from engine.graphs.export import export_model

    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "spec.json").is_file()):
        raise CheckpointError(f"{out} is something else than a model folder: choose another --out")
    try:
        with new_folder(out, overwrite=True) as model, tempfile.TemporaryDirectory() as work:
            weights = Path(work) / "generator.safetensors"
            config = export_generator(source, weights, average=average, looks=looks)
            export_model(weights, model, name=out.resolve().name)
    except EngineError as error:
        raise CheckpointError(str(error)) from error
    except OSError as error:
        raise CheckpointError(f"{out} cannot be written ({error.strerror}): choose another --out") from error
    return config


def _layers(source: Path) -> tuple[LayersConfig, dict[str, Tensor]] | None:
    """Config and weights of a generator that paints in layers; None for a source of another kind."""
    file = source if source.suffix == ".safetensors" else source / "generator.safetensors"
    try:
        with safe_open(file, framework="pt") as tensors:
            config = json.loads((tensors.metadata() or {}).get("config", "{}"))
            if config.get("architecture") != "layers":
                return None
            return LayersConfig.from_dict(config), {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None  # what is wrong with it is said where it is read


def select_looks(
    config: GeneratorConfig, weights: dict[str, Tensor], looks: Sequence[str]
) -> tuple[GeneratorConfig, dict[str, Tensor]]:
    """The generator with only the rows of some looks; CheckpointError names one that it has not learnt."""
    missing = [name for name in looks if name not in config.looks]
    if missing:
        raise CheckpointError(f"the generator has no look {missing[0]!r}; it has {', '.join(config.looks)}")
    rows = [config.looks.index(name) for name in looks]
    kept = {k: v[rows] if k.endswith((".gamma", ".beta")) else v for k, v in weights.items()}
    return replace(config, looks=tuple(looks)), kept
