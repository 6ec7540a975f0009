"""``stylize video`` as a person runs it: files, folders, patterns, failures, interruptions."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from media import decode, make_clip

from stylize.errors import InputError
from stylize.video.batch import find_tasks

QUICK = ["--preset", "ultrafast", "--threads", "1", "--smoothing", "0.2"]


def command(model: Path, *args: object) -> list[str]:
    return [sys.executable, "-m", "stylize", "video", *map(str, args), "--model", str(model), *QUICK]


def run(model, *args, expect=0):
    done = subprocess.run(command(model, *args), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr
    return done


def segments(work: Path) -> list[Path]:
    """The finished segments of an unfinished run."""
    return [p for p in work.glob("*") if p.suffix in (".mkv", ".mp4", ".mov", ".nut")] if work.exists() else []


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip") / "walk.mp4", frames=10, rate="10", audio=["sine=f=440"])


def test_a_video_is_stylized_with_its_sound(clip, tmp_path, skip_model):
    target = tmp_path / "firewatch.mp4"
    done = run(skip_model, clip, "-o", target, "--look", "auto:dusk", "--verify")
    source, result = decode(clip), decode(target)
    assert len(result.pictures) == len(source.pictures) and result.times == source.times
    assert result.pictures[0].shape == source.pictures[0].shape
    assert (result.pictures[0] != source.pictures[0]).mean() > 0.5
    assert f"{len(source.pictures)} frames" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["firewatch.mp4"]


def test_without_an_output_the_result_stands_beside(clip, tmp_path, skip_model):
    source = tmp_path / "walk.mp4"
    source.write_bytes(clip.read_bytes())
    run(skip_model, source)
    assert (tmp_path / "walk.firewatch.mp4").is_file()


def test_one_bad_file_does_not_stop_the_rest(clip, tmp_path, skip_model):
    folder = tmp_path / "clips"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.mp4").write_bytes(b"this is a diary")
    (folder / "sub" / "b.mp4").write_bytes(clip.read_bytes())
    (folder / "notes.txt").write_text("no video")
    done = run(skip_model, folder, "-o", tmp_path / "out", "--json", "--jobs", 2, expect=1)
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert {Path(r["source"]).name: r["status"] for r in reports} == {"a.mp4": "failed", "b.mp4": "done"}
    assert {"frames_in", "frames_out", "seconds", "fps", "warnings", "message"} <= set(reports[0])
    assert [p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.mp4")] == ["sub/b.mp4"]


def test_an_existing_target_is_kept(clip, tmp_path, skip_model):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"precious")
    done = run(skip_model, clip, "-o", target, expect=1)
    assert "--overwrite" in done.stderr and target.read_bytes() == b"precious"


def test_interrupted_then_resumed_gives_the_same_pictures(tmp_path, skip_model):
    source = make_clip(tmp_path / "long.mp4", frames=120, rate="10")
    whole, resumed = tmp_path / "whole.mp4", tmp_path / "resumed.mp4"
    options = ["--segment", "1", "--codec", "lossless"]
    run(skip_model, source, "-o", whole, *options)
    work, seen = tmp_path / ".resumed.mp4.stylize", 0
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            command(skip_model, source, "-o", resumed, *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # it may be ignored where the tests run
        )
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline and len(segments(work)) <= seen:
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        seen = len(segments(work))
        if process.returncode == 0:  # it was quicker than the signal
            break
        assert process.returncode == 130 and "Traceback" not in errors
        assert "run the same command again" in errors
        assert not resumed.exists()
    if not resumed.exists():
        run(skip_model, source, "-o", resumed, *options)
    a, b = decode(whole), decode(resumed)
    assert a.times == b.times and all((x == y).all() for x, y in zip(a.pictures, b.pictures, strict=True))


def test_tasks_from_files_folders_and_patterns(tmp_path):
    for name in ("a.mp4", "b.MOV", "c.avi", "d.txt", ".hidden.mp4", "sub/e.mkv", "a.firewatch.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")

    def targets(*args, output=None):
        return [
            t.target.relative_to(tmp_path).as_posix() for t in find_tasks([str(tmp_path / a) for a in args], output)
        ]

    assert targets("a.mp4") == ["a.firewatch.mp4"]
    assert targets("a.mp4", output=tmp_path / "x.mkv") == ["x.mkv"]
    assert targets("a.mp4", "b.MOV", output=tmp_path / "o") == ["o/a.mp4", "o/b.mov"]
    assert targets(".", output=tmp_path / "o") == ["o/a.mp4", "o/b.mov", "o/c.mp4", "o/sub/e.mkv"]
    assert sorted(targets("*.mp4", output=tmp_path / "o")) == ["o/a.firewatch.mp4", "o/a.mp4"]
    with pytest.raises(InputError, match="does not exist"):
        targets("nowhere.mp4")
    with pytest.raises(InputError, match="holds no video"):
        (tmp_path / "empty").mkdir()
        targets("empty")
    (tmp_path / "sub" / "a.mp4").write_bytes(b"x")
    with pytest.raises(ValueError, match="would both become"):
        targets("a.mp4", "sub/a.mp4", output=tmp_path / "o")


@pytest.mark.parametrize("output", ["results/", "results", "day.one/"])
def test_an_output_with_a_slash_or_without_a_suffix_is_a_folder_for_results(clip, tmp_path, skip_model, output):
    run(skip_model, clip, "-o", f"{tmp_path}/{output}")
    assert [p.name for p in (tmp_path / output).iterdir()] == ["walk.mp4"]


def test_a_quotation_that_is_not_closed_is_wrong_use(clip, tmp_path, skip_model):
    done = run(skip_model, clip, "-o", tmp_path / "out.mp4", "--encoder-args", "-x264-params 'aq-mode=3", expect=2)
    assert "--encoder-args" in done.stderr and "close every quotation mark" in done.stderr
