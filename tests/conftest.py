"""What all tests share: `media.py` beside this file can be imported, and the folder of real media is found."""

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real clips and photos; tests that need it are skipped where it is not."""
    folder = Path(os.environ.get("FIREWATCH_SHARED", HERE.parent.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real media: {folder} is not there (set FIREWATCH_SHARED)")
    return folder


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Commands that run inside a test set the root logger up; the next test must not inherit that."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers = handlers


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium; tests that need it are skipped where there is none, and fail with REQUIRE_BROWSER=1."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail("no Chromium on this machine, and REQUIRE_BROWSER is 1: apt-get install chromium")
    pytest.skip("no Chromium on this machine: apt-get install chromium")
