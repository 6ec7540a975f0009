"""Everything beside the pictures: sound, subtitles, chapters, tags, and when it all begins."""

from fractions import Fraction

import av
import numpy as np
import pytest
from media import Identity, decode, first_packet_times, make_clip, run_ffmpeg, stylized

from stylize.errors import MediaError

SUBTITLES = "1\n00:00:00,000 --> 00:00:00,400\nUp we go\n\n2\n00:00:00,500 --> 00:00:00,900\nAlmost there\n"
CHAPTERS = """;FFMETADATA1
title=The hike
location=+46.5000+007.9000/
creation_time=2024-05-04T08:00:00Z
[CHAPTER]
TIMEBASE=1/1000
START=0
END=400
title=Start
[CHAPTER]
TIMEBASE=1/1000
START=400
END=960
title=Top
"""


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """A Matroska film with two sound tracks, two subtitle tracks, a font, chapters and tags."""
    folder = tmp_path_factory.mktemp("rich")
    make_clip(folder / "plain.mkv", frames=24, audio=("sine=r=48000", "sine=f=880:r=48000"))
    (folder / "s.srt").write_text(SUBTITLES)
    (folder / "meta.txt").write_text(CHAPTERS)
    (folder / "font.ttf").write_bytes(bytes(range(256)) * 20)
    target = folder / "rich.mkv"
    subtitle = ["-i", folder / "s.srt", "-i", folder / "s.srt", "-i", folder / "meta.txt"]
    maps = ["-map", "0", "-map", "1", "-map", "2", "-map_metadata", "3", "-map_chapters", "3"]
    font = ["-attach", folder / "font.ttf", "-metadata:s:t", "mimetype=application/x-truetype-font"]
    told = []
    for place, language, title in [("a:0", "eng", "Original"), ("a:1", "deu", "Deutsch"), ("s:0", "fra", "Texte")]:
        told += [f"-metadata:s:{place}", f"language={language}", f"-metadata:s:{place}", f"title={title}"]
    marks = ["-disposition:a:1", "default+forced", "-disposition:a:0", "0", "-disposition:s:1", "hearing_impaired"]
    run_ffmpeg("-i", folder / "plain.mkv", *subtitle, *maps, "-c", "copy", *font, *told, *marks, target)
    return target


def packets(path, kind):
    """All packets of one kind of stream, as bytes."""
    with av.open(str(path)) as container:
        stream = [stream for stream in container.streams if stream.type == kind]
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def test_matroska_keeps_all_of_it(rich, tmp_path):
    target = tmp_path / "out.mkv"
    report = stylized(rich, target, verify=True)
    assert not any("left out" in warning or "converted" in warning for warning in report.warnings)
    with av.open(str(rich)) as old, av.open(str(target)) as new:
        assert [stream.type for stream in new.streams] == [stream.type for stream in old.streams]
        for before, after in zip(old.streams, new.streams, strict=True):
            assert after.metadata.get("language") == before.metadata.get("language")
            assert after.metadata.get("title") == before.metadata.get("title")
            if before.type != "video":
                assert after.disposition == before.disposition
        assert [(chapter["metadata"]["title"], chapter["start"]) for chapter in new.chapters()] == [
            ("Start", 0),
            ("Top", 400_000_000),
        ]
        assert new.metadata["title"] == "The hike"
        assert new.metadata["creation_time"].startswith("2024-05-04T08:00:00")
    for kind in ("audio", "subtitle", "attachment"):
        assert packets(target, kind) == packets(rich, kind)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_mp4_takes_what_it_can_and_says_what_not(rich, tmp_path, suffix):
    target = tmp_path / f"out{suffix}"
    report = stylized(rich, target, verify=True)
    assert any("converted to mov_text" in warning for warning in report.warnings)
    assert any("attachment" in warning and "left out" in warning for warning in report.warnings)
    assert packets(target, "audio") == packets(rich, "audio")
    with av.open(str(target)) as new:
        kinds = [stream.type for stream in new.streams]
        assert (kinds.count("audio"), kinds.count("subtitle")) == (2, 2)
        languages = [stream.metadata["language"] for stream in new.streams.audio]
        assert languages == ["eng", "deu" if suffix == ".mp4" else "ger"]
        assert [chapter["metadata"]["title"] for chapter in new.chapters()] == ["Start", "Top"]
        assert new.metadata["title"] == "The hike"
        assert "+46.5000+007.9000/" in new.metadata.values()
        assert new.metadata["creation_time"].startswith("2024-05-04T08:00:00")
    assert target.read_bytes().index(b"moov") < target.read_bytes().index(b"mdat")


def test_webm_gets_opus_and_webvtt(rich, tmp_path):
    target = tmp_path / "out.webm"
    stylized(rich, target, codec="vp9", preset="8")
    with av.open(str(target)) as new:
        names = [stream.codec_context.codec.canonical_name for stream in new.streams]
    assert names == ["vp9", "opus", "opus", "webvtt", "webvtt"]


def test_mov_text_becomes_srt_in_matroska(rich, tmp_path):
    stylized(rich, tmp_path / "a.mp4")
    report = stylized(tmp_path / "a.mp4", tmp_path / "b.mkv")
    assert any("converted to subrip" in warning for warning in report.warnings)
    assert [text.decode() for text in packets(tmp_path / "b.mkv", "subtitle")[:2]] == ["Up we go", "Up we go"]


def test_a_cover_is_kept_and_not_stylized(tmp_path):
    make_clip(tmp_path / "plain.mp4", frames=6)
    run_ffmpeg("-f", "lavfi", "-i", "color=red:s=32x32", "-frames:v", "1", tmp_path / "cover.png")
    given = ["-i", tmp_path / "cover.png", "-i", tmp_path / "plain.mp4"]
    film = tmp_path / "film.mp4"
    run_ffmpeg(*given, "-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic", film)
    target = tmp_path / "out.mp4"
    report = stylized(film, target)
    assert report.frames_out == 6
    with av.open(str(target)) as new:
        pictures = [stream for stream in new.streams.video if int(stream.disposition) & 0x400]
        assert [picture.width for picture in pictures] == [32]


def test_pcm_is_copied_to_mov(tmp_path):
    source = make_clip(tmp_path / "in.mov", audio=("sine=r=48000",), audio_codec="pcm_s24le")
    stylized(source, tmp_path / "out.mov")
    assert b"".join(packets(source, "audio")) == b"".join(packets(tmp_path / "out.mov", "audio"))


@pytest.mark.parametrize("out", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    "options",
    [
        ("-itsoffset", "0.48"),  # the picture starts later than the sound
        ("-itsoffset", "-0.2"),  # the sound starts later than the picture
    ],
)
def test_offset_between_sound_and_picture(tmp_path, options, out):
    make_clip(tmp_path / "v.mp4", frames=24, codec=("-c:v", "libx264", "-bf", "2"))
    run_ffmpeg("-f", "lavfi", "-i", "sine=r=48000:d=1", "-c:a", "aac", tmp_path / "a.mp4")
    shift = ["-itsoffset", "0.2"] if options[1].startswith("-") else []
    late = [] if shift else list(options)
    source = tmp_path / "in.mp4"
    run_ffmpeg(*late, "-i", tmp_path / "v.mp4", *shift, "-i", tmp_path / "a.mp4", "-c", "copy", source)
    target = tmp_path / f"out{out}"
    stylized(source, target, codec="h264", preset="medium")  # with B-frames of its own
    before, after = decode(source), decode(target)
    assert all(abs(a - b) <= Fraction(1, 1000) for a, b in zip(after.times, before.times, strict=True))
    old, new = first_packet_times(source), first_packet_times(target)
    assert abs((new[1] - after.times[0]) - (old[1] - before.times[0])) <= Fraction(1, 50)


def test_edit_list_is_obeyed(tmp_path):
    """Cut without re-encoding: the frames before the cut are in the file, but not shown."""
    make_clip(tmp_path / "long.mp4", frames=50, codec=("-c:v", "libx264", "-g", "25"), audio=("sine=r=48000",))
    source = tmp_path / "cut.mp4"
    run_ffmpeg("-ss", "1.4", "-i", tmp_path / "long.mp4", "-c", "copy", source)
    before = decode(source)
    target = tmp_path / "out.mp4"
    assert stylized(source, target).frames_out == len(before.times) == 15
    after = decode(target)
    assert after.times == before.times


def test_transport_stream_clock_starts_anywhere(tmp_path):
    source = make_clip(
        tmp_path / "in.ts", frames=20, audio=("sine=r=48000",), extra=("-output_ts_offset", "95000", "-muxdelay", "0")
    )
    before = decode(source)
    assert before.times[0] > 90000
    target = tmp_path / "out.mp4"
    stylized(source, target)
    after = decode(target)
    assert after.times[0] < 1
    steps = [b - a for a, b in zip(before.times, before.times[1:], strict=False)]
    assert [b - a for a, b in zip(after.times, after.times[1:], strict=False)] == steps
    old, new = first_packet_times(source), first_packet_times(target)
    assert abs((new[1] - new[0]) - (old[1] - old[0])) <= Fraction(1, 50)


def test_constant_rate_when_asked(tmp_path):
    source = make_clip(tmp_path / "in.mp4", rate="25", frames=25, audio=("sine=r=48000",))
    target = tmp_path / "out.mp4"
    report = stylized(source, target, fps=Fraction(30000, 1001))
    after = decode(target)
    assert report.frames_out == len(after.times) == 30
    assert after.times == [index * Fraction(1001, 30000) for index in range(30)]


def sound(path):
    """Codec and layout of each sound track, and all its samples as float32 (channels, samples)."""
    with av.open(str(path)) as container:
        tracks = []
        for stream in container.streams.audio:
            resampler = av.AudioResampler(format="fltp")
            chunks = [part.to_ndarray() for frame in container.decode(stream) for part in resampler.resample(frame)]
            tracks.append((stream.codec_context.name, stream.codec_context.layout.name, np.hstack(chunks)))
            container.seek(0)
        return tracks


def tone_in_channel(path, channel, layout, count, codec):
    """A film whose sound is silent but for one channel."""
    pan = "|".join(f"c{number}={'c0' if number == channel else '0*c0'}" for number in range(count))
    source = f"sine=f=400:r=48000,volume=6,pan={layout}|{pan}"
    return make_clip(path, frames=12, audio=(source,), audio_codec=codec)


@pytest.mark.parametrize(
    ("layout", "count", "codec", "becomes"),
    [
        ("5.1(side)", 6, "ac3", "5.1"),
        ("5.1(side)", 6, "pcm_s16le", "5.1"),
        ("4.0", 4, "pcm_s16le", "quad"),
        ("5.1.4", 10, "pcm_s16le", "stereo"),
        ("10C", 10, "pcm_s16le", "stereo"),
    ],
)
@pytest.mark.parametrize("place", ["first", "last"])
def test_webm_takes_sound_of_any_layout(tmp_path, layout, count, codec, becomes, place):
    channel = 0 if place == "first" else count - 1
    container = "mov" if codec == "pcm_s16le" else "mkv"
    source = tone_in_channel(tmp_path / f"in.{container}", channel, layout, count, codec)
    target = tmp_path / "out.webm"
    report = stylized(source, target, codec="vp9", preset="8", verify=True)
    assert any(becomes in warning for warning in report.warnings)
    ((name, found, samples),) = sound(target)
    assert (name, found) == ("opus", becomes)
    loud = np.sqrt((samples**2).mean(axis=1))
    assert loud.max() > 0.01  # nothing is lost on the way
    if becomes == "5.1":
        assert loud.argmax() == channel


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize(("name", "tracks"), [("pcm_4ch.mov", 1), ("empty_audio_track.mkv", 0), ("ogv_vorbis.ogv", 1)])
def test_the_shared_films_with_odd_sound(shared, tmp_path, name, tracks, suffix):
    source = shared / "cases" / "video" / name
    if not source.exists():
        pytest.skip(f"{source} is not there")
    target = tmp_path / f"out{suffix}"
    given = {"codec": "vp9", "preset": "8"} if suffix == ".webm" else {}
    report = stylized(source, target, verify=True, **given)
    assert any("nothing in it" in warning for warning in report.warnings) == (tracks == 0)
    before, after = decode(source), decode(target)
    assert all(abs(a - b) <= Fraction(1, 1000) for a, b in zip(after.times, before.times, strict=True))
    found = sound(target)
    assert len(found) == tracks
    if tracks:
        length = sound(source)[0][2].shape[1] / 48000
        assert abs(found[0][2].shape[1] / 48000 - length) < 0.05


def test_a_track_without_a_packet_is_left_out(tmp_path):
    make_clip(tmp_path / "full.mkv", frames=12, audio=("sine=r=48000",))
    source = tmp_path / "in.mkv"
    run_ffmpeg("-i", tmp_path / "full.mkv", "-map", "0", "-c", "copy", "-bsf:a", "noise=drop=1", source)
    with av.open(str(source)) as container:
        assert len(container.streams.audio) == 1
        assert not any(packet.size for packet in container.demux(audio=0))
    for suffix in (".mp4", ".mov", ".mkv"):
        report = stylized(source, tmp_path / f"out{suffix}", verify=True)
        assert any("nothing in it" in warning for warning in report.warnings)


def test_frames_outlive_a_join_that_fails(tmp_path, monkeypatch):
    source = make_clip(tmp_path / "in.mp4", frames=12)
    with monkeypatch.context() as patch:
        patch.setattr("stylize.media.video.join._tags", lambda info, muxer: ["-nonsense", "1"])
        with pytest.raises(MediaError, match=r"rendered frames are kept in .*out\.mp4\.stylize.*another container"):
            stylized(source, tmp_path / "out.mp4", codec="h264")
    again = Identity()
    report = stylized(source, tmp_path / "other.mkv", again, codec="h264")
    assert any("used again" in warning for warning in report.warnings)
    assert not again.seen
    assert decode(tmp_path / "other.mkv").times == decode(source).times
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "other.mkv"]


def test_frames_of_another_film_or_look_are_not_taken(tmp_path, monkeypatch):
    source = make_clip(tmp_path / "in.mp4", frames=12)
    with monkeypatch.context() as patch:
        patch.setattr("stylize.media.video.join._tags", lambda info, muxer: ["-nonsense", "1"])
        with pytest.raises(MediaError, match="kept"):
            stylized(source, tmp_path / "out.mp4", codec="h264")
    for name, values in (("a.mkv", {"codec": "hevc"}), ("b.mkv", {"codec": "h264", "crf": 30})):
        again = Identity()
        stylized(source, tmp_path / name, again, **values)
        assert len(again.seen) == 12
    other = make_clip(tmp_path / "in2.mp4", frames=11)
    assert stylized(other, tmp_path / "c.mkv", codec="h264").frames_out == 11
    assert stylized(source, tmp_path / "out.mp4", codec="h264").frames_out == 12
