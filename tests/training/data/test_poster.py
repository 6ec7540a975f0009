"""The pseudo-pairs: flat shapes, tones, colours; on synthetic pictures and on real photos."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from training.data.check import flatness
from training.data.image_io import fit, image_files, read_rgb
from training.data.looks import LookPalettes, deepened
from training.data.poster import ToneRank, flat_shapes, l0_smooth, paint, tone
from training.data.pseudo_pairs import RANKS, PaletteMap, flatten, rgb_to_lab

SHARED = Path(os.environ.get("FIREWATCH_SHARED", Path(__file__).parents[4] / "shared"))


def noisy_step(noise: float = 6.0) -> np.ndarray:
    image = np.full((60, 90, 3), 60.0)
    image[:, 45:] = 190
    image += np.random.default_rng(0).normal(0, noise, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def test_l0_removes_noise_and_keeps_the_step():
    out = l0_smooth(noisy_step()).astype(float)
    left, right = out[:, :44], out[:, 46:]
    assert left.std() < 1.5
    assert right.std() < 1.5
    assert right.mean() - left.mean() == pytest.approx(130, abs=3)
    assert np.abs(np.diff(out.mean(2), axis=1)[:, 44]).min() > 100  # still within one pixel


def test_l0_weight_decides_what_is_left():
    image = noisy_step(20.0)
    steps = [
        int((np.abs(np.diff(l0_smooth(image, w).astype(int), axis=1)).sum(2) > 6).sum()) for w in (1e-4, 5e-3, 0.05)
    ]
    assert steps[0] > steps[1] > steps[2]
    assert steps[2] < 120  # little but the step


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (33, 7, 3), (400, 300, 3)])
def test_shapes_of_any_size(shape):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    assert flat_shapes(image).shape == shape


def test_haze_and_sky_are_lighter_foliage_is_darker():
    grey, blue, green = (
        rgb_to_lab(np.full((1, 1, 3), c, np.uint8)) for c in ((120, 120, 120), (70, 120, 190), (70, 135, 60))
    )
    assert tone(blue)[0, 0] - blue[0, 0, 0] > 15
    assert tone(green)[0, 0] - green[0, 0, 0] < -5
    assert tone(grey)[0, 0] == pytest.approx(grey[0, 0, 0], abs=0.5)


def test_ranks_rise_and_a_dark_picture_stays_dark():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2).repeat(8, 0)
    whole = ToneRank.of(ramp)(rgb_to_lab(ramp))
    assert (np.diff(whole[0]) >= 0).all()
    assert whole[0, 0] < 0.05
    assert whole[0, -1] > 0.95
    dark = (ramp // 5).astype(np.uint8)
    assert ToneRank.of(dark)(rgb_to_lab(dark)).max() < 0.85


def test_paint_takes_the_palette_and_keeps_the_order():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2).repeat(8, 0)
    art = np.stack([np.linspace(40, 255, 64), np.linspace(10, 200, 64), np.linspace(60, 120, 64)], -1)
    palette = PaletteMap.of(art[None].repeat(8, 0).astype(np.uint8), smoothing=0)
    rank = ToneRank.of(ramp)
    painted = rgb_to_lab(paint(ramp, palette, rank, lightness=1.0, chroma=1.0, own=0.0))[0]
    assert (np.diff(painted[:, 0]) > -0.5).all()
    assert np.linalg.norm(painted[5] - palette.colors[2]) < 8
    assert np.linalg.norm(painted[-5] - palette.colors[-2]) < 8
    kept = paint(ramp, palette, rank, lightness=0.0, chroma=0.0, own=1.0)
    assert np.abs(kept.astype(int) - ramp).max() <= 1
    part = paint(ramp[:, 100:200], palette, rank)
    assert np.array_equal(part, paint(ramp, palette, rank)[:, 100:200])  # a crop is a part of the whole


def test_looks_are_vivid_and_apart():
    art = [PaletteMap.of(np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)) for i in range(6)]
    looks = LookPalettes(art, ("auto", "dusk", "night"))
    dusk, night = (looks.palettes[name].colors for name in ("dusk", "night"))
    assert np.linalg.norm(dusk - night, axis=1).mean() > 15
    assert (np.diff(dusk[:, 0]) > -0.2).mean() > 0.95  # from shadow to light


@pytest.mark.skipif(not (SHARED / "data/testA").is_dir(), reason="the shared photos are not there")
def test_shapes_of_real_photos_are_as_flat_as_art():
    photos = [fit(read_rgb(p), 512) for p in image_files(SHARED / "data/testA")[:6]]
    art = [fit(read_rgb(p), 512) for p in image_files(SHARED / "data/testB")[:12]]
    mean = {
        "photo": np.mean([flatness(p) for p in photos]),
        "mean shift": np.mean([flatness(flatten(p)) for p in photos]),
        "shapes": np.mean([flatness(flat_shapes(p)) for p in photos]),
        "art": np.mean([flatness(a) for a in art]),
    }
    assert mean["shapes"] > mean["mean shift"] > mean["photo"]
    assert mean["shapes"] > 0.9 * mean["art"]


def test_ramps_are_deepened_between_their_ends():
    ramp = np.stack([np.linspace(0, 100, RANKS), np.full(RANKS, 30.0), np.full(RANKS, -20.0)], -1).astype(np.float32)
    deep = deepened(ramp).colors
    assert np.array_equal(deep[:, 1:], ramp[:, 1:])
    assert deep[0, 0] == 0 and deep[-1, 0] == pytest.approx(100)
    assert np.all(deep[1:-1, 0] < ramp[1:-1, 0]) and np.all(np.diff(deep[:, 0]) > 0)
    # The darkest colours of a look can lie a hair outside the range.
    assert np.isfinite(deepened(ramp - np.array([0.1, 0, 0], np.float32)).colors).all()
