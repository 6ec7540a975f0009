"""The real pycuda, built from source and run over a driver without a GPU.

Building takes minutes, so it is done only with FIREWATCH_BUILD_PYCUDA=1 and CUDA's headers; the build
is kept in the test cache, and from then on the test always runs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from fake_driver import compile_driver, cuda_root
from filelock import FileLock
from real_packages import CACHE, fetch

HERE = Path(__file__).parents[1]
NEEDS = ("pytools", "platformdirs", "siphash24", "mako", "MarkupSafe", "typing_extensions")
VERSION = f"cp{sys.version_info.major}{sys.version_info.minor}"


def built() -> Path:
    """Folder with the package pycuda, its extension linked against nothing."""
    target = CACHE / f"pycuda-build-{VERSION}"
    root = cuda_root()
    if root is None:
        pytest.skip("CUDA's headers are not installed")
    if not (target / "done").is_file() and os.environ.get("FIREWATCH_BUILD_PYCUDA") != "1":
        pytest.skip("pycuda is not built yet: run once with FIREWATCH_BUILD_PYCUDA=1, it takes minutes")
    with FileLock(target.with_suffix(".lock")):
        if not (target / "done").is_file():
            build(target, root)
    return target / "package"


def build(target: Path, root: Path) -> None:
    fetch("pycuda>=2024.1", CACHE / "pycuda-source")
    shutil.rmtree(target, ignore_errors=True)
    with tarfile.open(next((CACHE / "pycuda-source").glob("*.tar.gz"))) as tar:
        tar.extractall(target / "source", filter="data")
    (source,) = (target / "source").iterdir()
    environment = {**os.environ, "PATH": f"{root / 'bin'}:{os.environ['PATH']}", "CUDA_ROOT": str(root)}
    configure = ["configure.py", "--no-cuda-enable-curand", f"--cuda-root={root}", "--cxxflags=-O0"]
    subprocess.run([sys.executable, *configure], cwd=source, env=environment, check=True, capture_output=True)
    # Linking fails without libcuda; the objects and Python files are all there by then.
    subprocess.run([sys.executable, "setup.py", "build"], cwd=source, env=environment, check=False, capture_output=True)
    (package,) = (source / "build").glob("lib*")
    objects = [str(path) for path in (source / "build").rglob("*.o")]
    extension = package / "pycuda" / "_driver.so"
    subprocess.run(["g++", "-shared", "-o", str(extension), *objects], check=True)
    shutil.copytree(package, target / "package")
    needs = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target / "needs"), *NEEDS]
    subprocess.run(needs, check=True, capture_output=True)
    shutil.rmtree(target / "source")
    (target / "done").touch()


def fake_driver(pycuda: Path, place: Path, root: Path) -> Path:
    """libcuda.so.1 with what the program needs; every other function says that it was called."""
    (extension,) = pycuda.glob("pycuda/_driver*.so")
    listing = subprocess.run(
        ["nm", "-D", "--undefined-only", str(extension)], capture_output=True, text=True, check=True
    )
    wanted = {name for line in listing.stdout.splitlines() if (name := line.split()[-1]).startswith("cu")}
    ours = (HERE / "fake_driver.c").read_text()
    rest = sorted(name for name in wanted if f"{name}(" not in ours and name[2].isupper())
    body = "".join(f'int {name}(void) {{ fputs("UNEXPECTED {name}\\n", stderr); return 999; }}\n' for name in rest)
    (place / "rest.c").write_text(f"#include <stdio.h>\n{body}")
    library = place / "libcuda.so.1"
    compile_driver(library, root, place / "rest.c")
    return library


@pytest.mark.slow
def test_build_and_render_with_the_real_pycuda(tmp_path: Path) -> None:
    pycuda, root = built(), cuda_root()
    assert root is not None
    driver = fake_driver(pycuda, tmp_path, root)
    runtime = next((root / "lib64").glob("libcudart.so.*"))
    command = [sys.executable, str(HERE / "real_driver_run.py"), str(pycuda), str(driver), str(tmp_path), str(runtime)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "UNEXPECTED" not in result.stderr and "PyCUDA WARNING" not in result.stderr, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["gpu"] == "NVIDIA Fake" and report["threads"] == 1
    assert len(report["psnr"]) == 6 and min(report["psnr"]) >= 45
    assert report["memory"].startswith("GPU 0 has no memory left for this tile")
    assert report["leaked"] == 0, "device or page-locked memory was not given back"
