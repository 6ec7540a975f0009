"""What the shipped generator takes for sky, against masks of real photos that were corrected by hand."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from stylize import Stylizer

MASKS = Path(__file__).parents[1] / "training" / "teacher" / "sky_masks"
BLACK_AND_WHITE = 'sky = ["#ffffff", "#ffffff"]\nland = ["#000000", "#000000"]\nlit = "#000000"\n'


@pytest.mark.slow
def test_the_sky_is_where_people_see_it(shared, tmp_path):
    palette = tmp_path / "mask.toml"
    palette.write_text(BLACK_AND_WHITE)
    overlaps = []
    with Stylizer(model="full", look_file=str(palette)) as stylizer:
        for path in sorted((shared / "data" / "testA").iterdir()):
            wanted = cv2.imread(str(MASKS / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE) > 127
            photo = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
            photo = np.ascontiguousarray(cv2.resize(photo, wanted.shape[::-1], interpolation=cv2.INTER_AREA))
            found = stylizer.image(photo)[..., 1] > 127
            either = (found | wanted).sum()
            overlaps.append((found & wanted).sum() / either if either else 1.0)
    assert len(overlaps) == 24
    assert np.mean(overlaps) >= 0.93
    assert np.sort(overlaps)[2] > 0.7  # a hazy mountain may be missed, not many
