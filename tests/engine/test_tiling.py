import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.tiling import Region, TilePlan, usual_tile

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from compare_tiling import borders, every, seam


@st.composite
def plans(draw):
    multiple = draw(st.sampled_from([1, 2, 4, 8]))
    halo = draw(st.integers(0, 5)) * multiple
    tile = 2 * halo + draw(st.integers(1, 6)) * multiple
    height, width = (draw(st.integers(1, 40)) * multiple for _ in range(2))
    return TilePlan(
        height=height,
        width=width,
        tile_height=min(tile, height),
        tile_width=min(tile, width),
        halo=halo,
        multiple=multiple,
    )


@given(plans())
@settings(max_examples=200, deadline=None)
def test_every_pixel_is_kept_exactly_once_and_where_it_was(plan):
    image = np.random.default_rng(0).integers(0, 256, (plan.height, plan.width, 3), np.uint8)
    assert np.array_equal(plan.apply(image, lambda tile: tile), image)
    count = np.zeros((plan.height, plan.width), int)
    for tile in plan.tiles:
        count[tile.region.slices] += 1
    assert (count == 1).all()


@given(plans())
@settings(max_examples=200, deadline=None)
def test_tiles_have_one_size_and_their_halo_wherever_there_is_picture(plan):
    assert len({(t.padded.height, t.padded.width) for t in plan.tiles}) == 1
    for tile in plan.tiles:
        kept, seen = tile.region, tile.padded
        assert seen.top % plan.multiple == seen.left % plan.multiple == 0
        assert seen.top >= 0 and seen.top + seen.height <= plan.height
        assert seen.left >= 0 and seen.left + seen.width <= plan.width
        assert seen.top == 0 or kept.top - seen.top >= plan.halo
        assert seen.left == 0 or kept.left - seen.left >= plan.halo
        end = seen.top + seen.height
        assert end == plan.height or end - (kept.top + kept.height) >= plan.halo


@given(
    st.sampled_from([1, 2, 4, 8]), st.integers(0, 5), st.integers(1, 60), st.integers(1, 60), st.integers(1, 12),
    st.integers(1, 12), st.one_of(st.none(), st.integers(1, 400)),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_balanced_tiles_are_the_cheapest_that_are_allowed(multiple, halo, rows, columns, high, wide, room):
    """Against every size of tile that there is."""
    halo, height, width = halo * multiple, rows * multiple, columns * multiple
    most = (2 * halo + high * multiple, 2 * halo + wide * multiple)
    pixels = None if room is None else room * multiple**2
    allowed = []
    for tile_height in range(multiple, min(most[0], height) + 1, multiple):
        for tile_width in range(multiple, min(most[1], width) + 1, multiple):
            fits = pixels is None or tile_height * tile_width <= pixels
            small = (tile_height <= 2 * halo and tile_height < height) or (
                tile_width <= 2 * halo and tile_width < width
            )
            if fits and not small:
                counts = [
                    1 if tile >= side else -(-(side - 2 * halo) // (tile - 2 * halo))
                    for side, tile in ((height, tile_height), (width, tile_width))
                ]
                allowed.append(counts[0] * counts[1] * tile_height * tile_width)
    if not allowed:
        with pytest.raises(ValueError, match="leaves nothing between two halos"):
            TilePlan.balanced(height, width, most=most, halo=halo, multiple=multiple, pixels=pixels)
        return
    plan = TilePlan.balanced(height, width, most=most, halo=halo, multiple=multiple, pixels=pixels)
    assert len(plan.tiles) * plan.tile_height * plan.tile_width == min(allowed)
    assert plan.tile_height <= most[0] and plan.tile_width <= most[1]
    again = (plan.tile_height, plan.tile_width)
    assert plan == TilePlan.balanced(height, width, most=again, halo=halo, multiple=multiple), "a plan of that tile"


FRAMES = {"1440p": (1440, 2560), "4K": (2160, 3840), "4K upright": (3840, 2160), "12 MP": (3000, 4000),
          "12 MP upright": (4000, 3000), "24 MP": (4000, 6000), "24 MP upright": (6000, 4000)}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("model", ["full", "classic", "light"])
def test_few_pixels_are_rendered_twice(model, name):
    """With the plan that TensorRT is given where none was asked for: at most a quarter more than the frame has."""
    from engine.model_store import find_model
    from engine.spec import ModelSpec

    spec, (height, width) = ModelSpec.load(find_model(model)), FRAMES[name]
    plan = TilePlan.balanced(
        height, width, most=usual_tile(spec.halo, spec.multiple), halo=spec.halo, multiple=spec.multiple
    )
    rendered = sum(tile.padded.height * tile.padded.width for tile in plan.tiles)
    assert height * width <= rendered <= 1.25 * height * width


def test_a_local_filter_sees_no_tile_borders():
    """A box blur of radius 3 is exact with a halo of 4, and is not with none."""
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)

    def blur(tile):
        padded = np.pad(tile.astype(np.int64), ((3, 3), (3, 3), (0, 0)), mode="reflect").cumsum(0).cumsum(1)
        padded = np.pad(padded, ((1, 0), (1, 0), (0, 0)))
        total = padded[7:, 7:] - padded[:-7, 7:] - padded[7:, :-7] + padded[:-7, :-7]
        return (total // 49).astype(np.uint8)

    def plan(halo):
        return TilePlan(height=64, width=96, tile_height=24, tile_width=24, halo=halo, multiple=4)

    assert np.array_equal(plan(4).apply(image, blur), blur(image))
    assert not np.array_equal(plan(0).apply(image, blur), blur(image))


def test_seams_are_measured_where_tiles_meet():
    """A step of one level on the borders is seen there, and not where a grid of other lines is looked at."""
    plan = TilePlan(height=64, width=96, tile_height=24, tile_width=24, halo=4, multiple=4)
    spec = SimpleNamespace(multiple=4, min_side=8)
    rows, columns = borders(SimpleNamespace(spec=spec, tile_plan=lambda *_: plan), 64, 95)
    assert rows[:2] == [20, 36] and columns[:3] == [20, 36, 52]

    control = np.random.default_rng(1).integers(20, 30, (64, 95, 3), np.uint8)
    assert seam(control, control, rows, columns) == 1
    stepped = control.copy()
    for row in rows:
        stepped[row:] += 20
    for column in columns:
        stepped[:, column:] += 20
    assert seam(stepped, control, rows, columns) > 2
    assert seam(stepped, control, [r + 2 for r in rows], [c + 2 for c in columns]) == pytest.approx(1)
    assert every(40, control) == ([40], [40, 80])


def test_whole_pictures_are_one_tile():
    (tile,) = TilePlan.whole(7, 9).tiles
    assert tile.region == tile.padded == Region(0, 0, 7, 9)


@pytest.mark.parametrize(("tile", "halo"), [(16, 8), (8, 8), (12, 8)])
def test_a_tile_no_larger_than_its_halos_is_refused(tile, halo):
    with pytest.raises(ValueError, match="leaves nothing between two halos of 8: choose at least 20"):
        TilePlan(height=64, width=64, tile_height=tile, tile_width=tile, halo=halo, multiple=4)


def test_sizes_off_the_grid_are_refused():
    with pytest.raises(ValueError, match="width is a positive multiple of 4, got 30"):
        TilePlan(height=64, width=30, tile_height=32, tile_width=28, halo=8, multiple=4)
    with pytest.raises(ValueError, match="this plan is for 8 x 8"):
        TilePlan.whole(8, 8).apply(np.zeros((8, 9, 3), np.uint8), lambda tile: tile)
