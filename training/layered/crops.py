"""Crops of labelled photos and of art, cut on the device that trains: nothing but numbers crosses to it in a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.conditions import MAP_STRIDE

__all__ = ["CROP", "Canvases", "FieldsExample", "Pairs", "Photos"]

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

CROP = 192
"""Side of the crops in pixels."""
SCALES = (-0.4, 0.75)
"""Natural logarithm of how much larger or smaller a crop is than in the picture."""
LEAST, LARGEST = 96, round(CROP * math.exp(0.4))
"""Pixels of the picture that a crop shows at least and at most, along a side."""
RELIT, LIGHTS = 0.5, 0.25
"""Share of the crops that are seen in another light, and how far the logarithm of its gamma goes."""
NOISY, NOISE = 0.3, 0.025
"""Share of the crops with sensor noise, and its most, of 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FieldsExample:
    """A photo, what the layout network says of it, and what the teacher makes of it."""

    image: U8
    """RGB ``(H, W, 3)``, sides multiples of 8."""
    layout: U8
    """Sky, depth, sky coordinate and glow at stride 8, times 255, ``(H / 8, W / 8, 4)``."""
    tone: F32
    """The vector `tone` of `engine.looks.layout`, ``(7,)``."""
    fields: U8
    """The teacher's fields times 255, ``(H, W, 4)``."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """One batch; all but the tones ``(N, C, CROP, CROP)``."""

    images: Tensor
    """RGB in -1..1."""
    layouts: Tensor
    """See `FieldsExample`, 0..1."""
    tones: Tensor
    """``(N, 7)``."""
    fields: Tensor
    """Sky, depth, tone and cloud of the teacher, 0..1."""


class Canvases:
    """Pictures ``(H, W, C)`` of several sizes as one tensor, each continued beyond its right and lower edge.

    Args:
        pictures: uint8.
        device: where they lie.
    """

    def __init__(self, pictures: Sequence[U8], device: torch.device) -> None:
        self.side = max(max(picture.shape[:2]) for picture in pictures)
        channels = pictures[0].shape[2]
        self.pixels = torch.empty((len(pictures), channels, self.side, self.side), dtype=torch.uint8, device=device)
        for place, picture in zip(self.pixels, pictures, strict=True):
            more = [(0, self.side - n) for n in picture.shape[:2]]
            place.copy_(torch.from_numpy(np.pad(picture, (*more, (0, 0)), mode="edge").transpose(2, 0, 1)))

    def cut(self, chosen: Tensor, boxes: Tensor, soft: int, *, size: int = CROP, largest: int = LARGEST) -> Tensor:
        """Squares as `boxes` gives them, resized to `size`, ``(N, C, size, size)`` in 0..1.

        Args:
            chosen: numbers of the pictures ``(N,)``.
            boxes: top, left and side as shares of `side`, and whether it is mirrored (1) or not (0), ``(N, 4)``.
            soft: the last channels, so many, are interpolated linearly, those before cubically.
            size: side of the result.
            largest: pixels that no square is larger than.
        """
        room = min(self.side, largest + 4)  # what may be seen, with two pixels around for the interpolation
        corners = (boxes[:, :2] * self.side - 2).long().clamp(0, self.side - room)
        steps = torch.arange(room, device=boxes.device)
        channels = torch.arange(self.pixels.shape[1], device=boxes.device)
        rows, columns = (corners[:, i : i + 1] + steps for i in (0, 1))
        part = self.pixels[
            chosen[:, None, None, None], channels[None, :, None, None], rows[:, None, :, None], columns[:, None, None]
        ]
        place = (torch.arange(size, device=boxes.device) + 0.5) / size
        side, mirrored = boxes[:, 2:3], boxes[:, 3:]
        across = place + mirrored * (1 - 2 * place)
        starts = boxes[:, :2] - corners / self.side
        y, x = (
            (starts[:, i : i + 1] + side * along) * (2 * self.side / room) - 1
            for i, along in enumerate((place, across))
        )
        grid = torch.stack([x[:, None].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], -1)
        values, sharp = part.float() / 255, part.shape[1] - soft
        parts = [
            F.grid_sample(group, grid, mode=mode, padding_mode="border", align_corners=False)
            for group, mode in ((values[:, :sharp], "bicubic"), (values[:, sharp:], "bilinear"))
            if group.shape[1]
        ]
        return torch.cat(parts, 1).clamp(0, 1)


class Photos:
    """Labelled photos on a device.

    Raises ValueError without examples.
    """

    def __init__(self, examples: Sequence[FieldsExample], device: torch.device) -> None:
        if not examples:
            raise ValueError("no example to train on: label some photos first")
        self.device = device
        self.sizes = [example.image.shape[:2] for example in examples]
        self.canvases = Canvases([np.dstack([e.image, e.fields]) for e in examples], device)
        self.cells = Canvases([_filled_up(e.layout, self.canvases.side // MAP_STRIDE) for e in examples], device)
        self.tones = torch.from_numpy(np.stack([e.tone for e in examples])).to(device)

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """What a batch is made from: numbers of photos ``(N,)``, boxes ``(N, 4)``, gamma and noise ``(N, 2)``."""
        chosen = rng.integers(len(self.sizes), size=count)
        boxes = np.array([drawn_box(rng, self.sizes[i], self.canvases.side) for i in chosen], np.float32)
        gamma = np.where(rng.random(count) < RELIT, np.exp(rng.uniform(-LIGHTS, LIGHTS, count)), 1)
        noise = np.where(rng.random(count) < NOISY, rng.uniform(0, NOISE, count), 0)
        light = np.stack([gamma, noise], 1).astype(np.float32)
        return torch.from_numpy(chosen), torch.from_numpy(boxes), torch.from_numpy(light)

    def pairs(self, chosen: Tensor, boxes: Tensor, light: Tensor) -> Pairs:
        """The batch of a draw, whose tensors are on the device; in another light the tones follow."""
        cut, gamma, noise = self.canvases.cut(chosen, boxes, 4), light[:, :1], light[:, 1:]
        images = cut[:, :3].clamp(min=1e-4) ** gamma[..., None, None]
        images = images + torch.randn_like(images) * noise[..., None, None]
        tones = self.tones.index_select(0, chosen).clamp(1e-4, 1) ** gamma
        layouts = self.cells.cut(chosen, boxes, 4)
        return Pairs(images=images * 2 - 1, layouts=layouts, tones=tones, fields=cut[:, 3:])


def drawn_box(rng: np.random.Generator, size: tuple[int, ...], whole: int) -> tuple[float, float, float, float]:
    """A random square of a picture ``(H, W)``, for `Canvases.cut` with canvases of side `whole`."""
    side = min(*size, LARGEST, max(LEAST, int(CROP / np.exp(rng.uniform(*SCALES)))))
    top, left = (int(rng.integers(n - side + 1)) for n in size)
    return top / whole, left / whole, side / whole, float(rng.random() < 0.5)


def _filled_up(cells: U8, side: int) -> U8:
    """Cells as large as the canvas of the pixels is, so that the same box is the same place."""
    return np.pad(cells, (*((0, side - n) for n in cells.shape[:2]), (0, 0)), mode="edge")
