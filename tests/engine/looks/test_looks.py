"""Palettes: measured on drawn pictures, chosen by light, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import PaletteError
from engine.looks.auto_look import Light, auto_weights
from engine.looks.measured_palette import measured_palette
from engine.looks.palette import KEYS, Palette, mixed_palette, to_oklab
from engine.looks.palette_file import palette_text, read_palette, shipped_palettes
from engine.probing import Looks

SCENES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "night": ((18, 24, 44), (8, 10, 14)),
    "dusk": ((206, 112, 66), (40, 28, 26)),
    "violet": ((196, 130, 170), (60, 50, 74)),
    "day": ((96, 150, 214), (128, 126, 92)),
    "winter": ((190, 208, 232), (205, 212, 226)),
    "fog": ((206, 206, 204), (120, 122, 124)),
    "forest": ((208, 212, 200), (74, 104, 44)),
}
"""What a place's sky and land look like, for the palette that suits it."""


def drawn(sky: Any, land: Any, *, ridge: float = 12, contrast: float = 0.25) -> tuple[Any, Any]:
    """A view ``(192, 256, 3)`` of one sky and of land from dark to light, and its layout."""
    shade = np.linspace(1 - contrast, 1 + contrast, 256)[None, :, None]
    view = np.where(np.arange(192)[:, None, None] < ridge * 8, np.array(sky)[None, None], np.array(land) * shade)
    layout = np.zeros((4, 24, 32), np.float32)
    layout[0] = np.clip(ridge - np.arange(24), 0, 1)[:, None]
    layout[1] = np.linspace(1, 0, 24)[:, None]
    layout[2] = np.clip(np.arange(24) / max(ridge, 1), 0, 1)[:, None]
    return np.clip(view, 0, 255).astype(np.uint8), layout


@pytest.mark.parametrize("name", SCENES)
def test_auto_takes_the_palette_that_suits(name: str) -> None:
    shares = auto_weights(*drawn(*SCENES[name], contrast=0.05 if name == "fog" else 0.3))
    assert set(shares) == set(shipped_palettes()) and sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=lambda n: shares[n]) == name


def test_auto_moves_slowly() -> None:
    """From a sunset to night in a hundred frames, and with a sky that leaves the picture: no leap."""
    (a, b), (c, d) = SCENES["dusk"], SCENES["night"]
    mixed = [[np.array(x) + (np.array(y) - x) * i / 100 for x, y in ((a, c), (b, d))] for i in range(101)]
    steps = np.array([list(auto_weights(*drawn(*colours)).values()) for colours in mixed])
    assert np.abs(np.diff(steps, axis=0)).max() < 0.12
    tilted = [drawn(*SCENES["dusk"], ridge=height) for height in np.linspace(12, 0, 193)]  # a row of pixels at a time
    leaving = np.array([list(auto_weights(view, layout).values()) for view, layout in tilted])
    assert np.abs(np.diff(leaving, axis=0)).max() < 0.12


def test_without_sky_its_numbers_are_the_usual_ones() -> None:
    light = Light.of(*drawn((0, 0, 0), (110, 110, 90), ridge=0))
    assert light.sky == light.warm == light.pink == 0 and light.land != 0


def test_auto_mixes_with_others() -> None:
    view, layout = drawn(*SCENES["night"])
    looks = Looks()
    weights = np.zeros(len(looks.names), np.float32)
    weights[looks.names.index("day")], weights[-1] = 0.25, 0.75
    shares = looks.shares(view, layout, weights)
    assert sum(shares.values()) == pytest.approx(1) and shares["day"] >= 0.25 and shares["night"] > 0.5
    weights[:] = 0
    weights[0] = 1
    assert looks.shares(view, layout, weights) == {"dusk": 1.0}


def test_a_picture_gives_its_own_colours() -> None:
    """Five bands of sky, and land that is dark near and light far: their own colours come back."""
    bands = np.array([[20, 30, 90], [80, 50, 120], [170, 80, 110], [230, 130, 90], [250, 210, 150]])
    view, layout = drawn((0, 0, 0), (0, 0, 0), ridge=10)
    view[:80] = bands.repeat(16, 0)[:, None]
    view[80:] = np.linspace(210, 15, 112)[:, None, None] * np.array([1, 0.6, 0.5])
    palette = measured_palette(view, layout)
    found = to_oklab(np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in palette.sky]))
    np.testing.assert_allclose(found, to_oklab(bands / 255), atol=0.03)
    land = to_oklab(np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in palette.land]))
    assert (np.diff(land[:, 0]) > 0.03).all() and land[0, 0] < 0.3 and land[-1, 0] > 0.6
    assert (land[1:, 1] > 0.02).all()  # red as it is


@pytest.mark.parametrize("ridge", [0, 24])
def test_pictures_of_nothing_but_land_or_sky(ridge: int) -> None:
    view, layout = drawn((120, 160, 220), (90, 70, 50), ridge=ridge)
    view[: len(view) // 3] = view[: len(view) // 3] // 2
    palette = measured_palette(view, layout)
    assert len(palette.sky) == 5 and len(palette.land) == 6


def test_one_colour_is_no_look() -> None:
    view, layout = drawn((90, 90, 90), (90, 90, 90), contrast=0)
    with pytest.raises(PaletteError, match="of one colour"):
        measured_palette(view, layout)


def test_files_keep_what_was_written(tmp_path: Path) -> None:
    for name, palette in shipped_palettes().items():
        path = tmp_path / f"{name}.toml"
        path.write_text(palette_text(palette, "a look"))
        assert read_palette(path) == palette
    bare = Palette(sky=("#000000", "#ffffff"), land=("#000000", "#ffffff"), lit="#ffffff")
    path.write_text(palette_text(bare))
    assert read_palette(path) == bare and "sun =" not in path.read_text()
    with pytest.raises(PaletteError, match=r"none\.toml cannot be read as a palette"):
        read_palette(tmp_path / "none.toml")
    assert tuple(Palette.__dataclass_fields__) == KEYS


def test_a_mixture_is_half_way_in_oklab() -> None:
    black = Palette(sky=("#000000", "#000000"), land=("#000000", "#000000"), lit="#000000")
    white = Palette(sky=("#ffffff",) * 3, land=("#ffffff",) * 2, lit="#ffffff", sun="#ffffff")
    mixed = mixed_palette([(black, 0.5), (white, 0.5)])
    assert mixed.sky == ("#636363",) * 3 and mixed.lit == "#636363" and mixed.sun == "#ffffff"
