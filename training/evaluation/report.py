"""What an evaluation leaves: a table, evaluation.json, a contact sheet, and the pictures themselves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.data.check import flatness
from training.evaluation.judge import Judge, Score
from training.files import write_text

__all__ = ["TARGETS", "table", "targets", "write_json"]

COLUMNS = (
    "SWD fine", "SWD all", "palette",
    "closed: fine", "all", "contrast", "palette",
    "similarity", "flatness", "warping",
)  # fmt: skip

TARGETS = {"share_fine": 0.75, "share_all": 0.50, "share_palette": 0.50}
"""Shares of the gap that the shipped generator should close."""
BELOW_CLASSICAL = 0.05
"""No share may be further below the classical baseline than this."""
FLATNESS_TOLERANCE = 0.15


def table(judge: Judge, scores: Mapping[str, Score]) -> str:
    """A Markdown table: photos, unseen art, and every method."""
    rows: list[tuple[str, list[float | None]]] = []
    for name, distances in (("photos", judge.of_photos), ("unseen art", judge.of_art)):
        closed = 0.0 if name == "photos" else 1.0
        flat = float(np.mean([flatness(p) for p in judge.photos])) if name == "photos" else judge.art_flatness
        rows.append((name, [distances.swd_fine, distances.swd_all, distances.palette, *[closed] * 4,
                            1.0 if name == "photos" else None, flat, None]))  # fmt: skip
    for name, s in scores.items():
        d = s.distances
        rows.append((name, [d.swd_fine, d.swd_all, d.palette, s.share_fine, s.share_all, s.share_contrast,
                            s.share_palette, s.similarity, s.flatness, s.warping_ratio]))  # fmt: skip
    digits = (0, 0, 1, 2, 2, 2, 2, 3, 3, 2)
    cells = [["", *COLUMNS], *([name, *map(_cell, values, digits)] for name, values in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join(_pad(c, w, i) for i, (c, w) in enumerate(zip(row, widths, strict=True))) + " |"
             for row in cells]  # fmt: skip
    rule = "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _pad(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)


def targets(judge: Judge, scores: Mapping[str, Score], name: str) -> list[tuple[str, bool]]:
    """What the generator `name` should reach, each with its value, and whether it does."""
    own, found = scores[name], []
    for key, bar in TARGETS.items():
        value = getattr(own, key)
        found.append((f"{key} {value:.2f}, at least {bar:.2f}", value >= bar))
        for other in ("Reinhard", "OpenCV stylization"):
            if other in scores:
                theirs = getattr(scores[other], key)
                found.append((f"{key} {value:.2f}, above {other}'s {theirs:.2f}", value > theirs))
        if "classical baseline" in scores:
            least = getattr(scores["classical baseline"], key) - BELOW_CLASSICAL
            found.append((f"{key} {value:.2f}, at least {least:.2f} (classical baseline)", value >= least))
    if "mean shift alone" in scores:
        least = scores["mean shift alone"].similarity
        found.append((f"similarity {own.similarity:.3f}, at least mean shift's {least:.3f}", own.similarity >= least))
    off = abs(own.flatness / judge.train_flatness - 1)
    what = f"flatness {own.flatness:.3f}, within {FLATNESS_TOLERANCE:.0%} of the art's {judge.train_flatness:.3f}"
    return [*found, (what, off <= FLATNESS_TOLERANCE)]


def write_json(path: Path, judge: Judge, scores: Mapping[str, Score], **facts: Any) -> None:
    """Everything that was measured; TrainingError if it cannot be written."""
    values = {
        **facts,
        "photos": dataclasses.asdict(judge.of_photos),
        "unseen_art": dataclasses.asdict(judge.of_art),
        "train_art_flatness": judge.train_flatness,
        "methods": {name: {**dataclasses.asdict(s), "warping_ratio": s.warping_ratio} for name, s in scores.items()},
    }
    write_text(path, json.dumps(values, indent=2) + "\n")
