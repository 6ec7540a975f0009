"""The look `auto`: palettes mixed by a picture's own light and colours.

A picture is described by a few numbers (`Light`), each palette by the numbers of the pictures that it suits
(`SUITED`), and the palettes are mixed by a softmax over the distances between them.  All of it is smooth in the
picture: from frame to frame shares move a little, never from one palette to another at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

import cv2
import numpy as np
import numpy.typing as npt

from engine.looks.palette import to_oklab

__all__ = ["AUTO", "Light", "auto_weights"]

F32 = npt.NDArray[np.float32]

AUTO = "auto"
"""Name of the look."""


@dataclass(frozen=True, kw_only=True)
class Light:
    """What is seen of a picture, each about 0 for the usual picture, and 1 a standard deviation away from it."""

    sky: float
    """Lightness of the sky."""
    land: float
    """Lightness of the land."""
    warm: float
    """Yellow against blue, of the sky."""
    pink: float
    """Red against green, of the sky."""
    earth: float
    """Yellow against blue, of the land."""
    green: float
    """Green against red, of the land."""
    contrast: float
    """Of the lightness of the land."""
    colour: float
    """Chroma of the land."""
    openness: float
    """Share of the picture that is sky."""

    @classmethod
    def of(cls, view: npt.NDArray[np.uint8], layout: F32) -> Light:
        """Of a view ``(H, W, 3)`` and its layout ``(C, h, w)``, whose first channel is the sky."""
        small = cv2.resize(view, layout.shape[:0:-1], interpolation=cv2.INTER_AREA)
        lab = to_oklab(np.asarray(small, np.float64) / 255)
        sky = np.clip((layout[0] - 0.3) / 0.4, 0, 1)
        above, below = (_Part.of(lab, share) for share in (sky, 1 - sky))
        numbers = [
            above.mean[0], below.mean[0], above.mean[2], above.mean[1], below.mean[2], -below.mean[1],
            below.contrast, below.chroma, float(sky.mean()),
        ]  # fmt: skip
        # With hardly any sky its numbers are those of the usual one; what is far out counts no more than it should.
        trust = [part.trust for part in (above, below, above, above, *[below] * 4)] + [1.0]
        usual = MOST * np.tanh((np.array(numbers) - USUAL[0]) / USUAL[1] * trust / MOST)
        return cls(**dict(zip(cls.__dataclass_fields__, map(float, usual), strict=True)))


USUAL = (
    np.array([0.70, 0.445, -0.030, -0.005, 0.012, 0.001, 0.140, 0.037, 0.36]),
    np.array([0.156, 0.125, 0.045, 0.024, 0.029, 0.018, 0.045, 0.020, 0.24]),
)
"""Mean and standard deviation of the numbers behind `Light`, of 1,441 landscape photos."""

TRUSTED = 0.1
"""Share of a picture that sky or land has, for its numbers to count half."""

SUITED: Mapping[str, Light] = {
    "dusk": Light(
        sky=-0.3, land=-1.3, warm=1.5, pink=1.3, earth=0.2, green=-0.5, contrast=-0.3, colour=0.0, openness=0.4
    ),
    "golden": Light(
        sky=0.3, land=-0.1, warm=1.2, pink=0.4, earth=1.3, green=-0.8, contrast=0.2, colour=1.0, openness=0.1
    ),
    "violet": Light(
        sky=-0.4, land=-0.8, warm=-0.3, pink=1.6, earth=-0.9, green=-1.0, contrast=-0.4, colour=-0.2, openness=0.3
    ),
    "day": Light(sky=0.1, land=0.3, warm=-1.0, pink=-0.7, earth=0.5, green=0.6, contrast=0.5, colour=0.4, openness=0.1),
    "night": Light(
        sky=-2.2, land=-1.8, warm=-0.4, pink=0.0, earth=-0.6, green=-0.1, contrast=-0.6, colour=-0.8, openness=0.3
    ),
    "fog": Light(
        sky=0.8, land=0.4, warm=0.6, pink=0.1, earth=-0.5, green=0.0, contrast=-1.3, colour=-1.2, openness=0.3
    ),
    "forest": Light(
        sky=0.2, land=-0.5, warm=0.4, pink=-0.1, earth=0.7, green=1.3, contrast=0.1, colour=0.4, openness=-1.1
    ),
    "winter": Light(
        sky=0.4, land=1.5, warm=-0.6, pink=-0.2, earth=-1.0, green=-0.1, contrast=0.7, colour=-0.6, openness=0.0
    ),
}
"""Palettes and the pictures that they suit."""

MOST = 2.5
"""Standard deviations that a number of a picture comes to at the most."""

SHARPNESS = 1.5
"""Of the choice: the larger, the more one palette is taken alone."""


def auto_weights(view: npt.NDArray[np.uint8], layout: F32) -> dict[str, float]:
    """Shares of the palettes that come with the program, which sum to one."""
    light = np.array(astuple(Light.of(view, layout)))
    squares = np.array([((light - np.array(astuple(suited))) ** 2).sum() for suited in SUITED.values()])
    shares = np.exp(-SHARPNESS * (squares - squares.min()) / 2)
    return dict(zip(SUITED, map(float, shares / shares.sum()), strict=True))


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Sky or land of a picture, in OKLab."""

    mean: npt.NDArray[np.float64]
    contrast: float
    """Standard deviation of lightness."""
    chroma: float
    trust: float
    """How far its numbers can be trusted, 0..1."""

    @classmethod
    def of(cls, lab: npt.NDArray[np.float64], share: F32) -> _Part:
        """Of cells ``(h, w, 3)`` and how much of each belongs."""

        def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            total = np.tensordot(share, values, ((0, 1), (0, 1)))
            return np.asarray(total / (share.sum() + 1e-6), np.float64)

        centre, area = mean(lab), float(share.mean())
        return cls(
            mean=centre,
            contrast=float(np.sqrt(mean((lab[..., 0] - centre[0]) ** 2))),
            chroma=float(mean(np.hypot(lab[..., 1], lab[..., 2]))),
            trust=area / (area + TRUSTED),
        )
