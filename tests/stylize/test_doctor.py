import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from program import Program

import stylize.doctor
from engine.errors import BackendError
from stylize.doctor import examine
from stylize.errors import ToolError


@pytest.fixture
def program(tmp_path, monkeypatch, capsys, skip_model):
    """One model of the user's, which is the default, no others, and next to no waiting."""
    monkeypatch.setattr("stylize.commands.config_file.user_file", lambda: tmp_path / "stylize.toml")
    (tmp_path / "stylize.toml").write_text('model = "mine"\n')
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").symlink_to(skip_model)
    monkeypatch.setenv("STYLIZE_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("FIREWATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("engine.model_store.SHIPPED", tmp_path / "none")
    monkeypatch.setattr(stylize.doctor, "SELF_TEST_SECONDS", 0.01)
    return Program(monkeypatch, capsys)


def test_a_whole_installation_is_ready(program):
    report = json.loads(program("doctor", "--json").out)
    found = {(check["group"], check["name"]): check for check in report["checks"]}
    assert report["ready"] and found["models", "mine"]["status"] == "ok"
    assert re.search(r"hashes right \(render.onnx [0-9a-f]{12}\)", found["models", "mine"]["detail"])
    assert found["ffmpeg", "ffmpeg"]["status"] == "ok" and "libx264" in found["ffmpeg", "encoders"]["detail"]
    assert found["OpenVINO", "CPU"]["status"] == "ok"
    assert "fps at 1080p" in found["self-test", "openvino"]["detail"]
    assert found["self-test", "torch"]["status"] == "ok"
    assert found["MNN", "MNN"]["status"] == "ok" and "fps at 1080p" in found["self-test", "mnn"]["detail"]
    for check in report["checks"]:
        assert check["status"] in ("ok", "missing") and "\n" not in check["detail"]
    assert all(c["fix"] for c in report["checks"] if c["status"] == "missing" and c["group"] != "self-test")


def test_every_fault_comes_with_a_remedy_and_stops_nothing(program, tmp_path, monkeypatch):
    def no_ffmpeg():
        raise ToolError("no usable ffmpeg was found: pip install imageio-ffmpeg")

    def broken(*_, **__):
        raise BackendError("OpenVINO failed")

    monkeypatch.setattr("stylize.media.ffmpeg.find_ffmpeg", no_ffmpeg)
    monkeypatch.setattr("engine.choice.open_backend", broken)
    monkeypatch.setattr(stylize.doctor, "_version", lambda name: None)
    done = program("doctor", expect=1)
    assert "FAULT    ffmpeg  no usable" in done.out and "-> pip install imageio-ffmpeg" in done.out
    assert "-> pip install openvino" in done.out and "OpenVINO failed" in done.out and "faults" in done.out
    assert re.search(r"pip install 'tensorrt>=10\.\d+'.* 'pycuda>=2024\.1", done.out)
    assert "firewatch-stylizer" not in done.out


@pytest.mark.parametrize(("bf16", "status"), [(False, "missing"), (True, "ok")])
def test_mnn_is_proposed_where_it_is_faster(program, monkeypatch, bf16, status):
    monkeypatch.setattr(stylize.doctor, "_version", lambda name: None)
    monkeypatch.setattr("engine.choice.cpu_has_bf16", lambda: bf16)
    (check,) = (c for c in examine(self_test=False, models=[]) if c.group == "MNN")
    assert check.status == status and bool(check.fix) == (not bf16)


def test_a_damaged_model_and_no_model_are_faults(program, tmp_path):
    (tmp_path / "models" / "mine").unlink()
    assert [c.name for c in examine(self_test=False, models=[]) if c.status == "fault"] == ["models"]
    (tmp_path / "models" / "bad").mkdir()
    (tmp_path / "models" / "bad" / "spec.json").write_text("{}")
    (fault,) = (c for c in examine(self_test=False, models=[]) if c.status == "fault")
    assert fault.name == "bad" and "import it again" in fault.fix


def test_an_unforeseen_error_is_a_finding(program, monkeypatch):
    def explode():
        raise RuntimeError("driver went\naway")

    monkeypatch.setattr(stylize.doctor, "_openvino", explode)
    faults = [c for c in examine(self_test=False, models=[]) if c.status == "fault"]
    assert [c.detail for c in faults] == ["RuntimeError: driver went away"]


def test_without_the_default_model_nothing_is_ready(program, tmp_path):
    (tmp_path / "stylize.toml").write_text('model = "gone"\n')
    done = program("doctor", "--no-self-test", expect=1)
    assert "FAULT    models: default gone" in done.out and "stylize models set-default" in done.out
    (tmp_path / "stylize.toml").unlink()
    done = program("doctor", "--no-self-test", expect=1)
    assert "default light" in done.out and "default full" in done.out and "Ready." not in done.out


def test_settings_that_cannot_be_used_are_a_fault(program, tmp_path):
    (tmp_path / "stylize.toml").write_text('model = "mine"\nlok = "dusk"\n')
    done = program("doctor", "--no-self-test", expect=1)
    assert "FAULT    settings: stylize.toml" in done.out and "did you mean 'look'" in done.out


def test_no_plan_is_built(program, skip_model, monkeypatch):
    """Its class is opened without the way to build; what opens a backend by name has one."""
    opened = []
    monkeypatch.setattr("engine.choice.open_backend", lambda folder, *, name: opened.append(name) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stylize.doctor._render_test("torch", "mine", skip_model)
    check = stylize.doctor._render_test("tensorrt", "mine", skip_model)
    assert opened == ["torch"] and check.status == "missing"


def test_requirements_are_those_of_the_package(monkeypatch):
    lines = ["numpy>=1.26", 'tomli>=2; python_version < "3.11"', 'MNN>=3.4; extra == "cpu"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: lines)
    assert stylize.doctor._requirements() == ["numpy>=1.26"]
    assert stylize.doctor.extra_command("cpu") == "pip install 'MNN>=3.4'"
