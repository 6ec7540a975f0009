import itertools
from fractions import Fraction

import numpy as np
import pytest

from engine.conditions import Conditions, mean_conditions
from stylize.frame import Frame
from stylize.video.temporal import SceneSignature, is_cut, window_weights


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
