"""Pictures and folders for the photo tests."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(os.environ.get("FIREWATCH_SHARED") or Path(__file__).parents[4] / "shared")


@pytest.fixture
def gradient():
    """A smooth RGB picture, 40 x 30, whose corners all differ."""
    picture = np.full((30, 40, 3), 128, np.uint8)
    picture[..., 0] = np.linspace(0, 255, 40).round()[None]
    picture[..., 1] = np.linspace(0, 255, 30).round()[:, None]
    return picture


@pytest.fixture
def invert():
    return lambda rgb: 255 - rgb


@pytest.fixture
def photos():
    """The folder of full-size real photos."""
    folder = SHARED / "photos"
    if not folder.is_dir():
        pytest.skip("no real photos here: set FIREWATCH_SHARED to a folder with photos/")
    return folder


@pytest.fixture
def tree(tmp_path, gradient):
    """A folder of photos with sub-folders: six small pictures of different formats."""
    root = tmp_path / "in"
    names = ["a.jpg", "b.png", "c.WEBP", "one/d.tif", "one/two/e.bmp", "zwei/f.jpeg"]
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(gradient, number, axis=1)).save(path)
    (root / "notes.txt").write_text("not a photo")
    return root


@pytest.fixture
def contents():
    """Names and bytes of all visible files of a folder."""

    def read(folder: Path):
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }

    return read


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 256 KiB of its own."""
    import subprocess

    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("no mount command")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
