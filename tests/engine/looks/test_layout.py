"""Conditions over a picture and on a grid; tone, horizon and sun of drawn pictures; palettes."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from engine.conditions import Conditions, mean_conditions, on_grid
from engine.looks.layout import TONES, complete, find_sun, glow_around, horizon, sky_range, tone_knots, view_luma
from engine.looks.palette import Palette, Shading, from_oklab, palette_vectors, to_oklab
from engine.looks.palette_file import shipped_palettes


def scene(height: int = 192, width: int = 256, ridge: int = 80) -> tuple[Any, Any]:
    """A view with a bright sky above a dark land, and its layout."""
    rng = np.random.default_rng(1)
    view = rng.integers(20, 120, (height, width, 3)).astype(np.uint8)
    view[:ridge] = rng.integers(150, 220, (ridge, width, 3))
    layout = np.zeros((2, height // 8, width // 8), np.float32)
    layout[0, : ridge // 8] = 1
    layout[1] = np.linspace(1, 0, height // 8)[:, None]
    return view, layout


def shaded(levels: list[float], counts: list[int]) -> Any:
    """Luma of flat areas of some sizes."""
    return np.repeat(np.array(levels, np.float32), counts)


def test_tone_of_sky_and_land() -> None:
    view, layout = scene()
    # Flat, so that smoothing changes nothing but the borders; five shades of the sky.
    view[:80] = np.linspace(130, 250, 256).astype(np.uint8)[:, None]
    view[80:] = np.repeat([20, 60, 100, 140], 64)[:, None]
    tone = complete(view, Conditions(vectors={}, maps={"layout": layout})).vectors["tone"]
    assert tone.shape == (7,) and tone.dtype == np.float32
    borders = 0.75 * np.array([40, 80, 120]) / 255 + 0.25 * np.linspace(20, 140, 5)[1:-1] / 255
    np.testing.assert_allclose(tone[:5], [20 / 255, *borders, 140 / 255], atol=8e-3)
    np.testing.assert_allclose(tone[5:], np.percentile(view[:80], [3, 97]) / 255, atol=8e-3)


def test_steps_of_tone_fall_between_the_shades_of_a_picture() -> None:
    """Of four shades of unequal sizes every one has a tone of its own."""
    shades = [0.2, 0.42, 0.6, 0.9]
    luma = shaded(shades, [4000, 3000, 1500, 1500])
    knots = tone_knots(luma, np.ones_like(luma))
    assert knots.shape == (len(TONES),) and knots.dtype == np.float32
    assert all(a < b < c for a, b, c in zip(shades, knots[1:4], shades[1:], strict=False))
    # with three steps each of them has a tone of its own: 0, 1, 2, 3 of 3
    assert np.rint(np.interp(shades, knots, TONES) * 3).tolist() == [0, 1, 2, 3]


def test_knots_move_with_the_picture_and_never_jump() -> None:
    rng = np.random.default_rng(4)
    luma = np.clip(np.concatenate([rng.normal(m, 0.07, 3000) for m in (0.3, 0.4, 0.55)]), 0, 1).astype(np.float32)
    brighter = [tone_knots(np.float32(0.002 * i) + luma, np.ones_like(luma)) for i in range(100)]
    assert np.abs(np.diff(brighter, axis=0)).max() < 0.01
    assert brighter[-1] == pytest.approx(brighter[0] + 0.2, abs=0.02)
    half = np.where(luma > 0.45, 1, 0).astype(np.float32)
    leaving = [tone_knots(luma, 1 - half * i / 1000) for i in range(900, 1001)]  # what is bright turns into sky
    assert np.abs(np.diff(leaving, axis=0)).max() < 0.02 and leaving[-1][4] < 0.7
    flat = tone_knots(np.full(1000, 0.5, np.float32), np.ones(1000, np.float32))
    assert np.diff(flat).min() > 0.01 and flat[-1] - flat[0] >= 0.2 - 1e-6


def test_where_there_is_no_sky_its_tone_is_nothing_in_particular() -> None:
    view, _ = scene()
    luma = view_luma(view)
    none = np.zeros_like(luma)
    assert sky_range(luma, none) == pytest.approx((0.03, 0.97), abs=0.01)
    little = none.copy()
    little[:8, :8] = 1e-3  # continuous: a trace of sky changes next to nothing
    np.testing.assert_allclose(sky_range(luma, little), sky_range(luma, none), atol=0.01)
    np.testing.assert_allclose(tone_knots(luma, none), [0.02, 0.26, 0.5, 0.74, 0.98], atol=0.01)


def test_a_strip_of_sky_has_its_whole_gradient() -> None:
    sky = np.zeros((48, 32), np.float32)
    sky[:4] = 1  # a twelfth of the picture, above a forest
    assert horizon(sky) == pytest.approx(4 / 48, abs=0.01)


def test_sky_coordinate_runs_from_the_top_to_the_horizon() -> None:
    view, layout = scene()
    found = complete(view, Conditions(vectors={}, maps={"layout": layout})).maps["layout"]
    assert found.shape == (4, 48, 64) and found.dtype == np.float32
    v = found[2]
    assert (np.diff(v, axis=0) >= 0).all() and (v == v[:, :1]).all()
    assert v[0, 0] == pytest.approx(0.25 / 10, abs=0.01) and v[18, 0] == pytest.approx(0.925, abs=0.02)
    assert v[24, 0] == 1
    assert horizon(layout[0]) == pytest.approx(80 / 192, abs=0.01)


def test_cells_beyond_the_view_are_dropped() -> None:
    view, layout = scene()
    padded = np.pad(layout, ((0, 0), (0, 4), (0, 4)), constant_values=0.5)
    one, other = (complete(view, Conditions(vectors={}, maps={"layout": x})) for x in (layout, padded))
    np.testing.assert_array_equal(one.maps["layout"], other.maps["layout"])
    with pytest.raises(ValueError, match="multiples of 8, got 190 x 256"):
        complete(view[:190], Conditions(vectors={}, maps={"layout": layout}))


def evening(colour: tuple[int, int, int], ambient: tuple[int, int, int], radius: float, halo: float) -> Any:
    """A sky with a disc at row 40 and column 180, its halo, and dark land from row 96 on; the layout's sky."""
    y, x = np.mgrid[0:192, 0:256]
    distance = np.hypot(y - 40, x - 180)[..., None]
    light = np.where(distance < radius, 1, 0.85 * np.exp(-np.maximum(distance - radius, 0) / halo))
    view = np.array(ambient) + (np.array(colour) - np.array(ambient)) * light
    view[96:] = 30
    view += np.random.default_rng(3).normal(0, 1.5, view.shape)
    sky = np.zeros((24, 32), np.float32)
    sky[:12] = 1
    return np.clip(view, 0, 255).astype(np.uint8), sky


@pytest.mark.parametrize(
    ("colour", "ambient", "radius"),
    [
        ((255, 250, 235), (200, 120, 60), 9),  # clipped, in a warm haze
        ((255, 245, 225), (190, 110, 70), 2),  # small
        ((255, 150, 90), (150, 60, 50), 6),  # low and red
    ],
)
def test_suns(colour: tuple[int, int, int], ambient: tuple[int, int, int], radius: float) -> None:
    row, column = find_sun(*evening(colour, ambient, radius, 14)) or (0, 0)
    assert row * 192 == pytest.approx(40.5, abs=1) and column * 256 == pytest.approx(180.5, abs=1)
    glow = glow_around((row, column), (24, 32))
    assert np.unravel_index(glow.argmax(), glow.shape) == (5, 22) and glow.max() > 0.87 and glow[-1, 0] == 0


def test_what_is_no_sun() -> None:
    view, sky = evening((255, 250, 235), (200, 120, 60), 0.0, 1e-6)  # the warm haze alone
    assert find_sun(view, sky) is None
    long, large, twice, lamp = (view.copy() for _ in range(4))
    long[20:26, 40:200] = 255
    large[:60] = 255
    twice[20:30, 20:30] = twice[20:30, 90:100] = 255
    lamp[140:150, 100:110] = 255  # not in the sky
    assert [find_sun(x, sky) for x in (long, large, twice, lamp)] == [None] * 4
    grey = evening((250, 250, 252), (200, 202, 206), 9, 14)  # a light place in an overcast sky
    blue = evening((250, 250, 250), (90, 140, 210), 9, 14)  # a small cloud
    assert find_sun(*grey) is None and find_sun(*blue) is None
    assert not glow_around(None, (3, 4)).any()


def test_a_map_on_the_grid_shows_the_same_place() -> None:
    """A map that is linear over the picture gives at every cell the value of the cell's middle."""
    ramp = np.stack(
        [np.tile((np.arange(27) + 0.5) / 27, (15, 1)), np.tile((np.arange(15) + 0.5)[:, None] / 15, (1, 27))]
    )
    whole = Conditions(vectors={}, maps={"layout": ramp.astype(np.float32)})
    found = on_grid(whole, (180, 320), (184, 320)).maps["layout"]
    assert found.shape == (2, 25, 42)
    columns, rows = (np.arange(40) + 0.5) * 8 / 320, (np.arange(23) + 0.5) * 8 / 180
    rows[rows > 1] = 2 - rows[rows > 1]  # what lies below mirrors the picture
    np.testing.assert_allclose(found[0, 5, 1:-1], np.clip(columns, 0.5 / 27, 26.5 / 27), atol=1e-5)
    np.testing.assert_allclose(found[1, 1:-1, 7], np.clip(rows, 0.5 / 15, 14.5 / 15), atol=1e-5)
    assert np.array_equal(found[:, 0], found[:, 1]) and np.array_equal(found[:, :, -1], found[:, :, -2])


def test_means_are_elementwise() -> None:
    def made(value: float) -> Conditions:
        return Conditions(
            vectors={"tone": np.full(7, value, np.float32)}, maps={"layout": np.full((4, 2, 3), -value, np.float32)}
        )

    mean = mean_conditions([made(1.0), made(4.0)], [3.0, 1.0])
    assert (mean.vectors["tone"] == 1.75).all() and (mean.maps["layout"] == -1.75).all()
    assert mean.maps["layout"].shape == (4, 2, 3) and mean.maps["layout"].dtype == np.float32
    other = Conditions(vectors={"tone": np.zeros(7, np.float32)})
    with pytest.raises(ValueError, match="no mean of different conditions"):
        mean_conditions([made(1.0), other], [1.0, 1.0])
    again = pickle.loads(pickle.dumps(made(2.0)))
    assert np.array_equal(again.maps["layout"], made(2.0).maps["layout"])
    with pytest.raises(ValueError, match=r"a map is \(C, h, w\), got layout of \(2, 3\)"):
        Conditions(vectors={}, maps={"layout": np.zeros((2, 3), np.float32)})


def test_oklab_of_known_colours() -> None:
    """The values of CSS Color Module Level 4 and Ottosson's article."""
    known = {
        (1.0, 1.0, 1.0): (1.0, 0.0, 0.0),
        (1.0, 0.0, 0.0): (0.62796, 0.22486, 0.12585),
        (0.0, 1.0, 0.0): (0.86644, -0.23389, 0.17950),
        (0.0, 0.0, 1.0): (0.45201, -0.03246, -0.31153),
    }
    for rgb, lab in known.items():
        np.testing.assert_allclose(to_oklab(np.array(rgb)), lab, atol=2e-4)
    colours = np.random.default_rng(0).random((50, 3))
    np.testing.assert_allclose(from_oklab(to_oklab(colours)), colours, atol=1e-5)


def colour(name: str) -> Any:
    return [int(name[i : i + 2], 16) / 255 for i in (1, 3, 5)]


@pytest.mark.parametrize("name", shipped_palettes())
def test_tables_run_over_the_colours(name: str) -> None:
    palette = shipped_palettes()[name]
    vectors = palette_vectors([(palette, 1.0)])
    sky, land = vectors["sky_lut"], vectors["land_lut"]
    assert sky.shape == (3, 17, 64) and land.shape == (3, 64, 33)
    assert sky.dtype == land.dtype == np.float32
    # In the middle of the clouds the sky runs from its first colour to its last; the sun's column is the last.
    np.testing.assert_allclose(sky[:, 8, 0], colour(palette.sky[0]), atol=2e-3)
    np.testing.assert_allclose(sky[:, 8, 62], colour(palette.sky[-1]), atol=2e-3)
    np.testing.assert_allclose(sky[:, 3, 63], colour(palette.sun or palette.sky[-1]), atol=2e-3)
    # What is near and in the shade is nearly the first colour of the land; further and lighter is lighter.
    lightness = to_oklab(land.transpose(1, 2, 0))[..., 0]
    assert np.abs(land[:, 0, 0] - colour(palette.land[0])).max() < 0.05
    assert (np.diff(lightness[:, 16]) > 0).all() and (np.diff(lightness[30, :24]) > 0).all()


def test_palettes_mix_halfway() -> None:
    black, white = (Palette(sky=(c, c), land=(c, c), lit=c) for c in ("#000000", "#ffffff"))
    mixed = palette_vectors([(black, 0.5), (white, 0.5)], Shading(tone_levels=3))
    np.testing.assert_allclose(mixed["sky_lut"], 0.3886, atol=1e-3)  # of lightness 0.5 in OKLab: sRGB of 0.125
    assert mixed["controls"].tolist() == pytest.approx([3, 2, 0.24, 2, 0])
    sunny = Palette(sky=("#000000", "#ffffff"), land=("#000000", "#ffffff"), lit="#ffffff", sun="#ff0000")
    vectors = palette_vectors([(sunny, 1.0)])
    assert vectors["controls"][3] < 1
    np.testing.assert_allclose(vectors["sky_lut"][:, :, -1], np.array([[1.0], [0.0], [0.0]]) * np.ones(17), atol=1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sky": ("#000000",)}, "sky takes 2 to 16 colours, got 1"),
        ({"land": ("#000000", "red")}, "a colour is #rrggbb, got 'red'"),
        ({"lit": "#12345"}, "a colour is #rrggbb, got '#12345'"),
        ({"sun": "#ggg000"}, "a colour is #rrggbb, got '#ggg000'"),
    ],
)
def test_palettes_that_are_none(values: Any, message: str) -> None:
    whole: Any = {"sky": ("#000000", "#ffffff"), "land": ("#000000", "#ffffff"), "lit": "#ffffff", **values}
    with pytest.raises(ValueError, match=message):
        Palette(**whole)


def test_no_steps_are_none() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        Shading(tone_levels=0)
