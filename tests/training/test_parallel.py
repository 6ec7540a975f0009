from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.generator.checkpoint import load_generator
from training.parallel import Parallel, parallel_processes

ROOT = Path(__file__).parents[2]
OPTIONS = [
    "--ngf", "4", "--n-blocks", "1", "--ndf", "4", "--scales", "1", "--crop", "32", "--looks", "auto,dusk",
    "--warmup-steps", "2", "--steps", "3", "--pool-size", "3", "--frame-every", "1", "--device", "cpu",
    "--precision", "fp32", "--threads", "1", "--workers", "1", "--batch", "4", "--warmup-back-every", "2",
]  # fmt: skip


def start(folders, out: Path, **environment: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "training.cli",
        "--photos",
        folders[0],
        "--art",
        folders[1],
        "--out",
        out,
        *OPTIONS,
    ]
    return subprocess.Popen(
        [str(c) for c in command],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_processes_compute_what_one_computes_on_the_whole_batch(folders, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # what torchrun sets
    runs = [start(folders, tmp_path / "one")]
    runs += [start(folders, tmp_path / "two", RANK=r, LOCAL_RANK=r, **shared) for r in ("0", "1")]
    texts = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], texts
    assert "done" in texts[1]
    assert "done" not in texts[2]  # one process speaks

    assert [p.name for p in sorted((tmp_path / "two").iterdir())] == ["00000", "flat"]
    one, two = (
        [json.loads(line) for line in (tmp_path / n / "00000" / "stats.jsonl").read_text().splitlines()]
        for n in ("one", "two")
    )
    assert len(one) == len(two) == 5
    for a, b in zip(one, two, strict=True):
        same = {k: v for k, v in a.items() if k not in ("seconds", "images_per_s", "memory_mib")}
        assert {k: b[k] for k in same} == pytest.approx(same, rel=2e-4)
    nets = [load_generator(tmp_path / n / "00000" / "generator.safetensors").state_dict() for n in ("one", "two")]
    torch.testing.assert_close(nets[0], nets[1], rtol=1e-3, atol=1e-4)


def test_one_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with parallel_processes() as parallel:
        assert parallel == Parallel(rank=0, world=1)
        rows = torch.rand(2, 3)
        assert parallel.gather(rows) is rows
        assert parallel.mean({"a": torch.tensor(2.0)}) == {"a": 2.0}
        assert parallel.share("x") == "x"
