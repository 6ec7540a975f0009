"""Where models are found: those that come with the program, and folders of the user's."""

from __future__ import annotations

from pathlib import Path

from engine.errors import ModelError

__all__ = ["find_model", "shipped_models"]

SHIPPED = Path(__file__).parent / "models"


def shipped_models() -> dict[str, Path]:
    """Name and folder of every model that comes with the program."""
    return {p.parent.name: p.parent for p in sorted(SHIPPED.glob("*/spec.json"))}


def find_model(name: str) -> Path:
    """Folder of a model given by name or by path; ModelError lists what there is."""
    shipped = shipped_models()
    if name in shipped:
        return shipped[name]
    folder = Path(name)
    if folder.joinpath("spec.json").is_file():
        return folder
    raise ModelError(f"no model {name!r}: choose {', '.join(shipped) or 'none shipped'}, or give a model folder")
