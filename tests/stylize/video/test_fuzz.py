"""Any container, codec, clock, damage, name and option: a video with every frame, or one line; never a hang.

Two hundred cases, or as many as FUZZ_CASES says.
"""

import os
import tempfile
import threading
from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media import VFR, make_clip, stylized

from stylize.errors import InputError, StylizeError

CASES = int(os.environ.get("FUZZ_CASES", "200"))
LONGEST = 120.0
"""Seconds after which a run counts as hanging."""

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "5")
VIDEO = {
    "mp4": (X264, ("-c:v", "mpeg4"), ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error")),
    "mov": (X264, ("-c:v", "prores_ks"), ("-c:v", "mjpeg")),
    "mkv": (X264, ("-c:v", "ffv1"), ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-deadline", "realtime")),
    "webm": (("-c:v", "libvpx-vp9", "-cpu-used", "8", "-deadline", "realtime"), ("-c:v", "libvpx", "-cpu-used", "8")),
    "ts": (X264, ("-c:v", "mpeg2video")),
    "avi": (("-c:v", "mpeg4"), ("-c:v", "mjpeg")),
}
AUDIO = {"mp4": "aac", "mov": "pcm_s16le", "mkv": "flac", "webm": "libopus", "ts": "mp2", "avi": "mp3"}
CLOCKS = {
    "even": ("", ()),
    "uneven": (VFR, ()),
    "pause": ("select='not(between(n,4,7))'", ()),
    "late": ("", ("-output_ts_offset", "3.7")),
    "early": ("", ("-output_ts_offset", "-0.3")),
    "leap": ("setpts='(N+if(gt(N,5),2000,0))/25/TB'", ()),
}
NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\0"), min_size=1, max_size=20
).filter(lambda name: name.strip(". ") and len(name.encode()) < 100)


@st.composite
def sources(draw):
    """What `make_clip` is asked for, and what is done to the file."""
    suffix = draw(st.sampled_from(sorted(VIDEO)))
    return {
        "suffix": suffix,
        "codec": draw(st.sampled_from(VIDEO[suffix])),
        "clock": draw(st.sampled_from(sorted(CLOCKS))),
        "frames": draw(st.integers(1, 14)),
        "rate": draw(st.sampled_from(("25", "30000/1001", "7", "120"))),
        "size": draw(st.sampled_from(((64, 48), (66, 50), (176, 144)))),
        "audio": draw(st.integers(0, 2)),
        "damage": draw(st.sampled_from(("none", "none", "none", "cut", "zeros"))),
        "where": draw(st.floats(0.05, 0.95)),
        "name": draw(NAMES),
    }


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "codec": st.sampled_from(("h264", "hevc", "vp9", "prores", "lossless", "av1")),
        "crf": st.integers(0, 63),
        "fps": st.sampled_from((Fraction(10), Fraction(30000, 1001), Fraction(60))),
        "ten_bit": st.booleans(),
        "segment_seconds": st.sampled_from((Fraction(1, 10), Fraction(1), Fraction(10))),
        "verify": st.booleans(),
        "encoder_args": st.sampled_from((("-g", "3"), ("-nonsense", "1"), ("-b:v", "10k"))),
    },
)


def made(source, folder):
    """The file of a description; None where ffmpeg itself cannot make it."""
    filters, extra = CLOCKS[source["clock"]]
    path = folder / f"{source['name']}.{source['suffix']}"
    try:
        make_clip(
            path, size=source["size"], rate=source["rate"], frames=source["frames"], codec=source["codec"],
            filters=filters, extra=extra, audio=("sine=r=48000",) * source["audio"],
            audio_codec=AUDIO[source["suffix"]],
        )  # fmt: skip
    except AssertionError:
        return None
    data = bytearray(path.read_bytes())
    place = int(len(data) * source["where"])
    if source["damage"] == "cut":
        del data[place:]
    elif source["damage"] == "zeros":
        data[place : place + 200] = bytes(len(data[place : place + 200]))
    path.write_bytes(data)
    return path


def counted(path):
    """Frames and kinds of streams, as PyAV reads them."""
    with av.open(str(path)) as container:
        kinds = sorted(stream.type for stream in container.streams if stream.type in ("video", "audio"))
        return sum(1 for _ in container.decode(container.streams.video[0])), kinds


def run(source, target, options):
    """The report or the error of a run; a run that takes longer than `LONGEST` fails the test."""
    ended = []

    def work():
        try:
            ended.append(stylized(source, target, **options))
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(LONGEST)
    assert ended, "the run hangs"
    return ended[0]


@pytest.mark.slow
@settings(
    max_examples=CASES, deadline=None, derandomize=True, print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)  # fmt: skip
@given(source=sources(), suffix=st.sampled_from(("mp4", "mov", "mkv", "webm", "gif")), options=OPTIONS)
def test_a_video_with_every_frame_or_one_line(source, suffix, options):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = made(source, folder)
        if path is None:
            return
        target = folder / f"out.{suffix}"
        ended = run(path, target, options)
        if isinstance(ended, BaseException):
            assert isinstance(ended, StylizeError | ValueError), repr(ended)
            assert str(ended) and "\n" not in str(ended)
            if source["damage"] == "none" and isinstance(ended, InputError):
                assert counted(path)[0] == 0, str(ended)  # before the start of its track, say
            assert not target.exists()
            return
        frames, kinds = counted(target)
        assert frames > 0
        if source["damage"] == "none":
            there, had = counted(path)
            if "fps" not in options and suffix != "gif":
                assert frames == there == ended.frames_out
            lost = " ".join((*ended.lost, *ended.warnings))
            assert suffix == "gif" or kinds == had or "audio" in lost or "sound" in lost
