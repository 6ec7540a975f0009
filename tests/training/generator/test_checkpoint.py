from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
import torch

from training.errors import CheckpointError
from training.generator.checkpoint import MANIFEST, find_state, load_generator, load_state, save_generator, save_state
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


@pytest.mark.parametrize("limit", [4096, 15_500_000])
def test_state_comes_back_exactly(tmp_path, limit):
    save_state(tmp_path, state(7), limit=limit)
    assert_equal(load_state(find_state(tmp_path)), state(7))
    assert_equal(load_state(find_state(tmp_path / MANIFEST)), state(7))


def test_no_file_is_larger_than_its_limit(tmp_path):
    save_state(tmp_path, {"step": 1, "big": torch.randn(2_100_000), "small": torch.ones(3)}, limit=1_000_000)
    parts = sorted(tmp_path.glob("state-*.safetensors"))
    assert len(parts) >= 9
    assert max(p.stat().st_size for p in parts) < 1_010_000
    save_state(tmp_path, {"step": 2, "big": torch.randn(4_000_000)})
    parts = sorted(tmp_path.glob("state-*.safetensors"))
    assert len(parts) == 2
    assert all(p.stat().st_size <= 16_000_000 for p in parts)


def test_a_new_state_replaces_the_files_of_the_old(tmp_path):
    save_state(tmp_path, state(1), limit=4096)
    save_state(tmp_path, state(2, seed=1), limit=4096)
    assert all("0000002" in p.name for p in tmp_path.glob("state-*"))
    assert_equal(load_state(tmp_path / MANIFEST), state(2, seed=1))
    save_state(tmp_path, state(2, seed=2), limit=4096)  # the same step again
    assert_equal(load_state(tmp_path / MANIFEST), state(2, seed=2))


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
    with pytest.raises(CheckpointError, match=r"free some space, then --resume; the previous file is kept"):
        save_state(tmp_path, big, limit=60_000 * 4)
    assert_equal(load_state(tmp_path / MANIFEST), state(1))
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors"]


def test_full_disk_at_the_manifest_keeps_the_last_good_state(tmp_path, small_files):
    save_state(tmp_path, state(1))
    with pytest.raises(CheckpointError, match=MANIFEST):
        save_state(tmp_path, {**state(2), "text": "x" * 100_000})
    assert_equal(load_state(tmp_path / MANIFEST), state(1))


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


def test_damaged_and_missing_parts_are_named(tmp_path):
    save_state(tmp_path, state(1), limit=4096)
    part = sorted(tmp_path.glob("state-*"))[1]
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"{part.name}.* damaged"):
        load_state(tmp_path / MANIFEST)
    part.unlink()
    with pytest.raises(CheckpointError, match=rf"{part.name}.* missing"):
        load_state(tmp_path / MANIFEST)


@pytest.mark.parametrize("name", ["last.json", "last.pt"])
@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1}', b"PK\x03\x04rubbish"])
def test_foreign_states_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError):
        load_state(find_state(tmp_path))


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


def test_states_hold_no_objects(tmp_path: Path):
    with pytest.raises(TypeError, match="plain values"):
        save_state(tmp_path, {"step": 1, "object": object()})
