import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from engine_models import make_model
from program import Program

from engine.errors import ModelError
from engine.model_store import find_model


@pytest.fixture
def program(tmp_path, monkeypatch, capsys):
    """With empty folders for the user's models and settings."""
    monkeypatch.setenv("STYLIZE_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr("stylize.commands.config_file.user_file", lambda: tmp_path / "settings" / "stylize.toml")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return Program(monkeypatch, capsys)


def test_import_list_show_and_set_default(program, tmp_path, skip_model):
    done = program("models", "import", skip_model, "--name", "mine")
    assert "ONNX pair" in done.out and (tmp_path / "models" / "mine" / "spec.json").is_file()
    rows = json.loads(program("models", "list", "--json").out)
    (row,) = [row for row in rows if row["name"] == "mine"]
    assert row["origin"] == "yours" and row["looks"] == ["auto", "dusk"] and not row["default"]
    assert row["parameters"] > 10_000 and row["gflop_1080p"] > 1
    program("models", "set-default", "mine")
    assert "* mine" in program("models").out
    shown = json.loads(program("models", "show", "mine", "--json").out)
    assert shown["halo"] > 0 and set(shown["sha256"]) == {"generator.safetensors", "probe.onnx", "render.onnx"}
    assert "receptive radius" in program("models", "show", "mine").out


def test_the_default_model_is_used(program, tmp_path, skip_model, landscape):
    import cv2

    cv2.imwrite("a.png", landscape[:48, :64])
    program("models", "import", skip_model, "--name", "mine", "--default")
    program("image", "a.png", "-o", "b.png", "--look", "dusk")
    program("image", "a.png", "-o", "c.png", "--look", "dusk", "--model", skip_model)
    assert Path("b.png").read_bytes() == Path("c.png").read_bytes()


def test_a_card_beside_the_model_is_shown(program, tmp_path):
    make_model(tmp_path / "models" / "carded", "light")
    (tmp_path / "models" / "carded" / "card.md").write_text("# Violet evenings\nTrained on own pictures.\n")
    assert "Violet evenings" in program("models", "show", "carded").out


def test_damage_is_told(program, tmp_path):
    make_model(tmp_path / "models" / "bad", "light")
    path = tmp_path / "models" / "bad" / "probe.onnx"
    path.write_bytes(path.read_bytes()[:-9])
    assert "probe.onnx is damaged" in program("models", "show", "bad", expect=1).err
    (tmp_path / "models" / "bad" / "spec.json").write_text("{")
    assert "cannot be used" in program("models").out


@pytest.mark.parametrize(
    ("args", "message", "code"),
    [
        (["import", "gone.pth"], "does not exist", 1),
        (["import", "gone.pth", "--name", "../evil"], "made of letters", 2),
        (["show", "nothing"], "no model 'nothing'", 1),
        (["set-default", "nothing"], "no model 'nothing'", 1),
    ],
)
def test_wrong_use_is_one_line(program, args, message, code):
    assert message in program("models", *args, expect=code).err


def test_a_model_is_replaced_only_when_told(program, tmp_path, skip_model):
    program("models", "import", skip_model, "--name", "mine")
    assert "--overwrite" in program("models", "import", skip_model, "--name", "mine", expect=1).err
    program("models", "import", skip_model, "--name", "mine", "--overwrite")


def test_near_names_are_guessed(program, tmp_path, skip_model):
    program("models", "import", skip_model, "--name", "monet")
    with pytest.raises(ModelError, match="did you mean monet"):
        find_model("mone")
    assert find_model(str(skip_model)) == skip_model
