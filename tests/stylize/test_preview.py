import re
import shlex
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from media import make_clip
from PIL import Image
from program import Program

from stylize.commands.preview import Time
from stylize.errors import InputError
from stylize.media.video.probe import probe_video
from stylize.preview import cells, command_for
from stylize.settings import StyleSettings
from stylize.video.frame_choice import choose, choose_times, frame_at, samples


@pytest.fixture(scope="module")
def three_scenes(tmp_path_factory):
    """36 frames: red, then blue, then green, each with a moving pattern; the middle one blurred at first."""
    path = tmp_path_factory.mktemp("preview") / "hike.mp4"
    colour = "colorchannelmixer=rr={}:gg={}:bb={}"
    parts = [("1", "0.1", "0.1", 0, 12), ("0.1", "0.1", "1", 12, 24), ("0.1", "1", "0.1", 24, 36)]
    filters = ",".join(f"{colour.format(r, g, b)}:enable='between(n,{a},{z - 1})'" for r, g, b, a, z in parts)
    return make_clip(path, frames=36, filters=f"format=rgb24,{filters},boxblur=1:enable='between(n,12,20)'")


@pytest.fixture
def program(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    return Program(monkeypatch, capsys)


def test_one_sharp_frame_for_each_scene(three_scenes):
    info = probe_video(three_scenes)
    times = choose_times(info, 4)
    scenes = [int(time * 25) // 12 for time in times]
    assert scenes == [0, 1, 2]
    assert times[1] >= Fraction(21, 25), "the blurred frames of the second scene are passed over"
    assert len(choose_times(info, 2)) == 2 and len(choose_times(info, 1)) == 1


def test_key_frames_are_enough_of_a_long_video(three_scenes, monkeypatch):
    monkeypatch.setattr("stylize.video.frame_choice.SHORT", 1)
    found = list(samples(probe_video(three_scenes)))
    assert found and [s.pts for s in found] == sorted({s.pts for s in found})
    assert choose(found, 3)


def test_a_frame_at_a_time(three_scenes):
    info = probe_video(three_scenes)
    assert frame_at(info, Fraction(1)).pts == 1
    assert frame_at(info, Fraction(101, 100)).pts == Fraction(26, 25)
    assert frame_at(info, Fraction(143, 100)).pts == Fraction(35, 25), "behind the last frame: the last one"
    with pytest.raises(InputError, match=r"1\.44 s long"):
        frame_at(info, Fraction(9))


def test_times_are_read_as_people_write_them():
    convert = Time().convert
    assert convert("1:20", None, None) == 80
    assert convert("0:01:20.5", None, None) == Fraction(161, 2)
    assert convert("80", None, None) == 80
    for bad in ("soon", "-3", "1:2:3:4", "1::2"):
        with pytest.raises(Exception, match="is no time"):
            convert(bad, None, None)


def test_cells_are_all_combinations_and_their_commands_rebuild_them():
    base = StyleSettings(model="light", keep_color=0.25)
    grid = cells(base, "auto", ["auto", "dusk=0.7,auto=0.3"], [0.5, 1.0], [0.25, 1.0])
    assert len(grid) == 8 and len({cell.label for cell in grid}) == 8
    words = shlex.split(command_for(Path("my hike.mp4"), grid[-1].settings, model="light"))
    assert words[:5] == ["stylize", "video", "my hike.mp4", "-o", "my hike.firewatch.mp4"]
    given = dict(zip(words[5::2], words[6::2], strict=True))
    assert given == {
        "--model": "light",
        "--look": "dusk=0.7,auto=0.3",
        "--strength": "1",
        "--detail": "1",
        "--keep-color": "0.25",
    }


def test_a_sheet_of_a_video(program, three_scenes, skip_model, tmp_path):
    done = program("preview", three_scenes, "--model", skip_model, "-o", "sheet.png", "--looks", "all", "--frames", "3")
    sheet = np.asarray(Image.open("sheet.png"))
    commands = [line for line in done.out.splitlines() if "stylize video" in line]
    assert len(commands) == 2 and "--look dusk" in commands[1]
    assert Path("sheet.txt").read_text().splitlines() == commands
    assert Image.open("sheet.png").text["Comment"].splitlines() == commands
    assert sheet.shape[1] == 3 * 320 + 2 * 8, "before and two looks"
    assert sheet.shape[0] == 3 * (240 + 34) + 2 * 8, "three scenes"
    before, auto, dusk = (sheet[60:250, x : x + 300].astype(int) for x in (5, 333, 661))
    assert np.abs(before - auto).mean() > 5 and np.abs(auto - dusk).mean() > 1
    assert "--overwrite" in program("preview", three_scenes, "-o", "sheet.png", expect=1).err


def test_what_the_user_wrote_beside_the_sheet_stays(program, skip_model, landscape):
    cv2.imwrite("a.png", landscape[:, :, ::-1])
    Path("trip.txt").write_text("day 1: rain")
    done = program("preview", "a.png", "--model", skip_model, "-o", "trip.png", expect=1)
    assert "trip.txt" in done.err and "--overwrite" in done.err and done.err.count("\n") == 1
    assert Path("trip.txt").read_text() == "day 1: rain" and not Path("trip.png").exists()
    program("preview", "a.png", "--model", skip_model, "-o", "trip.png", "--overwrite")
    assert "stylize image" in Path("trip.txt").read_text()


def test_a_cell_is_what_its_command_gives(program, skip_model, landscape):
    cv2.imwrite("a.png", landscape[:, :, ::-1])
    options = ["--strengths", "0.5,1", "--details", "0.05,1", "--look", "dusk", "--keep-color", "0.3"]
    out = program("preview", "a.png", "--model", skip_model, *options).out
    sheet = np.asarray(Image.open("a.preview.png"))
    lines = [line for line in out.splitlines() if "stylize image" in line]
    for column, line in enumerate(lines, 1):
        command = re.sub(r"^[^:]*: stylize ", "", line)
        program(*shlex.split(command), "--overwrite")
        made = np.asarray(Image.open("a.firewatch.png"))
        assert np.array_equal(made, sheet[34:, column * 328 : column * 328 + 320]), line
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("args", "message", "code"),
    [
        (["gone.mp4"], "does not exist", 1),
        (["."], "is a folder", 1),
        (["a.png", "-o", "sheet.jpg"], "a sheet is a PNG", 2),
        (["a.png", "--looks", "noon"], "unknown look", 2),
        (["a.png", "--strengths", "2"], "strength lies between", 2),
        (["a.png", "--strengths", "x"], "no list of numbers", 2),
        (["a.png", "--at", "1:20"], "a photo has no times", 2),
        (["a.mp4"], "a.mp4", 1),
    ],
)
def test_wrong_use_is_one_line(program, skip_model, args, message, code):
    cv2.imwrite("a.png", np.zeros((32, 32, 3), np.uint8))
    Path("a.mp4").write_text("no video")
    err = program("preview", *args, "--model", skip_model, expect=code).err
    assert message in err
    assert not Path("a.preview.png").exists()


def test_long_rows_are_broken(program, skip_model):
    cv2.imwrite("a.png", np.full((48, 64, 3), 90, np.uint8))
    program("preview", "a.png", "--model", skip_model, "--strengths", "0,0.2,0.4,0.6,0.8,1")
    sheet = np.asarray(Image.open("a.preview.png"))
    assert sheet.shape[:2] == (2 * (34 + 240) + 8, 4 * 320 + 3 * 8), "seven cells: four and three"
