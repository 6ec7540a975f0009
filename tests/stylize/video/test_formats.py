"""Codecs, sizes, GIFs, image sequences and sources that are not plain."""

import json
from fractions import Fraction

import av
import numpy as np
import pytest
from media import Identity, decode, make_clip, run_ffmpeg, stylized

from stylize.errors import MediaError, OutputError
from stylize.media.video.probe import probe_video
from stylize.media.video.settings import VideoSettings
from stylize.media.video.verify import verify_video
from stylize.video.dry_run import plan_video
from stylize.video.job import stylize_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip") / "in.mp4", size=(96, 64), frames=14, audio=("sine=r=48000",))


ENCODINGS = [
    ("mp4", {"codec": "h264", "preset": "medium"}, "h264", "yuv420p"),
    ("mkv", {"codec": "h264", "ten_bit": True}, "h264", "yuv420p10le"),
    ("mp4", {"codec": "hevc"}, "hevc", "yuv420p"),
    ("mov", {"codec": "hevc", "ten_bit": True}, "hevc", "yuv420p10le"),
    ("mp4", {"codec": "av1", "preset": "10"}, "av1", "yuv420p"),
    ("webm", {"preset": "10", "ten_bit": True}, "av1", "yuv420p10le"),
    ("webm", {"codec": "vp9", "preset": "8"}, "vp9", "yuv420p"),
    ("mov", {"codec": "prores"}, "prores", "yuv422p10le"),
    ("mkv", {"codec": "prores", "preset": "4444"}, "prores", "yuv444p10le"),
]


@pytest.mark.parametrize(("container", "values", "name", "pixel_format"), ENCODINGS)
def test_codecs_give_every_frame_at_its_time(clip, tmp_path, container, values, name, pixel_format):
    target = tmp_path / f"out.{container}"
    transform = Identity()
    report = stylized(clip, target, transform, verify=True, **values)
    after = decode(target)
    assert after.context.codec.canonical_name == name
    assert after.context.pix_fmt == pixel_format
    assert (after.context.colorspace, after.context.color_primaries, after.context.color_range) == (1, 1, 1)
    tick = Fraction(1, 1000) if container in {"mkv", "webm"} else 0
    before = decode(clip).times
    assert all(abs(a - b) <= tick for a, b in zip(after.times, before, strict=True))
    assert np.abs(after.pictures[5].mean(axis=2) - transform.seen[5].data.mean(axis=2)).mean() < 8
    assert after.kinds == ["video", "audio"]
    if name == "hevc":
        with av.open(str(target)) as container:
            assert container.streams.video[0].codec_context.codec_tag == "hvc1"
    json.dumps(report.to_json())


@pytest.mark.parametrize("size", [(65, 49), (63, 48), (2, 2), (1, 1)])
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_odd_sizes_stay_as_they_are(tmp_path, size, container):
    filters = f"format=gbrp,crop={size[0]}:{size[1]}:0:0:exact=1"
    codec = ("-c:v", "ffv1")
    source = make_clip(tmp_path / "in.mkv", size=(96, 64), frames=3, pixel_format="gbrp", filters=filters, codec=codec)
    target = tmp_path / f"out.{container}"
    report = stylized(source, target, codec="h264")
    assert decode(target).pictures[0].shape == (size[1], size[0], 3)
    assert any("odd" in warning for warning in report.warnings) == (size != (2, 2))


def test_pixel_shape_is_kept(tmp_path):
    source = make_clip(tmp_path / "in.mp4", filters="setsar=16/15")
    stylized(source, tmp_path / "out.mp4", codec="h264")
    assert decode(tmp_path / "out.mp4").context.sample_aspect_ratio == Fraction(16, 15)


def test_pixel_shape_turns_with_the_picture(tmp_path):
    make_clip(tmp_path / "in.mp4", filters="setsar=16/15")
    run_ffmpeg("-display_rotation", "90", "-i", tmp_path / "in.mp4", "-c", "copy", tmp_path / "turned.mp4")
    stylized(tmp_path / "turned.mp4", tmp_path / "out.mp4", codec="h264")
    assert decode(tmp_path / "out.mp4").context.sample_aspect_ratio == Fraction(15, 16)


@pytest.mark.parametrize("fields", ["tff", "bff"])
def test_interlaced_is_deinterlaced_and_keeps_its_frames(tmp_path, fields):
    """A bar that moves between the fields: combed before, not afterwards."""
    source = tmp_path / "in.mkv"
    chain = f"tinterlace=interleave_{'top' if fields == 'tff' else 'bottom'},setfield={fields},format=yuv420p"
    lavfi = "color=black:s=96x64:r=50[a];color=white:s=24x64:r=50[b];[a][b]overlay=x='mod(n*6,72)'"
    codec = ["-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", "-x264-params", f"{fields}=1"]
    run_ffmpeg("-f", "lavfi", "-i", lavfi, "-vf", chain, "-frames:v", "10", *codec, source)
    assert probe_video(source).interlaced
    target = tmp_path / "out.mkv"
    report = stylized(source, target)
    before, after = decode(source), decode(target)
    assert after.times == before.times

    def combing(picture):
        grey = picture.mean(axis=2)
        return np.abs(grey[1:-1] - (grey[:-2] + grey[2:]) / 2).mean()

    assert combing(after.pictures[5]) < combing(before.pictures[5]) / 3
    assert any("interlaced" in warning for warning in report.warnings)


def test_transparency_is_dropped_with_a_word(tmp_path):
    source = tmp_path / "in.mov"
    lavfi = "testsrc2=s=64x48:r=25:alpha=128,format=argb"
    run_ffmpeg("-f", "lavfi", "-i", lavfi, "-frames:v", "4", "-c:v", "qtrle", source)
    report = stylized(source, tmp_path / "out.mp4")
    assert report.frames_out == 4
    assert any("transparency" in warning for warning in report.warnings)


def test_an_animated_gif_is_a_video(tmp_path):
    source = tmp_path / "in.gif"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:r=10", "-frames:v", "7", source)
    stylized(source, tmp_path / "out.mp4")
    assert decode(tmp_path / "out.mp4").times == [Fraction(index, 10) for index in range(7)]


def test_gif_output(clip, tmp_path):
    target = tmp_path / "out.gif"
    report = stylized(clip, target)
    after = decode(target)
    assert report.frames_out == len(after.pictures) == 14
    assert all(abs(a - b) <= Fraction(1, 100) for a, b in zip(after.times, decode(clip).times, strict=True))
    assert any("sound" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("name", "first"), [("frames/out_%05d.png", "frames/out_00001.png"), ("seq", "seq/00000001.png")]
)
def test_image_sequence_output(clip, tmp_path, name, first):
    transform = Identity()
    stylized(clip, tmp_path / name, transform)
    picture = tmp_path / first
    files = sorted(picture.parent.iterdir())
    assert len(files) == 14
    assert files[0] == picture
    for file, frame in zip(files, transform.seen, strict=True):
        assert np.array_equal(decode(file).pictures[0], frame.data)
    with pytest.raises(OutputError, match="--overwrite"):
        stylized(clip, tmp_path / name)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tiff", "bmp"])
def test_image_formats(clip, tmp_path, suffix):
    stylized(clip, tmp_path / f"x%d.{suffix}")
    assert decode(tmp_path / f"x3.{suffix}").pictures[0].shape == (64, 96, 3)


def test_verification_notices_what_is_wrong(clip):
    times = decode(clip).times
    verify_video(clip, times=times, size=(96, 64), plans=(), decode=True)
    with pytest.raises(MediaError, match="frames instead of"):
        verify_video(clip, times=times[:-1], size=(96, 64), plans=(), decode=False)
    with pytest.raises(MediaError, match="frame 0 is shown"):
        verify_video(clip, times=[time + Fraction(1, 10) for time in times], size=(96, 64), plans=(), decode=True)
    with pytest.raises(MediaError, match="pixels"):
        verify_video(clip, times=times, size=(64, 64), plans=(), decode=False)


def test_report_and_progress(clip, tmp_path):
    steps = []
    settings = VideoSettings(preset="ultrafast")
    report = stylize_video(
        clip, tmp_path / "out.mp4", Identity(), settings, transform_key="test", progress=steps.append
    )
    assert [step.done for step in steps if step.stage == "frames"] == list(range(1, 15))
    assert [step.stage for step in steps][-2:] == ["join", "verify"]
    assert steps[0].total == 14
    assert set(report.split) == {"decode", "transform", "encode", "join"}
    assert (report.status, report.frames_in, report.frames_out) == ("done", 14, 14)
    assert report.duration == pytest.approx(14 / 25)
    assert report.seconds > 0


def test_dry_run(clip, tmp_path):
    target = tmp_path / "out.mp4"
    plan = plan_video(clip, target, Identity(), VideoSettings(preset="ultrafast"))
    assert (plan.size, plan.frames, plan.codec, plan.streams) == ((96, 64), 14, "h264", ("audio 1: copy",))
    assert plan.seconds > 0
    assert plan.disk_bytes > 1000
    assert not plan.resumes
    assert list(tmp_path.iterdir()) == []
    json.dumps(plan.to_json())


def test_memory_does_not_grow_with_the_length(tmp_path):
    """Frames in flight are counted: a transform that is slow must not let the decoder run away."""
    import gc

    from stylize.frame import Frame

    source = make_clip(tmp_path / "in.mp4", size=(1920, 1080), frames=45, rate="30")
    most = 0

    def alive():
        return sum(type(item) is Frame for item in gc.get_objects())

    gc.collect()
    of_others = alive()  # fixtures of other tests may hold some

    class Counts(Identity):
        def __call__(self, frames, wanted):
            nonlocal most
            for frame in frames:
                if frame.index % 15 == 0:
                    most = max(most, alive() - of_others)
                yield frame

    stylized(source, tmp_path / "out.mp4", Counts(), codec="h264", segment_seconds=Fraction(1))
    assert 0 < most < 22  # decoder's and encoder's queues of 6 MB frames


CLIPS = {
    "fog_sunrise_rot_vfr.mp4": (352, 640, 196),
    "multi_audio_subs_h264_25fps.mp4": (320, 180, 325),
    "phone_hevc_vfr_rotated_2video.mp4": (768, 1024, 58),
    "phone_hlg_10bit_hevc_editlist_rotated.mp4": (1080, 1920, 77),
    "portrait_av1_hdr10pq_10bit.mp4": (720, 1280, 127),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIPS)
def test_real_clips(shared, tmp_path, name):
    source = shared / "clips" / name
    target = tmp_path / "out.mp4"
    stylized(source, target, codec="h264", segment_seconds=Fraction(2))
    width, height, frames = CLIPS[name]
    before, after = _times(source), _times(target)
    assert before == after
    assert len(after) == frames
    info = probe_video(target)
    assert (info.width, info.height, info.rotation) == (width, height, 0)


def _times(path):
    index = probe_video(path).stream.index
    with av.open(str(path)) as container:
        stream = container.streams[index]
        return [frame.pts * Fraction(stream.time_base) for frame in container.decode(stream)]


def _smooth(path, size, pixel_format, codec=("-c:v", "ffv1")):
    """A blurred picture of any size, odd ones too."""
    filters = f"gblur=3,format=gbrp,scale={size[0]}:{size[1]}"
    return make_clip(path, size=(96, 64), frames=3, filters=filters, codec=codec, pixel_format=pixel_format)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv411p", "yuv420p10le", "nv12", "yuvj420p"])
def test_odd_sources_with_thinned_chroma(tmp_path, pixel_format):
    codec = ("-c:v", "rawvideo") if pixel_format == "nv12" else ("-c:v", "ffv1")
    codec = ("-c:v", "mjpeg", "-q:v", "1") if pixel_format == "yuvj420p" else codec
    source = _smooth(tmp_path / "in.nut", (85, 49), pixel_format, codec)
    stylized(source, tmp_path / "out.mkv")
    before, after = decode(source).pictures[1], decode(tmp_path / "out.mkv").pictures[1]
    assert after.shape == before.shape == (49, 85, 3)
    error = np.abs(after.astype(int) - before)
    assert error.mean() < 2
    assert error[:, -2:].mean() < 4 and error[-2:].mean() < 4  # the border is no worse


@pytest.mark.parametrize(
    ("name", "values", "stored"),
    [
        ("o.mov", {"codec": "prores"}, "yuv422p10le"),
        ("o.mkv", {"codec": "prores", "preset": "lt"}, "yuv422p10le"),
        ("o.webm", {"codec": "vp9", "preset": "8", "crf": 4}, "yuv420p"),
        ("o.mkv", {"codec": "av1", "crf": 4}, "yuv420p"),
        ("o.mp4", {"codec": "av1", "crf": 4, "ten_bit": True}, "yuv420p10le"),
    ],
)
def test_odd_results_with_thinned_chroma(tmp_path, name, values, stored):
    source = _smooth(tmp_path / "in.mkv", (85, 67), "gbrp")
    stylized(source, tmp_path / name, **values)
    before, after = decode(source).pictures[1], decode(tmp_path / name)
    assert after.context.pix_fmt == stored
    assert after.pictures[1].shape == (67, 85, 3)
    error = np.abs(after.pictures[1].astype(int) - before)
    assert error.mean() < 4
    assert error[:, -2:].mean() < 8 and error[-2:].mean() < 8
