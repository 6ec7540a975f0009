"""A picture by the networks of a layered generator in torch, as `stylize` makes it with a model."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from engine.conditions import MAP_STRIDE, Conditions, on_grid
from engine.looks.auto_look import AUTO, auto_weights
from engine.looks.layout import complete
from engine.looks.palette import palette_vectors
from engine.looks.palette_file import shipped_palettes
from engine.looks.torch_shader import layers_op
from training.errors import CheckpointError
from training.generator.layered_networks import LayeredGenerator
from training.teacher.filters import Image
from training.teacher.labels import VIEW_SIDE

__all__ = ["layered_looks", "layered_method"]

LEAST_VIEW = 32
"""What the sides of a view are multiples of for the network."""
FINE_SIDE = 1280
"""Longer side below which a picture is enlarged, up to twice, before its fields are made."""


def layered_looks() -> tuple[str, ...]:
    """The looks that every layered generator has: palettes, and `auto`."""
    return (*shipped_palettes(), AUTO)


def layered_method(net: LayeredGenerator, look: str, device: torch.device) -> Callable[[Image], Image]:
    """A generator as a method, RGB uint8 ``(H, W, 3)`` in and out; CheckpointError for no look of `layered_looks`."""
    if look not in layered_looks():
        raise CheckpointError(f"there is no look {look!r}; there are {', '.join(layered_looks())}")
    net.to(device).eval()
    return lambda photo: _painted(net, photo, look, device)


@torch.no_grad()
def _painted(net: LayeredGenerator, photo: Image, look: str, device: torch.device) -> Image:
    height, width = photo.shape[:2]
    view = _view(photo)
    found = net.layout.layout(_tensor(_filled_up(view, LEAST_VIEW), device))[0].cpu().numpy()
    seen = complete(view, Conditions(vectors={}, maps={"layout": found}))
    layout = seen.maps["layout"]
    shares = auto_weights(view, layout) if look == AUTO else {look: 1.0}
    vectors = {**seen.vectors, **palette_vectors([(shipped_palettes()[name], share) for name, share in shares.items()])}
    scale = max(1.0, min(2.0, FINE_SIDE / max(height, width)))
    size = round(width * scale), round(height * scale)
    work = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_CUBIC) if scale > 1 else photo, np.uint8)
    padded = _filled_up(work, MAP_STRIDE)
    grid = on_grid(Conditions(vectors={}, maps={"layout": layout}), (size[1], size[0]), padded.shape[:2])
    cells = torch.from_numpy(grid.maps["layout"])[None].to(device)
    tone, *palette = (
        torch.from_numpy(vectors[name])[None].to(device) for name in ("tone", "sky_lut", "land_lut", "controls")
    )
    planes = layers_op("planes", [_tensor(padded, device), cells, tone], net.config.pool)
    factor = net.config.pool * net.config.stride // 2
    y = layers_op("shader", [net.fields(planes), cells, *palette], factor)[0, :, : size[1], : size[0]]
    picture = y.add(1).mul(127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _view(photo: Image) -> Image:
    """What the layout is read from: sides are multiples of the layout's cells, the longer at most `VIEW_SIDE`."""
    scale = min(1.0, VIEW_SIDE / max(photo.shape[:2]))
    size = [max(1, round(side * scale / MAP_STRIDE)) * MAP_STRIDE for side in photo.shape[1::-1]]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(photo, size, interpolation=method), np.uint8)


def _filled_up(image: Image, multiple: int) -> Image:
    """The picture with sides that are multiples of `multiple`, mirrored beyond its lower and right edge."""
    more = [-side % multiple for side in image.shape[:2]]
    return np.asarray(cv2.copyMakeBorder(image, 0, more[0], 0, more[1], cv2.BORDER_REFLECT), np.uint8)


def _tensor(image: Image, device: torch.device) -> Tensor:
    """In -1..1, ``(1, 3, H, W)``."""
    return torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1
