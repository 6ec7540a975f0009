"""Layered generators in the evaluation: the pictures of a checkpoint are those of the model made from it."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from engine.graphs.export import export_model
from engine.metrics import psnr
from stylize.api import Stylizer
from training.cli import main
from training.errors import CheckpointError
from training.evaluation.layered import layered_looks, layered_method
from training.generator.checkpoint import load_any_generator, load_generator, save_generator
from training.generator.config import LayersConfig
from training.generator.layered_networks import FieldsNet, LayoutNet, checkpoint_weights


@pytest.fixture(scope="module", params=[(1, 4), (2, 4), (1, 2)], ids=["full", "small", "fine"])
def checkpoint(request, tmp_path_factory):
    torch.manual_seed(3)
    config = LayersConfig(ngf=8, n_blocks=1, head=8, pool=request.param[0], stride=request.param[1])
    layout = LayoutNet(config)
    layout.mean.normal_(), layout.deviation.uniform_(0.5, 2)
    path = tmp_path_factory.mktemp("run") / "generator.safetensors"
    save_generator(path, checkpoint_weights(layout, FieldsNet(config)), config, steps=1)
    return path


@pytest.mark.parametrize("look", ["dusk", "auto"])
def test_pictures_are_those_of_the_model(checkpoint, tmp_path, make_photo, look):
    export_model(checkpoint, tmp_path / "model", name="mine")
    photo = make_photo(5, (85, 140))
    with Stylizer(model=str(tmp_path / "model"), look=look, backend="openvino", precision="fp32") as stylizer:
        expected = stylizer.image(photo)
    found = layered_method(load_any_generator(checkpoint), look, torch.device("cpu"))(photo)
    assert psnr(found[None], np.asarray(expected)[None]) >= 45


def test_a_run_of_layers_is_judged(checkpoint, tmp_path, folders):
    command = ["evaluate", checkpoint.parent, "--device", "cpu", "--photos", folders[0], "--art", folders[1],
               "--size", 96, "--limit", 2, "--out", tmp_path / "out", "--look", "each", "--patches", 256]  # fmt: skip
    result = CliRunner().invoke(main, [str(c) for c in command])
    assert result.exit_code == 0, result.output
    values = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert checkpoint.parent.name in values["methods"]


def test_what_does_not_fit_is_one_line(checkpoint):
    with pytest.raises(CheckpointError, match="no look 'pink'; there are dusk"):
        layered_method(load_any_generator(checkpoint), "pink", torch.device("cpu"))
    with pytest.raises(CheckpointError, match="paints in layers"):
        load_generator(checkpoint)
    assert layered_looks()[-1] == "auto"
