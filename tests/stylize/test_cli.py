import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from stylize.cli import COMMANDS, stylize

HEAVY = {"torch", "openvino", "onnx", "onnxruntime", "cv2", "av", "PIL", "tensorrt", "pycuda", "ray"}


def run(*args, expect=0):
    """The real program in its own process: what a person sees."""
    done = subprocess.run(
        [sys.executable, "-m", "stylize", *map(str, args)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys; from stylize.cli import stylize\n"
        f"try: stylize({[*([command] if command else []), '--help']!r})\n"
        "except SystemExit: pass\n"
        "print('MODULES', *sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.rsplit("MODULES", 1)[1].split())
    assert not modules & HEAVY
    assert "Usage:" in done.stdout


def test_help_shows_every_command():
    text = CliRunner().invoke(stylize, ["--help"]).output
    assert all(name in text for name in COMMANDS)


def test_unknown_commands_are_answered_with_those_there_are():
    done = run("vidoe", expect=2)
    assert "Commands: video, folder, image, " in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["image", "a.jpg", "-o", "b.jpg", "--strength", "2"], "strength lies between 0 and 1"),
        (["image", "a.jpg", "-o", "b.jpg", "--look", "noon"], "unknown look"),
        (["image", "a.jpg", "-o", "b.jpg", "--tile", "9"], "smaller than twice the halo"),
        (["video", "a.mp4", "--fps", "fast"], "is no rate"),
        (["-v", "-q", "image", "a.jpg", "-o", "b.jpg"], "choose -v or -q"),
    ],
)
def test_wrong_use_is_exit_code_2(args, message, skip_model):
    if "image" in args or "video" in args:
        args = [*args, "--model", str(skip_model)]
    done = run(*args, expect=2)
    assert message in done.stderr


def test_missing_sources_are_one_line(tmp_path, skip_model):
    for args in (
        ["image", tmp_path / "no.jpg", "-o", tmp_path / "o.jpg"],
        ["folder", tmp_path / "nowhere"],
        ["video", tmp_path / "no.mp4", "-o", tmp_path / "o.mp4"],
    ):
        done = run(*args, "--model", skip_model, expect=1)
        assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


def test_an_image_and_a_folder_of_them(tmp_path, skip_model, landscape):
    cv2 = pytest.importorskip("cv2")
    photos = tmp_path / "photos"
    (photos / "day 1").mkdir(parents=True)
    cv2.imwrite(str(photos / "a.jpg"), landscape[..., ::-1])
    cv2.imwrite(str(photos / "day 1" / "b.png"), landscape[:33, :51, ::-1])
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 this is no photo")
    run("image", photos / "a.jpg", "-o", tmp_path / "one.png", "--model", skip_model)
    assert cv2.imread(str(tmp_path / "one.png")).shape == landscape.shape
    done = run("folder", photos, "--model", skip_model, expect=1)
    assert "2 done, 1 failed" in done.stdout and "broken.jpg" in done.stderr
    assert cv2.imread(str(photos / "stylized" / "day 1" / "b.png")).shape == (33, 51, 3)
    (photos / "broken.jpg").unlink()
    run("image", photos / "a.jpg", "--model", skip_model)
    assert cv2.imread(str(photos / "a.firewatch.jpg")).shape == landscape.shape
    again = run("folder", photos, "--model", skip_model, "--json")
    report = json.loads(again.stdout)
    assert report["skipped"] == 2 and report["done"] == 0
    other = run("folder", photos, "--model", skip_model, "--look", "dusk", "--dry-run")
    assert "2 skipped" in other.stdout or "other-settings" in other.stdout or "other settings" in other.stdout


def test_an_existing_output_is_not_replaced(tmp_path, skip_model, landscape):
    cv2 = pytest.importorskip("cv2")
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    cv2.imwrite(str(source), landscape[:40, :40, ::-1])
    target.write_bytes(b"precious")
    done = run("image", source, "-o", target, "--model", skip_model, expect=1)
    assert "--overwrite" in done.stderr and target.read_bytes() == b"precious"
    run("image", source, "-o", target, "--model", skip_model, "--overwrite")
    assert cv2.imread(str(target)).shape == (40, 40, 3)


def test_a_picture_is_no_video_and_a_video_no_picture(tmp_path, skip_model, landscape):
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "a.jpg"), landscape)
    (tmp_path / "b.mp4").write_bytes(bytes(5000))
    for args, hint in (
        (["image", tmp_path / "b.mp4", "-o", tmp_path / "o.jpg"], "is a video: use `stylize video`"),
        (["video", tmp_path / "a.jpg", "-o", tmp_path / "o.mp4"], "is a picture, not a video: use `stylize image`"),
        (["folder", tmp_path / "b.mp4"], "use `stylize image` or `stylize video`"),
    ):
        assert hint in run(*args, "--model", skip_model, expect=1).stderr


def shell(line, cwd):
    """The program in a shell: exit code, what was written to stderr."""
    program = f"{shlex.quote(sys.executable)} -m stylize"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        ["sh", "-c", line.replace("stylize", program, 1)], cwd=cwd, env=environment, capture_output=True, check=False
    )
    return done.returncode, done.stderr.decode()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("args", ["--help", "models list"])
def test_output_to_a_full_disk_is_one_line(tmp_path, args):
    code, told = shell(f"stylize {args} > /dev/full", tmp_path)
    assert code == 1 and told.startswith("Error: the output: No space left") and told.count("\n") == 1


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams_take_nothing_away(tmp_path, skip_model, landscape, closed):
    from PIL import Image

    Image.fromarray(landscape[:40, :40]).save(tmp_path / "a.png")
    assert shell(f"stylize image a.png -o b.png --model {skip_model} {closed}", tmp_path)[0] == 0
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (40, 40)
    assert shell(f"stylize image no.png -o c.png --model {skip_model} {closed}", tmp_path)[0] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_a_name_that_is_no_text_can_be_previewed(tmp_path, skip_model, landscape):
    from PIL import Image

    name = os.fsdecode(b"a\xff.png")
    Image.fromarray(landscape[:40, :40]).save(tmp_path / name)
    code, told = shell(f"stylize preview *.png --model {skip_model}", tmp_path)
    assert code == 0, told
    assert b"a\xff.firewatch" in (tmp_path / os.fsdecode(b"a\xff.preview.txt")).read_bytes()
