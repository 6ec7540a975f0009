"""The teacher's filters against dense solves and made pictures."""

import numpy as np
import pytest

from training.teacher.filters import edge_evidence, l0_smooth, masked_blur, smooth


def dense_rows(values, weights, strength):
    """The same system as `smooth` solves along rows, as whole matrices."""
    result = np.empty_like(values)
    for row, (line, weight) in enumerate(zip(values, weights, strict=True)):
        n = len(line)
        matrix = np.eye(n)
        for i, w in enumerate(weight):
            matrix[i, i] += strength * w
            matrix[i + 1, i + 1] += strength * w
            matrix[i, i + 1] -= strength * w
            matrix[i + 1, i] -= strength * w
        result[row] = np.linalg.solve(matrix, line)
    return result


def test_smoothing_solves_the_papers_systems():
    rng = np.random.default_rng(3)
    guide = rng.integers(0, 60, (12, 17, 3)).astype(np.uint8)
    values = rng.random((12, 17)).astype(np.float32)
    regions = np.zeros((12, 17), bool)
    strength, tolerance = 4000.0, 30.0
    across = np.exp(-np.sqrt((np.diff(guide.astype(float), axis=1) ** 2).sum(-1)) / tolerance)
    down = np.exp(-np.sqrt((np.diff(guide.astype(float), axis=0) ** 2).sum(-1)) / tolerance)
    wanted = values.astype(float)
    for step in range(3):  # Min et al. 2014, eq. 12: lambda_t = 1.5 * 4**(T - t) / (4**T - 1) * lambda
        part = 1.5 * 4 ** (2 - step) / (4**3 - 1) * strength * (17 / 640) ** 2
        wanted = dense_rows(wanted, across, part)
        wanted = dense_rows(wanted.T, down.T, part).T
    found = smooth(values, guide, strength=strength, tolerance=tolerance, regions=regions)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_nothing_flows_between_regions():
    regions = np.zeros((40, 40), bool)
    regions[:, 20:] = True
    values = regions.astype(np.float32)
    guide = np.full((40, 40, 3), 90, np.uint8)
    found = smooth(values, guide, strength=1e5, tolerance=5, regions=regions)
    assert np.abs(found - values).max() < 0.05
    assert smooth(values, guide, strength=1e5, tolerance=5, regions=np.zeros_like(regions)).std() < 0.2


def test_l0_smoothing_leaves_two_flat_halves():
    rng = np.random.default_rng(1)
    clean = np.full((64, 96, 3), 60, np.uint8)
    clean[:, 48:] = 190
    noisy = np.clip(clean + rng.normal(0, 6, clean.shape), 0, 255).astype(np.uint8)
    found = l0_smooth(noisy, 0.02).astype(int)
    for half in (slice(2, 46), slice(50, 94)):
        assert np.abs(found[:, half] - clean[:, half]).max() <= 3
        assert found[:, half].std() < 0.1 * noisy[:, half].std()


def test_a_slow_gradient_has_no_edges_and_a_border_has():
    slow = np.repeat(np.linspace(0, 255, 640)[None, :, None], 64, 0).repeat(3, 2).astype(np.uint8)
    step = np.where(np.arange(640)[None, :, None] < 320, 80, 140) * np.ones((64, 1, 3))
    assert edge_evidence(slow).max() < 5
    assert edge_evidence(step.astype(np.uint8))[:, 318:322].min() > 60


def test_a_masked_blur_does_not_see_what_is_masked():
    values = np.where(np.arange(60) < 30, 0.25, 0.9)[None].repeat(40, 0).astype(np.float32)
    found = masked_blur(values, np.arange(60)[None].repeat(40, 0) < 30, 4.0)
    assert found[:, :30] == pytest.approx(0.25, abs=2e-3)
