from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
import torch

from training.errors import CheckpointError
from training.generator.checkpoint import STATE, find_state, load_generator, load_state, save_generator, save_state
from training.generator.networks import GeneratorConfig, build_generator

CONFIG = GeneratorConfig(ngf=4, n_blocks=1)


def state(step: int, seed: int = 0) -> dict:
    g = torch.Generator().manual_seed(seed)
    return {
        "step": step,
        "text": "x",
        "nets": {"a": torch.randn(3, 5, 7, generator=g), "b": torch.randn(4000, generator=g)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}, 1: {"n": torch.arange(4)}}, "betas": (0.5, 0.999)},
        "half": torch.randn(8, 8, generator=g).half(),
        "channels_last": torch.randn(2, 3, 4, 5, generator=g).to(memory_format=torch.channels_last),
        "pools": [[torch.randn(3, 4, 4, generator=g)], []],
        "none": None,
        "empty": torch.zeros(0, 3),
    }


def assert_equal(a, b) -> None:
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for k in a:
            assert_equal(a[k], b[k])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


def test_state_comes_back_exactly(tmp_path):
    save_state(tmp_path, state(7))
    expected = {"format": "firewatch-state-2", **state(7)}
    assert_equal(load_state(find_state(tmp_path)), expected)
    assert_equal(load_state(find_state(tmp_path / STATE)), expected)


def test_a_new_state_replaces_the_old_and_what_a_killed_save_left(tmp_path):
    (tmp_path / f".{STATE}.1-1.part").write_bytes(b"half")
    save_state(tmp_path, state(1))
    save_state(tmp_path, state(2, seed=1))
    assert_equal(load_state(tmp_path / STATE)["nets"], state(2, seed=1)["nets"])
    assert [p.name for p in tmp_path.iterdir()] == [STATE]


@pytest.fixture
def small_files():
    """The kernel refuses files beyond 64 KB, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_keeps_the_last_good_state(tmp_path, small_files):
    save_state(tmp_path, state(1))
    big = {**state(2), "big": torch.randn(100_000)}
    with pytest.raises(CheckpointError, match=r"free some space, then --resume; what was there before is kept"):
        save_state(tmp_path, big)
    assert load_state(tmp_path / STATE)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == [STATE]


def test_full_disk_keeps_the_last_good_generator(tmp_path, small_files):
    path, net = tmp_path / "generator.safetensors", build_generator(CONFIG)
    save_generator(path, net.state_dict(), CONFIG, step=3)
    wide = GeneratorConfig(ngf=32, n_blocks=1)
    with pytest.raises(CheckpointError, match="free some space"):
        save_generator(path, build_generator(wide).state_dict(), wide, step=4)
    assert load_generator(path).config == CONFIG
    assert [p.name for p in tmp_path.iterdir()] == ["generator.safetensors"]


def test_generator_rebuilds_itself(tmp_path):
    path, net = tmp_path / "g.safetensors", build_generator(CONFIG).eval()
    save_generator(path, net.state_dict(), CONFIG, step=3)
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(load_generator(path)(x), net(x))


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1}', b"PK\x03\x04rubbish"])
def test_files_of_others_are_refused(tmp_path, content):
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_state(find_state(tmp_path))
    torch.save({"step": 3}, tmp_path / STATE)
    with pytest.raises(CheckpointError, match="no checkpoint of this version"):
        load_state(tmp_path / STATE)


def test_a_cut_state_is_refused(tmp_path):
    save_state(tmp_path, state(1))
    data = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(data[:-100])
    with pytest.raises(CheckpointError, match="is it complete"):
        load_state(tmp_path / STATE)


def test_states_of_earlier_versions_are_refused(tmp_path):
    (tmp_path / "last.json").write_text('{"format": "firewatch-state-1", "files": {}}')
    for path in (tmp_path, tmp_path / "last.json"):
        with pytest.raises(CheckpointError, match=r"earlier version.*--init .*generator\.safetensors"):
            find_state(path)
    save_state(tmp_path, state(1))  # a state of this version beside it counts
    assert find_state(tmp_path) == tmp_path / STATE


def test_missing_state(tmp_path):
    with pytest.raises(CheckpointError, match="start again without --resume"):
        find_state(tmp_path)


def test_foreign_generators_are_refused(tmp_path):
    path = tmp_path / "g.safetensors"
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_generator(path)
    path.write_bytes(b"no safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_generator(path)
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="was not written by train-generator"):
        load_generator(path)
    save_generator(path, {"head.bias": torch.ones(3)}, CONFIG)
    with pytest.raises(CheckpointError, match="does not fit its own architecture"):
        load_generator(path)
    metadata = {"format": "firewatch-generator-1", "config": json.dumps({"architecture": "unknown"})}
    save_file({"a": torch.ones(2)}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="unknown architecture"):
        load_generator(path)


class Evil:
    def __reduce__(self):
        return (Path.write_text, (Path("pwned"), "x"))


def test_a_state_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": "firewatch-state-2", "step": Evil()}, tmp_path / STATE)
    with pytest.raises(CheckpointError):
        load_state(tmp_path / STATE)
    assert not (tmp_path / "pwned").exists()
