import itertools
from fractions import Fraction
from typing import ClassVar

import cv2
import numpy as np
import pytest

from engine.conditions import Conditions, mean_conditions
from stylize.frame import Frame
from stylize.video.stylizer import VideoStylizer
from stylize.video.temporal import SceneSignature, carried, is_cut, window_weights


def statistics(value, n=4):
    return Conditions.of_norm(scale=np.full(n, value, np.float32), shift=np.full(n, -value, np.float32))


def test_the_mean_of_statistics_is_weighted():
    mean = mean_conditions([statistics(1.0), statistics(4.0)], [3.0, 1.0])
    assert np.allclose(mean.scale, 1.75) and np.allclose(mean.shift, -1.75)
    assert mean.scale.dtype == np.float32


def test_window_weights_fall_to_zero_outside():
    weights = window_weights(np.arange(-5, 6), 3)
    assert weights[5] == 1.0
    assert (weights[[0, 1, -1, -2]] == 0).all() and (weights[2:9] > 0).all()
    assert np.allclose(weights, weights[::-1])


def test_statistics_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="one length"):
        Conditions.of_norm(scale=np.zeros(3, np.float32), shift=np.zeros(4, np.float32))


def changes(frames):
    signatures = [SceneSignature.of(f) for f in frames]
    return [0.0, *(b.change(a) for a, b in itertools.pairwise(signatures))]


def test_a_hard_cut_is_found_and_movement_is_not(landscape):
    pan = [np.roll(landscape, -4 * i, axis=1) for i in range(8)]
    other = [np.clip(255 - np.roll(landscape, 3 * i, axis=1)[::-1], 0, 255).astype(np.uint8) for i in range(8)]
    found = changes([*pan, *other])
    assert [i for i in range(len(found)) if is_cut(found, i)] == [8]


def test_flicker_that_goes_on_is_no_series_of_cuts(landscape):
    frames = [landscape if i % 2 else 255 - landscape for i in range(12)]
    found = changes(frames)
    assert max(found) > 27
    assert not any(is_cut(found, i) for i in range(2, 10))


@pytest.fixture(scope="module")
def scenery():
    """Smooth random hills, larger than a frame."""
    noise = np.random.default_rng(5).normal(size=(520, 900, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 9)
    return np.clip(128 + 700 * smooth, 0, 255).astype(np.uint8)


def shown(scenery, left, top):
    return scenery[top : top + 360, left : left + 640]


def test_movement_is_found(scenery):
    before, after = (SceneSignature.of(shown(scenery, *place)) for place in ((100, 80), (68, 89)))
    x, y = after.moved(before)  # the camera has gone left and down: things go right and up
    assert x == pytest.approx(32 / 640, abs=0.4 / 64) and y == pytest.approx(-9 / 360, abs=0.4 / 36)
    assert SceneSignature.of(scenery[::-1][:360, :640]).moved(before) == (0.0, 0.0)


def edge(place, cells=40):
    """A layout whose first channel steps from 0 to 1 at a share of the width."""
    row = np.clip((np.arange(cells) + 0.5) / cells * cells - place * cells + 0.5, 0, 1)
    return Conditions(vectors={}, maps={"layout": np.tile(row, (4, 24, 1)).astype(np.float32)})


def test_layouts_are_carried_along():
    found = carried(edge(0.5), 0.1, 0.0).maps["layout"]
    np.testing.assert_allclose(found, edge(0.6).maps["layout"], atol=1e-5)
    np.testing.assert_array_equal(carried(edge(0.5), 0.01, 0.0).maps["layout"], edge(0.5).maps["layout"])


class Panning:
    """A pipeline whose probe sees an edge that moves with the picture, and whose pictures show that edge."""

    seconds: ClassVar[dict[str, float]] = {}
    depth = 1

    def reduced(self, image):
        return image

    def view(self, small):
        return small

    def probe_view(self, view, position):
        return edge(float(view[0, 0, 0]) / 255)

    def begin(self, data, conditions):
        return Done(conditions)


class Done:
    def __init__(self, conditions):
        self.conditions = conditions

    def result(self):
        return np.repeat(self.conditions.maps["layout"][0][..., None] * 255, 3, 2).astype(np.uint8)


def test_a_pan_does_not_blur_the_layout(scenery):
    """The edge goes 3 % of the width a frame; the mean over eleven frames has it where each frame has it."""
    frames = []
    for i in range(12):
        data = shown(scenery, 240 - 19 * i, 60).copy()
        place = 0.3 + 19 * i / 640
        data[0, 0] = round(place * 255)
        frames.append(Frame(data=data, index=i, pts=Fraction(i, 10)))
    stylizer = VideoStylizer(pipeline=Panning(), radius=5)
    found = {frame.index: frame.data for frame in stylizer(iter(frames), range(12))}
    for i in (4, 5, 6):
        wanted = edge(round((0.3 + 19 * i / 640) * 255) / 255).maps["layout"][0]
        assert np.abs(found[i][..., 0] / 255 - wanted).max() < 0.35  # of a cell


def test_grey_pictures_have_no_hue():
    grey = np.full((90, 160, 3), 128, np.uint8)
    tinted = grey.copy()
    tinted[..., 0] += 1
    assert SceneSignature.of(grey).change(SceneSignature.of(tinted)) < 2


def test_real_clips_have_the_cuts_they_have(shared):
    """Walks and drives in one take, and one with an edit at frame 112."""
    av = pytest.importorskip("av")
    cuts = {
        "forest_drive_720p": [],
        "forest_river_360p": [112],
        "portrait_h264_aac_30fps": [],
        "outdoor_h264_aac_29.97fps": [],
    }
    for name, expected in cuts.items():
        with av.open(str(shared / "clips" / f"{name}.mp4")) as container:
            frames = [f.to_ndarray(format="rgb24", width=160, height=90) for f in container.decode(video=0)][:120]
        found = changes(frames)
        assert [i for i in range(len(found)) if is_cut(found, i)] == expected, name


def test_frames_are_checked():
    with pytest.raises(ValueError, match="RGB uint8"):
        Frame(data=np.zeros((4, 4), np.uint8), index=0, pts=Fraction(0))
    with pytest.raises(ValueError, match="count from 0"):
        Frame(data=np.zeros((4, 4, 3), np.uint8), index=-1, pts=Fraction(0))
