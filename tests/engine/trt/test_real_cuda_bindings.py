"""The real cuda-bindings over a driver without a GPU: plans are built and run as with pycuda."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_driver import compile_driver, cuda_root

from engine.choice import gpu_in_sight
from engine.errors import BackendError
from engine.trt.cuda import device_count

HERE = Path(__file__).parents[1]


@pytest.mark.skipif(gpu_in_sight(), reason="a GPU driver is installed")
def test_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings")
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(BackendError, match=r"no NVIDIA driver \(libcuda.so.1 is missing\): install one"):
        device_count()


def test_build_and_render(tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings")
    root = cuda_root()
    if root is None or shutil.which("gcc") is None:
        pytest.skip("CUDA's headers or a C compiler are not installed")
    driver = tmp_path / "libcuda.so.1"
    compile_driver(driver, root)
    command = [sys.executable, str(HERE / "real_driver_run.py"), "cuda-bindings", str(driver), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["gpu"] == "NVIDIA Fake" and report["threads"] == 1
    assert len(report["psnr"]) == 6 and min(report["psnr"]) >= 45
    assert report["memory"].startswith("GPU 0 has no memory left for this tile")
    assert report["leaked"] == 0, "device or page-locked memory was not given back"
