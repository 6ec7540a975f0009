"""A whole training of the layered generator on made photos, stopped and gone on with."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.graphs.export import export_model, read_checkpoint
from training.data.image_io import write_rgb
from training.errors import DataError
from training.generator.config import LayersConfig
from training.layered.fields_training import fields_loss
from training.layered.run import LayersRun
from training.teacher.labels import Labels, label_photos
from training.teacher.layout_training import layout_loss

spec = importlib.util.spec_from_file_location("teacher_pictures", Path(__file__).with_name("pictures.py"))
pictures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pictures)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(4):
        write_rgb(folder / f"hike{i}.png", pictures.landscape(seed=i, branches=i % 2 == 0)[0])
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    torch.set_num_threads(1)  # small nets: more threads wait for each other
    folder = tmp_path_factory.mktemp("run")
    labels = Labels(folder=folder / "labels", photos=photos, corrections={"hike3": {"kind": "exclude"}}, steps=60)
    config = LayersConfig(ngf=8, n_blocks=1, looks=("dusk",))
    run = LayersRun(labels=labels, folder=folder, config=config, layout_steps=60)
    return run, run.train(seconds=3)


def test_labels_find_the_sky_of_made_landscapes(run, photos):
    for i, photo in enumerate(photos[:3]):
        fields = run[0].labels.fields(photo)
        assert fields.shape[:2] == run[0].labels.image(photo).shape[:2]
        wanted = pictures.landscape(fields.shape[0], fields.shape[1], seed=i, branches=i % 2 == 0)[1]
        assert pictures.iou(fields[..., 0] > 127, wanted) > 0.9


def test_excluded_photos_are_not_used(run):
    assert [p.stem for p in run[0].labels.used] == ["hike0", "hike1", "hike2"]


def test_nothing_is_made_twice(run, monkeypatch):
    monkeypatch.setattr("training.teacher.labels.teach", lambda *_: pytest.fail("made anew"))
    monkeypatch.setattr("training.teacher.labels.refine_sky", lambda *_: pytest.fail("made anew"))
    assert len(list(label_photos(run[0].labels))) == 3


def test_the_checkpoint_is_a_model(run, tmp_path):
    path = run[1]
    _, config = read_checkpoint(path)
    assert config["architecture"] == "layers"
    spec = export_model(path, tmp_path / "model", name="mine")
    assert json.loads((tmp_path / "model" / "spec.json").read_text())["name"] == "mine"
    assert spec.program.probe_ops


def test_a_run_goes_on_where_it_stopped(run):
    steps = json.loads(_metadata(run[1])["steps"])
    again = run[0].train(seconds=1)
    assert json.loads(_metadata(again)["steps"]) > steps


def test_two_photos_of_one_name_are_refused(photos, tmp_path):
    with pytest.raises(DataError, match="hike0"):
        Labels(folder=tmp_path, photos=[*photos, tmp_path / "hike0.jpg"])


def test_unknown_depth_and_depth_of_the_sky_count_nothing():
    sky = torch.tensor([[1.0, 0.0, 0.0]])
    depth = torch.tensor([[0.3, 0.5, -1.0]])
    found = torch.tensor([[[9.0, -9.0, -9.0]], [[0.9, 0.7, 0.1]]])
    # cross entropy log(1 + e^-9) in every cell; of the depths only the middle one, |0.7 - 0.5| / (1 + 8) * 2.5
    wanted = np.log1p(np.exp(-9.0)) + 2.5 * 0.2 / 9
    assert float(layout_loss(found, sky, depth)) == pytest.approx(wanted, rel=1e-4)


def _metadata(path):
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return file.metadata()


def test_what_is_not_seen_counts_nothing_and_clouds_count_most():
    wanted = torch.full((1, 4, 4, 4), 0.5)
    wanted[:, 0] = 1.0  # all sky
    guess = torch.ones(1, 1, 4, 4)
    same = float(fields_loss(wanted.clone(), wanted, guess))
    assert same == pytest.approx(0, abs=1e-6)
    for channel in (1, 2):  # depth and tone of the sky
        other = wanted.clone()
        other[:, channel] += 0.2
        assert float(fields_loss(other, wanted, guess)) == pytest.approx(0, abs=1e-6)
    cloudy = wanted.clone()
    cloudy[:, 3] = 1.0
    # a missed cloud: 0.5 off, weight 0.6 + 8 * 0.5; an invented one of the same size: weight 0.6
    assert float(fields_loss(wanted, cloudy, guess)) == pytest.approx(0.5 * 4.6, rel=1e-5)
    assert float(fields_loss(cloudy, wanted, guess)) == pytest.approx(0.5 * 0.6, rel=1e-5)
    blind = fields_loss(wanted - torch.tensor([0.1, 0, 0, 0])[:, None, None], wanted, torch.zeros(1, 1, 4, 4))
    assert float(blind) > 0.1 * 4.5 - 1e-6  # weight 1.5 + 3, and what the step adds
