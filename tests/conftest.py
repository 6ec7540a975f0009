"""What all tests share: `media.py` beside this file can be imported, and the folder of real media is found."""

import logging
import os
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
