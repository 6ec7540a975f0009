"""Two folders of images, and the crops that one step of training sees.

What step n sees depends on the seed and n alone, so a resumed run sees what it would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from training.config import TrainConfig
from training.errors import DataError
from training.looks import LookPalettes
from training.pseudo_pairs import U8, LightnessRank, PaletteMap, flatten

__all__ = ["Batch", "PhotoArtDataset", "image_files", "read_rgb"]

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one step sees; images are float32 ``(N, 3, crop, crop)`` in -1..1."""

    real_A: Tensor
    """Crops of photos."""
    pair_A: Tensor
    """The same crops, stylized by the classical method in `look_A`."""
    look_A: Tensor
    """Look weights ``(N, K)``, one-hot."""
    real_B: Tensor
    """Crops of art."""
    look_B: Tensor
    """The look that each art image belongs to, ``(N, K)``."""

    def to(self, device: torch.device) -> Batch:
        """A copy on `device`."""
        return Batch(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


def image_files(folder: str | Path) -> list[Path]:
    """Images below a folder, sorted; DataError if there are none."""
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: give one that holds images")
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise DataError(f"{root} holds no image ({', '.join(sorted(SUFFIXES))})")
    return files


def read_rgb(path: Path) -> U8:
    """RGB uint8 ``(H, W, 3)``, EXIF orientation applied; DataError if the file is no image."""
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:
        raise DataError(f"{path} cannot be read ({error}): remove it or replace it") from error
    if image is None:
        raise DataError(f"{path} is no readable image: remove it or replace it")
    return np.ascontiguousarray(image[..., ::-1])


class PhotoArtDataset:
    """Random crops over a range of scales, flipped half of the time, with their pseudo-pairs.

    Args:
        config: folders, crop, zoom, batch, seed, looks.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.photos = image_files(config.photos)
        self.art = image_files(config.art)
        for name, files in (("photos", self.photos), ("art", self.art)):
            if len(files) < config.batch:
                raise DataError(f"{len(files)} {name} are fewer than one batch of {config.batch}: add images")
        self.cache = Path(config.cache or Path(config.out) / "flat")
        palettes = [PaletteMap.of(_fit(read_rgb(p), 160)) for p in self.art]
        self.looks = LookPalettes(palettes, config.looks)
        self.look_of_art = [config.looks.index(self.looks.of_art(p)) for p in palettes]

    def sample(self, step: int) -> Batch:
        """The batch of a step."""
        rng = np.random.default_rng((self.config.seed, step))
        a = [self._photo(rng) for _ in range(self.config.batch)]
        b = [self._art(rng) for _ in range(self.config.batch)]
        return Batch(
            real_A=_tensor([x[0] for x in a]),
            pair_A=_tensor([x[1] for x in a]),
            look_A=self._one_hot([x[2] for x in a]),
            real_B=_tensor([x[0] for x in b]),
            look_B=self._one_hot([x[1] for x in b]),
        )

    def batches(self, start: int, stop: int, workers: int = 1, ahead: int = 4) -> Iterator[Batch]:
        """Batches of the steps `start` to `stop`, prepared in the background."""
        with ThreadPoolExecutor(workers) as pool:
            waiting = [pool.submit(self.sample, s) for s in range(start, min(start + ahead, stop))]
            for step in range(start, stop):
                batch = waiting.pop(0).result()
                if step + ahead < stop:
                    waiting.append(pool.submit(self.sample, step + ahead))
                yield batch

    def flat(self, path: Path, photo: U8) -> U8:
        """The flattened photo, kept in the cache folder from then on."""
        status = path.stat()
        key = hashlib.sha256(f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}".encode()).hexdigest()[:24]
        kept = self.cache / f"{key}.png"
        if kept.exists():
            return read_rgb(kept)
        flat = flatten(photo)
        self.cache.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f"{key}.{id(flat)}.part.png")
        if not cv2.imwrite(str(part), flat[..., ::-1]):
            raise DataError(f"{part} cannot be written: free some space or choose another --cache")
        part.replace(kept)
        return flat

    def _photo(self, rng: np.random.Generator) -> tuple[U8, U8, int]:
        path = self.photos[rng.integers(len(self.photos))]
        photo = _fit(read_rgb(path), 640)
        flat = self.flat(path, photo)
        look = int(rng.integers(len(self.config.looks)))
        name = self.config.looks[look]
        palette = self.looks.for_photo(name, PaletteMap.of(_fit(photo, 160)))
        window = _Window.draw(rng, photo.shape, self.config.crop, self.config.zoom)
        strength = (0.65, 0.65) if name == "auto" else (0.7, 0.8)
        pair = palette.apply(
            window.cut(flat), rank=LightnessRank.of(flat), lightness=strength[0], chroma=strength[1]
        )
        return window.cut(photo), pair, look

    def _art(self, rng: np.random.Generator) -> tuple[U8, int]:
        i = int(rng.integers(len(self.art)))
        art = _fit(read_rgb(self.art[i]), 640)
        return _Window.draw(rng, art.shape, self.config.crop, self.config.zoom).cut(art), self.look_of_art[i]

    def _one_hot(self, looks: list[int]) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor(looks), len(self.config.looks)).float()


@dataclass(frozen=True)
class _Window:
    """A square of the source and the size it is brought to."""

    top: int
    left: int
    side: int
    crop: int
    flip: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, shape: tuple[int, ...], crop: int, zoom: tuple[float, float]) -> _Window:
        scale = float(np.exp(rng.uniform(np.log(zoom[0]), np.log(zoom[1]))))
        side = int(min(max(8, round(crop / scale)), shape[0], shape[1]))
        top = int(rng.integers(shape[0] - side + 1))
        left = int(rng.integers(shape[1] - side + 1))
        return cls(top, left, side, crop, bool(rng.integers(2)))

    def cut(self, image: U8) -> U8:
        part = image[self.top : self.top + self.side, self.left : self.left + self.side]
        method = cv2.INTER_AREA if self.side > self.crop else cv2.INTER_CUBIC
        part = np.asarray(cv2.resize(part, (self.crop, self.crop), interpolation=method))
        return np.ascontiguousarray(part[:, ::-1] if self.flip else part)


def _fit(image: U8, long_side: int) -> U8:
    """Scaled down until no side is longer than `long_side`."""
    scale = long_side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _tensor(images: list[U8]) -> Tensor:
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return stacked.float().div_(127.5).sub_(1.0)
