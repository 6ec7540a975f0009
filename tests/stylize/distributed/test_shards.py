"""Segments made by jobs that know nothing of each other are joined to what one run makes."""

import json
import multiprocessing
import shlex
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from media import VFR, Blend, Identity, decode, make_clip, stylized

from stylize.errors import InputError, OutputError, ResumeError
from stylize.media.video.settings import VideoSettings
from stylize.sharding import Shard, shard_of_segment
from stylize.video.job import MissingSegmentsError, VideoJob, find_jobs, join_video, ranges, run_video
from stylize.video.store import SegmentStore


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Four seconds with B-frames, open GOPs, uneven times and sound."""
    return make_clip(
        tmp_path_factory.mktemp("clip") / "hike.mp4",
        frames=100,
        filters=VFR,
        codec=("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "30", "-x264-params", "open-gop=1"),
        audio=("sine=r=48000",),
        extra=("-enc_time_base", "1/90000"),
    )


def settings(**values) -> VideoSettings:
    values.setdefault("segment_seconds", Fraction(1, 4))
    values.setdefault("codec", "lossless")
    return VideoSettings(preset="ultrafast", **values)


def shard(source, target, text, transform=None, key="test", **values):
    values = {"settings": settings(), **values, "transform_key": key, "shard": Shard.parse(text)}
    return run_video(VideoJob(source=source, target=target, **values), transform or Blend(2))


def same(one: Path, other: Path) -> None:
    a, b = decode(one), decode(other)
    assert a.times == b.times
    assert [x.tobytes() for x in a.pictures] == [x.tobytes() for x in b.pictures]


def in_process(source, target, text):
    shard(source, target, text)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5", "1.5/3", "", "²/3"])
def test_nonsense_is_no_shard(text):
    with pytest.raises(ValueError, match=r"from 1 to n, such as 3/8"):
        Shard.parse(text)


@given(total=st.integers(1, 60), count=st.integers(1, 40), key=st.text(max_size=8))
def test_every_segment_belongs_to_one_shard_and_shares_are_even(total, count, key):
    shards = [Shard(number=number, count=count) for number in range(1, count + 1)]
    shares = [[i for i in range(total) if one.has_segment(i, total, key)] for one in shards]
    assert sorted(index for share in shares for index in share) == list(range(total))
    assert all(share == list(range(share[0], share[0] + len(share))) for share in shares if share)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(shard_of_segment(i, total, count, key) == n for n, share in enumerate(shares, 1) for i in share)


@given(names=st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=30), count=st.integers(1, 9))
def test_every_file_belongs_to_one_shard(names, count):
    shards = [Shard(number=number, count=count) for number in range(1, count + 1)]
    assert all(sum(one.has_file(name) for one in shards) == 1 for name in names)
    assert Shard(number=1, count=1).has_file("n\u0303") and all(
        one.has_file("n\u0303") == one.has_file("\u00f1") for one in shards
    )


def test_ranges():
    assert ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10" and ranges([]) == ""


@pytest.mark.parametrize("context", [0, 1, 7])
def test_shards_in_any_order_make_the_same_video(clip, tmp_path, context):
    whole, target = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    stylized(clip, whole, Blend(context))
    seen = []
    for number in (3, 1, 4, 2):
        report = shard(clip, target, f"{number}/4", Blend(context), progress=seen.append)
        assert report.status == "shard" and report.frames_out < 100 and "stylize join" in report.message
        assert not target.exists()
    assert seen[-1].done == seen[-1].total
    report = join_video(target, verify=True)
    assert (report.status, report.frames_out) == ("done", 100)
    same(whole, target)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4", "whole.mp4"]


def test_shards_run_at_once(clip, tmp_path):
    """Three processes, two of them with the very same share."""
    whole, target = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    stylized(clip, whole, Blend(2))
    spawn = multiprocessing.get_context("spawn")
    jobs = [spawn.Process(target=in_process, args=(clip, target, text)) for text in ("1/2", "2/2", "2/2")]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(120)
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    join_video(target)
    same(whole, target)


@pytest.mark.parametrize(("name", "values"), [
    ("out.mp4", {"fps": Fraction(12)}),
    ("out.mkv", {"codec": "h264", "segment_seconds": Fraction(1)}),
    ("out_%03d.png", {"codec": None}),
    ("out.gif", {"codec": None}),
])  # fmt: skip
def test_every_kind_of_output(clip, tmp_path, name, values):
    chosen = (
        settings(**values) if values.get("codec", "") is not None else VideoSettings(segment_seconds=Fraction(1, 4))
    )
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    for folder in (whole, parted):
        folder.mkdir()
    stylized(clip, whole / name, Blend(2), **{"segment_seconds": Fraction(1, 4), **values})
    for text in ("1/3", "2/3", "3/3"):
        shard(clip, parted / name, text, settings=chosen)
    join_video(parted / name)
    files = sorted(p.name for p in whole.iterdir())
    assert files and files == sorted(p.name for p in parted.iterdir())
    for file in files:
        if name.endswith(".png"):
            assert (whole / file).read_bytes() == (parted / file).read_bytes()
        else:
            same(whole / file, parted / file)


def test_missing_segments_and_the_commands_that_make_them(tmp_path, skip_model):
    """The commands that the message of `stylize join` names are typed as they stand there."""
    source, target = make_clip(tmp_path / "a walk.mp4", frames=20, rate="10"), tmp_path / "fire watch.mp4"
    quick = ["--model", skip_model, "--threads", "1", "--smoothing", "0.2", "--codec", "lossless", "--segment", "1/4"]

    def stylize(*args):
        command = [sys.executable, "-m", "stylize", *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert "Traceback" not in done.stderr
        return done

    stylize("video", source, "-o", tmp_path / "whole.mp4", *quick)
    done = stylize("video", source, "-o", target, *quick, "--shard", "2/4")
    assert done.returncode == 0 and "shard 2/4 has segments" in done.stdout
    done = stylize("join", target)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "6 of 8 segments missing" in done.stderr
    words = shlex.split(done.stderr.split("`")[1])
    others = [word for word in done.stderr.split("`")[2].replace(",", " ").split() if "/" in word]
    assert len(others) == 2
    at = words.index("video")
    for share in (words[-1], *others):
        assert stylize(*words[at:-1], share).returncode == 0
    done = stylize("join", "--verify", tmp_path)
    assert done.returncode == 0, done.stderr
    same(tmp_path / "whole.mp4", target)
    assert "already" in stylize("join", target).stderr
    assert stylize("video", source, "-o", tmp_path / "x.mp4", "--shard", "9/4").returncode == 2


def test_what_is_there_is_not_made_again(clip, tmp_path):
    target = tmp_path / "out.mp4"
    shard(clip, target, "1/2")
    again = Blend(2)
    report = shard(clip, target, "1/2", again)
    assert report.frames_resumed == report.frames_out > 0


def test_a_damaged_segment_is_made_again(clip, tmp_path):
    target = tmp_path / "out.mp4"
    for text in ("1/2", "2/2"):
        shard(clip, target, text)
    folder = SegmentStore(target).folder
    victim = sorted(folder.glob("*.mov"))[3]
    victim.write_bytes(victim.read_bytes()[:-5])
    with pytest.raises(MissingSegmentsError, match=r"1 of \d+ segments missing \(4\)"):
        join_video(target)
    report = [shard(clip, target, text) for text in ("1/2", "2/2")]
    assert sum(one.frames_out - one.frames_resumed for one in report) in range(1, 20)
    join_video(target)


def test_a_segment_from_a_seek_that_went_wrong_is_found_and_made_again(clip, tmp_path):
    """Its record tells of another frame before it than the segment before has for its last."""
    whole, target = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    stylized(clip, whole, Blend(2))
    for text in ("1/2", "2/2"):
        shard(clip, target, text)
    for journal in SegmentStore(target).folder.glob("*.jsonl"):
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        lines = [{**line, "before": 1} if line.get("segment") == 5 else line for line in lines]
        journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(MissingSegmentsError, match=r"missing \(6\)"):
        join_video(target)
    for text in ("1/2", "2/2"):
        shard(clip, target, text)
    join_video(target)
    same(whole, target)


def test_a_container_that_does_not_tell_the_truth(tmp_path):
    """Packets that do not decode: the plan read off the container is given up for what is decoded."""
    good = make_clip(tmp_path / "good.mkv", frames=50, codec=("-c:v", "libx264", "-preset", "ultrafast", "-g", "10"))
    data = bytearray(good.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 6000] = bytes(6000)
    source = tmp_path / "bad.mkv"
    source.write_bytes(data)
    whole, target = tmp_path / "whole.mkv", tmp_path / "out.mkv"
    expected = stylized(source, whole, Blend(2))
    assert expected.frames_out < 50
    for text in ("1/3", "2/3", "3/3", "1/3", "2/3", "3/3"):
        shard(source, target, text)
    report = join_video(target)
    assert report.frames_out == expected.frames_out
    same(whole, target)


def test_other_work_is_refused(clip, tmp_path):
    target = tmp_path / "out.mp4"
    shard(clip, target, "1/9", Identity())
    with pytest.raises(ResumeError, match="another transform"):
        shard(clip, target, "2/9", Identity(), key="other")
    other = make_clip(tmp_path / "other.mp4", frames=20)
    with pytest.raises(ResumeError, match="another source"):
        shard(other, target, "2/9", Identity())
    with pytest.raises(ResumeError, match="another source"):
        join_video(target, source=other)


def test_where_nothing_is_to_be_joined(clip, tmp_path):
    with pytest.raises(InputError, match="no segments to join"):
        find_jobs(tmp_path)
    with pytest.raises(InputError, match="no segments to join"):
        join_video(tmp_path / "out.mp4")
    target = tmp_path / "out.mp4"
    shard(clip, target, "1/1", Identity())
    assert find_jobs(tmp_path) == find_jobs(target) == [target]
    target.write_bytes(b"precious")
    with pytest.raises(OutputError, match="--overwrite"):
        join_video(target)
    assert join_video(target, overwrite=True).status == "done"
    assert not SegmentStore(target).folder.exists()


def test_a_moved_source(clip, tmp_path):
    source = tmp_path / "a.mp4"
    source.write_bytes(clip.read_bytes())
    target = tmp_path / "out.mp4"
    shard(source, target, "1/1", Identity())
    source.rename(tmp_path / "b.mp4")
    with pytest.raises(InputError, match="does not exist"):
        join_video(target)
    assert join_video(target, source=tmp_path / "b.mp4").frames_out == 100
