"""How good a generator is, in numbers: distances to the art, structure kept, flatness, steadiness."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from training.data.check import flatness
from training.data.image_io import fit, image_files, read_rgb
from training.data.looks import LookPalettes
from training.data.poster import ToneRank, flat_shapes
from training.data.pseudo_pairs import U8, PaletteMap, flatten
from training.errors import CheckpointError, DataError
from training.evaluation.baselines import Reinhard, classical, opencv_stylization
from training.evaluation.metrics import (
    PATCHES,
    gradient_similarity,
    palette_distance,
    palette_signature,
    patch_set,
    share_closed,
    swd_levels,
)
from training.evaluation.temporal import clip_files, read_frames, warping_error
from training.generator.networks import LightGenerator, ResnetGenerator

__all__ = [
    "Distances",
    "Judge",
    "Method",
    "Score",
    "baselines",
    "generator_method",
    "pseudo_pair",
    "read_at",
    "score_clips",
]

Method = Callable[[U8], U8]
"""A stylization: RGB uint8 in, the same size out."""


@dataclass(frozen=True, kw_only=True)
class Distances:
    """How far a set of images is from the training art."""

    levels: list[float]
    """SWD of every pyramid level, the finest first."""
    swd_fine: float
    """Mean of the two finest levels."""
    swd_all: float
    """Mean of all levels."""
    swd_contrast: float
    """Mean of all levels in the art's own scale, so that contrast counts."""
    palette: float
    """Earth mover's distance of the colours, in Lab units."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The numbers of one method."""

    distances: Distances
    share_fine: float
    """Share of the gap between photos and unseen art that is closed; so for the next three."""
    share_all: float
    share_contrast: float
    share_palette: float
    similarity: float
    """Gradient-magnitude similarity to the photo."""
    flatness: float
    warping: dict[str, float] = field(default_factory=dict)
    """Temporal warping error, stylized over source, for each clip."""

    @property
    def warping_ratio(self) -> float | None:
        """Mean over the clips; None without clips."""
        return float(np.mean(list(self.warping.values()))) if self.warping else None


class Judge:
    """Measures sets of images against training art.

    Args:
        photos: what the methods start from, RGB uint8.
        art: art that no generator has trained on.
        train_art: the art that distances are taken to.
        patches: how many patches of a set are compared on each level.
    """

    def __init__(
        self, photos: Sequence[U8], art: Sequence[U8], train_art: Sequence[U8], *, patches: int = PATCHES
    ) -> None:
        self.photos, self.count = photos, patches
        self.patches, self.signature = patch_set(train_art, patches=patches), palette_signature(train_art)
        self.train_flatness = float(np.mean([flatness(a) for a in train_art]))
        self.of_photos, self.of_art = self.distances(photos), self.distances(art)
        self.art_flatness = float(np.mean([flatness(a) for a in art]))

    def distances(self, images: Sequence[U8]) -> Distances:
        """How far a set is from the training art."""
        patches = patch_set(images, patches=self.count)
        levels = swd_levels(patches, self.patches)
        return Distances(
            levels=levels,
            swd_fine=float(np.mean(levels[:2])),
            swd_all=float(np.mean(levels)),
            swd_contrast=float(np.mean(swd_levels(patches, self.patches, own_scale=False))),
            palette=palette_distance(palette_signature(images), self.signature),
        )

    def score(self, outputs: Sequence[U8], warping: Mapping[str, float] | None = None) -> Score:
        """The numbers of a method from its outputs, one for each photo."""
        own, photo, art = self.distances(outputs), self.of_photos, self.of_art
        return Score(
            distances=own,
            share_fine=share_closed(photo.swd_fine, own.swd_fine, art.swd_fine),
            share_all=share_closed(photo.swd_all, own.swd_all, art.swd_all),
            share_contrast=share_closed(photo.swd_contrast, own.swd_contrast, art.swd_contrast),
            share_palette=share_closed(photo.palette, own.palette, art.palette),
            similarity=float(np.mean([gradient_similarity(o, p) for o, p in zip(outputs, self.photos, strict=True)])),
            flatness=float(np.mean([flatness(o) for o in outputs])),
            warping=dict(warping or {}),
        )


def read_at(folder: str | Path, long_side: int, limit: int | None = None) -> tuple[list[Path], list[U8]]:
    """The images of a folder, their longer side brought to `long_side` (up as well as down)."""
    files = image_files(folder)[:limit]
    return files, [_scaled(read_rgb(p), long_side) for p in files]


def _scaled(image: U8, long_side: int) -> U8:
    scale = long_side / max(image.shape[:2])
    if scale <= 1:
        return fit(image, long_side)
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def baselines(train_art: Sequence[U8]) -> dict[str, Method]:
    """The stylizations without a network."""
    palettes = [PaletteMap.of(fit(a, 160)) for a in train_art]
    return {
        "mean shift alone": lambda photo: flatten(photo, smooth=False),
        "Reinhard": Reinhard(train_art),
        "OpenCV stylization": opencv_stylization,
        "classical baseline": lambda photo: classical(photo, palettes),
    }


def pseudo_pair(art: Sequence[U8], look: str) -> Method:
    """What a generator learns from in its warm-up, as a method: the limit of a supervised one."""
    palettes = LookPalettes([PaletteMap.of(fit(a, 160)) for a in art], (look,))

    def method(photo: U8) -> U8:
        flat = flat_shapes(photo)
        return palettes.paint(flat, look, ToneRank.of(flat))

    return method


def generator_method(net: ResnetGenerator | LightGenerator, look: str | None, device: torch.device) -> Method:
    """A generator as a method, in one look (default: its first); CheckpointError if it has no such look."""
    names = net.config.looks
    if look is not None and look not in names:
        raise CheckpointError(f"the generator has no look {look!r}; it has {', '.join(names)}")
    weights = F.one_hot(torch.tensor([names.index(look) if look else 0]), len(names)).float().to(device)
    net.to(device).eval()
    return lambda photo: _render(net, photo, weights, device)


@torch.no_grad()
def _render(net: nn.Module, photo: U8, look: torch.Tensor, device: torch.device) -> U8:
    """A photo of any size: padded by reflection to a multiple of 8, and cut back."""
    h, w = photo.shape[:2]
    padded = cv2.copyMakeBorder(photo, 0, -h % 8, 0, -w % 8, cv2.BORDER_REFLECT_101)
    x = torch.from_numpy(padded).to(device).permute(2, 0, 1)[None].float().div(127.5).sub(1)
    y = net(x, look)[0].float().add(1).mul(127.5).round().clamp(0, 255)
    return np.ascontiguousarray(y.permute(1, 2, 0).byte().cpu().numpy()[:h, :w])


def score_clips(
    folder: Path, methods: Mapping[str, Method], *, long_side: int = 384, frames: int = 8
) -> Iterator[tuple[str, dict[str, float] | DataError]]:
    """For each clip its name, and the warping error of every method over the source's own.

    A clip that cannot be decoded gives its DataError instead; so does one without any change to
    compare with.
    """
    for path in clip_files(folder):
        try:
            source = read_frames(path, count=frames, long_side=long_side)
            ratios = {}
            for name, method in methods.items():
                stylized, own = warping_error(source, [method(f) for f in source])
                if own < 0.05:
                    raise DataError(f"{path} is a still picture: give clips with motion")
                ratios[name] = stylized / own
            yield path.name, ratios
        except DataError as error:
            yield path.name, error
