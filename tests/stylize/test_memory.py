import sys
from pathlib import Path

import numpy as np
import pytest
from engine_models import make_model

from stylize.api import Stylizer
from stylize.media.image.read import image_size
from stylize.pipeline import BAND

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))


@pytest.fixture(scope="module")
def panorama(tmp_path_factory):
    """A photo of 100 megapixels: 20000 x 5000, as a JPEG."""
    cv2 = pytest.importorskip("cv2")
    path = tmp_path_factory.mktemp("panorama") / "in.jpg"
    shades = np.random.default_rng(0).integers(0, 256, (25, 100, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(shades, (20000, 5000), interpolation=cv2.INTER_LINEAR))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("options", ["--model light", "--model SMALL --detail 0 --strength 0.5"])
def test_a_panorama_of_100_megapixels_stays_within_4_gb(panorama, tmp_path, options):
    """The whole process tree; tiles take their share of the memory whatever the network, so a small one will do.

    docs/performance.md has the figures of the networks that ship, at the panorama's own size.
    """
    pytest.importorskip("imageio_ffmpeg")
    from bench import watched

    make_model(tmp_path / "small", "light")
    command = [sys.executable, "-m", "stylize", "-q", "image", panorama, "-o", tmp_path / "out.jpg"]
    command += options.replace("SMALL", str(tmp_path / "small")).split()
    assert watched([str(part) for part in command])["memory"] < 4e9
    assert image_size(tmp_path / "out.jpg") == (20000, 5000)


def test_mixing_in_bands_changes_no_pixel(skip_model, rng):
    image, fake = rng.integers(0, 256, (2, 2 * BAND + 40, 50, 3), np.uint8)
    stylizer = Stylizer(model=str(skip_model), strength=0.6, keep_color=0.3)
    parts = [slice(0, 100), slice(100, BAND + 7), slice(BAND + 7, None)]
    assert np.array_equal(stylizer.mix(image, fake), np.concatenate([stylizer.mix(image[p], fake[p]) for p in parts]))


@pytest.mark.slow
def test_the_memory_of_a_video_does_not_grow_with_its_length(tmp_path, skip_model):
    """All processes together, 100 and 400 frames; the longer clip is 52 MB larger when decoded."""
    pytest.importorskip("imageio_ffmpeg")
    import make_sample
    from bench import watched

    options = f"--model {skip_model} --backend openvino --detail 0.05 --threads 1 --preset ultrafast --overwrite"
    peaks: dict[int, list[int]] = {100: [], 400: []}
    for frames in (100, 400, 100, 400):
        clip, target = tmp_path / f"{frames}.mp4", tmp_path / f"out{frames}.mp4"
        if not clip.exists():
            make_sample.write(clip, 320, 180, frames / 24, 24, 7)
        # One segment, thus one encoder at a time in both.
        command = [
            sys.executable,
            "-m",
            "stylize",
            "-q",
            "video",
            clip,
            "-o",
            target,
            *options.split(),
            "--segment",
            60,
        ]
        peaks[frames].append(watched([str(part) for part in command])["memory"])
    # The peak of several processes together now and then counts one twice: the smaller of two runs has not.
    assert min(peaks[400]) < min(peaks[100]) + 25e6
