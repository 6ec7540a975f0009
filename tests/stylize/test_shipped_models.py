"""The generators that come with the program: whole, consistent, and doing the job."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.conditions import mean_conditions
from engine.metrics import psnr
from engine.model_store import find_model, shipped_models
from engine.spec import ModelSpec
from stylize import Stylizer

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from compare_tiling import borders, seam

LAYERED = ("full", "light")
PALETTES = {"day", "dusk", "fog", "forest", "golden", "night", "violet", "winter"}
OWN = {"auto", "day", "dusk", "golden", "violet", "night", "fog"}
"""Looks of the generator with instance norm, which are weights."""

pytestmark = pytest.mark.parametrize("name", [*LAYERED, "classic"])


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """Sky, haze, ridges and a textured foreground: RGB uint8 (240, 400, 3)."""
    rng = np.random.default_rng(9)
    y, x = np.mgrid[0:240, 0:400].astype(np.float32)
    image = np.stack([110 + y * 0.4, 150 + y * 0.3, 220 - y * 0.1], -1)
    for i, base in enumerate((110, 140, 175)):
        ridge = y > base + 14 * np.sin(x / (37 + 11 * i) + i) + 5 * np.sin(x / 9 + 2 * i)
        image[ridge] = np.array([130 - 35 * i, 140 - 30 * i, 150 - 45 * i], np.float32)
    image[y > 175] += rng.normal(0, 14, image.shape)[y > 175]
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def lab(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def flatness(rgb: np.ndarray) -> float:
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    dx, dy = cv2.Scharr(grey, cv2.CV_32F, 1, 0) / 16, cv2.Scharr(grey, cv2.CV_32F, 0, 1) / 16
    return float((np.hypot(dx, dy) < 4).mean())


def test_the_folder_is_whole_and_has_its_card(name):
    folder = shipped_models()[name]
    spec = ModelSpec.load(folder)
    spec.verify(folder)
    assert set(spec.looks) == (PALETTES if name in LAYERED else OWN) and spec.usual_look == "dusk"
    assert (folder / "NOTICE").is_file() == (name in LAYERED)  # of the trunk, which is not ours
    card = (folder / "CARD.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("Data", "steps", "Licence"))
    assert sum(p.stat().st_size for p in folder.iterdir()) < 25e6


def test_backends_agree(name, scene):
    pytest.importorskip("torch")
    results = []
    for backend in ("torch", "openvino") if name in LAYERED else ("torch", "openvino", "mnn"):
        with Stylizer(model=name, backend=backend, precision="fp32", device=None) as stylizer:
            results.append(stylizer.image(scene[:120, :160]))
    # Where a border falls may differ by a rounding; a few pixels then have another colour.
    assert all(psnr(results[0], result) > (45 if name in LAYERED else 60) for result in results[1:])


@pytest.mark.parametrize("size", [(240, 400), (238, 333), (399, 61), (1, 400), (400, 1)])
def test_tiles_show_no_seam(name, scene, size):
    """Tiled and in one piece, the same lines carry the same gradient, also where tiles are wider than the picture."""
    if name == "light":  # has the widest halo
        size = tuple(side if side == 1 else 2 * side for side in size)
    picture = np.ascontiguousarray(np.tile(scene, (4, 2, 1))[: size[0], : size[1]])
    with Stylizer(model=name, tile=0, detail=0) as stylizer:
        statistics = stylizer.probe(scene)
        whole = stylizer.render(picture, statistics)
        side = 2 * stylizer.spec.halo + 64
    with Stylizer(model=name, tile=side, detail=0) as stylizer:
        rows, columns = borders(stylizer, *size)
        assert len(rows) + len(columns) >= 2
        tiled = stylizer.render(picture, statistics)
    assert psnr(tiled, whole) >= 60
    assert seam(tiled, whole, rows, columns) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("size", [(100, 30), (1, 1), (1, 90), (90, 1)])
def test_pictures_smaller_than_a_tile_are_rendered_in_one_piece(name, scene, size):
    picture = np.ascontiguousarray(scene[-size[0] :, -size[1] :])
    results = []
    for tile in (0, 320):
        with Stylizer(model=name, tile=tile, detail=0) as stylizer:
            assert borders(stylizer, *size) == ([], [])
            results.append(stylizer.image(picture))
    assert np.array_equal(*results)


def test_looks_are_apart_and_the_scene_stays_readable(name, scene):
    means = {}
    looks = PALETTES if name in LAYERED else OWN
    for look in sorted(looks):
        with Stylizer(model=name, look=look) as stylizer:
            out = stylizer.image(scene)
        means[look] = lab(out).mean((0, 1))
        rows = [x.astype(np.float32).mean((1, 2)) for x in (scene, out)]
        assert np.corrcoef(*rows)[0, 1] > (0.4 if name in LAYERED else 0.8), look  # light sky, dark ground, as before
    assert means["dusk"][1] > 10 and means["golden"][2] > 15  # red and yellow
    assert means["night"][2] < -8 and means["night"][0] < means["fog"][0] - 5  # blue, and darker than fog
    for a in looks:
        for b in looks - {a}:
            assert np.linalg.norm(means[a] - means[b]) > 3, (a, b)


def test_smooth_light_stays_smooth(name):
    """No checkerboard, no banding: a gradient comes out as a gradient."""
    y, x = np.mgrid[0:256, 0:384].astype(np.float32)
    sky = np.stack([90 + y * 0.4 + x * 0.05, 140 + y * 0.3, 225 - y * 0.15], -1).astype(np.uint8)
    with Stylizer(model=name) as stylizer:
        out = stylizer.image(sky).astype(np.float32)[32:-32, 32:-32]
    rest = out - cv2.blur(out, (9, 9))
    assert np.abs(rest).mean() < 1.0
    for period in (2, 4):
        phases = [rest[i::period, j::period].mean() for i in range(period) for j in range(period)]
        assert max(phases) - min(phases) < 0.75, period


def test_statistics_of_two_frames_mix(name, scene):
    if name in LAYERED:
        pytest.skip("what is averaged is where borders lie, not colours")
    with Stylizer(model=name) as stylizer:
        a, b = stylizer.probe(scene), stylizer.probe(scene[::-1].copy())
        middle = stylizer.render(scene, mean_conditions([a, b], [1, 1])).astype(float)
        ends = [stylizer.render(scene, s).astype(float) for s in (a, b)]
    assert np.abs(middle - (ends[0] + ends[1]) / 2).mean() < 6


def test_photos_it_never_saw_become_flatter_and_keep_their_scene(name, shared):
    files = sorted((shared / "data" / "testA").iterdir())[::6]
    gain, kept = [], []
    with Stylizer(model=name) as stylizer:
        for path in files:
            photo = cv2.imread(str(path))[..., ::-1]
            photo = np.ascontiguousarray(cv2.resize(photo, (384, 256), interpolation=cv2.INTER_AREA))
            out = stylizer.image(photo)
            gain.append(flatness(out) - flatness(photo))
            light = [cv2.GaussianBlur(lab(v)[..., 0], (0, 0), 4).ravel() for v in (photo, out)]
            kept.append(np.corrcoef(*light)[0, 1])
    assert np.mean(gain) > 0.05
    assert np.mean(kept) > (0.5 if name in LAYERED else 0.85)


def test_it_is_found_by_name(name):
    assert Path(find_model(name)).joinpath("render.onnx").is_file()
