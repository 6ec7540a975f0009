"""Finding, reading and scaling the images of a folder; arrays are RGB uint8 ``(H, W, 3)``."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from training.data.pseudo_pairs import U8
from training.errors import DataError
from training.files import write_bytes

__all__ = ["CLIP_SUFFIXES", "SUFFIXES", "U8", "fit", "image_files", "read_rgb", "read_small", "write_rgb"]

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
CLIP_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".ts", ".3gp"}


def image_files(folder: str | Path) -> list[Path]:
    """Images below a folder, sorted; DataError if there are none."""
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: give one that holds images")
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise DataError(f"{root} holds no image ({', '.join(sorted(SUFFIXES))}): give another folder")
    return files


def read_rgb(path: Path) -> U8:
    """The whole image, EXIF orientation applied; DataError if the file is no image."""
    return _read(path, cv2.IMREAD_COLOR)


def read_small(path: Path) -> U8:
    """The image at about a quarter of its size, which JPEG decodes quickly; DataError as for `read_rgb`."""
    return _read(path, cv2.IMREAD_REDUCED_COLOR_4)


def _read(path: Path, flags: int) -> U8:
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    except (OSError, cv2.error) as error:
        raise DataError(f"{path} cannot be read as an image: remove it or replace it") from error
    if image is None:
        raise DataError(f"{path} is no readable image: remove it or replace it")
    return np.ascontiguousarray(image[..., ::-1])


def write_rgb(path: Path, image: U8, *, quality: int = 90) -> None:
    """Write as the suffix says, beside and renamed; TrainingError if that fails."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix.lower() in (".jpg", ".jpeg") else []
    done, data = cv2.imencode(path.suffix, image[..., ::-1], options)
    assert done
    write_bytes(path, data.tobytes())


def fit(image: U8, long_side: int) -> U8:
    """Scaled down until no side is longer than `long_side`."""
    scale = long_side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
