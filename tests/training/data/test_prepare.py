from __future__ import annotations

import json
import subprocess

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from training.cli import main
from training.data.prepare import perceptual_hash, scene_frames, sharpness, text_share
from training.errors import DataError


def scene(seed: int, size=(300, 400)) -> np.ndarray:
    """A detailed picture unlike those of other seeds."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(image + rng.normal(0, 12, (*size, 3)), 0, 255).astype(np.uint8)


def page() -> np.ndarray:
    image = np.full((400, 400, 3), 250, np.uint8)
    for y in range(30, 390, 24):
        cv2.putText(image, "the quick brown fox jumps over", (8, y), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (10, 10, 10), 2)
    return image


def test_hash_survives_scaling_and_compression():
    image = scene(1)
    own = perceptual_hash(image)
    _, data = cv2.imencode(".jpg", cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA))
    assert (own != perceptual_hash(cv2.imdecode(data, cv2.IMREAD_COLOR))).sum() <= 4
    assert (own != perceptual_hash(scene(2))).sum() > 12


def test_blur_lowers_sharpness():
    image = scene(1)
    assert sharpness(cv2.GaussianBlur(image, None, 6)) < 30 < sharpness(image)


def test_text_is_seen_and_pictures_are_not():
    assert text_share(page()) > 0.2
    assert max(text_share(scene(i)) for i in range(5)) < 0.03


def test_prepare_sorts_and_says_why(tmp_path, write_image):
    source = tmp_path / "heap"
    write_image(source / "a.png", scene(1, (600, 800)))
    write_image(source / "b.jpg", scene(2))
    write_image(source / "copy of a.jpg", cv2.resize(scene(1, (600, 800)), (400, 300), interpolation=cv2.INTER_AREA))
    write_image(source / "blurry.png", cv2.GaussianBlur(scene(3), None, 8))
    write_image(source / "page.png", page())
    write_image(source / "small.png", scene(4, (100, 400)))
    (source / "rubbish.jpg").write_bytes(b"no picture")
    whole = (source / "b.jpg").read_bytes()
    (source / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (source / "notes.txt").write_text("ignored")
    result = CliRunner().invoke(main, ["prepare", str(source), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    reasons = {v["source"].rsplit("/", 1)[-1]: v["reason"] for v in report["images"]}
    assert reasons == {
        "a.png": "", "b.jpg": "", "copy of a.jpg": "duplicate", "blurry.png": "blurry", "page.png": "text",
        "small.png": "tiny", "rubbish.jpg": "unreadable", "cut.jpg": "unreadable",
    }  # fmt: skip
    kept = sorted((tmp_path / "out" / "images").iterdir())
    assert [p.name for p in kept] == ["00000.jpg", "00001.jpg"]
    assert cv2.imread(str(kept[0])).shape == (480, 640, 3)
    assert cv2.imread(str(kept[1])).shape == (300, 400, 3)
    assert (tmp_path / "out" / "sheet.jpg").exists()
    assert "2 kept, dropped: 1 blurry, 1 duplicate, 1 text, 1 tiny, 2 unreadable" in result.output

    again = CliRunner().invoke(main, ["prepare", str(source), "--out", str(tmp_path / "out")])
    assert again.exit_code == 1
    assert "holds images already" in again.output


@pytest.mark.parametrize("source", ["nowhere", "empty"])
def test_nothing_to_sort_is_an_error(tmp_path, source):
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(main, ["prepare", str(tmp_path / source), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert not (tmp_path / "out").exists()


def test_nothing_kept_is_an_error(tmp_path, write_image):
    write_image(tmp_path / "small.png", scene(4, (10, 40)))
    result = CliRunner().invoke(main, ["prepare", str(tmp_path / "small.png"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "nothing of 1 images was kept" in result.output


@pytest.fixture
def clip(tmp_path):
    """Three scenes of one second each."""
    import imageio_ffmpeg

    path = tmp_path / "clip.mp4"
    sources = [
        "testsrc=s=320x240:d=1:r=10",
        "mandelbrot=s=320x240:r=10,trim=duration=1",
        "color=red:s=320x240:d=1:r=10",
    ]
    inputs = [a for s in sources for a in ("-f", "lavfi", "-i", s)]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *inputs, "-filter_complex", "concat=n=3", str(path)]
    subprocess.run(command, check=True)
    return path


def test_one_frame_of_each_scene_is_taken(clip):
    times = [t for t, _ in scene_frames(clip, threshold=0.35, limit=40)]
    assert times == pytest.approx([0.0, 1.0, 2.0])
    assert len(list(scene_frames(clip, threshold=0.35, limit=2))) == 2
    assert all(f.shape == (240, 320, 3) for _, f in scene_frames(clip, threshold=0.35, limit=40))


def test_a_damaged_video_is_reported(tmp_path, clip, write_image):
    (tmp_path / "heap").mkdir()
    (tmp_path / "heap" / "broken.mp4").write_bytes(clip.read_bytes()[:2000])
    write_image(tmp_path / "heap" / "a.png", scene(1))
    result = CliRunner().invoke(main, ["prepare", str(tmp_path / "heap"), "--out", str(tmp_path / "out")])
    assert "1 kept, dropped: 1 unreadable" in result.output
    with pytest.raises(DataError, match="cannot be decoded"):
        list(scene_frames(tmp_path / "heap" / "broken.mp4", threshold=0.35, limit=4))
