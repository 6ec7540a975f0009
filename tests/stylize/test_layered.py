"""Models of the architecture `layers` through the whole pipeline: any size, tiles, looks, time, segments."""

import json
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from media import decode, make_clip, stylize_video

from engine.metrics import psnr
from stylize import Stylizer
from stylize.frame import Frame
from stylize.media.video.probe import probe_video
from stylize.media.video.settings import VideoSettings
from stylize.sharding import Shard
from stylize.video.job import join_video


def open_with(model, **values):
    return Stylizer(model=str(model), backend="openvino", threads=1, **values)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 3), (33, 47), (64, 64), (97, 161), (420, 700)])
def test_any_size_comes_back_as_it_was(layered_model, rng, size):
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    with open_with(layered_model) as stylizer:
        out = stylizer.image(image)
        view = stylizer.view(image)
    assert out.shape == image.shape and out.dtype == np.uint8 and out.flags.c_contiguous
    assert max(view.shape) <= 384 and view.shape[0] % 8 == view.shape[1] % 8 == 0


def test_the_layout_covers_the_picture(layered_model, landscape):
    with open_with(layered_model) as stylizer:
        conditions = stylizer.probe(landscape[:177, :315])
    assert conditions.maps["layout"].shape == (4, 44, 78)  # 176 x 312 pixels of view
    assert set(conditions.vectors) == {"tone", "sky_lut", "land_lut", "controls"}
    assert all(values.min() >= 0 and values.max() <= 1 for values in conditions.maps.values())


def test_a_small_picture_is_painted_at_twice_its_size(layered_model, landscape):
    height, width = landscape.shape[:2]
    double = cv2.resize(landscape, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
    with open_with(layered_model) as stylizer:
        conditions = stylizer.probe(landscape)
        found = stylizer.render(landscape, conditions)
    with open_with(layered_model, detail=0.0) as own_size:
        fine = own_size.render(double, conditions)
        coarse = own_size.render(landscape, conditions)
    wanted = fine.reshape(height, 2, width, 2, 3).mean((1, 3))
    assert np.abs(found - wanted).max() <= 1
    assert np.abs(found.astype(int) - coarse).max() > 8


def test_tiles_give_the_whole_picture(layered_model, landscape):
    with open_with(layered_model, tile=0) as stylizer:
        conditions = stylizer.probe(landscape)
        whole = stylizer.render(landscape, conditions)
        least = 2 * stylizer.spec.halo + 8
    with open_with(layered_model, tile=least + 40) as stylizer:
        assert len(stylizer.tile_plan(368, 640).tiles) > 4
        tiled = stylizer.render(landscape, conditions)
    assert psnr(tiled, whole) >= 60
    assert (np.abs(tiled.astype(int) - whole) > 1).mean() < 1e-4


def test_looks_are_palettes_and_mix(layered_model, landscape):
    with open_with(layered_model, look="dusk") as a, open_with(layered_model, look="day") as b:
        one, other = a.probe(landscape), b.probe(landscape)
    assert np.array_equal(one.maps["layout"], other.maps["layout"])
    assert np.abs(one.vectors["land_lut"] - other.vectors["land_lut"]).max() > 0.2
    with open_with(layered_model, look="dusk:day") as fade:
        for name in ("sky_lut", "land_lut"):
            assert np.allclose(fade.probe(landscape, 0.0).vectors[name], one.vectors[name], atol=1e-6)
            assert np.allclose(fade.probe(landscape, 1.0).vectors[name], other.vectors[name], atol=1e-6)
            middle = fade.probe(landscape, 0.5).vectors[name]
            assert np.abs(middle - one.vectors[name]).max() > 0.05


def test_a_look_that_is_no_palette(layered_model, tmp_path):
    for path in layered_model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spec = json.loads((tmp_path / "spec.json").read_text())
    (tmp_path / "spec.json").write_text(json.dumps({**spec, "looks": ["mars"], "config": {**spec["config"]}}))
    with pytest.raises(ValueError, match="unknown look 'mars'; layers has dusk, golden"):
        open_with(tmp_path)


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


def test_any_cut_into_segments_gives_the_same_pictures(layered_model, moving):
    with open_with(layered_model, smoothing=0.3, look="dusk:day") as stylizer:
        whole = [f.data for f in stylizer.transform(10, 2)(moving, range(20))]
        for start, stop in ((0, 7), (7, 13), (11, 12), (13, 20)):
            video = stylizer.transform(10, 2)
            lead = max(0, start - video.context)
            part = video(iter(moving[lead : stop + video.context]), range(start, stop))
            assert all(np.array_equal(a.data, b) for a, b in zip(part, whole[start:stop], strict=True))


def test_smoothing_calms_layout_and_tone(layered_model):
    """Noise over shades that stand still: where the picture moves, the layout moves with it."""
    rng = np.random.default_rng(2)
    shades = np.full((48, 64, 3), 40.0)
    shades[:, :20] += 60
    still = clip([np.clip(shades + rng.normal(0, 6, shades.shape), 0, 255).astype(np.uint8) for _ in range(20)])

    def seen(smoothing):
        found = []
        with open_with(layered_model, smoothing=smoothing) as stylizer:
            real = stylizer.begin
            stylizer.begin = lambda image, c: found.append(c) or real(image, c)
            list(stylizer.transform(10)(still, range(20)))
        return [np.stack([c.maps["layout"] for c in found[:12]]), np.stack([c.vectors["tone"] for c in found[:12]])]

    for rough, calm in zip(seen(0.0), seen(0.4), strict=True):
        assert np.abs(np.diff(calm, axis=0)).mean() < np.abs(np.diff(rough, axis=0)).mean()


def test_a_still_video_is_still(layered_model, landscape):
    frames = clip([landscape[:64, :96]] * 9)
    with open_with(layered_model) as stylizer:
        out = [f.data for f in stylizer.transform(10)(frames, range(9))]
    assert all(np.array_equal(out[0], x) for x in out)


def test_shards_are_joined_to_what_one_run_makes(layered_model, tmp_path):
    source = make_clip(tmp_path / "hike.mp4", frames=24)
    settings = VideoSettings(segment_seconds=Fraction(1, 4), codec="lossless", preset="ultrafast")
    targets: list[Path] = [tmp_path / "whole.mkv", tmp_path / "shards.mkv"]
    with open_with(layered_model, smoothing=0.2) as stylizer:
        transform = stylizer.transform_for(probe_video(source))
        stylize_video(source, targets[0], transform, settings, transform_key=stylizer.key)
        for number in (2, 1):
            shard = Shard(number=number, count=2)
            stylize_video(source, targets[1], transform, settings, transform_key=stylizer.key, shard=shard)
    join_video(targets[1])
    one, other = (decode(target) for target in targets)
    assert one.times == other.times and len(one.pictures) == 24
    assert [x.tobytes() for x in one.pictures] == [x.tobytes() for x in other.pictures]
