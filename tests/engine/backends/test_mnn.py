"""What is special about the backend `mnn`; what every backend does is in test_backends.py."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from engine_graphs import OnnxBackend, run
from engine_models import CONFIGS, landscape

from engine import choice
from engine.backends.base import BackendOptions
from engine.backends.mnn import MnnBackend
from engine.backends.mnn_graph import block_graphs, from_blocks, to_blocks
from engine.backends.shape_cache import SHAPES
from engine.choice import candidates, open_backend
from engine.errors import BackendError, ModelError
from engine.graphs.export import read_checkpoint
from engine.spec import ModelSpec, look_weights

NATIVE = BackendOptions(threads=1)
SHIPPED = Path(__file__).parents[3] / "engine" / "models"


def opened(folder: Path) -> MnnBackend:
    return MnnBackend(folder, ModelSpec.load(folder), NATIVE)


def test_blocks_count_place_then_channel():
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 20, 3), np.uint8)
    blocks = to_blocks(images, 4)
    assert blocks.shape == (2, 3, 5, 48)
    for y, x, channel in ((0, 0, 0), (3, 1, 2), (2, 3, 1)):
        assert np.array_equal(blocks[..., (4 * y + x) * 3 + channel], images[:, y::4, x::4, channel])
    assert np.array_equal(from_blocks(blocks, 4), images)
    assert np.array_equal(to_blocks(images[:, :, ::-1], 1), images[:, :, ::-1])
    assert np.array_equal(to_blocks(images[:, :, 4:], 4), blocks[:, :, 1:]), "not contiguous"


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_graphs_by_blocks_are_those_that_ship(kind: str, models: dict[str, Path]) -> None:
    """The rewriting alone, without MNN: in onnxruntime both give one picture."""
    spec = ModelSpec.load(models[kind])
    graphs = block_graphs(spec, read_checkpoint(models[kind] / "generator.safetensors")[0])
    assert (graphs.first, graphs.last) == ((4, 4) if kind == "light" else (1, 2))
    image = landscape(64, 64)[None]
    look = look_weights(spec, "auto=0.3,dusk=0.7")
    with OnnxBackend(models[kind], spec, BackendOptions()) as reference:
        statistics = reference.probe(image, look)
        expected = reference.render(image, statistics)
    blocks = to_blocks(image, graphs.first)
    scale, shift = run(graphs.probe, view=blocks, look=look[None])
    np.testing.assert_allclose(scale[0], statistics.scale, rtol=1e-4)
    np.testing.assert_allclose(shift[0], statistics.shift, rtol=1e-4, atol=1e-4)
    (output,) = run(graphs.render, tiles=blocks, scale=statistics.scale[None], shift=statistics.shift[None])
    found = from_blocks(output, graphs.last)
    assert found.shape == expected.shape
    differ = found.astype(int) - expected
    assert np.abs(differ).max() <= 1 and np.mean(differ != 0) < 1e-3


def test_few_shapes_are_kept(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with opened(models["light"]) as running:
        statistics = running.probe(landscape(32, 32)[None], look_weights(running.spec, "auto"))
        pictures = {side: landscape(side, 32)[None] for side in range(32, 64, 4)}
        first = {side: running.render(picture, statistics) for side, picture in pictures.items()}
        assert len(running._sessions) == SHAPES
        for side, picture in pictures.items():
            assert np.array_equal(running.render(picture, statistics), first[side])
        assert not list(tmp_path.iterdir()), "no files are left, even if the program is killed"
    assert not running._sessions and not running._models


def test_other_threads_run_meanwhile(models: dict[str, Path]) -> None:
    """Decoding and encoding go on in threads of the same process."""
    ticks, done = [0], threading.Event()

    def tick() -> None:
        while not done.wait(0.0002):
            ticks[0] += 1

    with opened(models["skip"]) as running:
        image = landscape(512, 512)[None]
        statistics = running.probe(image, look_weights(running.spec, "auto"))
        running.render(image, statistics)
        session = running._session("render", image.shape)
        other = threading.Thread(target=tick)
        other.start()
        before = ticks[0]
        for _ in range(3):
            session.run()
        during = ticks[0] - before
        done.set()
        other.join()
    assert during >= 10


def test_standard_output_is_the_users(models: dict[str, Path]) -> None:
    """MNN and its converter are talkative, and a wrapper in its package reports its use over the network."""
    code = (
        "import os, sys, numpy as np; from pathlib import Path\n"
        "from engine.choice import open_backend\n"
        "seen = []\n"
        "sys.addaudithook(lambda name, _: seen.append(name) if name.startswith('socket.') else None)\n"
        "print('before')\n"
        "with open_backend(Path(sys.argv[1]), name='mnn') as b:\n"
        "    tile = np.zeros((1, 32, 32, 3), np.uint8)\n"
        "    b.render(tile, b.probe(tile, np.array([1, 0], np.float32)))\n"
        "print('after', 'MNN.tools' in sys.modules, seen)\n"
    )
    command = [sys.executable, "-c", code, str(models["light"])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "before\nafter False []\n"
    shut = f"import os; os.close(1); os.execv({command[0]!r}, {command!r})"
    subprocess.run([sys.executable, "-c", shut], stderr=subprocess.PIPE, check=True)


def test_json_of_a_command_stays_json(models: dict[str, Path], tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), landscape(40, 56))
    command = [sys.executable, "-m", "stylize", "folder", str(tmp_path), "--model", str(models["light"])]
    done = subprocess.run([*command, "--backend", "mnn", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["done"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16"}, "mnn computes in fp32, not bf16: take --backend openvino"),
        ({"device": "cuda:0"}, "runs on the CPU: leave out --device cuda:0"),
    ],
)
def test_what_it_cannot_do(models: dict[str, Path], options: dict[str, str], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        open_backend(models["light"], name="mnn", options=BackendOptions(**options)).__enter__()


def test_without_mnn(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MNN", None)
    with pytest.raises(BackendError, match=r"pip install MNN"):
        opened(models["light"]).__enter__()


def test_a_converter_that_fails(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import _tools

    monkeypatch.setattr(_tools, "mnnconvert", lambda arguments: True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(BackendError, match="MNN cannot convert the probe graph of light"):
        opened(models["light"]).__enter__()
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(models["light"]) as running:
        tile = landscape(32, 32)[None]
        statistics = running.probe(tile, look_weights(running.spec, "auto"))
        running.render(tile, statistics)
        session = running._session("render", tile.shape)
        monkeypatch.setattr(session, "_interpreter", type("Broken", (), {"runSession": lambda *_: 3})())
        with pytest.raises(BackendError, match="MNN failed with its error 3"):
            running.render(tile, statistics)


@pytest.fixture
def old_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(choice, "cpu_has_bf16", lambda: False)


@pytest.fixture
def onnx_pair(models: dict[str, Path], tmp_path: Path) -> Path:
    """A model folder that was imported as its ONNX pair."""
    shutil.copytree(models["light"], tmp_path / "pair")
    (tmp_path / "pair" / "generator.safetensors").unlink()
    return tmp_path / "pair"


@pytest.mark.usefixtures("old_cpu")
def test_without_the_weights(
    onnx_pair: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"generator\.safetensors is missing: .*--backend openvino"):
        opened(onnx_pair).__enter__()
    monkeypatch.setattr(choice, "WIDE", 8)
    with open_backend(onnx_pair, options=BackendOptions(device="cpu", threads=1)) as running:
        assert running.name == "openvino"
    assert "does not work here" not in caplog.text


# --- what auto does on a CPU


def names(**options: str) -> list[str]:
    return [name for name, _ in candidates("cpu", **options)]


@pytest.mark.usefixtures("old_cpu")
def test_mnn_comes_first_where_it_is_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names() == names(precision="fp32") == ["mnn", "openvino"]
    assert names(precision="bf16") == ["openvino"]
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert names() == ["openvino"]


@pytest.mark.usefixtures("old_cpu")
def test_narrow_models_are_left_to_openvino(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    options = BackendOptions(device="cpu", threads=1)
    for width, kinds in ((32, {"skip": "mnn", "light": "openvino"}), (33, {"skip": "openvino"})):
        monkeypatch.setattr(choice, "WIDE", width)
        for kind, expected in kinds.items():
            with open_backend(models[kind], options=options) as running:
                assert running.name == expected
    shipped = {name: ModelSpec.load(SHIPPED / name) for name in ("classic", "light")}
    monkeypatch.undo()
    assert {name: choice._why_not_by_mnn(SHIPPED / name, spec) for name, spec in shipped.items()} == {
        "classic": None,
        "light": choice._why_not_by_mnn(SHIPPED / "light", shipped["light"]),
    }


@pytest.mark.usefixtures("old_cpu")
def test_openvino_comes_first_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "cpu_has_bf16", lambda: True)
    assert names() == ["openvino"] and names(precision="fp32") == ["mnn", "openvino"]
    monkeypatch.setattr(choice, "cpu_has_bf16", lambda: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ((name, reason),) = candidates("cpu")
    assert name == "openvino" and "not mnn: it is not installed" in reason


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags\t\t: fpu sse2 avx2 fma avx512f avx512_vnni", False),
        ("flags\t\t: fpu avx512f avx512_bf16 vaes", True),
        ("flags\t\t: fpu amx_bf16 amx_tile", True),
        ("model name\t: Some avx512_bf16 CPU\nflags\t\t: fpu avx2", False),
    ],
)
def test_bf16_is_read_from_the_flags(monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool) -> None:
    choice.cpu_has_bf16.cache_clear()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"processor\t: 0\n{flags}\n")
    assert choice.cpu_has_bf16() is expected
    monkeypatch.undo()
    choice.cpu_has_bf16.cache_clear()


def test_bf16_where_there_are_no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    choice.cpu_has_bf16.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", absent)
        patch.setattr("openvino.Core", type("Core", (), {"get_property": lambda *_: ["FP32", "BF16"]}))
        assert choice.cpu_has_bf16()
    choice.cpu_has_bf16.cache_clear()
