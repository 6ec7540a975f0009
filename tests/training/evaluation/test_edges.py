"""Measures of flat areas and crisp borders against values that follow from their formulas."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from training.data.image_io import image_files, read_rgb
from training.evaluation.edges import edge_width, flat_pixels, gini, gradient_gini


def slow_gini(x: np.ndarray) -> float:
    """The definition: mean absolute difference of all pairs, over twice the mean."""
    return float(np.abs(x[:, None] - x[None]).mean() / (2 * x.mean()))


def test_gini_of_known_distributions():
    assert gini(np.full(100, 3.0)) == pytest.approx(0)
    assert gini(np.zeros(5)) == 0
    assert gini(np.eye(1, 50)) == pytest.approx(1 - 1 / 50)  # one value holds everything: 1 - 1/n
    assert gini(np.array([1.0, 3.0])) == pytest.approx(0.25)
    rng = np.random.default_rng(1)
    assert gini(rng.uniform(0, 7, 200_000)) == pytest.approx(1 / 3, abs=0.005)
    assert gini(rng.exponential(2, 200_000)) == pytest.approx(1 / 2, abs=0.005)
    # Gradients of white noise have the Rayleigh distribution: 1 - 1/sqrt(2).
    assert gini(rng.rayleigh(1, 200_000)) == pytest.approx(1 - 1 / math.sqrt(2), abs=0.005)
    x = rng.gamma(0.7, size=300)
    assert gini(x) == pytest.approx(slow_gini(x))
    assert gini(x.reshape(3, 100)) == pytest.approx(slow_gini(5 * x))  # neither shape nor scale count


def grey(values: np.ndarray) -> np.ndarray:
    """RGB uint8 whose L* is `values`, by the definition of CIE 1976 and sRGB (IEC 61966-2-1)."""
    f = (values + 16) / 116
    linear = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.repeat(np.clip(np.rint(srgb * 255), 0, 255).astype(np.uint8)[..., None], 3, -1)


def columns(profile: np.ndarray, height: int = 60) -> np.ndarray:
    return np.tile(profile, (height, 1))


def test_one_line_holds_the_gradient_and_a_ramp_shares_it():
    step = columns(np.where(np.arange(200) < 100, 20.0, 80.0))
    # Scharr sees the step in two of 200 columns, equally strongly: gini 1 - 2/200.
    assert gradient_gini(grey(step)) == pytest.approx(0.99, abs=1e-3)
    assert flat_pixels(grey(step)) == pytest.approx(0.99)
    ramp = columns(np.linspace(10, 90, 200))
    assert gradient_gini(grey(ramp)) < 0.2
    # Contrast 90 % of 80; the slope, 80/199 a pixel, is 1/179 of it: flat.  Eight times as steep it is not.
    assert flat_pixels(grey(ramp)) == 1
    steep = columns(np.abs((np.arange(200) * 8 / 2.5) % 160 - 80) + 10)
    assert flat_pixels(grey(steep)) < 0.1


def test_neither_colour_nor_contrast_counts(make_photo):
    flat = columns(np.repeat([20.0, 60.0, 40.0, 80.0], 50))
    for measure in (gradient_gini, flat_pixels):
        assert measure(grey(flat)) == pytest.approx(measure(grey(30 + 0.5 * flat)), abs=0.01)
        assert measure(grey(flat)) == pytest.approx(measure(grey(100 - flat)), abs=0.01)
    assert flat_pixels(np.full((20, 20, 3), 90, np.uint8)) == 1
    assert gradient_gini(np.full((20, 20, 3), 90, np.uint8)) == 0
    assert gradient_gini(make_photo(1)) < 0.4


@pytest.mark.parametrize("width", [1, 4, 8, 15])
def test_width_of_a_ramp(width):
    profile = np.interp(np.arange(200), [100, 100 + width], [15.0, 85.0])
    for image in (columns(profile), columns(profile[::-1]), columns(profile).T):
        assert edge_width(grey(image)) == pytest.approx(0.8 * width, rel=0.04)


@pytest.mark.parametrize("sigma", [1.5, 3.0])
def test_width_of_a_blurred_step_at_any_angle(sigma):
    # 10 % and 90 % of the normal distribution lie 2 x 1.2816 deviations apart.
    for angle in (0, 30, 45, 80):
        y, x = np.mgrid[:120, :160] - np.array([60, 80])[:, None, None]
        across = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
        image = 50 + 35 * np.vectorize(math.erf)(across / (sigma * math.sqrt(2)))
        assert edge_width(grey(image)) == pytest.approx(2.5631 * sigma, rel=0.06)


def test_the_strongest_edges_count_and_none_is_nan():
    image = columns(np.where(np.arange(300) < 150, 10.0, 70.0), 200)
    image += cv2.GaussianBlur(np.random.default_rng(0).normal(0, 20, image.shape), None, 4)  # soft and faint
    assert edge_width(grey(image)) < 1.6
    assert math.isnan(edge_width(np.full((30, 30, 3), 7, np.uint8)))


def test_art_is_flat_and_photos_are_not(shared):
    """The relation that the measure was made for."""
    photos, art = ([_at_640(p) for p in image_files(shared / "data" / name)] for name in ("testA", "testB"))
    mean = {m: [float(np.mean([m(i) for i in s])) for s in (photos, art)] for m in (gradient_gini, flat_pixels)}
    assert mean[gradient_gini] == pytest.approx([0.57, 0.78], abs=0.03)
    assert mean[flat_pixels] == pytest.approx([0.44, 0.77], abs=0.04)


def _at_640(path) -> np.ndarray:
    image = read_rgb(path)
    scale = 640 / max(image.shape[:2])
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
