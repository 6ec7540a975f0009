"""From a picture and the weights of a look to what `Backend.render` takes, whatever the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engine.conditions import Conditions, on_grid
from engine.looks.auto_look import AUTO, auto_weights
from engine.looks.layout import complete
from engine.looks.palette import Palette, Shading, palette_vectors
from engine.looks.palette_file import shipped_palettes
from engine.spec import F32, ModelSpec, look_weights

if TYPE_CHECKING:
    from engine.backends.base import Backend, Tiles

__all__ = ["Looks", "look_names", "usual_conditions", "with_look"]


@dataclass(frozen=True, kw_only=True)
class Looks:
    """The looks of a model with a layout: palettes, and `auto`, which mixes those that come with the program."""

    palettes: Mapping[str, Palette] = field(default_factory=shipped_palettes)
    """By name."""
    shading: Shading = field(default_factory=Shading)

    @property
    def names(self) -> tuple[str, ...]:
        """What weights ``(K,)`` of looks belong to, in this order."""
        return (*self.palettes, AUTO)

    def shares(self, view: npt.NDArray[np.uint8], layout: F32, weights: F32) -> dict[str, float]:
        """Palettes and how much of each a picture is painted with; `auto` is replaced by what it chooses."""
        shares = dict(zip(self.palettes, map(float, weights), strict=False))
        if weights[-1] > 0:
            for name, share in auto_weights(view, layout).items():
                shares[name] = shares.get(name, 0.0) + share * float(weights[-1])
        return {name: share for name, share in shares.items() if share > 0}

    def vectors(self, shares: Mapping[str, float]) -> dict[str, F32]:
        """What a mixture of palettes adds to the conditions of a picture."""
        known = {**shipped_palettes(), **self.palettes}
        return dict(palette_vectors([(known[name], share) for name, share in shares.items()], self.shading))


def look_names(spec: ModelSpec) -> tuple[str, ...]:
    """The looks that a model has: its own, or with a layout palettes and `auto`."""
    return Looks().names if spec.has_layout else spec.looks


def with_look(
    spec: ModelSpec, view: npt.NDArray[np.uint8], found: Conditions, weights: F32, looks: Looks | None = None
) -> Conditions:
    """What a probe has returned for a view, completed: as it is for instance norm, else with tone and palette.

    Args:
        spec: of the model.
        view: RGB uint8 ``(H, W, 3)`` without its padding.
        found: what the probe has returned.
        weights: of the model's looks, or with a layout of `looks`, ``(K,)``.
        looks: the usual ones if None.
    """
    if not spec.has_layout:
        return found
    looks, completed = looks or Looks(), complete(view, found)
    return completed.plus(**looks.vectors(looks.shares(view, completed.maps["layout"], weights)))


def usual_conditions(backend: Backend, picture: Tiles, look: str = "") -> Conditions:
    """Conditions for one picture ``(1, H, W, 3)`` that is view and tile at once, for checks.

    H and W are multiples of the model's `multiple`; ValueError for others.
    """
    spec = backend.spec
    weights = look_weights(look_names(spec), look or spec.looks[0], spec.name)
    if not spec.has_layout:
        return backend.probe(picture, weights)
    height, width = picture.shape[1:3]
    sides = [max(spec.view_min_side, -(-n // spec.view_multiple) * spec.view_multiple) for n in (height, width)]
    view = np.pad(picture, ((0, 0), (0, sides[0] - height), (0, sides[1] - width), (0, 0)), mode="edge")
    found = with_look(spec, picture[0], backend.probe(view, weights), weights)
    return on_grid(found, (height, width), (height, width))
