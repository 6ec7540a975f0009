"""Two folders of images, and the crops that one step of training sees.

What step n sees depends on the seed and n alone, so a resumed run sees what it would have seen.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from training.config import TrainConfig
from training.data.check import check_images, data_files
from training.data.image_io import U8, fit, read_rgb, write_rgb
from training.data.looks import LookPalettes
from training.data.poster import ToneRank, flat_shapes
from training.data.pseudo_pairs import PaletteMap
from training.errors import DataError
from training.look_names import AUTO

__all__ = ["Batch", "PhotoArtDataset"]

logger = logging.getLogger(__name__)

LONG_SIDE = 640  # pixels, of the images that crops are cut from
PALETTE_SIDE = 160  # pixels, of the images that colours are measured on


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one step sees; images are float32 ``(N, 3, crop, crop)`` in -1..1.

    With `TrainConfig.views` the first half shows whole pictures, the second a crop of each, in the same order.
    """

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


MEMORY = 3_000_000_000
"""Bytes of decoded images that are kept from one step to the next."""


class PhotoArtDataset:
    """Random crops over a range of scales, flipped half of the time, with their pseudo-pairs.

    Args:
        config: folders, crop, zoom, batch, seed, looks.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.photos, self.art = data_files(config)
        if config.check_folders:
            check_images(self.photos, self.art)
        self.cache = Path(config.cache or Path(config.out) / "flat")
        self._unreadable: set[Path] = set()
        images = ((path, self._read(path)) for path in self.art)
        measured = {path: PaletteMap.of(fit(image, PALETTE_SIDE)) for path, image in images if image is not None}
        if self.art and not measured:
            raise DataError(f"no image in {config.art} can be read: give another folder to --art")
        self.art, palettes = list(measured), list(measured.values())
        self.looks = LookPalettes(palettes, config.looks) if palettes else None
        self.look_of_art = [config.looks.index(self.looks.of_art(p)) for p in palettes] if self.looks else []
        warm = config.warmup_steps > 0 and config.warmup == "pairs"
        self.paired = self.looks is not None and (warm or config.lambda_pair > 0 or config.lambda_detail > 0)
        """Whether anything looks at the pseudo-pairs, whose flat shapes take about a second a photo."""
        # `auto` paints every photo in other colours: it has the most to learn.
        weights = np.array([3.0 if name == AUTO else 1.0 for name in config.looks])
        self.shares = weights / weights.sum()
        self._photos: dict[Path, _Photo] = {}
        self._arts: dict[Path, U8] = {}
        self._room = MEMORY

    def sample(self, step: int, rows: slice = slice(None)) -> Batch:
        """The batch of a step, or some rows of it."""
        images = range(self.config.batch)[rows]
        a = [self._photo(self._rng(step, i, 0)) for i in images]
        # The warm-up looks at pseudo-pairs alone; a teacher paints pairs and art.
        with_art = step >= self.config.warmup_steps and self.config.teacher is None
        b = [self._art(self._rng(step, i, 1)) for i in images if with_art]
        kinds = range(2 if self.config.views else 1)
        return Batch(
            real_A=_tensor([x[0][kind] for kind in kinds for x in a]),
            pair_A=_tensor([x[1][kind] for kind in kinds for x in a if x[1]]),
            look_A=self._one_hot([x[2] for _ in kinds for x in a]),
            real_B=_tensor([x[0][kind] for kind in kinds for x in b]),
            look_B=self._one_hot([x[1] for _ in kinds for x in b]),
        )

    def batches(self, start: int, stop: int, rows: slice = slice(None)) -> Iterator[Batch]:
        """Batches of the steps `start` to `stop`, prepared ahead by `workers` threads."""
        ahead = 2 * self.config.workers + 1
        pool = ThreadPoolExecutor(self.config.workers, thread_name_prefix="crops")
        try:
            waiting = deque(pool.submit(self.sample, s, rows) for s in range(start, min(start + ahead, stop)))
            for step in range(start, stop):
                batch = waiting.popleft().result()
                if step + ahead < stop:
                    waiting.append(pool.submit(self.sample, step + ahead, rows))
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)

    def flatten_all(self, progress: Callable[[], object], workers: int) -> None:
        """Fill the cache of flattened photos, with `workers` threads; `progress` is called for each."""
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(self._flatten, self.photos):
                progress()

    def _flatten(self, path: Path) -> None:
        if (photo := self._read(path)) is not None:
            self.flat(path, photo)

    def _read(self, path: Path) -> U8 | None:
        """An image at the size that crops are cut from; None, and a warning the first time, if it is unreadable.

        With `check_folders` all were readable before training, and a DataError says that this one no longer is.
        """
        try:
            return fit(read_rgb(path), LONG_SIDE)
        except DataError as error:
            if self.config.check_folders:
                raise
            if path not in self._unreadable:
                self._unreadable.add(path)
                logger.warning("left out: %s", error)
            return None

    def flat(self, path: Path, photo: U8) -> U8:
        """The flattened photo, kept in the cache folder under the hash of its file from then on."""
        key = hashlib.sha256(path.read_bytes()).hexdigest()[:24]
        kept = self.cache / f"{key}-shapes.png"
        if kept.exists():
            return read_rgb(kept)
        flat = flat_shapes(photo)
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.cache} cannot be created ({error}): choose another --cache") from error
        write_rgb(kept, flat)
        return flat

    def _photo(self, rng: np.random.Generator) -> tuple[list[U8], list[U8], int]:
        photo = self._readable_photo(int(rng.integers(len(self.photos))))
        look = int(rng.choice(len(self.config.looks), p=self.shares))
        windows = self._windows(rng, photo.data.shape)
        pairs: list[U8] = []
        if self.looks is not None and self.paired:
            name = self.config.looks[look]
            pairs = [self.looks.paint(window.cut(photo.flat), name, photo.rank) for window in windows]
        return [window.cut(photo.data) for window in windows], pairs, look

    def _windows(self, rng: np.random.Generator, shape: tuple[int, ...]) -> list[_Window]:
        """The view of a picture, if views are wanted, and the crop."""
        crop = self.config.crop
        whole = crop / min(shape[:2])
        view = [_Window.draw(rng, shape, crop, (whole, whole))] if self.config.views else []
        return [*view, _Window.draw(rng, shape, crop, self.config.zoom)]

    def _readable_photo(self, first: int) -> _Photo:
        """The photo of a number, or the next one that can be read; DataError if none can."""
        for path in (*self.photos[first:], *self.photos[:first]):
            if (photo := self._load_photo(path)) is not None:
                return photo
        raise DataError(f"no photo in {self.config.photos} can be read: give another folder to --photos")

    def _load_photo(self, path: Path) -> _Photo | None:
        """A decoded photo with what is measured on it, kept in memory while there is room; None if unreadable."""
        if (kept := self._photos.get(path)) is not None:
            return kept
        if path in self._unreadable or (data := self._read(path)) is None:
            return None
        flat = self.flat(path, data) if self.paired else data
        photo = _Photo(data, flat, ToneRank.of(flat))
        if self._room > 0:
            self._room -= data.nbytes + flat.nbytes
            self._photos[path] = photo
        return photo

    def _load_art(self, path: Path) -> U8:
        if (kept := self._arts.get(path)) is not None:
            return kept
        art = fit(read_rgb(path), LONG_SIDE)
        if self._room > 0:
            self._room -= art.nbytes
            self._arts[path] = art
        return art

    def _art(self, rng: np.random.Generator) -> tuple[list[U8], int]:
        i = int(rng.integers(len(self.art)))
        art = self._load_art(self.art[i])
        return [window.cut(art) for window in self._windows(rng, art.shape)], self.look_of_art[i]

    def _rng(self, step: int, image: int, domain: int) -> np.random.Generator:
        return np.random.default_rng((self.config.seed, step, image, domain))

    def _one_hot(self, looks: list[int]) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor(looks, dtype=torch.long), len(self.config.looks)).float()


@dataclass(frozen=True)
class _Photo:
    """A photo, flattened (itself where nothing looks at pairs), and the order of its tones."""

    data: U8
    flat: U8
    rank: ToneRank


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


def _tensor(images: list[U8]) -> Tensor:
    if not images:
        return torch.empty(0)
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return stacked.float().div_(127.5).sub_(1.0)
