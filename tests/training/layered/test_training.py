"""What the training of layers is made of: crops, the judge of painted fields, the tuning of the whole layout."""

import copy
import dataclasses

import cv2
import numpy as np
import pytest
import torch

from engine.looks.palette import palette_vectors
from engine.looks.palette_file import shipped_palettes
from training.data.image_io import write_rgb
from training.errors import DataError
from training.generator.config import LayersConfig
from training.generator.layered_networks import LayoutNet
from training.layered.adversary import SHARE, Adversary
from training.layered.crops import CROP, Canvases, FieldsExample, Photos, drawn_box
from training.layered.fields_training import FieldsTrainer
from training.layered.layout_tuning import tune_layout
from training.layered.run import LayersRun
from training.teacher.labels import Labels

CPU = torch.device("cpu")
SMALL = LayersConfig(ngf=8, n_blocks=1, head=8)


def example(make_photo, seed=0, size=(208, 272)):
    image = make_photo(seed, size)
    fields = np.repeat(image.mean(2, keepdims=True), 4, 2).astype(np.uint8)
    layout = cv2.resize(fields, (size[1] // 8, size[0] // 8), interpolation=cv2.INTER_AREA)
    tone = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.4, 0.9], np.float32)
    return FieldsExample(image=image, layout=layout, tone=tone, fields=fields)


def test_squares_are_those_of_opencv(make_photo):
    photos = [make_photo(1, (208, 272)), make_photo(2, (240, 160))]
    canvases, draw = Canvases(photos, CPU), np.random.default_rng(0)
    for i in (0, 1, 1, 0):
        box = drawn_box(draw, photos[i].shape[:2], canvases.side)
        top, left, side = (round(value * canvases.side) for value in box[:3])
        part = photos[i][top : top + side, left : left + side]
        found = canvases.cut(torch.tensor([i]), torch.tensor([box]), 1)[0].permute(1, 2, 0).numpy() * 255
        for channels, method in ((slice(2), cv2.INTER_CUBIC), (slice(2, 3), cv2.INTER_LINEAR)):
            wanted = cv2.resize(part, (CROP, CROP), interpolation=method)
            wanted = (wanted[:, ::-1] if box[3] else wanted)[..., channels]
            inner = slice(6, -6)  # OpenCV repeats the border of the part
            assert np.abs(found[inner, inner, channels] - wanted[inner, inner]).max() <= 1


def test_layout_and_fields_are_of_the_same_place(make_photo):
    """The cells of this layout are the means of its fields: cut and shrunk, both say the same."""
    photos = Photos([example(make_photo, i) for i in range(3)], CPU)
    pairs = photos.pairs(*photos.draw(np.random.default_rng(3), 4))
    assert pairs.images.shape == (4, 3, CROP, CROP) and pairs.tones.shape == (4, 7)
    layout, fields = (torch.nn.functional.avg_pool2d(x, 32) for x in (pairs.layouts, pairs.fields))
    assert float((layout - fields).abs().mean()) < 0.03


def test_another_light_moves_pixels_and_tones_alike(make_photo):
    photos = Photos([example(make_photo)], CPU)
    chosen, boxes = torch.tensor([0, 0]), torch.tensor([[0.0, 0.0, 0.7, 0.0]] * 2)
    pairs = photos.pairs(chosen, boxes, torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    plain, dark = pairs.images / 2 + 0.5
    assert torch.allclose(dark, plain.clamp(min=1e-4) ** 2, atol=1e-5)
    assert torch.allclose(pairs.tones[1], pairs.tones[0] ** 2)


def test_without_examples():
    with pytest.raises(ValueError, match="label some photos first"):
        Photos([], CPU)


@pytest.fixture
def adversary(make_art):
    palettes = [palette_vectors([(shipped_palettes()[name], 1.0)]) for name in ("dusk", "fog")]
    return Adversary([make_art(1, (120, 200)), make_art(2, (200, 120))], palettes, CPU)


def test_the_judge_moves_fields_and_learns(adversary):
    draw = np.random.default_rng(0)
    fields = torch.rand(2, 4, 48, 48, requires_grad=True)
    own, judged = adversary.losses(fields, torch.rand(2, 4, 48, 48), 4, draw)
    (gradient,) = torch.autograd.grad(own, fields)
    assert all(float(part.abs().sum()) > 0 for part in gradient.unbind(1))
    before = copy.deepcopy(adversary.state()["judge"])
    adversary.learn(judged)
    after = adversary.state()["judge"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("heads.") for name in changed)
    assert not any(name.startswith("projections.") for name in changed)


def test_the_pairs_remain_the_anchor(adversary):
    """With losses a x and b x the gradients are a and b: the judge's word counts `SHARE` of the pairs'."""
    layer = torch.ones(3, requires_grad=True)
    weight = float(adversary.weight(5 * layer.sum(), 0.1 * layer.sum(), layer))
    assert weight * 0.1 == pytest.approx(SHARE * 5, rel=1e-3)


def test_a_run_with_a_judge_goes_on_with_it(adversary, make_photo, tmp_path):
    examples, path = [example(make_photo, i) for i in range(2)], tmp_path / "fields.pt"
    trainer = FieldsTrainer(SMALL, examples, path, batch=2, adversary=adversary)
    trainer.train_step()
    trainer.save()
    state = copy.deepcopy(adversary.state()["judge"])
    adversary.learn(
        adversary.losses(torch.rand(1, 4, 96, 96), torch.rand(1, 4, 96, 96), 2, np.random.default_rng(1))[1]
    )
    again = FieldsTrainer(SMALL, examples, path, batch=2, adversary=adversary)
    assert again.step == 1
    assert all(torch.equal(value, adversary.state()["judge"][name]) for name, value in state.items())


def test_the_rate_is_obeyed_after_a_restart(make_photo, tmp_path):
    examples, path = [example(make_photo)], tmp_path / "fields.pt"
    trainer = FieldsTrainer(SMALL, examples, path, batch=2)
    trainer.train_step()
    trainer.save()
    trainer = FieldsTrainer(SMALL, examples, path, batch=2)
    trainer.rate.fill_(0.0)
    before = copy.deepcopy(trainer.net.state_dict())
    trainer.train_step()
    assert all(torch.equal(value, before[name]) for name, value in trainer.net.state_dict().items())


def test_all_of_the_layout_learns_and_norms_keep_their_statistics(make_photo):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net, photos = LayoutNet(SMALL), Photos([example(make_photo, i) for i in range(2)], CPU)
    before = copy.deepcopy(net.state_dict())
    tune_layout(net, photos, 4.0, batch=2)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("trunk.") for name in changed) and any(name.startswith("enter.") for name in changed)
    assert not any("running" in name for name in changed)
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_a_run_with_art_and_all_of_the_layout(make_photo, make_art, tmp_path):
    torch.set_num_threads(1)
    files = {}
    for kind, make in (("photos", make_photo), ("art", make_art)):
        for i in range(2):
            (tmp_path / kind).mkdir(exist_ok=True)
            write_rgb(tmp_path / kind / f"{i}.png", make(i, (96, 128)))
        files[kind] = sorted((tmp_path / kind).iterdir())
    write_rgb(tmp_path / "art" / "grey.png", np.full((96, 128, 3), 90, np.uint8))  # has no palette: left out
    labels = Labels(folder=tmp_path / "labels", photos=files["photos"], steps=2)
    run = LayersRun(
        labels=labels, folder=tmp_path, config=SMALL, layout_steps=2, layout_seconds=1.0, batch=2,
        art=[*files["art"], tmp_path / "art" / "grey.png"],
    )  # fmt: skip
    assert run.train(1.0).is_file()
    kept = torch.load(tmp_path / "layout.pt", weights_only=True)
    assert any(name.startswith("trunk.") for name in kept), "what was tuned is kept"
    assert "adversary" in torch.load(tmp_path / "fields.pt", weights_only=True)
    with pytest.raises(DataError, match=r"art holds no art with sky and land"):
        dataclasses.replace(run, art=[tmp_path / "art" / "grey.png"]).train(1.0)
