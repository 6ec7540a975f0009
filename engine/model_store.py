"""Where models are found: those that come with the program, the user's own, and folders by path."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelError

__all__ = ["ModelEntry", "all_models", "check_name", "find_model", "shipped_models", "user_folder", "user_models"]

SHIPPED = Path(__file__).parent / "models"

OVERRIDE = "STYLIZE_MODELS"
"""Environment variable that names the folder of the user's models."""


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model that can be called by its name."""

    name: str
    folder: Path
    shipped: bool
    """Comes with the program; else it is the user's."""


def shipped_models() -> dict[str, Path]:
    """Name and folder of every model that comes with the program."""
    return _models(SHIPPED)


def user_folder() -> Path:
    """Where imported models are kept: `STYLIZE_MODELS`, else the user's data folder of the system."""
    named = os.environ.get(OVERRIDE)
    if named:
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_data_dir("firewatch-stylizer", appauthor=False)) / "models"


def user_models() -> dict[str, Path]:
    """Name and folder of every model that the user imported."""
    return _models(user_folder())


def all_models() -> list[ModelEntry]:
    """Shipped models, then the user's; a name that both have means the shipped one."""
    shipped = shipped_models()
    entries = [ModelEntry(name=name, folder=folder, shipped=True) for name, folder in shipped.items()]
    own = user_models().items()
    return entries + [ModelEntry(name=n, folder=f, shipped=False) for n, f in own if n not in shipped]


def find_model(name: str) -> Path:
    """Folder of a model given by name or by path; ModelError lists what there is."""
    entries = {entry.name: entry.folder for entry in all_models()}
    if name in entries:
        return entries[name]
    folder = Path(name)
    if folder.joinpath("spec.json").is_file():
        return folder
    near = difflib.get_close_matches(name, entries, n=1)
    guess = f" (did you mean {near[0]}?)" if near else ""
    raise ModelError(
        f"no model {name!r}{guess}: choose {', '.join(entries) or 'none shipped'}, or give a model folder; "
        "'stylize models import' takes checkpoints"
    )


def check_name(name: str) -> str:
    """A name for a new model; ValueError says what is wrong with it."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError(f"a model's name is made of letters, digits, '.', '_' and '-', got {name!r}: choose --name")
    if name in shipped_models():
        raise ValueError(f"{name} is the name of a model that comes with the program: choose another --name")
    return name


def _models(parent: Path) -> dict[str, Path]:
    return {p.parent.name: p.parent for p in sorted(parent.glob("[!.]*/spec.json"))}
