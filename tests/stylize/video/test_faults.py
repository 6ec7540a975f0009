"""What the world does to a run: damaged sources, full disks, vanished files, hostile names."""

import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from media import Identity, decode, make_clip, run_ffmpeg, stylize_video, stylized

from stylize.errors import InputError, OutputError, StylizeError, ToolError
from stylize.media.video.probe import probe_video
from stylize.media.video.settings import VideoSettings
from stylize.video.store import SegmentStore


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(
        tmp_path_factory.mktemp("clip") / "in.mp4",
        frames=40,
        codec=("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "10"),
        audio=("sine=r=48000",),
    )


def nothing_left(target, *, work=False):
    assert not target.exists()
    assert not target.with_suffix(target.suffix + ".part").exists()
    assert work or not SegmentStore(target).folder.exists()


@pytest.mark.parametrize("name", ["missing", "text", "empty", "folder", "sound", "no-moov"])
def test_what_is_not_a_video_is_one_clear_error(clip, tmp_path, name):
    source = tmp_path / f"{name}.mp4"
    if name == "text":
        source.write_text("Dear diary, today we climbed\n" * 200)
    elif name == "empty":
        source.touch()
    elif name == "folder":
        source.mkdir()
    elif name == "sound":
        run_ffmpeg("-f", "lavfi", "-i", "sine=d=1", source)
    elif name == "no-moov":
        source.write_bytes(clip.read_bytes()[:-4000])
    target = tmp_path / "out.mp4"
    with pytest.raises(InputError) as caught:
        stylized(source, target)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)
    nothing_left(target)


def test_an_index_that_is_lost_is_called_by_its_name(clip, tmp_path):
    source = tmp_path / "cut.mp4"
    source.write_bytes(clip.read_bytes()[:-4000])
    with pytest.raises(InputError, match="moov"):
        probe_video(source)


def test_the_shared_damaged_clip(shared, tmp_path):
    with pytest.raises(InputError, match="moov"):
        stylized(shared / "clips" / "damaged_truncated_no_moov.mp4", tmp_path / "out.mp4")
    nothing_left(tmp_path / "out.mp4")


def test_an_existing_target_is_kept(clip, tmp_path):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"precious")
    with pytest.raises(OutputError, match="--overwrite"):
        stylized(clip, target)
    assert target.read_bytes() == b"precious"
    assert stylized(clip, target, overwrite=True).frames_out == 40
    assert len(decode(target).times) == 40


def test_the_source_is_never_its_own_target(clip, tmp_path):
    source = tmp_path / "a.mp4"
    shutil.copy(clip, source)
    link = tmp_path / "b.mp4"
    link.symlink_to(source)
    for target in (source, link):
        with pytest.raises(OutputError, match="source itself"):
            stylized(source, target, overwrite=True)


def test_packets_lost_in_the_middle(tmp_path):
    """Frames around the hole keep their times; the report says what is missing."""
    codec = ("-c:v", "libx264", "-g", "10", "-bf", "0")
    source = make_clip(tmp_path / "in.mkv", frames=60, codec=codec, extra=("-cluster_time_limit", "200"))
    whole = decode(source)
    broken = tmp_path / "broken.mkv"
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 12] = bytes(len(data) // 12)
    broken.write_bytes(data)
    target = tmp_path / "out.mkv"
    report = stylized(broken, target)
    after = decode(target)
    assert report.status == "damaged"
    assert report.lost
    assert 40 <= len(after.times) == report.frames_out <= 60
    assert set(after.times) <= set(whole.times)
    assert after.times[-1] == whole.times[-1]


def test_a_file_that_was_cut_off_gives_what_is_there(tmp_path):
    source = make_clip(
        tmp_path / "in.mp4",
        frames=60,
        codec=("-c:v", "libx264", "-g", "10"),
        audio=("sine=r=48000",),
        extra=("-movflags", "+faststart"),
    )
    whole = decode(source)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    target = tmp_path / "out.mp4"
    report = stylized(cut, target)
    assert report.status == "damaged"
    assert any("the end is lost" in line for line in report.lost)
    after = decode(target)
    assert 10 < len(after.times) < 60
    assert set(after.times) <= set(whole.times)
    assert after.times[:10] == whole.times[:10]


def test_a_picture_that_changes_its_size(tmp_path):
    parts = [
        make_clip(tmp_path / f"{name}.ts", size=size, frames=10) for name, size in [("a", (64, 48)), ("b", (32, 24))]
    ]
    source = tmp_path / "both.ts"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    target = tmp_path / "out.mp4"
    report = stylized(source, target)
    assert report.frames_out == 20
    assert {picture.shape for picture in decode(target).pictures} == {(48, 64, 3)}
    assert any("changes its size" in warning for warning in report.warnings)


def _malformed():
    rng = random.Random(7)
    cases = []
    for suffix in ("mp4", "mkv", "webm", "avi"):
        cases += [(suffix, "cut", rng.random()) for _ in range(4)]
        cases += [(suffix, "flip", rng.random()) for _ in range(5)]
        cases += [(suffix, "head", rng.random()) for _ in range(2)]
    return cases


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A small good file of each container."""
    folder = tmp_path_factory.mktemp("good")
    return {
        "mp4": make_clip(folder / "a.mp4", frames=10, audio=("sine=r=48000",), extra=("-movflags", "+faststart")),
        "mkv": make_clip(folder / "a.mkv", frames=10, audio=("sine=r=48000",)),
        "webm": make_clip(folder / "a.webm", frames=10, codec=("-c:v", "libvpx-vp9", "-cpu-used", "8")),
        "avi": make_clip(folder / "a.avi", frames=10, codec=("-c:v", "mpeg4")),
    }


@pytest.mark.parametrize(("suffix", "how", "where"), _malformed())
def test_malformed_files_end_in_a_video_or_in_one_clear_line(sources, tmp_path, suffix, how, where):
    data = bytearray(sources[suffix].read_bytes())
    rng = random.Random(where)
    if how == "cut":
        del data[int(len(data) * where) :]
    else:
        end = len(data) if how == "flip" else min(len(data), 1500)
        for _ in range(30):
            data[rng.randrange(end)] ^= 1 << rng.randrange(8)
    source = tmp_path / f"bad.{suffix}"
    source.write_bytes(data)
    target = tmp_path / "out.mkv"
    began = time.monotonic()
    try:
        report = stylized(source, target)
    except StylizeError as error:
        assert "\n" not in str(error)
        assert not target.exists()
    else:
        assert report.frames_out == len(decode(target).times) > 0
    assert time.monotonic() - began < 60
    names = {path.name for path in tmp_path.iterdir()}
    assert names <= {source.name, target.name, SegmentStore(target).folder.name}


def test_a_read_only_folder_is_one_clear_error(clip, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write everywhere")
        with pytest.raises(OutputError, match=r"written|made"):
            stylized(clip, folder / "out.mp4")
    finally:
        folder.chmod(0o700)


def mounted(path, options):
    """Mount a tmpfs; False where that is not allowed."""
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("options", ["size=300k", "size=1m,ro"])
def test_a_full_or_read_only_disk_is_one_clear_error(tmp_path, options):
    source = make_clip(tmp_path / "in.mp4", size=(160, 120), frames=50)
    disk = tmp_path / "disk"
    if not mounted(disk, options):
        pytest.skip("mounting a tmpfs is not allowed here")
    target = disk / "out.mp4"
    try:
        with pytest.raises(OutputError) as caught:
            stylized(source, target, codec="h264", crf=0)
        assert "\n" not in str(caught.value)
        if "ro" not in options:
            assert "full" in str(caught.value) or "room" in str(caught.value)
        nothing_left(target, work=True)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


class Vanish(Identity):
    """Deletes a file after ten frames."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def __call__(self, frames, wanted):
        for frame in super().__call__(frames, wanted):
            if frame.index == 10:
                self.path.unlink()
            yield frame


def test_a_source_that_vanishes(clip, tmp_path):
    source = tmp_path / "stick.mp4"
    shutil.copy(clip, source)
    target = tmp_path / "out.mp4"
    with pytest.raises(InputError, match=r"vanished.*put it back"):
        stylized(source, target, Vanish(source))
    nothing_left(target, work=True)
    shutil.copy(clip, source)
    assert stylized(source, target).frames_out == 40


def test_an_error_in_the_transform_leaves_no_process_behind(clip, tmp_path):
    class Fails(Identity):
        def __call__(self, frames, wanted):
            for frame in frames:
                if frame.index == 5:
                    raise RuntimeError("no more memory")
                yield frame

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no more memory"):
        stylized(clip, tmp_path / "out.mp4", Fails())
    assert threading.active_count() == before
    assert not (tmp_path / "out.mp4").exists()


def test_encoder_arguments_that_make_no_sense(clip, tmp_path):
    with pytest.raises(StylizeError) as caught:
        stylized(clip, tmp_path / "out.mp4", encoder_args=("-nonsense", "1"))
    assert "nonsense" in str(caught.value)
    assert not [child for child in psutil.Process().children() if "ffmpeg" in child.name()]
    nothing_left(tmp_path / "out.mp4", work=True)


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda name: len(os.fsencode(name)) < 200
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=names)
@example("-i")
@example("a:b%05d?*[x]'\"\\ $HOME;|&\n\t#")
@example("http://example.org".replace("/", "_"))
@example("concat:a|b")
@example("\u202egpj.山の道 🏔 é")
@example("x" * 195)
def test_hostile_names(sources, tmp_path, name):
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    source = folder / f"{name}.mp4"
    shutil.copy(sources["mp4"], source)
    target = folder / f"{name}.out.mkv"
    report = stylized(source, target)
    assert report.frames_out == 10
    assert sorted(folder.iterdir()) == sorted([source, target])


def test_a_name_that_is_not_utf8(sources, tmp_path):
    source = tmp_path / os.fsdecode(b"berg\xff\xfe.mp4")
    shutil.copy(sources["mp4"], source)
    target = tmp_path / os.fsdecode(b"aus\xe9\xff.mp4")
    assert stylized(source, target).frames_out == 10
    assert target.exists()


def test_symlinks_are_followed(sources, tmp_path):
    link = tmp_path / "link.mp4"
    link.symlink_to(sources["mp4"])
    assert stylized(link, tmp_path / "out.mp4").frames_out == 10


def test_settings_are_checked_when_made():
    for wrong in (
        {"codec": "divx"},
        {"codec": "h264", "crf": 52},
        {"codec": "prores", "crf": 10},
        {"codec": "h264", "preset": "p5"},
        {"fps": Fraction(0)},
        {"segment_seconds": Fraction(0)},
        {"codec": "lossless", "ten_bit": True},
    ):
        with pytest.raises(ValueError, match=r"got|here"):
            VideoSettings(**wrong)


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "h264"), ("a.mp4", "prores"), ("a.xyz", None), ("a.png", None)])
def test_container_and_codec_must_fit(clip, tmp_path, name, codec):
    with pytest.raises(ValueError, match=r"use|choose|number"):
        stylize_video(clip, tmp_path / name, Identity(), VideoSettings(codec=codec), transform_key="x")
    assert not any(tmp_path.iterdir())


def test_pictures_survive_for_a_reader(clip, tmp_path):
    """The plain path once more, without anything lossless: H.264 that any player takes."""
    target = tmp_path / "out.mp4"
    stylized(clip, target, codec="h264", crf=10)
    with av.open(str(target)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(first.astype(int) - decode(clip).pictures[0]).mean() < 20  # sharp colour edges, chroma halved


def test_a_gpu_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch):
    from types import SimpleNamespace

    import stylize.media.video.codecs as codecs

    slow = tmp_path / "ffmpeg"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setattr(codecs, "find_ffmpeg", lambda: SimpleNamespace(path=str(slow)))
    monkeypatch.setattr(codecs, "NVENC_SECONDS", 0.2)
    codecs._require_nvenc.cache_clear()
    with pytest.raises(ToolError, match="h264_nvenc gave no answer"):
        codecs._require_nvenc("h264_nvenc")
