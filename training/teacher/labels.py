"""Labels of a folder of photos, in rounds: a first guess of the sky, networks that learn from it, better masks, fields.

    features -> appearance height -> first sky -> layout network -> refined sky -> layout network -> refined sky
    -> corrections by hand -> fields (sky, depth, tone, cloud)

A network that has seen all photos agrees with most of the guesses and with few of their mistakes; so the next round
of masks is better than the one that it learnt from.  Everything is kept in a folder, one small file a photo and stage;
a run that was stopped goes on there.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.data.image_io import read_rgb
from training.errors import DataError
from training.files import save_tensors, write_file
from training.generator.config import LayersConfig
from training.generator.layered_networks import LayoutNet
from training.teacher.corrections import Corrections, corrected_sky
from training.teacher.fields import teach
from training.teacher.filters import F32, Image
from training.teacher.height import first_sky, fit_height
from training.teacher.layout_training import LayoutExample, fit_features, train_head
from training.teacher.sky import refine_sky

__all__ = ["Labels", "label_photos"]

log = logging.getLogger(__name__)

VIEW_SIDE = 384
"""Long side that features are taken at."""
LABEL_SIDE = 512
"""Long side that labels have."""
ROUNDS = 2
"""Times that a layout network learns from the masks and they are made anew."""


def scaled(image: Image, long_side: int, multiple: int) -> Image:
    """A picture with a long side of about `long_side` and sides that are multiples of `multiple`."""
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    size = [max(multiple, round(side * scale / multiple) * multiple) for side in (width, height)]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


@dataclass(kw_only=True)
class Labels:
    """The labels of some photos in a folder; what is not there yet is made when it is asked for.

    Raises DataError for photos that cannot be read, and for two of one name.
    """

    folder: Path
    photos: Sequence[Path]
    corrections: Corrections = field(default_factory=dict)
    steps: int = 4000
    """Updates of the layout network in every round."""

    def __post_init__(self) -> None:
        names = [photo.stem for photo in self.photos]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"two photos have the name {twice}: rename one, as labels are kept by name")
        self.net = LayoutNet(LayersConfig())

    @property
    def used(self) -> list[Path]:
        """The photos that nobody has excluded."""
        return [p for p in self.photos if self.corrections.get(p.stem, {}).get("kind") != "exclude"]

    def _kept(self, stage: str, photo: Path, make: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        path = self.folder / stage / f"{photo.stem}.npy"
        if not path.is_file():
            buffer = io.BytesIO()
            np.save(buffer, make())
            write_file(path, buffer.getbuffer())
        return np.asarray(np.load(path))

    def features(self, photo: Path) -> Tensor:
        """Frozen features, float16 ``(C, h, w)``."""

        def make() -> npt.NDArray[np.float16]:
            view = scaled(read_rgb(photo), VIEW_SIDE, 32)
            x = torch.from_numpy(view).permute(2, 0, 1)[None].float() / 127.5 - 1
            return np.asarray(self.net.features(x)[0].numpy(), np.float16)

        return torch.from_numpy(self._kept("features", photo, make))

    def image(self, photo: Path) -> Image:
        """The photo at the size of its labels, RGB uint8 ``(H, W, 3)``."""
        return scaled(read_rgb(photo), LABEL_SIDE, 16)

    def height(self, photo: Path) -> F32:
        """Appearance height ``(h, w)``, by a network that has learnt from all photos."""
        return np.asarray(self._kept("height", photo, self._refuse), np.float32)

    def _refuse(self) -> npt.NDArray[Any]:
        raise DataError(f"{self.folder} holds no heights yet: call label_photos")

    def sky(self, photo: Path, stage: int) -> F32:
        """Sky mask 0..1 ``(H, W)`` after a round; see `ROUNDS`.  Round 0 is the first guess."""
        return np.asarray(self._kept(f"sky{stage}", photo, self._refuse) / np.float32(255), np.float32)

    def fields(self, photo: Path) -> npt.NDArray[np.uint8]:
        """The teacher's fields times 255, ``(H, W, 4)``: sky, depth, tone, cloud."""

        def make() -> npt.NDArray[np.uint8]:
            image, sky = self.image(photo), self.sky(photo, ROUNDS)
            if photo.stem in self.corrections:
                sky = corrected_sky(image, sky, self.corrections[photo.stem])
            return np.asarray(teach(image, sky, self.height(photo)) * 255 + 0.5, np.uint8)

        return np.asarray(self._kept("fields", photo, make), np.uint8)

    def first_round(self) -> None:
        """Appearance height and the first guess of the sky of every photo."""
        if all((self.folder / "sky0" / f"{p.stem}.npy").is_file() for p in self.photos):
            return
        net = fit_height([self.features(photo) for photo in self.photos])
        for photo in self.photos:
            height = self._kept("height", photo, lambda photo=photo: net.map(self.features(photo)))  # type: ignore[misc]
            self._kept("sky0", photo, lambda photo=photo, height=height: _levels(first_sky(self.image(photo), height)))  # type: ignore[misc]

    def next_round(self, stage: int) -> None:
        """Sky masks of a round, from a layout network that has learnt from those of the round before."""
        if all((self.folder / f"sky{stage}" / f"{p.stem}.npy").is_file() for p in self.photos):
            return
        self._load_or_train(stage)
        for photo in self.photos:
            self._kept(f"sky{stage}", photo, partial(self._refined, photo))

    def _refined(self, photo: Path) -> npt.NDArray[np.uint8]:
        return _levels(refine_sky(self.image(photo), self._guess(photo)))

    @torch.no_grad()
    def _guess(self, photo: Path) -> F32:
        """Sky of every cell as the layout network sees it, ``(h, w)``."""
        seen = self.net.head(self.features(photo)[None].float())[0, 0]
        return np.asarray(torch.sigmoid(seen).numpy(), np.float32)

    def _load_or_train(self, stage: int) -> None:
        path = self.folder / f"layout{stage}.pt"
        if not path.is_file():
            examples = [self.example(photo, self.sky(photo, stage - 1)) for photo in self.used]
            fit_features(self.net, examples)
            log.info("round %d: a layout network learns from %d masks", stage, len(examples))
            train_head(self.net, examples, self.steps, seed=stage)
            save_tensors(path, self.net.head_state())
        self.net.load_state_dict(torch.load(path, weights_only=True), strict=False)

    def example(self, photo: Path, sky: F32, depth: F32 | None = None) -> LayoutExample:
        """What the layout network is shown of a photo; depth is unknown where it is None."""
        features = self.features(photo)
        size = features.shape[2], features.shape[1]
        small = cv2.resize(sky, size, interpolation=cv2.INTER_AREA)
        far = np.full_like(small, -1) if depth is None else cv2.resize(depth, size, interpolation=cv2.INTER_AREA)
        return LayoutExample(features=features, sky=torch.from_numpy(small), depth=torch.from_numpy(far))


def label_photos(labels: Labels) -> Iterator[Path]:
    """Make all labels that are not there yet; gives every photo whose fields are ready."""
    labels.first_round()
    for stage in range(1, ROUNDS + 1):
        labels.next_round(stage)
    for photo in labels.used:
        labels.fields(photo)
        yield photo


def _levels(mask: F32) -> npt.NDArray[np.uint8]:
    return np.asarray(mask * 255 + 0.5, np.uint8)
