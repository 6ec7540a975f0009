"""Every frame, every time, every pixel: pairs of all properties that a source may have."""

from __future__ import annotations

import random
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from media import VFR, Identity, decode, first_packet_times, make_clip, run_ffmpeg, stylized, turn

RATES = ["24000/1001", "25", "30000/1001", "30", "50", "60000/1001", "60", "variable"]
CODECS = {
    "h264": ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-b_strategy", "0"),
    "hevc": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:bframes=2"),
    "mpeg4": ("-c:v", "mpeg4", "-bf", "1"),
    "vp9": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
    "ffv1": ("-c:v", "ffv1"),
    "prores": ("-c:v", "prores_ks"),
}
FORMATS = {
    "h264": ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"],
    "hevc": ["yuv420p", "yuv422p10le", "yuv444p"],
    "mpeg4": ["yuv420p"],
    "vp9": ["yuv420p", "yuv444p"],
    "ffv1": ["yuv420p", "yuv422p10le", "yuv444p", "gbrp"],
    "prores": ["yuv422p10le"],
}
HOLDS = {
    "mp4": ["h264", "hevc", "mpeg4", "vp9"],
    "mov": ["h264", "hevc", "mpeg4", "prores"],
    "mkv": ["h264", "hevc", "mpeg4", "vp9", "ffv1", "prores"],
    "webm": ["vp9"],
}
TURNS = [(0, False), (90, False), (180, False), (270, False), (0, True), (90, True)]
SOUND = {
    "none": (),
    "mono": ("sine=r=44100",),
    "stereo": ("sine=r=48000,aformat=channel_layouts=stereo",),
    "5.1": ("anoisesrc=r=48000:a=0.1,pan=5.1|c0=c0|c1=c0|c2=c0|c3=c0|c4=c0|c5=c0",),
    "two": ("sine=r=48000", "sine=f=880:r=44100"),
}


OUT = ["mp4", "mov", "mkv", "webm"]
MEETINGS = [(0, 3), (0, 5), (0, 6), (1, 6), (2, 6), (3, 6), (4, 6), (5, 6)]
"""Pairs of properties (places in a row) of which every two values meet in some row."""


def _random_row(rng):
    container = rng.choice(list(HOLDS))
    codec = rng.choice(HOLDS[container])
    rotation = rng.choice(TURNS) if container in {"mp4", "mov"} else TURNS[0]
    rest = (rng.choice(RATES), rotation, rng.choice(list(SOUND)), rng.choice(OUT))
    return (container, codec, rng.choice(FORMATS[codec]), *rest)


def pairwise(seed=5):
    """A small set of rows in which all `MEETINGS` happen: the best of some random rows, again and again."""
    rng = random.Random(seed)

    def pairs(row):
        return {((a, row[a]), (b, row[b])) for a, b in MEETINGS}

    missing = set().union(*(pairs(_random_row(rng)) for _ in range(4000)))
    chosen = []
    while missing:
        best = max((_random_row(rng) for _ in range(300)), key=lambda row: len(pairs(row) & missing))
        if pairs(best) & missing:
            missing -= pairs(best)
            chosen.append(best)
    return chosen


ROWS = pairwise()


def upright(picture, source):
    """The picture as the file's display matrix wants it shown: x' = a x + c y, y' = b x + d y (ISO/IEC 14496-12)."""
    with av.open(str(source)) as container:
        frame = next(container.decode(video=0))
    for side in frame.side_data:
        if side.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = (round(value / 65536) for value in struct.unpack("<5i", bytes(side)[:20]))
            rows, columns = np.indices(picture.shape[:2])
            across, down = a * columns + c * rows, b * columns + d * rows
            across, down = across - across.min(), down - down.min()
            shown = np.empty((down.max() + 1, across.max() + 1, 3), picture.dtype)
            shown[down, across] = picture
            return shown
    return picture


@pytest.mark.parametrize("row", ROWS, ids=["-".join(map(str, row)).replace(" ", "") for row in ROWS])
def test_every_frame_at_its_time(tmp_path, row):
    container, codec, pixel_format, rate, (degrees, mirrored), sound, out = row
    variable = rate == "variable"
    extra = ["-enc_time_base", "1/90000"] if variable and container != "webm" and codec != "mpeg4" else []
    source = make_clip(
        tmp_path / f"plain.{container}",
        rate="25" if variable else rate,
        frames=8,
        pixel_format=pixel_format,
        codec=CODECS[codec],
        filters=VFR if variable else "",
        audio=SOUND[sound],
        audio_codec="libopus" if container == "webm" else "aac",
        extra=extra,
    )
    if (degrees, mirrored) != (0, False):
        source = turn(source, tmp_path / f"turned.{container}", degrees=degrees, mirrored=mirrored)
    before = decode(source)
    target = tmp_path / f"out.{out}"
    transform = Identity()
    # lossless, except in WebM, where VP9 at its best is compared with a tolerance
    options = {"codec": "vp9", "crf": 0, "preset": "8"} if out == "webm" else {}
    report = stylized(source, target, transform, **options)
    after = decode(target)

    assert len(after.times) == len(before.times) == 8 == report.frames_out
    tick = Fraction(1, 1000) if out in {"mkv", "webm"} else Fraction(0)
    assert max(abs(a - b) for a, b in zip(after.times, before.times, strict=True)) <= tick / 2
    assert after.kinds.count("audio") == len(SOUND[sound])
    for got, frame, shown in zip(after.pictures, transform.seen, before.pictures, strict=True):
        if out == "webm":
            assert np.abs(got.mean(axis=2) - frame.data.mean(axis=2)).mean() < 6  # chroma is halved
        else:
            assert np.array_equal(got, frame.data)
        expected = upright(shown, source)
        assert frame.data.shape == expected.shape
        assert np.abs(frame.data.astype(int) - expected).mean() < 12  # PyAV converts more coarsely
    if SOUND[sound]:
        _same_offsets(source, target)


def _same_offsets(source, target):
    """Sound begins as long after the picture as before, within a frame."""
    old, new = first_packet_times(source), first_packet_times(target)
    old_offsets = [time - old[0] for index, time in sorted(old.items()) if index]
    new_offsets = [time - new[0] for index, time in sorted(new.items()) if index]
    for before, after in zip(old_offsets, new_offsets, strict=True):
        assert abs(before - after) <= Fraction(1, 24)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("out", ["mp4", "mkv"])
def test_reordered_frames_in_many_segments_keep_uneven_times(tmp_path, codec, out):
    extra = ("-enc_time_base", "1/90000", "-output_ts_offset", "0.48")
    source = make_clip(tmp_path / "in.mp4", frames=50, filters=VFR, extra=extra, audio=SOUND["stereo"])
    target = tmp_path / f"out.{out}"
    stylized(source, target, codec=codec, preset="medium", segment_seconds=Fraction(1, 3), verify=True)
    before, after = decode(source), decode(target)
    assert before.times[0] > Fraction(4, 10)
    tick = Fraction(1, 1000) if out == "mkv" else 0
    assert all(abs(a - b) <= tick for a, b in zip(after.times, before.times, strict=True))
    for got, wanted in zip(after.pictures, before.pictures, strict=True):
        assert np.abs(got.mean(axis=2) - wanted.mean(axis=2)).mean() < 12
    _same_offsets(source, target)


def test_the_rows_are_few_and_cover_every_value():
    assert len(ROWS) < 60
    for place, values in enumerate([HOLDS, CODECS, None, RATES, TURNS, SOUND, OUT]):
        if values is not None:
            assert {row[place] for row in ROWS} == set(values)


@pytest.mark.parametrize("out", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("late", [0, 0.02, 0.08, 0.5])
@pytest.mark.parametrize("pause", ["eq(N,1)", "eq(N,2)", "eq(N,20)", "eq(N,29)"])
def test_a_pause_and_a_late_first_frame(tmp_path, late, pause, out):
    """Ten seconds without a frame, coded with B-frames, behind a start that is not at 0."""
    setts = f"setpts='if(eq(N,0),0,PREV_OUTPTS+0.04/TB+{pause}*10/TB)'"
    codec = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2")
    make_clip(tmp_path / "plain.mkv", frames=30, codec=codec, filters=setts)
    source = tmp_path / "in.mkv"
    run_ffmpeg("-itsoffset", late, "-i", tmp_path / "plain.mkv", "-c", "copy", source)
    target = tmp_path / f"out{out}"
    stylized(source, target, codec="h264", preset="faster", verify=True)
    before, after = decode(source).times, decode(target).times
    assert before[0] == Fraction(str(late)) and before[-1] > 10
    assert after == before


@pytest.mark.parametrize("out", [".mp4", ".mov", ".mkv"])
def test_the_shared_film_with_a_pause(shared, tmp_path, out):
    source = shared / "cases" / "video" / "vfr_pause10_start0.08.mp4"
    if not source.exists():
        pytest.skip(f"{source} is not there")
    stylized(source, tmp_path / f"out{out}", codec="h264", preset="faster", verify=True)
    assert decode(tmp_path / f"out{out}").times == decode(source).times
