"""A user's folders, run again and again: what is done is skipped, no name is taken twice, one bad file stops nobody."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from media import decode, make_clip
from PIL import Image

from stylize.errors import InputError, OutputError, ResumeError, fault
from stylize.media.formats import VIDEO_SUFFIXES
from stylize.settings import StyleSettings
from stylize.video.batch import find_tasks, passed_over
from stylize.video.job import join_video
from stylize.video.store import SegmentStore

QUICK = ["--preset", "ultrafast", "--codec", "lossless", "--threads", "1", "--smoothing", "0.2"]


def run(command, model, *args, expect=0, quick=QUICK):
    call = [sys.executable, "-m", "stylize", command, *map(str, args), "--model", str(model), *quick]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def clips(tmp_path):
    """Two recordings of one name, and what lies beside recordings."""
    folder = tmp_path / "clips"
    folder.mkdir()
    make_clip(folder / "hike.mp4", frames=6, rate="10")
    make_clip(folder / "hike.avi", frames=4, rate="10", codec=("-c:v", "mpeg4"))
    (folder / "hike.srt").write_text("1")
    (folder / "a.thm").write_bytes(b"x")
    (folder / "b.thm").write_bytes(b"x")
    return folder


def test_a_folder_run_again_skips_what_is_done(clips, tmp_path, skip_model):
    done = run("video", skip_model, clips, "-o", tmp_path / "out")
    assert "passed over: 3 files (2 .thm, 1 .srt)" in done.stderr
    results = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert len(decode(tmp_path / "out" / "hike.mp4").times) == 6
    assert len(decode(tmp_path / "out" / "hike.avi.mp4").times) == 4
    again = run("video", skip_model, clips, "-o", tmp_path / "out")
    assert again.stdout.count("there already: skipped") == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == results
    told = run("video", skip_model, clips, "-o", tmp_path / "out", "--json")
    assert {json.loads(line)["status"] for line in told.stdout.splitlines()} == {"skipped"}


def test_results_beside_their_sources_have_names_of_their_own(clips):
    names = {task.source.name: task.target.name for task in find_tasks([str(clips)], None)}
    assert names == {"hike.mp4": "hike.firewatch.mp4", "hike.avi": "hike.avi.firewatch.mp4"}


def test_an_existing_folder_with_a_dot_in_its_name(clips, tmp_path):
    (tmp_path / "firewatch.v2").mkdir()
    [task] = find_tasks([str(clips / "hike.avi")], tmp_path / "firewatch.v2")
    assert task.target == tmp_path / "firewatch.v2" / "hike.mp4"


def test_one_bad_file_does_not_stop_a_dry_run(clips, tmp_path, skip_model):
    (clips / "diary.mkv").write_bytes(b"this is a diary")
    done = run("video", skip_model, clips, "-o", tmp_path / "out", "--dry-run", expect=1)
    assert done.stderr.count("\n") == 1 and "diary.mkv" in done.stderr
    assert "hike.mp4 ->" in done.stdout and "hike.avi ->" in done.stdout
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_a_name_that_is_too_long_is_one_line(clips, tmp_path, skip_model):
    long = clips / f"{'x' * 246}.mp4"
    long.write_bytes((clips / "hike.mp4").read_bytes())
    done = run("video", skip_model, clips, expect=1)
    assert sum("name too long" in line for line in done.stderr.splitlines() if line.startswith("Error: ")) == 1
    assert (clips / "hike.firewatch.mp4").is_file()
    for options in ([], ["--dry-run"]):
        Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
        photo = tmp_path / f"{'y' * 250}.gif"
        Image.new("RGB", (40, 30)).save(tmp_path / "y.gif")
        (tmp_path / "y.gif").rename(photo)
        done = run("folder", skip_model, tmp_path, "--flat", "-o", tmp_path / "p", *options, quick=["--threads", "1"])
        assert "y.gif" not in done.stderr


def test_photos_of_a_dry_run_go_on_behind_a_bad_one(tmp_path, skip_model):
    (tmp_path / "a.jpg").write_bytes(b"no photo")
    Image.new("RGB", (40, 30)).save(tmp_path / "b.jpg")
    (tmp_path / "notes.txt").write_text("x")
    done = run("folder", skip_model, tmp_path, "--dry-run", expect=1, quick=["--threads", "1"])
    assert "a.jpg: failed" in done.stdout and "1 photos" in done.stdout and "passed over 1 file (1 .txt)" in done.stdout


@pytest.mark.parametrize(
    "suffix",
    [".m2v", ".3g2", ".mxf", ".asf", ".f4v", ".divx", ".m2t", ".dv", ".insv", ".360", ".lrv", ".ts", ".MTS", ".wmv"],
)
def test_suffixes_of_videos_are_found(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"x")
    (tmp_path / "b.txt").write_bytes(b"x")
    assert [task.source.name for task in find_tasks([str(tmp_path)], None)] == [f"a{suffix}"]
    assert passed_over([str(tmp_path)], None) == {".txt": 1}
    assert suffix.lower() in VIDEO_SUFFIXES


def test_the_option_that_changed_is_named(clips, tmp_path, skip_model):
    target = tmp_path / "out.mp4"
    run("video", skip_model, clips / "hike.mp4", "-o", target, "--shard", "1/2", "--look", "dusk", "-q")
    done = run("video", skip_model, clips / "hike.mp4", "-o", target, expect=1, quick=[*QUICK, "--look", "auto"])
    assert "--look dusk, now auto" in done.stderr and done.stderr.count("\n") == 1
    done = run("video", skip_model, clips / "hike.mp4", "-o", target, "--look", "dusk", "--segment", "5", expect=1)
    assert "--segment 10, now 5" in done.stderr
    quick = [*QUICK[4:], "--codec", "h264", "--look", "dusk"]
    done = run("video", skip_model, clips / "hike.mp4", "-o", target, expect=1, quick=quick)
    assert "--codec lossless, now h264" in done.stderr and str(SegmentStore(target).folder) in done.stderr


def test_a_failed_run_says_where_its_work_lies(clips, tmp_path, skip_model):
    target = tmp_path / "out.mp4"
    options = ["--encoder-args", "-nonsense 1"]
    done = run("video", skip_model, clips / "hike.mp4", "-o", target, *options, expect=1)
    assert str(SegmentStore(target).folder) in done.stderr and "--restart" in done.stderr


def test_work_of_another_version_is_refused(clips, tmp_path):
    from media import stylized

    work = tmp_path / ".out.mp4.stylize"
    work.mkdir()
    (work / "journal.jsonl").write_text('{"version":1,"source":"x","transform":"y"}\n')
    with pytest.raises(ResumeError, match=r"another version of this program.*--restart"):
        stylized(clips / "hike.mp4", tmp_path / "out.mp4")
    with pytest.raises(ResumeError, match="another version of this program"):
        join_video(tmp_path / "out.mp4")
    assert stylized(clips / "hike.mp4", tmp_path / "out.mp4", restart=True).frames_out == 6
    (work / "shards").mkdir(parents=True)
    with pytest.raises(ResumeError, match="another version of this program"):
        stylized(clips / "hike.mp4", tmp_path / "out.mp4", overwrite=True)


def test_settings_are_the_same_by_what_they_mean(skip_model, tmp_path):
    """The usual look by name or not, a look as a mixture of one, a model by its name or its content."""
    import shutil

    from stylize import Stylizer

    def key(model=skip_model, **values):
        return Stylizer(model=str(model), **values).key

    usual = Stylizer(model=str(skip_model)).spec.usual_look
    copy = shutil.copytree(skip_model, tmp_path / "copy")
    assert key() == key(look=usual) == key(look=f"{usual}=1") == key(look=f"{usual}:{usual}") == key(copy)
    assert len({key(), key(strength=0.5), key(look="dusk"), key(look="auto:dusk")}) == 4
    spec = json.loads((copy / "spec.json").read_text())
    (copy / "spec.json").write_text(json.dumps({**spec, "hashes": None}))  # as people make them by hand
    assert key(copy) == key()
    weights = next(path for path in copy.iterdir() if path.suffix in (".safetensors", ".onnx"))
    weights.write_bytes(weights.read_bytes() + b" ")
    assert key(copy) != key()
    assert key(threads=3, tile=256) == key()


def test_one_fault_one_line():
    """The world's faults say what to do; ours keep their type and say where to report them."""
    assert fault(InputError("a: gone: restore it")) == "a: gone: restore it"
    assert fault(OSError(13, "Permission denied", "/x/a"), "a.jpg").startswith("a.jpg: Permission denied (/x/a): check")
    for error in (TypeError("no\nnumber"), KeyError("look")):
        line = fault(error, Path("a.jpg"))
        assert line.startswith("a.jpg: ") and "\n" not in line and "-v" in line and type(error).__name__ in line
    assert isinstance(OutputError("x"), Exception) and StyleSettings().look is None
