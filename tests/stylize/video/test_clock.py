"""Clocks that restart or leap: taken out as ffmpeg takes them out when it is left to itself, and told."""

import itertools
from fractions import Fraction

import av
import pytest
from media import decode, make_clip, run_ffmpeg, stylized

from stylize.distributed.shard import join_video, stylize_shard
from stylize.errors import MediaError
from stylize.media.video.probe import probe_video
from stylize.media.video.verify import verify_length
from stylize.sharding import Shard

TOLERANCE = Fraction(1, 500)
"""Seconds: Matroska's ticks, twice."""


def packet_times(path):
    """Sorted presentation times of each kind of stream, as PyAV reads them."""
    times = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size:
                times.setdefault(packet.stream.type, []).append(packet.pts * Fraction(packet.time_base))
    return {kind: sorted(values) for kind, values in times.items()}


def repaired(source, target):
    """What ffmpeg itself makes of `source` where it may move times as it likes."""
    lossless = ["-c:v", "ffv1", "-c:a", "copy", "-fps_mode", "passthrough", "-enc_time_base", "demux"]
    run_ffmpeg("-loglevel", "fatal", "-i", source, "-map", "0", *lossless, target)
    return packet_times(target)


def glued(folder, offsets, suffix=".ts"):
    """Films with sound, put together byte by byte; each one's clock begins at its offset."""
    parts = []
    for number, offset in enumerate(offsets):
        codec = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "10", "-bf", "2" if suffix == ".ts" else "0")
        given = {"codec": codec} if suffix == ".ts" else {"codec": ("-c:v", "mpeg2video"), "audio_codec": "mp2"}
        clock = ("-output_ts_offset", str(offset), "-muxdelay", "0", "-muxpreload", "0")
        part = folder / f"{number}{suffix}"
        parts.append(make_clip(part, frames=30, audio=("sine=r=48000",), extra=clock, **given))
    whole = folder / f"in{suffix}"
    whole.write_bytes(b"".join(part.read_bytes() for part in parts))
    return whole


def check(source, target, tmp_path):
    """Pictures and sound lie where ffmpeg puts them."""
    report = stylized(source, target, codec="h264", verify=True)
    assert any("clock jumps" in text for text in report.warnings)
    assert report.status == "done", report.lost
    wanted = repaired(source, tmp_path / "reference.mkv")
    found = packet_times(target)
    assert found.keys() == wanted.keys() == {"video", "audio"}
    for kind in found:
        assert len(found[kind]) == len(wanted[kind])
        late = found[kind][0] - wanted[kind][0]
        assert abs(late) <= Fraction(1, 20)
    skew = (found["video"][-1] - found["audio"][-1]) - (wanted["video"][-1] - wanted["audio"][-1])
    assert abs(skew) <= TOLERANCE
    steps = [b - a for a, b in itertools.pairwise(found["video"])]
    reference = [b - a for a, b in itertools.pairwise(wanted["video"])]
    assert all(abs(a - b) <= TOLERANCE for a, b in zip(steps, reference, strict=True))


@pytest.mark.parametrize("name", ["cat_same_clock.ts", "cat_forward700.ts"])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_the_shared_recordings(shared, tmp_path, name, suffix):
    source = shared / "cases" / "video" / name
    if not source.exists():
        pytest.skip(f"{source} is not there")
    target = tmp_path / f"out{suffix}"
    report = stylized(source, target, codec="h264", verify=True)
    assert any("clock jumps" in text for text in report.warnings)
    times = decode(target).times
    assert len(times) == 100
    assert all(abs(after - before - Fraction(1, 25)) <= TOLERANCE for before, after in itertools.pairwise(times))
    wanted = repaired(source, tmp_path / "reference.mkv")["audio"]
    assert abs(packet_times(target)["audio"][-1] - wanted[-1]) <= TOLERANCE * 10


@pytest.mark.parametrize(
    "offsets",
    [(1, 1), (1, 700), (700, 1), (5, 3), (1, 700, 2, 90)],
    ids=["restarts", "leaps", "goes back", "goes back a little", "wanders"],
)
def test_films_put_together(tmp_path, offsets):
    check(glued(tmp_path, offsets), tmp_path / "out.mkv", tmp_path)


def test_a_programme_stream(tmp_path):
    check(glued(tmp_path, (1, 300), ".mpg"), tmp_path / "out.mkv", tmp_path)


def test_a_pause_is_no_jump(tmp_path):
    source = glued(tmp_path, (1, 7))
    before = decode(source).times
    report = stylized(source, tmp_path / "out.mp4", verify=True)
    assert not any("clock" in text for text in report.warnings)
    after = decode(tmp_path / "out.mp4").times
    assert [b - a for a, b in itertools.pairwise(after)] == [b - a for a, b in itertools.pairwise(before)]


def test_a_run_that_goes_on_and_shards_agree(tmp_path):
    """Where the clock jumps, a place in the film cannot be found by seeking."""
    from media import Blend, VideoSettings

    source = glued(tmp_path, (1, 1, 500))
    stylized(source, tmp_path / "whole.mkv", Blend(2))
    settings = VideoSettings(codec="lossless", preset="ultrafast", segment_seconds=Fraction(1, 4))
    for number in (2, 1):
        stylize_shard(
            source, tmp_path / "out.mkv", Blend(2), settings, transform_key="test", shard=Shard.parse(f"{number}/2")
        )
    join_video(tmp_path / "out.mkv", verify=True)
    whole, out = decode(tmp_path / "whole.mkv"), decode(tmp_path / "out.mkv")
    assert out.times == whole.times
    assert all((a == b).all() for a, b in zip(whole.pictures, out.pictures, strict=True))


def test_a_result_of_the_wrong_length_does_not_pass(tmp_path):
    source = make_clip(tmp_path / "in.mkv", frames=50)
    times = decode(source).times
    verify_length(probe_video(source), times)
    with pytest.raises(MediaError, match=r"1\.000 s of pictures instead of 1\.960 s"):
        verify_length(probe_video(source), [*times[:25], times[24] + Fraction(1, 25)])


def test_a_clock_that_goes_back_where_ffmpeg_does_not_repair_it_is_told(tmp_path):
    """FLV has no such thing as a clock that begins again; the result is short, and does not pass for whole."""
    codec = ("-c:v", "libx264", "-preset", "ultrafast")
    parts = [make_clip(tmp_path / f"{number}.flv", frames=30, codec=codec) for number in (0, 1)]
    source = tmp_path / "in.flv"
    source.write_bytes(parts[0].read_bytes() + parts[1].read_bytes()[13:])  # without its header
    with pytest.raises(MediaError, match=r"instead of 2\.3.* s; does the clock of .*in\.flv go back"):
        stylized(source, tmp_path / "out.mp4", verify=True)
    report = stylized(source, tmp_path / "out.mp4")
    assert any("no increasing time" in warning for warning in report.warnings)
