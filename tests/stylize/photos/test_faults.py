"""Full disks, rights, sources that vanish, and processes that are killed: no work lost, nothing half-written."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stylize
from stylize.errors import OutputError
from stylize.media.image.read import read_image
from stylize.media.image.settings import ImageSettings
from stylize.photos.job import FolderJob, stylize_folder, stylize_image

ROOT = Path(stylize.__file__).parents[1]


def noise(path, seed, side=150):
    """A PNG of some 66 KB that cannot be packed."""
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(path)


def run(source, target, transform=np.array, **settings):
    job = FolderJob(source=source, target=target, settings=ImageSettings(**settings), transform_key="net")
    return stylize_folder(job, transform)


def test_a_full_disk_ends_the_run_and_space_lets_it_go_on(tmp_path, small_disk, contents):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(6):
        noise(source / f"{number}.png", number)
    report = run(source, small_disk / "out")
    assert "disk is full" in report.message and not report.complete and not report.interrupted
    done, failed = report.count("done"), report.count("failed")
    assert 1 <= done <= 3 and failed == 1 and report.count("left") == 6 - done - 1
    assert len(contents(small_disk / "out")) == done
    assert not list(small_disk.rglob("*.part"))
    for name in contents(small_disk / "out"):
        assert np.array_equal(read_image(small_disk / "out" / name).data, read_image(source / name).data)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    rest = run(source, small_disk / "out")
    assert rest.complete and rest.count("skipped") == done and rest.count("done") == 6 - done


def test_a_disk_without_room_for_the_journal(tmp_path, small_disk, tree):
    (small_disk / "fill").write_bytes(b"")
    with pytest.raises(OSError), (small_disk / "fill").open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()
    with pytest.raises(OutputError, match=r"disk is full|cannot be written"):
        run(tree, small_disk / "out")


def test_a_full_disk_for_a_single_photo(tmp_path):
    noise(tmp_path / "a.png", 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OutputError, match="disk is full") as caught:
            stylize_image(tmp_path / "a.png", tmp_path / "b.png", np.array, ImageSettings())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_read_only_disk(tmp_path, small_disk, tree):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OutputError, match="choose another"):
        stylize_image(tree / "a.jpg", small_disk / "a.jpg", np.array, ImageSettings())
    with pytest.raises(OutputError, match="choose another"):
        run(tree, small_disk / "out")
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)


def test_rights_that_are_missing(gradient):
    """Folders and files without rights, as a user who has none."""
    folder = Path(tempfile.mkdtemp(prefix="rights-"))
    source = folder / "in"
    (source / "locked").mkdir(parents=True)
    for name in ("a.png", "secret.png", "locked/b.png"):
        Image.fromarray(gradient).save(source / name)
    user = os.geteuid()
    try:
        for path, mode in ((folder, 0o777), (source, 0o755), (source / "secret.png", 0), (source / "locked", 0)):
            path.chmod(mode)
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(OutputError, match="choose another"):
                run(source, folder / "in" / "locked" / "out")
            with pytest.raises(OutputError, match="choose another"):
                stylize_image(source / "a.png", source / "locked" / "b.jpg", np.array, ImageSettings())
            report = run(source, folder / "out")
        finally:
            os.seteuid(user)
        found = {os.path.relpath(photo.source, source): photo for photo in report.photos}
        assert found["a.png"].status == "done"
        assert found["locked"].reason == "unreadable" and "rights" in found["locked"].message
        assert found["secret.png"].status == "failed" and "permission" in found["secret.png"].message
    finally:
        (source / "locked").chmod(0o755)
        shutil.rmtree(folder)


def test_sources_that_vanish_during_the_run(tree, contents):
    def transform(rgb):
        for name in ("one/two/e.bmp", "zwei/f.jpeg"):
            (tree / name).unlink(missing_ok=True)
        return rgb

    report = run(tree, None, transform)
    assert report.count("done") == 4 and report.count("failed") == 2
    assert {photo.message.rsplit(": ", 2)[1] for photo in report.photos if photo.status == "failed"} == {"no such file"}
    assert len(contents(tree / "stylized")) == 4


def test_a_result_that_appears_during_the_run_is_not_replaced(tree):
    def transform(rgb):
        (tree / "stylized/zwei").mkdir(exist_ok=True)
        (tree / "stylized/zwei/f.jpeg").write_bytes(b"mine")
        return rgb

    assert [photo.reason for photo in run(tree, None, transform).photos][-1] in ("error", "exists")
    assert (tree / "stylized/zwei/f.jpeg").read_bytes() == b"mine"


CHILD = """
import json, sys, time
import numpy as np
from pathlib import Path
from stylize.photos.job import FolderJob, stylize_folder
from stylize.media.image.settings import ImageSettings

def transform(rgb):
    time.sleep(0.08)
    return 255 - rgb

print("ready", flush=True)
report = stylize_folder(FolderJob(source=Path(sys.argv[1]), target=Path(sys.argv[2]), transform_key="net"), transform)
print(json.dumps(report.as_dict()))
"""


def child(source, target):
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(source), str(target)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        # Where the tests run in the background SIGINT is ignored, and so it would be in the child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def many(tmp_path):
    source = tmp_path / "many"
    for number in range(24):
        path = source / str(number % 3) / f"{number}{('.png', '.jpg', '.tif')[number % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(path, number, 100)
    return source


def test_kills_at_random_moments_cost_nothing_that_was_done(tmp_path, many, contents):
    run(many, tmp_path / "wanted", lambda rgb: 255 - rgb)
    wanted = contents(tmp_path / "wanted")
    moments, done = random.Random(5), 0
    for number in range(8):
        process = child(many, tmp_path / "out")
        while number == 0 and not list((tmp_path / "out").rglob("*.png")):
            time.sleep(0.01)
        time.sleep(moments.uniform(0.01, 0.25))
        process.kill()
        process.communicate()
        found = contents(tmp_path / "out")
        assert all(wanted[name] == data for name, data in found.items())
        assert len(found) >= done
        done = len(found)
    report = run(many, tmp_path / "out", lambda rgb: 255 - rgb)
    assert report.complete and contents(tmp_path / "out") == wanted
    assert {photo.reason for photo in report.photos} <= {"", "up-to-date"}
    assert report.count("skipped") == done > 0
    assert not list((tmp_path / "out").rglob("*.part"))


def test_ctrl_c_ends_cleanly(tmp_path, many):
    process = child(many, tmp_path / "out")
    while not list((tmp_path / "out").rglob("*.png")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    report = json.loads(output)
    assert errors == "" and process.returncode == 0
    assert report["interrupted"] and report["done"] >= 1 and report["done"] + report["left"] == 24
    assert not list((tmp_path / "out").rglob("*.part"))
    assert run(many, tmp_path / "out", lambda rgb: 255 - rgb).count("skipped") == report["done"]
