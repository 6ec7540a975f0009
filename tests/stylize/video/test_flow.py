from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np
import pytest

from stylize.frame import Frame
from stylize.video.flow import FlowFilter, agreement, dense_flow, flow_view, warp


class Noisy:
    """A stylizer that flickers: each frame gets its own offset and grain."""

    context = 0

    def __call__(self, frames: Iterable[Frame], wanted: range) -> Iterator[Frame]:
        for frame in frames:
            if frame.index in wanted:
                rng = np.random.default_rng(frame.index)
                data = frame.data + rng.normal(8 * (frame.index % 2), 6, frame.data.shape)
                yield Frame(data=np.clip(data, 0, 255).astype(np.uint8), index=frame.index, pts=frame.pts)


def pan(landscape, count=8, step=3):
    wide = np.concatenate([landscape, landscape[:, ::-1]], axis=1)
    frames = [np.ascontiguousarray(wide[:144, 10 + step * i : 266 + step * i]) for i in range(count)]
    return [Frame(data=f, index=i, pts=Fraction(i, 10)) for i, f in enumerate(frames)]


def test_flow_finds_the_pan_and_warps_it_away(landscape):
    a, b = pan(landscape, 2, 4)
    flow = dense_flow(flow_view(a.data), flow_view(b.data))
    assert np.median(flow[..., 0]) == pytest.approx(-4, abs=0.3)
    inner = (slice(8, -8), slice(8, -16))
    before = np.abs(a.data.astype(int) - b.data)[inner].mean()
    after = np.abs(a.data.astype(int) - warp(b.data, flow))[inner].mean()
    assert after < 0.5 * before


def test_the_filter_takes_flicker_out_and_keeps_the_picture(landscape):
    frames = pan(landscape)
    rough = list(Noisy()(frames, range(8)))
    calm = list(FlowFilter(Noisy())(frames, range(8)))
    assert [f.index for f in calm] == list(range(8)) and [f.pts for f in calm] == [f.pts for f in frames]

    def error(result):
        return np.mean(
            [np.abs(r.data.astype(float) - f.data - 4).mean() for r, f in zip(result[1:-1], frames[1:-1], strict=True)]
        )

    assert error(calm) < 0.75 * error(rough)


def test_a_hard_cut_leaves_no_ghost(landscape):
    first, second = pan(landscape, 4), pan(255 - landscape[::-1], 4)
    frames = [Frame(data=f.data, index=i, pts=Fraction(i, 10)) for i, f in enumerate([*first, *second])]

    class Plain:
        context = 0

        def __call__(self, frames, wanted):
            return (f for f in frames if f.index in wanted)

    out = list(FlowFilter(Plain())(frames, range(8)))
    for i in (3, 4):
        assert np.abs(out[i].data.astype(int) - frames[i].data).mean() < 1.5


def test_any_cut_into_segments_gives_the_same_pictures(landscape):
    frames = pan(landscape)
    filtered = FlowFilter(Noisy())
    whole = [f.data for f in filtered(frames, range(8))]
    for start, stop in ((0, 3), (3, 5), (5, 8)):
        lead = frames[max(0, start - filtered.context) : stop + filtered.context]
        part = [f.data for f in FlowFilter(Noisy())(iter(lead), range(start, stop))]
        assert len(part) == stop - start
        assert all(np.array_equal(a, b) for a, b in zip(part, whole[start:stop], strict=True))


def test_what_disappears_is_not_trusted():
    a = np.full((64, 96), 100, np.uint8)
    b = a.copy()
    b[20:40, 30:60] = 220
    still = np.zeros((64, 96, 2), np.float32)
    trust = agreement(a, b, still, still)
    assert trust[25:35, 35:55].max() == 0 and trust[5, 5] == 1
