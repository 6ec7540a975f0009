"""Masks of the sky against made landscapes, and against masks of real photos corrected by hand."""

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.errors import TrainingError
from training.teacher.corrections import corrected_sky, load_corrections
from training.teacher.height import first_sky
from training.teacher.sky import fine_structure, refine_sky

spec = importlib.util.spec_from_file_location("teacher_pictures", Path(__file__).with_name("pictures.py"))
pictures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pictures)
landscape, iou = pictures.landscape, pictures.iou


def coarse(mask):
    """What a layout network would say: the mask at stride 8, without the tree."""
    height, width = mask.shape
    return 0.95 * cv2.resize(mask.astype(np.float32), (width // 8, height // 8), interpolation=cv2.INTER_AREA)


def test_branches_are_cut_out_of_a_sky_that_the_guess_sees_whole():
    image, sky = landscape()
    whole = landscape(branches=False)[1]
    found = refine_sky(image, coarse(whole)) > 0.5
    assert iou(found, sky) > 0.985
    tree = whole & ~sky
    assert (found & tree).sum() < 0.15 * tree.sum()


def test_no_sky_stays_none_and_a_forest_is_none():
    image, _ = landscape()
    assert not refine_sky(image, np.zeros((40, 60), np.float32)).any()
    rng = np.random.default_rng(0)
    forest = np.clip(rng.normal(70, 30, (320, 480, 1)) * [0.8, 1.0, 0.7], 0, 255).astype(np.uint8)
    guess = np.zeros((40, 60), np.float32)
    guess[:14] = 0.95
    assert refine_sky(forest, guess).mean() < 0.1  # the guess says 0.33


def test_fine_structure_is_of_lace_and_not_of_a_ridge():
    rows = np.arange(480)[:, None].repeat(640, 1)
    ridge = (rows < 200).astype(np.float32)
    lace = ridge.copy()
    lace[120:280:8, :300] = 1 - lace[120:280:8, :300]
    assert fine_structure(ridge).max() < 0.05
    assert fine_structure(lace)[150:250, 50:250].mean() > 0.9


def test_the_first_guess_finds_the_sky_of_a_clear_day():
    image, sky = landscape(branches=False)
    height = coarse(~sky) * 0.8 + 0.1  # appearance height: sky high, land low
    found = first_sky(image, height)
    wanted = cv2.resize(sky.astype(np.uint8), found.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    assert iou(found > 0.5, wanted) > 0.95
    assert not first_sky(image, np.full((40, 60), 0.9, np.float32)).any()


def test_corrections_move_sky_and_land():
    image, sky = landscape(branches=False)
    wrong = sky.astype(np.float32)
    wrong[200:, 200:300] = 1  # a part of the meadow
    box = [[[200 / 480, 0.6], [300 / 480, 0.6], [300 / 480, 1.0], [200 / 480, 1.0]]]
    assert iou(corrected_sky(image, wrong, {"kind": "land", "polygons": box}) > 0.5, sky) > 0.98
    missing = sky.astype(np.float32)
    missing[:, :200] = 0
    corner = [[[0, 0], [0.45, 0], [0.45, 0.38], [0.3, 0.44], [0.13, 0.5], [0, 0.43]]]
    assert iou(corrected_sky(image, missing, {"kind": "sky", "polygons": corner}) > 0.5, sky) > 0.97
    assert not corrected_sky(image, wrong, {"kind": "none"}).any()


def test_a_wrong_entry_names_its_photo(tmp_path):
    file = tmp_path / "sky.json"
    file.write_text(json.dumps({"photo0007": {"kind": "water"}}))
    with pytest.raises(TrainingError, match=r"photo0007.*none, land, sky"):
        load_corrections(file)
    with pytest.raises(TrainingError, match="cannot be read"):
        load_corrections(tmp_path / "none.json")


def test_the_corrections_that_come_with_the_program_are_whole():
    import training.teacher

    entries = load_corrections(Path(training.teacher.__file__).with_name("sky_corrections.json"))
    assert len(entries) > 500
    for entry in entries.values():
        for key in ("polygons", "land", "sky"):
            for polygon in entry.get(key, []):
                assert len(polygon) >= 3
                assert np.min(polygon) >= 0 and np.max(polygon) <= 1
