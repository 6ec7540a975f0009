"""Palettes as TOML files: those that come with the program, and the user's own."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from engine.errors import PaletteError
from engine.looks.palette import KEYS, ColourError, Palette

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["palette_text", "read_palette", "shipped_palettes"]

FOLDER = Path(__file__).parents[1] / "palettes"

FIRST = ("dusk", "golden", "violet", "day", "night", "fog", "forest", "winter")
"""Order in which the shipped ones are listed."""

MEANINGS = {
    "sky": "from the top to the horizon",
    "land": "from near to far",
    "lit": "what the sun shines on",
    "sun": "the sun's disc; without this line there is none",
}


@functools.cache
def shipped_palettes() -> Mapping[str, Palette]:
    """Name and palette of every look that comes with the program."""
    return {name: read_palette(FOLDER / f"{name}.toml") for name in FIRST}


def read_palette(path: Path) -> Palette:
    """The palette in a file with ``sky``, ``land``, ``lit`` and, if it likes, ``sun``.

    Raises PaletteError, with line and key, for a file that is no such palette.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "no text"
        raise PaletteError(f"{path} cannot be read as a palette ({reason}): 'stylize looks' writes one") from error
    except tomllib.TOMLDecodeError as error:
        raise PaletteError(f"{path} is no TOML ({error}): colours stand in quotes, lists in brackets") from error
    for key in values:
        if key not in KEYS:
            near = get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(KEYS)}"
            raise PaletteError(f"{_place(path, text, key)}: unknown key {key}: {hint}")
    for key in ("sky", "land", "lit"):
        if key not in values:
            raise PaletteError(f"{path}: {key} is missing: {MEANINGS[key]}, {_example(key)}")
    return _checked(path, text, values)


def _checked(path: Path, text: str, values: dict[str, Any]) -> Palette:
    for key, value in values.items():
        if not isinstance(value, list if key in ("sky", "land") else str):
            raise PaletteError(f"{_place(path, text, key)}: {key} is written {_example(key)}, got {value!r}")
    colours: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    try:
        return Palette(**colours)
    except ColourError as error:
        raise PaletteError(f"{_place(path, text, error.key, error.value)}: {error}") from error


def _example(key: str) -> str:
    return f'{key} = ["#2c2250", "#ffe2a0"]' if key in ("sky", "land") else f'{key} = "#ffc880"'


def _place(path: Path, text: str, key: str, value: object = None) -> str:
    """File and line of a key, or of a value behind it."""
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.split("=")[0].strip(" \t\"'[]") == key]
    if not starts:
        return str(path)
    found = starts[0]
    if value is not None:
        found = next((i for i in range(found, len(lines)) if str(value) in lines[i]), found)
    return f"{path}, line {found + 1}"


def palette_text(palette: Palette, title: str = "") -> str:
    """A palette as a TOML file, with a word on every key."""
    lines = [f"# {title}"] if title else []
    for key in KEYS:
        value = getattr(palette, key)
        if value:
            written = f'"{value}"' if isinstance(value, str) else "[" + ", ".join(f'"{c}"' for c in value) + "]"
            lines.append(f"{key} = {written}  # {MEANINGS[key]}")
    return "\n".join(lines) + "\n"
