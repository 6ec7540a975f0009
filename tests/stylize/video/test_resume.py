"""A run that was stopped, killed or refused goes on, and nobody can see it in the output."""

import contextlib
import itertools
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media import VFR, Blend, Identity, decode, make_clip, stylize_video, stylized

from stylize.errors import OutputError, ResumeError
from stylize.journal import Journal, read_journal
from stylize.media.video.probe import probe_video
from stylize.media.video.settings import VideoSettings
from stylize.media.video.source import VideoSource
from stylize.video.render import checksum, open_behind
from stylize.video.store import SegmentStore

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Four seconds with B-frames, uneven times and sound."""
    return make_clip(
        tmp_path_factory.mktemp("clip") / "hike.mp4",
        frames=100,
        filters=VFR,
        codec=("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "30"),
        audio=("sine=r=48000",),
        extra=("-enc_time_base", "1/90000"),
    )


@pytest.fixture(scope="module")
def whole(clip, tmp_path_factory):
    """What an uninterrupted run makes of `clip`."""
    target = tmp_path_factory.mktemp("whole") / "out.mp4"
    stylized(clip, target, Blend(2))
    return decode(target)


def same(one, other):
    assert one.times == other.times
    assert all(np.array_equal(a, b) for a, b in zip(one.pictures, other.pictures, strict=True))


class Slow(Blend):
    """Takes its time, and can call somebody on a certain frame."""

    def __init__(self, at=None, call=None, pause=0.0):
        super().__init__(2)
        self.at, self.call, self.pause = at, call, pause

    def __call__(self, frames, wanted):
        for frame in super().__call__(frames, wanted):
            time.sleep(self.pause)
            if frame.index == self.at:
                self.call()
            yield frame


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["event", "ctrl-c"])
def test_a_stop_keeps_the_segments_and_the_next_run_goes_on(clip, whole, tmp_path, how):
    target = tmp_path / "out.mp4"
    stop = threading.Event()
    transform = Slow(60, stop.set if how == "event" else interrupt)
    settings = VideoSettings(codec="lossless", preset="ultrafast", segment_seconds=Fraction(1, 4))
    report = stylize_video(clip, target, transform, settings, transform_key="test", stop=stop)
    assert report.status == "interrupted"
    assert "same command" in report.message
    assert not target.exists()
    report = stylized(clip, target, Blend(2))
    assert report.status == "done"
    assert 30 < report.frames_resumed < 61
    assert not SegmentStore(target).folder.exists()
    same(decode(target), whole)


CHILD = """
import sys, time
from pathlib import Path
from media import Blend, stylized
class Slow(Blend):
    def __call__(self, frames, wanted):
        for frame in super().__call__(frames, wanted):
            time.sleep(0.01)
            while frame.index >= 50 and Path(sys.argv[3]).exists():
                time.sleep(0.01)  # the job cannot end before it has been killed often enough
            yield frame
stylized(Path(sys.argv[1]), Path(sys.argv[2]), Slow(2))
"""


def test_twenty_kills_in_one_job(clip, whole, tmp_path):
    target = tmp_path / "out.mp4"
    hold = tmp_path / "hold"
    journal = SegmentStore(target).folder / "journal.jsonl"
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    rng = random.Random(20)

    def run():
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, clip, target, hold],
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )

    hold.touch()
    kills = 0
    while kills < 20:
        child = run()
        before = journal.stat().st_size if journal.exists() else 0
        patience = rng.uniform(0.0, 0.15)
        give_up = time.monotonic() + (20 if rng.random() < 0.6 and kills < 10 else rng.uniform(0.3, 1.2))
        while child.poll() is None and time.monotonic() < give_up:
            if journal.exists() and journal.stat().st_size > before:
                time.sleep(patience)
                break
            time.sleep(0.005)
        assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
        kills += 1
        assert not target.exists()
    hold.unlink()
    for wait in (0.6, 1.0, 1.4):  # these hit the last segments and the join, if the machine is not too quick
        child = run()
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        child.wait()
        if target.exists():
            break
    if not target.exists():
        assert run().wait() == 0
    same(decode(target), whole)
    assert decode(target).kinds == ["video", "audio"]


def test_each_segment_boundary_is_a_good_place_to_go_on(clip, whole, tmp_path):
    target = tmp_path / "out.mp4"
    stylized(clip, target, Blend(2), keep_work=True)
    journal = SegmentStore(target).folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) > 10
    for keep in (1, 4, len(lines) - 2):
        target.unlink()
        journal.write_bytes(b"".join(lines[:keep]) + lines[keep][: len(lines[keep]) // 2])  # the next line is torn
        report = stylized(clip, target, Blend(2), keep_work=True)
        done = sum(len(json.loads(line).get("times", [])) for line in lines[1:keep])
        assert report.frames_resumed == done
        same(decode(target), whole)


@pytest.mark.parametrize(
    ("name", "codec", "exact"),
    [
        ("long.mp4", ("-c:v", "libx264", "-preset", "veryfast", "-g", "50", "-x264-params", "open-gop=1"), True),
        ("long.mkv", ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:keyint=40"), True),
        ("long.ts", ("-c:v", "libx264", "-preset", "ultrafast", "-g", "50"), False),
        ("long.avi", ("-c:v", "mpeg4", "-bf", "2", "-g", "50"), False),
    ],
)
def test_seeking_lands_on_the_frame_or_decodes_from_the_start(tmp_path, caplog, name, codec, exact):
    clip = make_clip(tmp_path / name, frames=300, codec=codec)
    info = probe_video(clip)
    with VideoSource(info) as source:
        frames = [(frame.pts, checksum(frame)) for frame in source]
    assert len(frames) == 300
    for done, context in [(200, 3), (251, 0)]:
        before = max(1, context)
        times = [pts for pts, _ in frames[done - before : done]]
        with caplog.at_level(logging.INFO), contextlib.ExitStack() as stack:
            _, rest = open_behind(stack, info, first=done, times=times, check=frames[done - 1][1], fps=None)
            got = [(frame.index, frame.pts, checksum(frame)) for frame in rest]
        expected = [(index, *frame) for index, frame in enumerate(frames)][done - before :]
        assert got == expected
    if exact:
        assert "decoding from its beginning" not in caplog.text


def test_a_lost_segment_is_made_again(clip, whole, tmp_path):
    target = tmp_path / "out.mp4"
    stylized(clip, target, Blend(2), keep_work=True)
    target.unlink()
    sorted(SegmentStore(target).folder.glob("*.mov"))[3].unlink()
    assert stylized(clip, target, Blend(2)).frames_resumed > 0
    same(decode(target), whole)


def test_another_look_or_setting_or_source_is_refused(clip, tmp_path):
    target = tmp_path / "out.mp4"
    stylized(clip, target, keep_work=True)
    target.unlink()
    other = tmp_path / "other.mp4"
    make_clip(other, frames=5)
    settings = VideoSettings(codec="lossless", preset="ultrafast", segment_seconds=Fraction(1, 4))
    with pytest.raises(ResumeError, match=r"another transform.*--restart"):
        stylize_video(clip, target, Identity(), settings, transform_key="another look")
    with pytest.raises(ResumeError, match=r"settings.*--restart"):
        stylized(clip, target, segment_seconds=Fraction(1, 2))
    with pytest.raises(ResumeError, match=r"source.*--restart"):
        stylized(other, target)
    assert stylized(other, target, restart=True).frames_out == 5


def test_two_runs_at_once_are_kept_apart(clip, tmp_path):
    target = tmp_path / "out.mp4"
    refused = []

    def second():
        with pytest.raises(OutputError, match="another run"):
            stylized(clip, target)
        refused.append(True)

    stylized(clip, target, Slow(10, second))
    assert refused == [True]


def test_a_journal_survives_any_cut(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, {"a": 1}) as journal:
        for number in range(5):
            journal.add({"n": number, "text": "x" * number})
    content = path.read_bytes()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        with Journal(path, {"a": 1}) as journal:
            whole_lines = max(0, content[:length].count(b"\n") - 1)
            assert [record["n"] for record in read_journal(path).records] == list(range(whole_lines))
            journal.add({"n": "next"})
        assert json.loads(path.read_bytes().splitlines()[-1]) == {"n": "next"}
        assert read_journal(path).header == {"a": 1}


def test_the_context_of_a_cut_is_what_the_transform_asked_for():
    """`Blend` itself: any range of wanted frames gives the same pictures."""
    from stylize.frame import Frame

    rng = np.random.default_rng(0)
    frames = [
        Frame(data=rng.integers(0, 255, (4, 4, 3), np.uint8), index=index, pts=Fraction(index)) for index in range(9)
    ]
    blended = list(Blend(2)(frames, range(9)))
    for start, end in itertools.combinations(range(10), 2):
        part = list(Blend(2)(frames[max(0, start - 2) : end + 2], range(start, end)))
        assert [frame.index for frame in part] == list(range(start, end))
        assert all(np.array_equal(frame.data, blended[frame.index].data) for frame in part)
