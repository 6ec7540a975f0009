"""What a run leaves on disk: its resumable state, and the generator on its own.

Both are written beside and renamed, so that the last good file survives a full disk.  Neither is a
pickle that could run code: the state is read with ``weights_only``, the generator is safetensors.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from training.errors import CheckpointError
from training.networks import GeneratorConfig, LightGenerator, ResnetGenerator, build_generator

__all__ = ["load_generator", "load_state", "save_generator", "save_state"]

FORMAT = "firewatch-generator-1"


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state of a run (tensors and plain values only)."""
    _write(path, lambda part: torch.save(state, part))


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote; CheckpointError if it is missing or damaged."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: start again without --resume") from error
    if not isinstance(state, dict) or "step" not in state:
        raise CheckpointError(f"{path} is no checkpoint of train-generator")
    return state


def save_generator(path: Path, weights: dict[str, torch.Tensor], config: GeneratorConfig, **facts: Any) -> None:
    """Write generator weights as safetensors; its metadata holds the config and `facts`."""
    metadata = {"format": FORMAT, "config": json.dumps(config.to_dict())}
    metadata.update({k: json.dumps(v) for k, v in facts.items()})
    tensors = {k: v.detach().float().cpu().contiguous().clone() for k, v in weights.items()}
    _write(path, lambda part: save_file(tensors, part, metadata=metadata))


def load_generator(path: Path) -> ResnetGenerator | LightGenerator:
    """The generator of a checkpoint, in eval mode; CheckpointError says what does not fit."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error})") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by train-generator (no {FORMAT} metadata)")
    net = build_generator(GeneratorConfig.from_dict(json.loads(metadata["config"])))
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit its own architecture: {error}") from error
    return net.eval()


def _write(path: Path, write: Callable[[Path], None]) -> None:
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        part.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path} could not be written ({error}): free some space, then --resume; the previous file is kept"
        ) from error
