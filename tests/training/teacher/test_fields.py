"""Fields of made landscapes."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.teacher.depth import depth_of
from training.teacher.fields import teach
from training.teacher.filters import edge_evidence, l0_smooth

spec = importlib.util.spec_from_file_location("teacher_pictures", Path(__file__).with_name("pictures.py"))
pictures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pictures)


@pytest.fixture(scope="module")
def taught():
    image, sky = pictures.landscape()
    height = cv2.resize((~sky).astype(np.float32), (60, 40), interpolation=cv2.INTER_AREA) * 0.8 + 0.1
    return image, sky, teach(image, sky.astype(np.float32), height)


def test_fields_are_shares(taught):
    _, _, fields = taught
    assert fields.shape == (320, 480, 4)
    assert fields.dtype == np.float32
    assert fields.min() >= 0 and fields.max() <= 1


def test_hills_are_further_than_the_meadow(taught):
    _, sky, fields = taught
    hills = np.median(fields[170:215][~sky[170:215]][:, 1])
    meadow = np.median(fields[270:, :, 1])
    assert hills > meadow + 0.3


def test_the_tree_in_front_of_the_sky_is_dark_and_near(taught):
    _, sky, fields = taught
    whole = pictures.landscape(branches=False)[1]
    tree = cv2.erode((whole & ~sky).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert np.median(fields[tree][:, 2]) < 0.15


def test_a_meadow_is_one_tone(taught):
    _, _, fields = taught
    steps = np.round(fields[250:, 20:, 2] * 3)
    assert (steps == np.median(steps)).mean() > 0.97


def test_a_clear_sky_has_no_clouds_and_a_cloud_is_one(taught):
    image, sky, fields = taught
    assert np.abs(fields[sky][:, 3] - 0.5).max() < 0.1
    cloudy = image.copy()
    cv2.ellipse(cloudy, (330, 60), (70, 22), 0, 0, 360, (250, 250, 250), -1)
    found = teach(cloudy, sky.astype(np.float32), np.full((40, 60), 0.5, np.float32))
    assert found[60, 330, 3] > 0.8
    assert abs(found[30, 60, 3] - 0.5) < 0.15


def test_a_picture_of_sky_alone_has_no_depth():
    image = np.full((160, 240, 3), 180, np.uint8)
    sky = np.ones((160, 240), np.float32)
    depth = depth_of(image, image, l0_smooth(image, 0.02), sky, np.zeros((20, 30), np.float32), edge_evidence(image))
    assert not depth.any()
