import weakref
from fractions import Fraction

import numpy as np
import pytest

from engine.errors import BackendError, ModelError, OutOfMemoryError
from engine.metrics import psnr
from stylize import StyleSettings, Stylizer
from stylize.frame import Frame


def open_with(model, **values):
    return Stylizer(model=str(model), backend="openvino", threads=1, **values)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 3), (33, 47), (64, 64), (97, 161)])
def test_any_size_comes_back_as_it_was(skip_model, rng, size):
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    with open_with(skip_model) as stylizer:
        out = stylizer.image(image)
    assert out.shape == image.shape and out.dtype == np.uint8 and out.flags.c_contiguous


def test_tiles_give_the_whole_picture(skip_model, landscape):
    """With the halo of the model no seam is measurable; a naive cut has one."""
    with open_with(skip_model, tile=0) as stylizer:
        statistics = stylizer.probe(landscape)
        whole = stylizer.render(landscape, statistics)
        least = 2 * stylizer.spec.halo + 4
    for tile in (least + 40, 200):
        with open_with(skip_model, tile=tile) as stylizer:
            assert len(stylizer.tile_plan(180, 320).tiles) > 1
            assert psnr(stylizer.render(landscape, statistics), whole) >= 60


def test_seams_of_tiles_carry_no_more_gradient_than_the_rest(skip_model, landscape):
    with open_with(skip_model, tile=0) as stylizer:
        statistics = stylizer.probe(landscape)
        whole = stylizer.render(landscape, statistics).astype(float)
    with open_with(skip_model, tile=128) as stylizer:
        tiled = stylizer.render(landscape, statistics).astype(float)
        columns = sorted({t.region.left for t in stylizer.tile_plan(180, 320).tiles} - {0})
    at_seams = [np.abs(x[:, columns] - x[:, [c - 1 for c in columns]]).mean() for x in (tiled, whole)]
    assert at_seams[0] == pytest.approx(at_seams[1], rel=0.01)


def test_strength_mixes_from_the_picture_to_the_style(skip_model, landscape):
    results = {}
    for strength in (0.0, 0.5, 1.0):
        with open_with(skip_model, strength=strength) as stylizer:
            results[strength] = stylizer.image(landscape).astype(float)
    assert np.array_equal(results[0.0], landscape)
    full = np.abs(results[1.0] - landscape).mean()
    assert 0.25 * full < np.abs(results[0.5] - landscape).mean() < 0.8 * full


def test_kept_colour_is_the_pictures_own(skip_model, landscape):
    cv2 = pytest.importorskip("cv2")
    with open_with(skip_model, keep_color=1.0) as stylizer:
        out = stylizer.image(landscape)

    def ab(rgb):
        return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 1:]

    inside = (out > 0).all(-1) & (out < 255).all(-1)  # where the gamut did not clip
    assert inside.mean() > 0.3
    assert np.abs(ab(out) - ab(landscape))[inside].mean() < 1.5


def test_detail_sets_the_working_size(skip_model, rng, monkeypatch):
    image = rng.integers(0, 256, (120, 240, 3), np.uint8)
    with open_with(skip_model, detail=0.05) as stylizer:
        sizes = []
        real = stylizer.backend.render
        monkeypatch.setattr(stylizer.backend, "render", lambda t, s: sizes.append(t.shape) or real(t, s))
        assert stylizer.image(image).shape == image.shape
    assert sizes == [(1, 48, 96, 3)]


def test_looks_differ_and_mix(skip_model, landscape):
    with open_with(skip_model, look="auto") as a, open_with(skip_model, look="dusk") as b:
        one, other = a.probe(landscape), b.probe(landscape)
        assert not np.allclose(one.scale, other.scale)
    with open_with(skip_model, look="auto:dusk") as fade:
        assert np.allclose(fade.probe(landscape, 0.0).scale, one.scale, rtol=1e-4)
        assert np.allclose(fade.probe(landscape, 1.0).scale, other.scale, rtol=1e-4)
        assert fade.look_at(0.5).tolist() == [0.5, 0.5]


def test_out_of_memory_goes_on_with_smaller_tiles(skip_model, landscape, monkeypatch):
    with open_with(skip_model, tile=0) as stylizer:
        statistics = stylizer.probe(landscape)
        whole = stylizer.render(landscape, statistics)
        real = stylizer.backend.render

        def scarce(tiles, statistics):
            if tiles.shape[1] * tiles.shape[2] > 160 * 180:
                raise OutOfMemoryError("no memory")
            return real(tiles, statistics)

        monkeypatch.setattr(stylizer.backend, "render", scarce)
        assert psnr(stylizer.render(landscape, statistics), whole) >= 60
        monkeypatch.setattr(stylizer.backend, "render", lambda *_: (_ for _ in ()).throw(OutOfMemoryError("none")))
        with pytest.raises(OutOfMemoryError):
            stylizer.render(landscape, statistics)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strength": 1.5}, "strength lies between 0 and 1"),
        ({"keep_color": -0.1}, "keep-color lies between 0 and 1"),
        ({"detail": 99}, "detail lies between"),
        ({"look": "noon"}, "unknown look 'noon'; skip has auto, dusk"),
        ({"tile": 8}, "smaller than twice the halo"),
    ],
)
def test_bad_settings_say_what_is_allowed(skip_model, values, message):
    with pytest.raises(ValueError, match=message):
        open_with(skip_model, **values)


def test_missing_models_and_backends_are_errors(tmp_path, skip_model):
    with pytest.raises(ModelError, match="no model 'nowhere'"):
        Stylizer(model="nowhere")
    with pytest.raises(BackendError, match="unknown backend 'abacus'"):
        Stylizer(model=str(skip_model), backend="abacus")


def test_the_key_names_what_decides_the_pixels(skip_model):
    def key(**values):
        return Stylizer(settings=StyleSettings(model=str(skip_model), **values)).key

    assert key() == key(threads=2) == key(tile=300)
    assert len({key(), key(look="dusk"), key(strength=0.5), key(detail=0.5), key(smoothing=0)}) == 5


def clip(frames, rate=10):
    return [Frame(data=f, index=i, pts=Fraction(i, rate)) for i, f in enumerate(frames)]


@pytest.fixture(scope="module")
def moving():
    """Twenty frames of noise over moving shades, a hard cut at 12."""
    rng = np.random.default_rng(2)
    frames = []
    for i in range(20):
        base = np.full((48, 64, 3), 40 + 3 * i if i < 12 else 230 - 3 * i, float)
        base[:, : 20 + i] += 60 if i < 12 else -90
        frames.append(np.clip(base + rng.normal(0, 6, base.shape), 0, 255).astype(np.uint8))
    return clip(frames)


def test_video_gives_every_frame_once_in_order(skip_model, moving):
    with open_with(skip_model, smoothing=0.4) as stylizer:
        out = list(stylizer.transform(10)(moving, range(20)))
    assert [f.index for f in out] == list(range(20))
    assert [f.pts for f in out] == [f.pts for f in moving]


def test_any_cut_into_segments_gives_the_same_pictures(skip_model, moving):
    """The promise behind resuming and sharing out: a frame depends on its context alone."""
    with open_with(skip_model, smoothing=0.3) as stylizer:
        whole = [f.data for f in stylizer.transform(10)(moving, range(20))]
        for start, stop in ((0, 7), (7, 13), (11, 12), (13, 20)):
            video = stylizer.transform(10)
            lead = max(0, start - video.context)
            part = video(iter(moving[lead : stop + video.context]), range(start, stop))
            assert all(np.array_equal(a.data, b) for a, b in zip(part, whole[start:stop], strict=True))


def test_smoothing_calms_statistics_but_not_across_a_cut(skip_model, moving):
    def statistics(smoothing):
        seen = []
        with open_with(skip_model, smoothing=smoothing) as stylizer:
            real = stylizer.begin
            stylizer.begin = lambda image, s: seen.append(s.scale) or real(image, s)
            list(stylizer.transform(10)(moving, range(20)))
        return np.stack(seen)

    rough, calm = statistics(0.0), statistics(0.4)
    step = [np.abs(np.diff(x[:12], axis=0)).mean() for x in (rough, calm)]
    assert step[1] < step[0]
    # No frame before the cut knows of the scene behind it.
    with open_with(skip_model, smoothing=0.4) as stylizer:
        before = [f.data for f in stylizer.transform(10)(moving[:12], range(12))]
        full = [f.data for f in stylizer.transform(10)(moving, range(20))][:12]
    assert all(np.array_equal(a, b) for a, b in zip(before[:9], full[:9], strict=True))


@pytest.fixture
def halting(moving):
    """The moving clip with stills in it: three, twenty and two frames long, one across the cut."""
    order = [0, 1, 1, 1, 2, 3, *[4] * 20, 5, 6, 10, 11, 11, 12, 12, 13, 14, 15]
    return clip([moving[i].data.copy() for i in order])


def counted(stylizer, name):
    calls = []
    real = getattr(stylizer, name)
    setattr(stylizer, name, lambda *args: calls.append(args) or real(*args))
    return calls


def test_repeated_frames_are_not_rendered_twice(skip_model, halting):
    count = len(halting)
    with open_with(skip_model, smoothing=0.3) as stylizer:
        renders = counted(stylizer, "begin")
        video = stylizer.transform(10)
        out = list(video(iter(halting), range(count)))
    assert [f.index for f in out] == list(range(count)) and [f.pts for f in out] == [f.pts for f in halting]
    # Frame i is rendered unless it shows the picture of i - 1; every eighth one always is.
    fresh = [i for i in range(count) if i % 8 == 0 or (halting[i].data != halting[i - 1].data).any()]
    assert len(fresh) < count - 15
    assert [args[0] is halting[i].data for args, i in zip(renders, fresh, strict=True)] == [True] * len(fresh)
    for i in set(range(count)) - set(fresh):
        assert np.array_equal(out[i].data, out[i - 1].data)


def test_segments_that_begin_in_a_still_give_the_same_pictures(skip_model, halting):
    count = len(halting)
    with open_with(skip_model, smoothing=0.2) as stylizer:
        whole = [f.data for f in stylizer.transform(10)(halting, range(count))]
        for start, stop in ((0, 2), (2, 3), (3, 13), (13, 26), (15, 16), (16, 17), (25, count), (31, count)):
            video = stylizer.transform(10)
            lead = max(0, start - video.context)
            part = video(iter(halting[lead : stop + video.context]), range(start, stop))
            assert all(np.array_equal(a.data, b) for a, b in zip(part, whole[start:stop], strict=True)), start


def test_no_picture_is_kept_longer_than_it_is_needed(skip_model, moving):
    """Memory is bounded by the frames that a result has to look ahead to."""
    frames = clip([moving[i % 12].data.copy() for i in range(60)])
    alive = [weakref.ref(f.data) for f in frames]
    most = 0
    with open_with(skip_model, smoothing=0.3) as stylizer:
        video = stylizer.transform(10)
        given = (frames.pop(0) for _ in range(60))
        for _ in video(given, range(5, 60)):
            most = max(most, sum(r() is not None for r in alive) - len(frames))
    assert most <= video.radius + 5


def test_a_still_video_is_still(skip_model, landscape):
    frames = clip([landscape[:64, :96]] * 9)
    with open_with(skip_model) as stylizer:
        out = [f.data for f in stylizer.transform(10)(frames, range(9))]
    assert all(np.array_equal(out[0], x) for x in out)
