"""What is wrong with the two folders, found before an hour of training and not after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from training.config import TrainConfig
from training.data.image_io import U8, fit, image_files, read_rgb, read_small
from training.errors import DataError

__all__ = ["check_images", "data_files", "flatness"]

FLAT_BELOW = 4 / 255

SWAPPED_MARGIN = 0.1
"""Photos flatter than the art by more than this share of pixels: the folders are swapped."""


def data_files(config: TrainConfig) -> tuple[list[Path], list[Path]]:
    """The photos and the art; DataError where folders are missing, empty, too small or overlap."""
    photos, art = image_files(config.photos), [] if config.teacher else image_files(config.art)
    common = {p.resolve() for p in photos} & {p.resolve() for p in art}
    if common:
        raise DataError(
            f"{len(common)} images are both photos and art ({min(common).name}, ...): "
            "--photos and --art need separate folders"
        )
    for name, files in (("photos", photos), ("art", art)):
        if (files or not config.teacher) and len(files) < config.batch:
            raise DataError(
                f"{len(files)} images in --{name} are fewer than one batch of {config.batch}: "
                "add images or choose a smaller --batch"
            )
    return photos, art


def check_images(photos: Sequence[Path], art: Sequence[Path]) -> None:
    """Read every image; DataError names the unreadable ones, or says that the folders look swapped."""
    broken = unreadable([*photos, *art])
    if broken:
        names = ", ".join(str(p) for p in broken[:3]) + (", ..." if len(broken) > 3 else "")
        raise DataError(
            f"{len(broken)} of {len(photos) + len(art)} images cannot be read: {names}; "
            "remove them, or let `train-generator prepare` sort them out"
        )
    if not art:
        return
    flat_photos, flat_art = mean_flatness(photos), mean_flatness(art)
    if flat_photos > flat_art + SWAPPED_MARGIN:
        raise DataError(
            f"the photos are flatter ({flat_photos:.2f}) than the art ({flat_art:.2f}): are --photos and --art "
            "swapped? --no-check-folders trains on them as they are"
        )


def unreadable(files: Iterable[Path], workers: int = 2) -> list[Path]:
    """Those files that cannot be decoded."""

    def broken(path: Path) -> bool:
        try:
            read_small(path)
        except DataError:
            return True
        return False

    files = list(files)
    with ThreadPoolExecutor(workers) as pool:
        return [path for path, bad in zip(files, pool.map(broken, files), strict=True) if bad]


def mean_flatness(files: Sequence[Path], sample: int = 24) -> float:
    """Mean flatness of some images, spread over the list, at 512 pixels."""
    some: list[U8] = [fit(read_rgb(p), 512) for p in files[:: max(1, len(files) // sample)][:sample]]
    return float(np.mean([flatness(image) for image in some]))


def flatness(image: U8) -> float:
    """Share of pixels whose Scharr gradient of the luma is below 4/255 per pixel."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255.0
    # Scharr's weights add up to 32 over a step of one level per pixel.
    magnitude = np.hypot(cv2.Scharr(luma, cv2.CV_32F, 1, 0), cv2.Scharr(luma, cv2.CV_32F, 0, 1)) / 32.0
    return float((magnitude < FLAT_BELOW).mean())
