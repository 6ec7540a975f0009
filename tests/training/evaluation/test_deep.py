"""KID and structure on made-up features whose values are known, and the trunk on pictures."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
import torch

from training.evaluation.deep import DeepFeatures, DeepTrunk, kid, structure_kept


def slow_kid(a: np.ndarray, b: np.ndarray) -> float:
    """Equation 4 of Binkowski et al. 2018, pair by pair, on features of length sqrt(D)."""
    a, b = ([v / np.sqrt((v**2).sum()) * np.sqrt(len(v)) for v in s.astype(np.float64)] for s in (a, b))

    def kernel(x, y):
        return (sum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3

    def within(s):
        pairs = list(itertools.permutations(range(len(s)), 2))
        return sum(kernel(s[i], s[j]) for i, j in pairs) / len(pairs)

    between = [kernel(x, y) for x in a for y in b]
    return 1000 * (within(a) + within(b) - 2 * sum(between) / len(between))


def test_kid_is_the_slow_reference():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, (9, 5)).astype(np.float32), rng.normal(-0.2, 2, (9, 5)).astype(np.float32)
    assert kid(a, b) == pytest.approx(slow_kid(a, b), rel=1e-6)  # a subset is the whole set, in any order
    assert kid(a, b) == pytest.approx(kid(b, a), rel=1e-6)
    assert kid(a, 7 * b) == pytest.approx(kid(a, b), rel=1e-6)  # lengths do not count
    # Subsets of one large set: unbiased, so the mean over many is the value of all pairs.
    assert kid(a, b, size=6, subsets=20_000) == pytest.approx(slow_kid(a, b), rel=0.05)


def test_kid_of_one_distribution_is_around_zero():
    rng = np.random.default_rng(1)
    a, b, c = (rng.normal(0, 1, (400, 16)).astype(np.float32) for _ in range(3))
    c[:, 0] += 1.5
    values = [kid(rng.permutation(a)[:100], b[:100], seed=s) for s in range(10)]
    assert abs(np.mean(values)) < 15 and min(values) < 30
    assert kid(a, c) > 200
    # Two opposite directions: (1 + 1)^3 within the sets and (1 - 1)^3 between them.
    ones = np.ones((5, 4), np.float32)
    assert kid(ones, -ones) == pytest.approx(16_000)
    assert kid(ones, ones) == pytest.approx(0)
    with pytest.raises(ValueError, match="two and more"):
        kid(ones[:1], ones)


def features(*maps: np.ndarray) -> DeepFeatures:
    empty = np.zeros((1, 1), np.float32)
    return DeepFeatures(content=empty, texture=empty, structure=list(maps))


def test_structure_kept_is_the_cosine_of_standardised_features():
    rng = np.random.default_rng(2)
    a, b = (rng.normal(3, 2, size=(3, 4, 5)).astype(np.float32) for _ in range(2))
    expected = []
    for y, x in np.ndindex(4, 5):  # by the definition, place by place
        p, q = (np.array([(s[c, y, x] - b[c].mean()) / b[c].std() for c in range(3)]) for s in (a, b))
        expected.append(p @ q / np.sqrt(p @ p) / np.sqrt(q @ q))
    assert structure_kept(features(a), features(b)) == pytest.approx(np.mean(expected), abs=1e-5)
    assert structure_kept(features(b), features(b)) == pytest.approx(1)
    mean = b.mean((1, 2), keepdims=True)
    assert structure_kept(features(mean + 3 * (b - mean)), features(b)) == pytest.approx(1)  # contrast does not count
    assert structure_kept(features(mean - (b - mean)), features(b)) == pytest.approx(-1)
    assert structure_kept(features(b, mean - (b - mean)), features(b, b)) == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def trunk() -> DeepTrunk:
    return DeepTrunk(torch.device("cpu"))


def test_features_of_pictures(trunk, make_photo):
    photos = [make_photo(i, (96, 160)) for i in range(3)]
    found = trunk(photos)
    assert found.content.shape == (3, 320)
    assert found.texture.shape == (3 * 64, 40)
    assert [s.shape for s in found.structure] == [(112, 10, 16)] * 3  # 256 x 160, stride 16
    again = trunk(photos)
    assert np.array_equal(found.texture, again.texture)
    assert trunk([make_photo(1, (30, 400))]).structure[0].shape == (112, 2, 16)


def test_a_scene_keeps_its_structure_under_other_colours_and_loses_it_when_turned(trunk):
    y, x = np.mgrid[:192, :256]
    scene = np.stack([40 + y / 2, 60 + 40 * (x > 100), 200 - y / 2], -1)
    scene[(np.hypot(y - 130, x - 180) < 40)] = (20, 90, 30)
    scene = scene.astype(np.uint8)
    photo, other, turned, soft = (
        trunk([image]) for image in (scene, scene[..., ::-1].copy(), scene[:, ::-1].copy(), cv2.blur(scene, (5, 5)))
    )
    assert structure_kept(photo, photo) == pytest.approx(1)
    assert structure_kept(turned, photo) < structure_kept(other, photo) < 1
    assert structure_kept(soft, photo) > structure_kept(turned, photo)
