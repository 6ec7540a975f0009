from __future__ import annotations

import numpy as np
import pytest
import torch

from training.config import TrainConfig
from training.data.dataset import PhotoArtDataset
from training.data.image_io import fit, image_files, read_rgb, write_rgb
from training.errors import CheckpointError, DataError


def same(a, b) -> bool:
    return all(torch.equal(x, getattr(b, name)) for name, x in vars(a).items())


def test_a_step_is_the_same_whenever_it_is_drawn(tiny):
    a, b = PhotoArtDataset(tiny(batch=2)), PhotoArtDataset(tiny(batch=2))
    steps = [a.sample(s) for s in range(4)]
    assert same(steps[3], b.sample(3))
    assert not same(steps[0], steps[1])
    assert not same(steps[0], PhotoArtDataset(tiny(batch=2, seed=1)).sample(0))
    assert all(same(x, y) for x, y in zip(steps[1:], b.batches(1, 4), strict=True))
    many = PhotoArtDataset(tiny(batch=2, workers=3))
    assert all(same(x, y) for x, y in zip(steps, many.batches(0, 4), strict=True))


def test_rows_are_parts_of_the_whole_batch(tiny):
    data = PhotoArtDataset(tiny(batch=4))
    whole = data.sample(5)
    for rows in ([0, 1], [2, 3]):
        part = data.sample(5, slice(rows[0], rows[-1] + 1))
        views_and_crops = rows + [4 + row for row in rows]
        assert all(torch.equal(getattr(whole, name)[views_and_crops], value) for name, value in vars(part).items())


def test_batch_shapes_and_ranges(tiny):
    batch = PhotoArtDataset(tiny(batch=3, crop=48, scales=1, warmup_steps=0, views=False)).sample(0)
    for image in (batch.real_A, batch.pair_A, batch.real_B):
        assert image.shape == (3, 3, 48, 48)
        assert image.dtype == torch.float32
        assert -1 <= image.min() < image.max() <= 1
    for look in (batch.look_A, batch.look_B):
        assert look.shape == (3, 2)
        assert torch.equal(look.sum(1), torch.ones(3))


def test_the_warmup_draws_no_art(tiny):
    data = PhotoArtDataset(tiny(warmup_steps=2))
    assert [len(data.sample(step).real_B) for step in (0, 1, 2)] == [0, 0, 2]


def test_views_show_the_whole_picture_and_crops_a_part(tiny, tmp_path, write_image, make_art):
    image = np.full((64, 64, 3), 120, np.uint8)
    image[:4, :, 0] = image[-4:, :, 0] = 255  # red bars above and below
    for i in range(3):
        write_image(tmp_path / "p" / f"{i}.png", image)
        write_image(tmp_path / "b" / f"{i}.png", make_art(i))
    config = tiny(photos=str(tmp_path / "p"), art=str(tmp_path / "b"), zoom=(4.0, 4.0), check_folders=False, batch=3)
    batch = PhotoArtDataset(config).sample(0)
    assert len(batch.real_A) == len(batch.pair_A) == len(batch.look_A) == 6
    views, crops = batch.real_A[:3], batch.real_A[3:]
    assert bool((views[:, 0, 0] > 0.5).all() and (views[:, 0, -1] > 0.5).all())
    assert not bool(((crops[:, 0, 0] > 0.5) & (crops[:, 0, -1] > 0.5)).any())
    assert torch.equal(batch.look_A[:3], batch.look_A[3:])


def test_pair_shows_the_same_crop(tiny, tmp_path, make_photo, make_art, write_image):
    # A photo whose left half is dark: the pair of every crop is dark on the same side.
    image = np.full((64, 80, 3), 230, np.uint8)
    image[:, :40] = 20
    for i in range(2):
        write_image(tmp_path / "p" / f"{i}.png", image)
        write_image(tmp_path / "b" / f"{i}.png", make_art(i))
    data = PhotoArtDataset(
        tiny(photos=str(tmp_path / "p"), art=str(tmp_path / "b"), zoom=(0.5, 0.5), check_folders=False)
    )
    sides = set()
    for step in range(8):
        batch = data.sample(step)
        a, pair = batch.real_A.mean((0, 1, 2)), batch.pair_A.mean((0, 1, 2))
        assert torch.corrcoef(torch.stack([a, pair]))[0, 1] > 0.9
        sides.add(bool(a[0] < a[-1]))
    assert sides == {True, False}  # flipped half of the time


def test_flattened_photos_are_kept_by_content(tiny, tmp_path, monkeypatch, folders):
    data = PhotoArtDataset(tiny())
    path = data.photos[0]
    first = data.flat(path, read_rgb(path))
    copy = tmp_path / "elsewhere.png"
    copy.write_bytes(path.read_bytes())
    monkeypatch.setattr("training.data.dataset.flat_shapes", lambda photo: pytest.fail("flattened again"))
    assert np.array_equal(data.flat(copy, read_rgb(copy)), first)
    assert [p.suffix for p in data.cache.iterdir()] == [".png"]


def test_cache_can_be_filled_ahead(tiny):
    data, done = PhotoArtDataset(tiny()), []
    data.flatten_all(lambda: done.append(1), 2)
    assert len(done) == len(list(data.cache.glob("*.png"))) == 4


def test_unwritable_cache_is_a_clear_error(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="--cache"):
        PhotoArtDataset(tiny(cache=str(tmp_path / "file" / "x"))).sample(0)


def test_error_in_a_worker_reaches_the_loop(tiny, tmp_path, make_photo, write_image, folders):
    for i in range(3):
        write_image(tmp_path / "p" / f"{i}.png", make_photo(i))
    data = PhotoArtDataset(tiny(photos=str(tmp_path / "p")))
    for path in data.photos:
        path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        list(data.batches(0, 3))


def test_image_files_are_sorted_and_filtered(tmp_path, make_photo, write_image):
    for name in ("b.png", "a/c.jpg", ".hidden.png"):
        write_image(tmp_path / name, make_photo(0))
    (tmp_path / "notes.txt").write_text("")
    assert [p.name for p in image_files(tmp_path)] == ["c.jpg", "b.png"]
    with pytest.raises(DataError, match="is not a folder"):
        image_files(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        image_files(tmp_path / "empty")


def test_fit_only_scales_down():
    assert fit(np.zeros((10, 20, 3), np.uint8), 40).shape == (10, 20, 3)
    assert fit(np.zeros((100, 200, 3), np.uint8), 40).shape == (20, 40, 3)
    assert fit(np.zeros((1, 2000, 3), np.uint8), 40).shape == (1, 40, 3)


def test_written_image_comes_back(tmp_path, make_photo):
    write_rgb(tmp_path / "a.png", make_photo(1))
    assert np.array_equal(read_rgb(tmp_path / "a.png"), make_photo(1))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    "changes",
    [{"crop": 33}, {"crop": 24}, {"batch": 0}, {"zoom": (2.0, 1.0)}, {"decay_start": 1.5}, {"precision": "int4"},
     {"scales": 4}, {"crop": 32, "scales": 2}, {"warmup": "x"}, {"looks": ("nowhere",)}, {"lr": -1.0},
     {"identity_every": 0}, {"ema": 2.0}, {"architecture": "x"}],
)  # fmt: skip
def test_impossible_settings_are_refused(tiny, changes):
    with pytest.raises(ValueError):
        tiny(**changes)


def test_settings_come_back_from_their_file(tiny, tmp_path):
    config = tiny(epochs=3, zoom=(0.5, 2.0))
    config.save(tmp_path / "options.json")
    assert TrainConfig.load(tmp_path / "options.json") == config


@pytest.mark.parametrize("text", ["", "[]", '{"photos": "a"}', '{"unknown": 1}',
                                  '{"photos": "a", "art": "b", "out": "c", "crop": 7}'])  # fmt: skip
def test_damaged_settings_are_refused(tmp_path, text):
    (tmp_path / "options.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"options\.json"):
        TrainConfig.load(tmp_path / "options.json")
