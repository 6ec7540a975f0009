"""Damaged files of every format: each is done or refused in one line; no traceback, no hang, nothing half-written."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import stylize
from stylize.media.image.read import read_image

ROOT = Path(stylize.__file__).parents[1]
CHILD = """
import json, sys, warnings
warnings.simplefilter("error")
import numpy as np
from pathlib import Path
from stylize.photos.job import FolderJob, stylize_folder
from stylize.media.image.settings import ImageSettings
report = stylize_folder(FolderJob(source=Path(sys.argv[1]), target=Path(sys.argv[2]), transform_key="net"), np.array)
print(json.dumps(report.as_dict()))
"""


def originals(folder, picture, exif):
    """One sound file of every format, as bytes, with metadata."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    image = Image.fromarray(picture)
    made = {}
    for suffix in (".jpg", ".png", ".webp", ".tif", ".bmp", ".gif", ".heic"):
        path = folder / f"x{suffix}"
        (image.quantize(64) if suffix == ".gif" else image).save(path, **({"exif": exif} if suffix != ".gif" else {}))
        made[suffix] = path.read_bytes()
    deep = picture[..., ::-1].astype(np.uint16) * 257
    made["-deep.png"] = cv2.imencode(".png", deep)[1].tobytes()
    made["-deep.tif"] = cv2.imencode(".tiff", deep)[1].tobytes()
    image.save(folder / "p.jpg", progressive=True, exif=exif)
    made["-p.jpg"] = (folder / "p.jpg").read_bytes()
    return made


def damage(data, chance):
    """Four cuts and four sets of flipped bits, half of them in the header."""
    for part in (0.02, 0.3, 0.7, 0.99):
        yield data[: max(1, int(len(data) * part))]
    for reach, flips in ((200, 1), (200, 6), (len(data), 3), (len(data), 40)):
        spoilt = bytearray(data)
        for _ in range(flips):
            spoilt[chance.randrange(min(reach, len(data)))] ^= 1 << chance.randrange(8)
        yield bytes(spoilt)


def work(source, target):
    process = subprocess.run(
        [sys.executable, "-c", CHILD, str(source), str(target)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    return json.loads(process.stdout)


def check(report, target):
    for photo in report["photos"]:
        assert photo["status"] in ("done", "failed")
        assert "\n" not in photo["message"]
        assert Path(photo["target"]).exists() == (photo["status"] == "done")
        if photo["status"] == "done":
            assert read_image(Path(photo["target"])).data.shape == (photo["height"], photo["width"], 3)
        else:
            # Only what a person can act on: no error of ours shines through.
            assert photo["message"].startswith(photo["source"]), photo["message"]
            assert "Error:" not in photo["message"], photo["message"]
    assert not list(target.rglob("*.part"))


def test_damaged_files_of_every_format(tmp_path, gradient):
    source = tmp_path / "in"
    source.mkdir()
    exif = Image.Exif()
    exif[271], exif[274], exif[306] = "Maker of cameras", 6, "2024:05:06 07:08:09"
    exif.get_ifd(0x8769)[0xA002] = 40
    picture = np.kron(gradient, np.ones((3, 3, 1), np.uint8))
    chance, count = random.Random(11), 0
    for suffix, data in originals(tmp_path, picture, exif.tobytes()).items():
        for number, spoilt in enumerate(damage(data, chance)):
            (source / f"{number:02}{suffix}").write_bytes(spoilt)
            count += 1
    assert count >= 40
    report = work(source, tmp_path / "out")
    assert len(report["photos"]) == count
    check(report, tmp_path / "out")
    assert report["failed"] >= count // 3  # most cuts are noticed


@pytest.mark.slow
def test_damaged_real_photos(tmp_path, photos):
    source = tmp_path / "in"
    source.mkdir()
    chance = random.Random(12)
    for name in ("landA_03.jpg", "exif_orientation8.jpg", "landA_00.png", "p23_lake_iphone13.heic"):
        data = (photos / name).read_bytes()
        for number, spoilt in enumerate(damage(data, chance)):
            (source / f"{number}-{name}").write_bytes(spoilt)
    report = work(source, tmp_path / "out")
    assert len(report["photos"]) == 32
    check(report, tmp_path / "out")
    cuts = [photo for photo in report["photos"] if Path(photo["source"]).name[0] in "0123"]
    assert all(photo["status"] == "failed" for photo in cuts)
