"""Blind orders: shuffled sheets of several generators, and the count of how eyes have put them in order.

A sheet shows a photo and what each generator makes of it, called A, B, C in an order that changes from sheet to
sheet.  Which letter is which generator stands in the key, a file beside the folder of sheets and not in it.
"""

from __future__ import annotations

import csv
import json
import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.contact_sheet import titled_tile
from training.data.image_io import U8, write_rgb
from training.errors import DataError, TrainingError
from training.files import write_file

__all__ = ["BlindScore", "blind_table", "check_sheets", "count_orders", "orders_for", "write_sheets"]

TILE = 640
"""Width of each picture on a sheet, in pixels."""
MARKS = ("style", "place")
"""What is marked with 0..10 for each letter: the style, and whether the place is recognisable."""


def write_sheets(
    folder: Path,
    names: Sequence[str],
    photos: Sequence[U8],
    results: Mapping[str, Sequence[U8]],
    *,
    seed: int | None = None,
) -> Path:
    """Write a sheet for each photo, an empty table for the orders, and the key.

    Args:
        folder: a folder that does not exist yet, or is empty.
        names: name of each photo, for the key.
        photos: RGB uint8.
        results: generator -> its pictures, one for each photo; two generators and more.
        seed: of the orders; None: a different one in each call.

    Returns:
        The key: ``FOLDER.key.json`` beside the folder.

    Raises:
        TrainingError: there are too few or too many generators, or the folder cannot be written or holds something.
    """
    key = check_sheets(folder, len(results))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{folder} cannot be created ({error.strerror}): choose another --blind") from error
    orders = orders_for(list(results), len(photos), random.Random(seed))
    letters = string.ascii_uppercase[: len(results)]
    sheets: dict[str, dict[str, str]] = {}
    for i, (name, photo, order) in enumerate(zip(names, photos, orders, strict=True)):
        sheet = f"sheet-{i + 1:02d}"
        shown = {"photo": photo, **{a: results[generator][i] for a, generator in zip(letters, order, strict=True)}}
        write_rgb(folder / f"{sheet}.jpg", _sheet(shown), quality=95)
        sheets[sheet] = {"photo": name, **dict(zip(letters, order, strict=True))}
    columns = ["sheet", "order", *(f"{mark} {letter}" for mark in MARKS for letter in letters)]
    empty = "," * (len(columns) - 1)
    write_file(folder / "orders.csv", "\n".join([",".join(columns), *(f"{sheet}{empty}" for sheet in sheets)]) + "\n")
    write_file(key, json.dumps({"generators": list(results), "sheets": sheets}, indent=2) + "\n")
    return key


def check_sheets(folder: Path, generators: int) -> Path:
    """The place of the key, if sheets of so many generators can be written; TrainingError if they cannot."""
    if not 2 <= generators <= len(string.ascii_uppercase):
        raise TrainingError(f"blind sheets compare 2 to 26 generators, got {generators}: name them one after the other")
    key = folder.with_name(f"{folder.name}.key.json")
    if key.exists() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise TrainingError(f"{folder} or {key.name} is there already: choose another folder for --blind")
    return key


def orders_for(generators: Sequence[str], count: int, rng: random.Random) -> list[tuple[str, ...]]:
    """An order for each sheet, unlike the one before; by Latin squares every letter goes to all equally often."""
    orders: list[tuple[str, ...]] = []
    while len(orders) < count:
        base = rng.sample(list(generators), len(generators))
        square = [tuple(base[i:] + base[:i]) for i in range(len(base))]
        rng.shuffle(square)
        if not orders or square[0] != orders[-1]:
            orders += square
    return orders[:count]


def _sheet(pictures: Mapping[str, U8]) -> U8:
    """Titled pictures, two in a row."""
    tiles = [titled_tile(image, name, TILE) for name, image in pictures.items()]
    if len(tiles) % 2:
        tiles.append(np.zeros_like(tiles[0]))
    return np.vstack([np.hstack(tiles[i : i + 2]) for i in range(0, len(tiles), 2)])


@dataclass(frozen=True, kw_only=True)
class BlindScore:
    """How one generator came off."""

    first: int
    """Sheets on which it stands first."""
    sheets: int
    """Sheets that were put in order; a sheet that two people ordered counts twice."""
    rank: float
    """Mean place in the order, from 1."""
    style: float | None
    """Mean mark 0..10; None where no mark was given."""
    place: float | None
    """The same for "the place is recognisable"."""


def count_orders(key: Path, table: Path) -> dict[str, BlindScore]:
    """Count a filled table of orders by the key of its sheets.

    Args:
        key: the file that `write_sheets` returned.
        table: csv with the columns ``sheet``, ``order`` (such as BAC, the best first), and where marks are given
            ``style A``, ``place A`` and so on.  Rows without an order are passed over.

    Raises:
        DataError: one of them cannot be read, or a row does not fit, with its line.
    """
    generators, sheets = _read_key(key)
    ranks: dict[str, list[int]] = {name: [] for name in generators}
    marks: dict[str, dict[str, list[float]]] = {mark: {name: [] for name in generators} for mark in MARKS}
    for line, row in _read_table(table):
        where = f"{table}, line {line}"
        order = "".join(row.get("order", "").upper().split())
        if not order:
            continue
        letters = sheets.get(row["sheet"])
        if letters is None:
            raise DataError(f"{where}: the key has no sheet {row['sheet']!r}: write it as the file is called")
        if sorted(order) != sorted(letters):
            raise DataError(f"{where}: the order {order!r} should name each of {', '.join(letters)} once")
        for rank, letter in enumerate(order, 1):
            ranks[letters[letter]].append(rank)
        for mark in MARKS:
            for letter, name in letters.items():
                if text := row.get(f"{mark} {letter}", ""):
                    marks[mark][name].append(_mark(text, where))
    if not any(ranks.values()):
        raise DataError(f"{table} holds no order: write one, such as BAC, behind each sheet")

    def mean(values: Sequence[float]) -> float | None:
        return float(np.mean(values)) if values else None

    return {
        name: BlindScore(
            first=places.count(1), sheets=len(places), rank=float(np.mean(places)),
            style=mean(marks["style"][name]), place=mean(marks["place"][name]),
        )
        for name, places in ranks.items() if places
    }  # fmt: skip


def _read_key(key: Path) -> tuple[list[str], dict[str, dict[str, str]]]:
    """The generators, and for each sheet letter -> generator."""
    try:
        values = json.loads(key.read_text(encoding="utf-8"))
        sheets = {sheet: {k: v for k, v in row.items() if k != "photo"} for sheet, row in values["sheets"].items()}
        return list(values["generators"]), sheets
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{key} cannot be read as a key of blind sheets: give the .key.json beside their folder"
        ) from error


def _read_table(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows with their line numbers; names of columns and sheets without blanks around and suffix."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = [
                (reader.line_num, {str(k).strip(): (v or "").strip() for k, v in row.items() if isinstance(v, str)})
                for row in reader
            ]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as csv ({error}): save it as UTF-8, separated by commas") from error
    if rows and not {"sheet", "order"} <= set(rows[0][1]):
        raise DataError(f"{table} lacks the columns sheet and order: the first line names the columns")
    return [(line, {**row, "sheet": row["sheet"].removesuffix(".jpg")}) for line, row in rows if row.get("sheet")]


def _mark(text: str, where: str) -> float:
    try:
        mark = float(text)
    except ValueError:
        mark = -1.0
    if not 0 <= mark <= 10:
        raise DataError(f"{where}: the mark {text!r} should be a number 0..10")
    return mark


def blind_table(scores: Mapping[str, BlindScore]) -> str:
    """A Markdown table, the generator with most first places first."""
    lines = ["| generator | first | of | share | mean rank | style | place |", "|---|---:|---:|---:|---:|---:|---:|"]
    for name, s in sorted(scores.items(), key=lambda item: (-item[1].first, item[1].rank)):
        style, place = ("" if mark is None else f"{mark:.1f}" for mark in (s.style, s.place))
        lines.append(
            f"| {name} | {s.first} | {s.sheets} | {s.first / s.sheets:.0%} | {s.rank:.2f} | {style} | {place} |"
        )
    return "\n".join(lines)
