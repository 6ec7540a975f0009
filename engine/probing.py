"""From a picture and the weights of a look to what `Backend.render` takes, whatever the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engine.conditions import Conditions, on_grid
from engine.layout import complete
from engine.palette import PALETTES, palette_vectors
from engine.spec import F32, ModelSpec, look_weights

if TYPE_CHECKING:
    from engine.backends.base import Backend, Tiles

__all__ = ["look_vectors", "usual_conditions", "with_look"]


def look_vectors(spec: ModelSpec, weights: F32) -> dict[str, F32]:
    """What a look adds to the conditions of a model with a layout, for weights ``(K,)`` of its looks.

    Raises ValueError for a look that there is no palette of.
    """
    parts = [(name, float(weight)) for name, weight in zip(spec.looks, weights, strict=True) if weight > 0]
    for name, _ in parts:
        if name not in PALETTES:
            raise ValueError(f"no palette for look {name!r}; there are {', '.join(PALETTES)}")
    return dict(palette_vectors([(PALETTES[name], weight) for name, weight in parts]))


def with_look(spec: ModelSpec, view: npt.NDArray[np.uint8], found: Conditions, weights: F32) -> Conditions:
    """What a probe has returned for a view, completed: as it is for instance norm, else with tone and palette.

    `view` is RGB uint8 ``(H, W, 3)`` without its padding.
    """
    return complete(view, found).plus(**look_vectors(spec, weights)) if spec.has_layout else found


def usual_conditions(backend: Backend, picture: Tiles, look: str = "") -> Conditions:
    """Conditions for one picture ``(1, H, W, 3)`` that is view and tile at once, for checks.

    H and W are multiples of the model's `multiple`; ValueError for others.
    """
    spec = backend.spec
    weights = look_weights(spec, look or spec.looks[0])
    if not spec.has_layout:
        return backend.probe(picture, weights)
    height, width = picture.shape[1:3]
    sides = [max(spec.view_min_side, -(-n // spec.view_multiple) * spec.view_multiple) for n in (height, width)]
    view = np.pad(picture, ((0, 0), (0, sides[0] - height), (0, sides[1] - width), (0, 0)), mode="edge")
    found = with_look(spec, picture[0], backend.probe(view, weights), weights)
    return on_grid(found, (height, width), (height, width))
