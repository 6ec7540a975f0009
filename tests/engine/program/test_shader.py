"""The numpy reference of the shader against OpenCV, torch and formulas; the torch version against the reference."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from engine.looks import torch_shader
from engine.program.shader import EDGE, enlarged, sample, shade, sky_place, stepped


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_enlarging_is_bicubic(factor: int, rng: np.random.Generator) -> None:
    field = rng.random((12, 17), np.float32)
    size = 17 * factor, 12 * factor
    expected = cv2.resize(field, size, interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(enlarged(field, factor), expected, atol=1e-5)


def test_a_border_is_as_wide_at_any_size() -> None:
    """Between two levels of a ramp 1.4 pixels, whether it rises by a level in 10 pixels or in 200."""
    for length in (10, 50, 200):
        ramp = np.tile(np.arange(3 * length, dtype=np.float32) / (3 * length), (4, 1))
        flat = stepped(ramp, 3, np.full_like(ramp, 1 / (3 * length)))[0]
        between = np.abs(flat * 3 - np.round(flat * 3)) > 1e-3
        assert 2 <= between.sum() <= 3 * (EDGE + 1)  # three borders
        assert (np.diff(flat) >= -1e-6).all()
        assert flat[length] == pytest.approx(1 / 3, abs=1e-3) and flat[0] == pytest.approx(0, abs=1e-3)


def test_what_is_steeper_than_a_level_a_pixel_stays() -> None:
    value = np.array([[0.0, 0.37, 0.81, 1.0]], np.float32)
    np.testing.assert_allclose(stepped(value, 4, np.ones_like(value)), value, atol=1e-6)


def test_tables_are_read_bilinearly(rng: np.random.Generator) -> None:
    table = rng.random((3, 5, 9), np.float32)
    row, column = rng.uniform(-0.2, 1.2, (2, 6, 7)).astype(np.float32)
    grid = torch.from_numpy(np.stack([column, row], -1) * 2 - 1)[None]
    expected = torch.nn.functional.grid_sample(
        torch.from_numpy(table)[None], grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    np.testing.assert_allclose(sample(table, row, column), expected[0].permute(1, 2, 0).numpy(), atol=1e-5)


def test_the_sun_is_in_the_last_column() -> None:
    controls = np.array([4, 5, 0.5, 0.8, 0], np.float32)
    v, glow = np.array([0.0, 1.0, 0.5, 0.5], np.float32), np.array([0.0, 0.0, 1.0, 0.4], np.float32)
    horizon = 62 / 63
    np.testing.assert_allclose(sky_place(v, glow, controls, 64), [0, horizon, 1, 0.7 * horizon], atol=1e-6)
    controls[3] = 2  # no disc
    np.testing.assert_allclose(sky_place(v, glow, controls, 64)[2], horizon, atol=1e-6)


def given(rng: np.random.Generator, factor: int, layers: int = 0) -> Any:
    """Smooth fields, and tables."""
    noise = [cv2.GaussianBlur(rng.random((24, 32), np.float32), (0, 0), 3) for _ in range(5)]
    fields = np.stack([(n - n.min()) / (n.max() - n.min()) for n in noise]) * 1.2 - 0.1
    tables = rng.random((3, 17, 64), np.float32), rng.random((3, 64, 33), np.float32)
    return (
        fields[:4].astype(np.float32),
        np.clip(fields[4], 0, 1).astype(np.float32),
        *tables,
        np.array([4, 5, 0.3, 2, layers], np.float32),
    )


@pytest.mark.parametrize(("factor", "layers"), [(1, 0), (2, 0), (4, 0), (2, 1), (2, 3)])
def test_torch_computes_the_reference(factor: int, layers: int, rng: np.random.Generator) -> None:
    fields, places, sky, land, controls = given(rng, factor, layers)
    expected = shade(fields, places, sky, land, controls, factor)
    tensors = [torch.from_numpy(x)[None] for x in (fields, places[None], sky, land, controls)]
    found = torch_shader.shade(*tensors, factor)[0].permute(1, 2, 0).numpy()
    assert expected.shape == (24 * factor, 32 * factor, 3)
    assert np.abs(found - expected).mean() < 1e-5
    assert (np.abs(found - expected) > 1e-2).mean() < 1e-3  # where a border lies on a pixel exactly


def test_depth_is_stepped_where_it_is_asked_for(rng: np.random.Generator) -> None:
    """A table that shows depth, under a ramp of depth: as it is, or in so many levels."""
    fields, places, sky, land, controls = given(rng, 2)
    fields[0] = 0
    fields[1] = np.linspace(0, 1, 24, dtype=np.float32)[:, None]
    land[:] = np.linspace(0, 1, 64)[:, None]
    smooth = shade(fields, places, sky, land, controls, 2)[..., 0]
    assert len(np.unique(smooth[4:-4].round(3))) > 30
    controls[4] = 3
    levels, counts = np.unique(shade(fields, places, sky, land, controls, 2)[:, 5, 0].round(2), return_counts=True)
    assert levels[counts > 4].tolist() == pytest.approx([0, 0.33, 0.67, 1], abs=0.011)


def test_sky_and_land_are_told_apart_at_one_half(rng: np.random.Generator) -> None:
    fields, places, sky, land, controls = given(rng, 2)
    fields[0] = np.linspace(1, 0, 24, dtype=np.float32)[:, None]
    sky[:], land[:] = 1, 0
    picture = shade(fields, places, sky, land, controls, 2)[..., 0]
    assert (picture[:23] == 1).all() and (picture[25:] == 0).all()


def test_softness_leads_to_the_field_itself(rng: np.random.Generator) -> None:
    """Soft borders are where the crisp ones are; with softness 1 nothing is stepped."""
    value = torch.from_numpy(rng.random((1, 1, 8, 8), np.float32))
    slope, levels = torch.full_like(value, 0.01), torch.tensor(4.0)
    np.testing.assert_allclose(torch_shader._stepped(value, levels, slope, 1.0), value, atol=1e-6)
    crisp, soft = (torch_shader._stepped(value, levels, slope, s) for s in (0.0, 0.3))
    from_border = ((value * 4) % 1 - 0.5).abs()
    changed = (crisp - soft).abs() > 1e-4
    assert changed.any() and (from_border[changed] <= 0.15 + 1e-6).all()
