"""Many pictures on one: a row for each photo, a column for each way to show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from training.data.image_io import U8, write_rgb

__all__ = ["contact_sheet"]


def contact_sheet(path: Path, columns: Mapping[str, Sequence[U8]], *, width: int = 320) -> None:
    """One row per photo, one titled column per method."""
    titles = np.hstack([_title(name, width) for name in columns])
    rows = [np.hstack([_tile(image, width) for image in row]) for row in zip(*columns.values(), strict=True)]
    write_rgb(path, np.vstack([titles, *rows]))


def _tile(image: U8, width: int) -> U8:
    """The image centred in a 3:2 tile."""
    height = width * 2 // 3
    scale = min(width / image.shape[1], height / image.shape[0])
    size = (max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    bottom, right = height - size[1] - top, width - size[0] - left
    return np.asarray(cv2.copyMakeBorder(small, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(0, 0, 0)))


def _title(name: str, width: int) -> U8:
    canvas = np.zeros((24, width, 3), np.uint8)
    cv2.putText(canvas, name[:40], (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return canvas
