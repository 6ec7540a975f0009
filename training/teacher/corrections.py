"""Sky masks that a person has corrected: polygons over photos, kept as JSON beside the data set's names.

``{"photo0123": {"kind": "land", "polygons": [[[x, y], ...], ...]}}`` with x and y as shares of the picture.  Kinds:
`none` (no sky at all), `land` (these areas are land), `sky` (these are sky), `both` (``land`` and ``sky`` lists), and
`exclude` (a picture that nobody can tell sky and land apart in, or no landscape).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.errors import TrainingError
from training.teacher.filters import F32, Image, lab, masked_blur
from training.teacher.sky import refine_sky

__all__ = ["Corrections", "corrected_sky", "load_corrections"]

Corrections = Mapping[str, Mapping[str, Any]]
KINDS = ("none", "land", "sky", "both", "exclude")
SAME_COLOUR = 28.0
"""Distance in CIE Lab up to which a pixel in a marked sky has the colour of the sky around."""


def load_corrections(path: Path) -> Corrections:
    """Read a file of corrections; TrainingError names the photo whose entry is wrong."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read ({error}): give a file of sky corrections") from error
    for name, entry in values.items():
        if not isinstance(entry, dict) or entry.get("kind") not in KINDS:
            raise TrainingError(f"{path}: the entry of {name} needs a kind out of {', '.join(KINDS)}")
    return dict(values)


def corrected_sky(image: Image, mask: F32, entry: Mapping[str, Any]) -> F32:
    """The sky mask 0..1 ``(H, W)`` after a correction, with leaves and ridges cut out anew.

    Args:
        image: RGB uint8 ``(H, W, 3)``.
        mask: what `refine_sky` found before.
        entry: one entry of the corrections, of any kind but `exclude`.
    """
    height, width = mask.shape
    if entry["kind"] == "none":
        return np.zeros_like(mask)
    kind = entry["kind"]
    land = _filled(entry["land"] if kind == "both" else entry["polygons"] if kind == "land" else [], height, width)
    sky = _filled(entry["sky"] if kind == "both" else entry["polygons"] if kind == "sky" else [], height, width)
    marked = np.maximum(np.where(land > 0, 0, mask), 0.85 * sky).astype(np.float32)
    guess = cv2.GaussianBlur(marked, (0, 0), 3)
    found = refine_sky(image, cv2.resize(guess, (width // 8, height // 8), interpolation=cv2.INTER_AREA))
    found[cv2.erode(land, np.ones((9, 9), np.uint8)) > 0] = 0
    # Inside a marked sky only what is clearly of another colour stays land.
    colours = lab(image)
    distance = np.sqrt(((colours - masked_blur(colours, marked > 0.6, 25)) ** 2).sum(-1))
    inside = cv2.erode(sky, np.ones((15, 15), np.uint8)) > 0
    return np.where(inside & (distance < SAME_COLOUR), 1, found).astype(np.float32)


def _filled(polygons: Sequence[Sequence[Sequence[float]]], height: int, width: int) -> Any:
    mask = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(mask, [(np.array(polygon) * [width, height]).astype(np.int32)], 1)
    return mask
