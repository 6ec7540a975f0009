"""Compiles `fake_driver.c`, a libcuda.so.1 without a GPU; CUDA's headers are needed for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


def cuda_root() -> Path | None:
    """Folder with include/cuda.h."""
    places = [Path(os.environ.get("CUDA_ROOT", "/usr/local/cuda"))]
    places += [Path(found).resolve().parents[1] for found in [shutil.which("nvcc")] if found]
    return next((p for p in places if (p / "include" / "cuda.h").is_file()), None)


def compile_driver(library: Path, root: Path, *more: Path) -> None:
    """Write the library; `more` are further C sources."""
    flags = ["-shared", "-fPIC", "-w", f"-I{root / 'include'}", "-Wl,-soname,libcuda.so.1"]
    subprocess.run(["gcc", *flags, "-o", str(library), str(SOURCE), *map(str, more), "-ldl"], check=True)
