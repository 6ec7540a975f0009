import json
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from media import QUICK, decode, make_clip, run_ffmpeg
from program import Program

from stylize.frame import Frame
from stylize.video.comparison import compare_videos, composed, pairs


def frames_at(*times):
    blank = np.zeros((2, 2, 3), np.uint8)
    return [Frame(data=blank, index=i, pts=Fraction(t), duration=None) for i, t in enumerate(times)]


def test_frames_are_paired_by_their_times():
    old, new = frames_at(0, 1, 2, 3), frames_at(0, Fraction(1, 2), "1.0001", "1.9999", 9)
    assert [int(a.pts) for a, _ in pairs(iter(old), iter(new))] == [0, 0, 1, 2, 3]
    assert list(pairs(iter([]), iter(new))) == []


def test_pictures_are_put_together():
    a, b = np.full((4, 10, 3), 10, np.uint8), np.full((4, 10, 3), 200, np.uint8)
    split = composed(a, b, "split")
    assert split.shape == a.shape and (split[:, :4] == 10).all() and (split[:, 6:] == 200).all()
    assert (split[:, 4:6] == 255).all() and (b == 200).all()
    side = composed(a, b, "side")
    assert side.shape == (4, 20, 3) and (side[:, :10] == a).all() and (side[:, 10:] == b).all()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A still picture of 12 frames, and one that grows darker and brighter by turns by ten grey levels."""
    folder = tmp_path_factory.mktemp("compare")
    still = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=25,trim=end_frame=1,loop=11:1:0,setpts=N/25/TB"]
    run_ffmpeg(*still, "-vf", "format=yuv420p", "-frames:v", 12, *QUICK, folder / "still.mp4")
    flicker = "lutyuv=y=val+10:enable='mod(n,2)',format=yuv420p"
    run_ffmpeg("-i", folder / "still.mp4", "-vf", flicker, "-frames:v", 12, *QUICK, folder / "flicker.mp4")
    return folder


def test_flicker_and_psnr_are_measured(clips):
    same = compare_videos(clips / "still.mp4", clips / "still.mp4", None)
    assert same.frames == 12 and same.psnr_mean == float("inf") and same.result.tone == 0
    assert same.still_share == 1 and json.loads(json.dumps(same.to_json()))["psnr_mean"] is None
    figures = compare_videos(clips / "still.mp4", clips / "flicker.mp4", None)
    assert figures.source.tone < 0.01 and 8 < figures.result.tone < 13
    assert 8 < figures.result.still < 13 and figures.still_share == 1
    assert 24 < figures.psnr_least < 30, "ten grey levels, stretched from video range"


def test_another_length_is_told(clips, tmp_path, caplog):
    run_ffmpeg("-stream_loop", 4, "-i", clips / "still.mp4", *QUICK, tmp_path / "long.mp4")
    assert compare_videos(clips / "still.mp4", tmp_path / "long.mp4", None).frames > 12
    assert "differ in length (still.mp4 0.5 s and long.mp4 2.4 s)" in caplog.text
    caplog.clear()
    compare_videos(clips / "still.mp4", clips / "flicker.mp4", None)
    assert not caplog.records


def test_cuts_are_no_flicker(tmp_path):
    make_clip(tmp_path / "cut.mp4", frames=8, filters="format=rgb24,negate=enable='gte(n,4)'")
    figures = compare_videos(tmp_path / "cut.mp4", tmp_path / "cut.mp4", None)
    assert figures.source.tone < 3


def test_a_comparison_video_shows_both(clips, tmp_path, monkeypatch, capsys):
    program = Program(monkeypatch, capsys)
    out = program("compare", clips / "still.mp4", clips / "flicker.mp4", "-o", tmp_path / "a.mp4", "--mode", "side").out
    assert "tone flicker" in out and "PSNR" in out and str(tmp_path / "a.mp4") in out
    made = decode(tmp_path / "a.mp4")
    assert len(made.pictures) == 12 and made.pictures[0].shape == (48, 128, 3)
    left, right = made.pictures[1][:, :60].astype(float), made.pictures[1][:, 68:].astype(float)
    assert right.mean() - left.mean() > 4
    assert (
        "--overwrite"
        in program("compare", clips / "still.mp4", clips / "flicker.mp4", "-o", tmp_path / "a.mp4", expect=1).err
    )
    figures = program("compare", clips / "still.mp4", clips / "flicker.mp4", "--figures-only", "--json").out
    assert json.loads(figures)["frames"] == 12 and not (clips / "flicker.compare.mp4").exists()
    wrong = program("compare", clips / "still.mp4", clips / "flicker.mp4", "-o", tmp_path / "a.gif", expect=2).err
    assert "written as .mp4" in wrong and not list(tmp_path.glob("*.part"))


def test_two_photos(tmp_path, monkeypatch, capsys, landscape):
    program = Program(monkeypatch, capsys)
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a.png", landscape)
    cv2.imwrite("b.png", 255 - landscape)
    cv2.imwrite("small.png", landscape[:9])
    assert "dB" in program("compare", "a.png", "b.png").out
    assert cv2.imread("b.compare.png").shape == landscape.shape
    assert "differ in size" in program("compare", "a.png", "small.png", expect=1).err
    assert "does not exist" in program("compare", "a.png", "gone.png", expect=1).err
