"""Ctrl-C, SIGTERM and SIGKILL at the worst moments: an ffmpeg that starts late, stalls, or is in the join."""

import contextlib
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
from media import decode, make_clip, stylized

from stylize.media.ffmpeg import find_ffmpeg
from stylize.media.pipe import PipeWriter
from stylize.video.job import work_folder

ROOT = Path(__file__).parents[3]

CHILD = """
import sys
import threading
from pathlib import Path
from media import Identity, stylize_video
from stylize.commands.options import stop_on_terminate
from stylize.media.video.settings import VideoSettings
source, target, codec, preset = sys.argv[1:]
settings = VideoSettings(codec=codec or None, preset=preset or None)
with stop_on_terminate() as stop:
    report = stylize_video(
        Path(source), Path(target), Identity(), settings, transform_key="test", stop=stop,
        progress=lambda now: print(now.stage, flush=True),
    )
sys.exit({"done": 0, "interrupted": 130}[report.status])
"""

JOIN = ["-f mov", "-i pipe:0"]
"""What an ffmpeg that joins has on its command line."""

PATIENCE = 60
"""Seconds after which a program that was told to end counts as hung."""


def ffmpeg_that(folder, marks, what):
    """A stand-in for ffmpeg that does `what` (a shell command) before calls with these words, in this order."""
    script = folder / "ffmpeg"
    pattern = "".join(f"*{shlex.quote(f' {mark}')}" for mark in marks)
    real = shlex.quote(find_ffmpeg().path)
    script.write_text(f'#!/bin/sh\ncase " $*" in\n{pattern}*) {what};;\nesac\nexec {real} "$@"\n')
    script.chmod(0o755)
    return script


@contextlib.contextmanager
def program(ffmpeg, source, target, codec="", preset=""):
    """The job in a process of its own, killed at the end: a hang there must not hang the tests."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, source, target, codec, preset],
        env={**os.environ, "PYTHONPATH": path, "STYLIZE_FFMPEG": str(ffmpeg)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def wait_for(child, stage):
    """Read what the child tells until it is at `stage`."""
    for line in child.stdout:
        if line.strip() == stage:
            return
    raise AssertionError(f"the job ended before {stage}")


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """Five frames of an odd width that fill more than a pipe once they are encoded."""
    folder = tmp_path_factory.mktemp("noisy")
    return make_clip(
        folder / "in.mkv",
        size=(853, 480),
        frames=5,
        codec=("-c:v", "ffv1"),
        filters="scale=853:480,noise=alls=40",
        pixel_format="gbrp",
    )


@pytest.mark.parametrize(
    ("name", "codec", "preset", "marks"),
    [
        ("x.mov", "prores", "4444", JOIN),
        ("x.gif", "", "", JOIN),
        ("x.mp4", "", "", JOIN),
    ],
)
def test_an_ffmpeg_that_starts_late(noisy, tmp_path, name, codec, preset, marks):
    target = tmp_path / name
    with program(ffmpeg_that(tmp_path, marks, "sleep 0.5"), noisy, target, codec, preset) as child:
        child.stdout.read()
        assert child.wait(PATIENCE) == 0
    with av.open(str(target)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5


def test_the_shared_clip_that_hung(shared, tmp_path):
    source = shared / "cases" / "video" / "odd853_prores_deadlock.mkv"
    if not source.exists():
        pytest.skip(f"{source} is not there")
    script = ffmpeg_that(tmp_path, JOIN, "sleep 0.5")
    with program(script, source, tmp_path / "x.mov", "prores", "4444") as child:
        child.stdout.read()
        assert child.wait(PATIENCE) == 0
    assert len(decode(tmp_path / "x.mov").times) == len(decode(source).times) == 5


STALLS = {
    "decoding": (["-f nut", "pipe:1"], "frames", "x.mp4"),
    "encoding": (["-f nut", "pipe:0"], "frames", "x.mp4"),
    "joining": (JOIN, "join", "x.mp4"),
    "the GIF": (JOIN, "join", "x.gif"),
}


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("what", STALLS)
def test_a_signal_ends_the_job_while_ffmpeg_stalls(noisy, tmp_path, what, sign):
    marks, stage, name = STALLS[what]
    began = tmp_path / "began"
    script = ffmpeg_that(tmp_path, marks, f"touch {shlex.quote(str(began))}; exec sleep 600")
    with program(script, noisy, tmp_path / name) as child:
        if stage == "join":
            wait_for(child, stage)
        while not began.exists():
            assert child.poll() is None
            time.sleep(0.05)
        time.sleep(0.5)  # until the pipe is full
        child.send_signal(sign)
        assert child.wait(PATIENCE) == 130
    assert not (tmp_path / name).exists()


@pytest.mark.slow
def test_twenty_deaths_in_the_join(noisy, tmp_path):
    """Whatever ends the program while it joins, under load: no target, or a whole one; and the next run delivers."""
    target = tmp_path / "x.mov"
    script = ffmpeg_that(tmp_path, JOIN, "sleep 0.3")
    rng = random.Random(16)
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        for _ in range(20):
            with program(script, noisy, target, "prores", "4444") as child:
                wait_for(child, "join")
                time.sleep(rng.uniform(0, 0.6))
                sign = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
                child.send_signal(sign)
                assert child.wait(PATIENCE) in (0, 130, -sign)  # -sign also where it came just after the end
            if target.exists():
                assert len(decode(target).times) == 5
                target.unlink()
    finally:
        for process in load:
            process.kill()
            process.wait()
    with program(script, noisy, target, "prores", "4444") as child:
        child.stdout.read()
        assert child.wait(PATIENCE) == 0
    stylized(noisy, tmp_path / "whole.mov", codec="prores", preset="4444")
    expected = decode(tmp_path / "whole.mov")
    assert decode(target).times == expected.times
    assert all(np.array_equal(a, b) for a, b in zip(decode(target).pictures, expected.pictures, strict=True))
    assert not work_folder(target).exists()


def test_a_writer_that_is_called_off_while_the_pipe_is_full():
    read, write = os.pipe()
    writer = PipeWriter(write)
    try:
        writer.write(bytes(1 << 22))
        timer = threading.Timer(0.3, writer.cancel)
        timer.start()
        with pytest.raises(BrokenPipeError):
            writer.drain()
        timer.join()
    finally:
        writer.shut()
        os.close(read)
