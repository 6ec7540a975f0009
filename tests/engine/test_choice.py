"""What `auto` does before it knows of a GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.choice import gpu_in_sight


@pytest.mark.skipif(gpu_in_sight(), reason="a GPU driver is installed")
def test_without_a_driver_torch_is_not_even_imported() -> None:
    code = "import sys; from engine.choice import choose_backend as c; print(c()[0], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() in (["mnn", "False"], ["openvino", "False"])
