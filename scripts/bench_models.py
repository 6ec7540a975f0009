"""Generators for the benchmark that need no training: random weights at the shipped sizes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.graphs.export import CHECKPOINT_FORMAT, export_model
from engine.program.architecture import Program

PLAIN = {"architecture": "resnet9", "ngf": 32, "n_blocks": 9, "n_downsampling": 2, "upsample": "transposed"}
CONFIGS: dict[str, dict[str, Any]] = {
    "random-full": {**PLAIN, "architecture": "resnet9-skip", "upsample": "resize"},
    "random-plain": PLAIN,
    "random-light": {**PLAIN, "architecture": "light", "ngf": 24, "n_blocks": 6, "upsample": "resize"},
    "random-tiny": {**PLAIN, "architecture": "resnet9-skip", "ngf": 4, "n_blocks": 1, "upsample": "resize"},
}


def random_model(folder: Path, config: Mapping[str, Any]) -> Path:
    """Write a model folder with random weights: it computes what a trained one computes."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    values = {**config, "looks": ["auto"]}
    weights = {}
    for name, shape in Program.of(values).parameters(1).items():
        scale = np.sqrt(2 / np.prod(shape[1:])) if name.endswith(".weight") else 0.1
        weights[name] = rng.normal(float(name.endswith(".gamma")), scale, shape).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "random.safetensors"
    save_file(weights, checkpoint, metadata={"format": CHECKPOINT_FORMAT, "config": json.dumps(values)})
    export_model(checkpoint, folder)
    checkpoint.unlink()
    return folder


def peer_flops(filters: int, height: int, width: int) -> int:
    """Operations of the peer's network for one frame."""
    return Program.of({**PLAIN, "ngf": filters}).flops(height, width)
