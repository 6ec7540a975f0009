"""What there is to say about a model: one line for a list, and its card."""

from __future__ import annotations

from typing import Any

import click
import numpy as np

from engine.errors import EngineError
from engine.model_store import ModelEntry, find_model, shipped_models
from engine.probing import look_names
from engine.spec import ModelSpec
from stylize.commands.config_file import load_defaults
from stylize.settings import StyleSettings

__all__ = ["card", "default_model", "summary"]

CARDS = ("card.md", "MODEL_CARD.md")


def default_model(program: click.Command) -> str:
    """The model that is used when none is named, the user's and the folder's stylize.toml regarded."""
    return str(load_defaults(program).get("image", {}).get("model", StyleSettings().model))


def summary(entry: ModelEntry, default: str) -> dict[str, Any]:
    """Facts for a list; a damaged model has ``error``."""
    row: dict[str, Any] = {
        "name": entry.name,
        "origin": "shipped" if entry.shipped else "yours",
        "default": entry.name == default,
        "folder": str(entry.folder),
    }
    try:
        return {**row, **_facts(ModelSpec.load(entry.folder))}
    except EngineError as error:
        return {**row, "error": str(error)}


def _facts(spec: ModelSpec) -> dict[str, Any]:
    shapes = spec.program.parameters(len(spec.looks)).values()
    return {
        "looks": list(look_names(spec)),
        "parameters": int(sum(np.prod(shape) for shape in shapes)),
        "gflop_1080p": round(spec.program.flops(1080, 1920) / 1e9, 1),
    }


def card(name: str) -> dict[str, Any]:
    """All about a model.  Raises ModelError where there is none or its files differ from their hashes."""
    folder = find_model(name)
    spec = ModelSpec.load(folder)
    spec.verify(folder)
    text = next((p.read_text(encoding="utf-8") for n in CARDS if (p := folder / n).is_file()), "")
    return {
        "name": spec.name,
        "folder": str(folder),
        "origin": "shipped" if shipped_models().get(spec.name) == folder else "yours",
        **_facts(spec),
        "architecture": {key: value for key, value in spec.config.items() if key != "looks"},
        "size_multiple": spec.multiple,
        "halo": spec.halo,
        "receptive_radius": spec.radius,
        **({} if spec.has_layout else {"statistics": spec.norm_channels}),
        "probe_side": spec.probe_side,
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()},
        "sha256": dict(spec.hashes or {}),
        "card": text.strip(),
    }
