"""What a run leaves on disk: its resumable state, and the generator on its own.

The state is a manifest, ``last.json``, beside numbered safetensors files of at most 16 MB each.  A
save writes new files first, then the manifest in one rename, then removes what the old manifest
named: whatever interrupts it (a full disk, a lost machine), the manifest on disk names a complete
state.  Nothing here is a pickle that could run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from training.errors import CheckpointError
from training.generator.config import LayersConfig
from training.generator.networks import GeneratorConfig, LightGenerator, ResnetGenerator, build_generator

__all__ = ["MANIFEST", "find_state", "load_generator", "load_state", "save_generator", "save_state"]

FORMAT = "firewatch-generator-1"
STATE_FORMAT = "firewatch-state-1"
MANIFEST = "last.json"
FILE_LIMIT = 15_500_000
"""Bytes of tensors in one file of a state; its header stays below the rest of 16 MB."""


def save_state(folder: Path, state: dict[str, Any], *, limit: int = FILE_LIMIT) -> None:
    """Write the state of a run (tensors, plain values, dicts and lists of them) into its folder."""
    packer = _Packer(f"state-{int(state['step']):07d}", limit)
    tree = packer.encode(state)
    written: list[Path] = []
    files: dict[str, str] = {}
    old = _listed(folder / MANIFEST)
    try:
        for name, tensors in packer.files.items():
            data = dump_tensors(tensors)
            written.append(folder / name)
            _write(folder / name, data)
            files[name] = hashlib.sha256(data).hexdigest()
        manifest = {"format": STATE_FORMAT, "step": state["step"], "files": files, "tree": tree}
        _write(folder / MANIFEST, json.dumps(manifest).encode())
    except CheckpointError:
        for path in written:
            if path.name not in old:
                path.unlink(missing_ok=True)
        raise
    for name in old - set(files):
        (folder / name).unlink(missing_ok=True)


def find_state(path: Path) -> Path:
    """The state that a run folder, or a file in it, stands for; CheckpointError if there is none."""
    for file in (path / MANIFEST, path / "last.pt") if path.is_dir() else (path,):
        if file.is_file():
            return file
    raise CheckpointError(f"{path} holds no checkpoint ({MANIFEST}): start again without --resume")


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, or the single ``.pt`` file of earlier versions.

    Args:
        path: the manifest, or a ``.pt`` file.

    Raises:
        CheckpointError: it is missing, damaged or foreign.
    """
    if path.suffix == ".pt":
        return _load_pt(path)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: start again without --resume") from error
    if not isinstance(manifest, dict) or manifest.get("format") != STATE_FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of train-generator: give a run folder or its {MANIFEST}")
    files = {name: _read(path.with_name(name), digest) for name, digest in manifest["files"].items()}
    state = _decode(manifest["tree"], files)
    assert isinstance(state, dict)
    return state


def save_generator(
    path: Path, weights: dict[str, Tensor], config: GeneratorConfig | LayersConfig, **facts: Any
) -> None:
    """Write generator weights as safetensors; its metadata holds the config and `facts`."""
    metadata = {"format": FORMAT, "config": json.dumps(config.to_dict())}
    metadata.update({k: json.dumps(v) for k, v in facts.items()})
    tensors = {k: v.detach().float().cpu().contiguous().clone() for k, v in weights.items()}
    _write(path, dump_tensors(tensors, metadata=metadata))


def load_generator(path: Path) -> ResnetGenerator | LightGenerator:
    """The generator of a checkpoint, in eval mode; CheckpointError says what does not fit."""
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
    try:
        net = build_generator(GeneratorConfig.from_dict(json.loads(metadata["config"])))
        net.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit its own architecture: {error}") from error
    return net.eval()


class _Packer:
    """Turns nested values into JSON, and puts the tensors in them into files of limited size."""

    def __init__(self, stem: str, limit: int) -> None:
        self.stem, self.limit, self.room, self.count = stem, limit, 0, 0
        self.files: dict[str, dict[str, Tensor]] = {}

    def encode(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return {"tensor": self._place(value), "shape": list(value.shape)}
        if isinstance(value, dict):
            # Pairs, because the keys of an optimizer's state are integers.
            return {"dict": [[k, self.encode(v)] for k, v in value.items()]}
        if isinstance(value, list | tuple):
            return {"list": [self.encode(v) for v in value]}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"a state holds tensors and plain values, got {type(value).__name__}")

    def _place(self, tensor: Tensor) -> list[str]:
        """Cut a tensor to the room that is left, piece by piece; returns ``file:key`` of each."""
        flat = tensor.detach().cpu().contiguous().flatten()
        pieces = []
        while True:
            fits = self.room // flat.element_size()
            if not self.files or fits < min(len(flat), 1024):
                self.files[f"{self.stem}-{len(self.files):02d}.safetensors"] = {}
                self.room, fits = self.limit, self.limit // flat.element_size()
            name = next(reversed(self.files))
            piece, flat = flat[:fits].clone(), flat[fits:]
            self.files[name][str(self.count)] = piece
            pieces.append(f"{name}:{self.count}")
            self.count += 1
            self.room -= piece.numel() * piece.element_size()
            if not len(flat):
                return pieces


def _decode(value: Any, files: dict[str, dict[str, Tensor]]) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        places = [place.rsplit(":", 1) for place in value["tensor"]]
        return torch.cat([files[name][key] for name, key in places]).view(value["shape"])
    if "dict" in value:
        return {k: _decode(v, files) for k, v in value["dict"]}
    return [_decode(v, files) for v in value["list"]]


def _load_pt(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: start again without --resume") from error
    if not isinstance(state, dict) or "step" not in state:
        raise CheckpointError(f"{path} is no checkpoint of train-generator: give a run folder or its {MANIFEST}")
    return state


def _read(path: Path, digest: str) -> dict[str, Tensor]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}, a part of the checkpoint, is missing: copy it back or start again") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{path}, a part of the checkpoint, is damaged: copy it again or start again")
    return dict(load_tensors(data))


def _listed(manifest: Path) -> set[str]:
    """Files that the manifest on disk names."""
    try:
        return set(json.loads(manifest.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path} could not be written ({error}): free some space, then --resume; the previous file is kept"
        ) from error
