"""What a run leaves on disk: its state, ``last.pt``, and the generator on its own.

The state is what torch.save makes of tensors, plain values, dicts and lists of them; it is read with
``weights_only``, which runs no code of the file.  What ships, the generator, is a safetensors file.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as dump_tensors
from torch import Tensor

from training.errors import CheckpointError
from training.files import write_file
from training.generator.config import LayersConfig
from training.generator.layered_networks import LayeredGenerator
from training.generator.networks import GeneratorConfig, LightGenerator, ResnetGenerator, build_generator

__all__ = ["STATE", "find_state", "load_any_generator", "load_generator", "load_state", "save_generator", "save_state"]

FORMAT = "firewatch-generator-1"
STATE_FORMAT = "firewatch-state-2"
STATE = "last.pt"
"""Name of the state in a run folder."""
EARLIER_STATE = "last.json"
"""What earlier versions wrote in its place."""
REMEDY = "free some space, then --resume"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the state of a run into its folder; CheckpointError if that fails, and the one before is kept."""
    for leftover in folder.glob(f".{STATE}.*.part"):  # of a save that was killed
        leftover.unlink(missing_ok=True)
    buffer = io.BytesIO()
    torch.save({"format": STATE_FORMAT, **state}, buffer)
    write_file(folder / STATE, buffer.getbuffer(), remedy=REMEDY, error=CheckpointError)


def find_state(path: Path) -> Path:
    """The state that a run folder, or a file in it, stands for; CheckpointError if there is none."""
    file = path / STATE if path.is_dir() else path
    earlier = file.with_name(EARLIER_STATE)
    if earlier.is_file() and (file == earlier or not file.is_file()):
        raise CheckpointError(
            f"{earlier} is the state of a run by an earlier version, which this one cannot go on with: "
            f"start a new run with --init {file.with_name('generator.safetensors')}"
        )
    if not file.is_file():
        raise CheckpointError(f"{path} holds no checkpoint ({STATE}): start again without --resume")
    return file


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, on the CPU; CheckpointError if the file is missing, damaged or of another program."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: is it complete? Start again without --resume"
        ) from error
    if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
        raise CheckpointError(
            f"{path} is no checkpoint of this version of train-generator: give a run folder, or start again"
        )
    return state


def save_generator(
    path: Path, weights: dict[str, Tensor], config: GeneratorConfig | LayersConfig, **facts: Any
) -> None:
    """Write generator weights as safetensors; its metadata holds the config and `facts`."""
    metadata = {"format": FORMAT, "config": json.dumps(config.to_dict())}
    metadata.update({k: json.dumps(v) for k, v in facts.items()})
    tensors = {k: v.detach().float().cpu().contiguous().clone() for k, v in weights.items()}
    write_file(path, dump_tensors(tensors, metadata=metadata), remedy=REMEDY, error=CheckpointError)


def load_generator(path: Path) -> ResnetGenerator | LightGenerator:
    """The generator with instance norm of a checkpoint, in eval mode; CheckpointError says what does not fit."""
    weights, config = _read(path)
    if config.get("architecture") == "layers":
        raise CheckpointError(f"{path} paints in layers and has no instance norm: give a generator of another kind")
    return _normed(path, weights, config)


def load_any_generator(path: Path) -> ResnetGenerator | LightGenerator | LayeredGenerator:
    """The generator of a checkpoint, whatever its kind, in eval mode; CheckpointError says what does not fit."""
    weights, config = _read(path)
    if config.get("architecture") != "layers":
        return _normed(path, weights, config)
    with _fitting(path):
        return LayeredGenerator.of_weights(weights, LayersConfig.from_dict(config)).eval()


def _normed(path: Path, weights: dict[str, Tensor], config: dict[str, Any]) -> ResnetGenerator | LightGenerator:
    """A generator with instance norm."""
    with _fitting(path):
        net = build_generator(GeneratorConfig.from_dict(config))
        net.load_state_dict(weights)
    return net.eval()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and config of a checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({error}): give a generator.safetensors"
        ) from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by train-generator (no {FORMAT} metadata): give another file")
    with _fitting(path):
        return weights, dict(json.loads(metadata["config"]))


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit its own architecture: {error}") from error
