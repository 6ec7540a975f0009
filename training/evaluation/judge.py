"""How good a generator is, in numbers: distances to the art, structure kept, flatness, steadiness."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from training.evaluation.deep import DeepFeatures, DeepTrunk, kid, structure_kept
from training.evaluation.edges import edge_width, flat_pixels, gradient_gini
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
    "Judge",
    "Measures",
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
class Measures:
    """What is measured on a set of images, without a look at what they were made from."""

    levels: list[float]
    """SWD to the training art on every pyramid level, the finest first."""
    swd_fine: float
    """Mean of the two finest levels."""
    swd_all: float
    """Mean of all levels."""
    swd_contrast: float
    """Mean of all levels in the art's own scale, so that contrast counts."""
    palette: float
    """Earth mover's distance of the colours to those of the training art, in Lab units."""
    flatness: float
    """Share of pixels whose luma changes by less than 4/255 a pixel."""
    gini: float
    """Gini of the lightness gradient."""
    flat_pixels: float
    """Share of pixels that are flat in relation to the picture's contrast."""
    edge_width: float
    """Median 10-90 % width of the strongest edges, in pixels of the size that is judged."""
    kid: float | None
    """Kernel inception distance to the training art, times 1000; None for a single picture."""
    texture_kid: float
    """The same of local features without their mean over the image."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The numbers of one method."""

    measures: Measures
    share_fine: float
    """Share of the gap between photos and unseen art that is closed; so for the next four."""
    share_all: float
    share_contrast: float
    share_palette: float
    share_gini: float
    similarity: float | None
    """Gradient-magnitude similarity to the photo; None for unseen art, which has none."""
    structure: float | None
    """Cosine of mid-level features to the photo's; None for unseen art."""
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
        trunk: the pretrained features.
        patches: how many patches of a set are compared on each level.
    """

    def __init__(
        self,
        photos: Sequence[U8],
        art: Sequence[U8],
        train_art: Sequence[U8],
        *,
        trunk: DeepTrunk,
        patches: int = PATCHES,
    ) -> None:
        self.photos, self.trunk, self.count = photos, trunk, patches
        self.patches, self.signature = patch_set(train_art, patches=patches), palette_signature(train_art)
        self.train_flatness = _mean(flatness, train_art)
        self.train_features, self.features = trunk(train_art), trunk(photos)
        self.photo_measures = self._measures(photos, self.features)
        self.art_measures = self._measures(art, trunk(art))
        self.of_photos = self._score(self.photo_measures, similarity=1.0, structure=1.0)
        self.of_art = self._score(self.art_measures, similarity=None, structure=None)

    def score(self, outputs: Sequence[U8], warping: Mapping[str, float] | None = None) -> Score:
        """The numbers of a method from its outputs, one for each photo."""
        features = self.trunk(outputs)
        pairs = zip(outputs, self.photos, strict=True)
        return self._score(
            self._measures(outputs, features),
            similarity=float(np.mean([gradient_similarity(output, photo) for output, photo in pairs])),
            structure=structure_kept(features, self.features),
            warping=dict(warping or {}),
        )

    def _measures(self, images: Sequence[U8], features: DeepFeatures) -> Measures:
        patches = patch_set(images, patches=self.count)
        levels, of_art = swd_levels(patches, self.patches), self.train_features
        return Measures(
            levels=levels,
            swd_fine=float(np.mean(levels[:2])),
            swd_all=float(np.mean(levels)),
            swd_contrast=float(np.mean(swd_levels(patches, self.patches, own_scale=False))),
            palette=palette_distance(palette_signature(images), self.signature),
            flatness=_mean(flatness, images),
            gini=_mean(gradient_gini, images),
            flat_pixels=_mean(flat_pixels, images),
            edge_width=float(np.nanmedian([edge_width(image) for image in images])),
            kid=kid(features.content, of_art.content) if min(len(images), len(of_art.content)) > 1 else None,
            texture_kid=kid(features.texture, of_art.texture),
        )

    def _score(self, own: Measures, **values: Any) -> Score:
        def share(name: str) -> float:
            return share_closed(*(getattr(m, name) for m in (self.photo_measures, own, self.art_measures)))

        return Score(
            measures=own, share_fine=share("swd_fine"), share_all=share("swd_all"),
            share_contrast=share("swd_contrast"), share_palette=share("palette"), share_gini=share("gini"), **values,
        )  # fmt: skip


def _mean(measure: Callable[[U8], float], images: Sequence[U8]) -> float:
    return float(np.mean([measure(image) for image in images]))


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
