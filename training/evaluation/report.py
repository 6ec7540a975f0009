"""What an evaluation leaves: a table, evaluation.json, a contact sheet, and the pictures themselves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from training.evaluation.judge import Judge, Score
from training.files import write_file

__all__ = ["COLUMNS", "TARGETS", "table", "targets", "write_json"]

COLUMNS: tuple[tuple[str, Callable[[Score], float | None], int], ...] = (
    ("SWD fine", lambda s: s.measures.swd_fine, 0),
    ("SWD all", lambda s: s.measures.swd_all, 0),
    ("palette", lambda s: s.measures.palette, 1),
    ("closed: fine", lambda s: s.share_fine, 2),
    ("all", lambda s: s.share_all, 2),
    ("contrast", lambda s: s.share_contrast, 2),
    ("palette", lambda s: s.share_palette, 2),
    ("similarity", lambda s: s.similarity, 3),
    ("flatness", lambda s: s.measures.flatness, 3),
    ("warping", lambda s: s.warping_ratio, 2),
    ("gini", lambda s: s.measures.gini, 3),
    ("closed", lambda s: s.share_gini, 2),
    ("flat pixels", lambda s: s.measures.flat_pixels, 2),
    ("edge width", lambda s: s.measures.edge_width, 2),
    ("KID", lambda s: s.measures.kid, 0),
    ("texture KID", lambda s: s.measures.texture_kid, 1),
    ("structure", lambda s: s.structure, 2),
)
"""Heading of each column of the table, its value, and the digits that are shown."""

TARGETS = {"share_fine": 0.75, "share_all": 0.50, "share_palette": 0.50}
"""Shares of the gap that a generator with instance norm should close, and that no baseline should close better."""
LEAST = {"share_gini": 0.85, "structure": 0.50}
"""Flat and crisp, and still the same place."""
BELOW_CLASSICAL = 0.05
"""No share may be further below the classical baseline than this."""
FLATNESS_TOLERANCE = 0.15


def table(judge: Judge, scores: Mapping[str, Score]) -> str:
    """A Markdown table: photos, unseen art, and every method."""
    rows = {"photos": judge.of_photos, "unseen art": judge.of_art, **scores}
    cells = [["", *(title for title, _, _ in COLUMNS)]]
    cells += [[name, *(_cell(value(s), digits) for _, value, digits in COLUMNS)] for name, s in rows.items()]
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
    for key, bar in LEAST.items():
        value = getattr(own, key)
        found.append((f"{key} {value:.2f}, at least {bar:.2f}", value >= bar))
    if "mean shift alone" in scores:
        mine, theirs = own.similarity or 0.0, scores["mean shift alone"].similarity or 0.0
        found.append((f"similarity {mine:.3f}, at least mean shift's {theirs:.3f}", mine >= theirs))
    flat, of_art = own.measures.flatness, judge.train_flatness
    off = abs(flat / of_art - 1)
    what = f"flatness {flat:.3f}, within {FLATNESS_TOLERANCE:.0%} of the art's {of_art:.3f}"
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
    write_file(path, json.dumps(values, indent=2) + "\n")
