"""Which model `auto` means, and what a model and a look are known by, however they were asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from pathlib import Path

from engine.choice import CPU_BACKENDS, choose_backend
from engine.spec import ModelSpec, sha256
from stylize.settings import StyleSettings

__all__ = ["AUTO", "CHOICES", "choose_model", "model_key", "usual_backend"]

log = logging.getLogger(__name__)

AUTO = "auto"
CHOICES = ("light", "full")
"""What it may mean."""


def usual_backend(settings: StyleSettings) -> str:
    """The backend that the settings ask for: a plan is one of TensorRT, unless its runtime was named."""
    return "tensorrt" if settings.plan is not None and settings.backend == "auto" else settings.backend


def choose_model(settings: StyleSettings, *, video: bool) -> str:
    """The name or path of the model to open.

    `auto` is `light` for video on a CPU, where `full` has four times the work in its render graph, and `full`
    otherwise.
    """
    if settings.model != AUTO:
        return settings.model
    backend = usual_backend(settings)
    if backend == "auto":
        backend = choose_backend("cuda" if settings.gpus else settings.device)[0]
    on_cpu = backend in CPU_BACKENDS or settings.device == "cpu"
    name = "light" if video and on_cpu else "full"
    log.info("model %s: %s on %s", name, "video" if video else "photos", "a CPU" if on_cpu else backend)
    return name


def model_key(folder: Path, spec: ModelSpec) -> str:
    """What a model is known by: a hash of its content, whatever its name and its place."""
    values = dataclasses.asdict(spec)
    for name in ("name", "default_look", "hashes"):
        del values[name]
    files = spec.hashes or {path.name: sha256(path) for path in folder.iterdir() if path.name != "spec.json"}
    return hashlib.sha256(json.dumps([values, dict(files)], sort_keys=True).encode()).hexdigest()[:32]
