"""What is told about a film beside its streams, read back by ffmpeg's own readers and from the bytes."""

import struct
from fractions import Fraction

import av
import pytest
from media import make_clip, run_ffmpeg, stylized

from stylize.media.video.boxes import spherical_boxes

MADE = "2024-05-01T10:00:00"


def facts(path):
    with av.open(str(path)) as container:
        return dict(container.metadata), [dict(stream.metadata) for stream in container.streams]


def first_frame(path):
    with av.open(str(path)) as container:
        return next(container.decode(video=0))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("flags", [(), ("-movflags", "use_metadata_tags")])
def test_the_moment_of_the_take_is_told_once(tmp_path, suffix, flags):
    tags = ("-metadata", f"creation_time={MADE}Z", "-metadata", "com.apple.quicktime.model=iPhone 13", *flags)
    source = make_clip(tmp_path / "in.mov", extra=tags)  # with the flag it is in the source twice
    stylized(source, tmp_path / f"out{suffix}")
    film, streams = facts(tmp_path / f"out{suffix}")
    assert film["creation_time"] == f"{MADE}.000000Z"
    if suffix != ".mkv":
        assert streams[0]["creation_time"] == f"{MADE}.000000Z"
    if flags:
        assert "iPhone 13" in film.values()


def test_a_film_whose_moment_is_doubled_for_the_next_reader(shared, tmp_path):
    stylized(shared / "cases/video/creation_time_doubled.mp4", tmp_path / "out.mp4")
    assert facts(tmp_path / "out.mp4")[0]["creation_time"] == "2024-05-01T10:00:00.000000Z"


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_the_timecode_is_kept(tmp_path, suffix):
    source = make_clip(tmp_path / "in.mov", extra=("-timecode", "01:02:03:04"))
    report = stylized(source, tmp_path / f"out{suffix}", verify=True)
    film, streams = facts(tmp_path / f"out{suffix}")
    told = {value for tags in (film, *streams) for key, value in tags.items() if key.lower() == "timecode"}
    assert told == {"01:02:03:04"}
    assert not any("left out" in warning for warning in report.warnings)


@pytest.mark.parametrize("aspect", ["853/857", "3000/4001", "16/15"])
def test_the_shape_of_pixels_is_exact(tmp_path, aspect):
    source = make_clip(tmp_path / "in.mp4", filters=f"setsar={aspect}:max=65535")
    stylized(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(aspect)


def test_the_boxes_of_a_sphere_are_those_of_the_specification():
    turn = [round(angle * 65536) for angle in (90, -10, 5)]
    mapping = struct.pack("=i3i4II", 0, *turn, 1, 2, 3, 4, 0)
    boxes = spherical_boxes(mapping, struct.pack("=i", 2))
    assert boxes[:13] == bytes.fromhex("0000000d" + b"st3d".hex() + "00000000" + "01")  # top-bottom
    assert b"sv3d" in boxes and b"svhd" in boxes and b"equi" in boxes
    pose = boxes.index(b"prhd") + 8
    assert struct.unpack(">3i", boxes[pose : pose + 12]) == tuple(turn)
    bounds = boxes.index(b"equi") + 8
    assert struct.unpack(">4I", boxes[bounds : bounds + 16]) == (2, 4, 1, 3)  # top, bottom, left, right
    assert spherical_boxes(struct.pack("=i3i4II", 3, *[0] * 8), b"") == b""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_360_degree_film_stays_one(shared, tmp_path, suffix):
    source = shared / "cases/video/spherical_sv3d.mp4"
    stylized(source, tmp_path / f"out{suffix}", verify=True)
    sides = [{s.type.name: bytes(s) for s in first_frame(p).side_data} for p in (source, tmp_path / f"out{suffix}")]
    assert sides[1]["SPHERICAL"] == sides[0]["SPHERICAL"]


def with_captions(path):
    """A film with an SEI message of CEA-708 (ATSC A/53, part 4) before its first picture."""
    make_clip(path.with_suffix(".h264"), codec=("-c:v", "libx264", "-bf", "0", "-x264-params", "aud=1"))
    data = path.with_suffix(".h264").read_bytes()
    caption = b"\xb5\x00\x31GA94\x03\x41\xff\xfc\x94\x2c\xff"  # country, provider, user id, one pair of cc_data
    sei = b"\x00\x00\x00\x01\x06\x04" + bytes([len(caption)]) + caption + b"\x80"
    picture = data.index(b"\x00\x00\x01\x65")
    path.with_suffix(".h264").write_bytes(data[:picture] + sei + data[picture:])
    run_ffmpeg("-framerate", "25", "-i", path.with_suffix(".h264"), "-c", "copy", path)


def test_closed_captions_in_the_picture_are_told(tmp_path):
    with_captions(tmp_path / "in.mp4")
    assert "A53_CC" in {side.type.name for side in first_frame(tmp_path / "in.mp4").side_data}
    report = stylized(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert any("closed captions" in warning for warning in report.warnings)


def test_a_stream_that_begins_in_the_middle_has_lost_no_other_streams(shared, tmp_path):
    report = stylized(shared / "cases/video/ts_mid_gop.ts", tmp_path / "out.mp4")
    assert report.status == "damaged"
    assert not any("other streams" in line for line in report.lost)


def test_a_cover_before_the_film_is_not_the_film(shared, tmp_path):
    stylized(shared / "cases/video/unflagged_cover_first.mkv", tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 25
