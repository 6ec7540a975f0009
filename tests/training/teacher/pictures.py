"""Made landscapes whose sky is known."""

import numpy as np


def landscape(height=320, width=480, *, branches=True, seed=0):
    """RGB uint8 and its sky mask: a sky in two blues, hills, a meadow, and a bare tree in front of the sky."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    ridge = height * (0.45 + 0.08 * np.sin(x / width * 7) + 0.03 * np.sin(x / width * 23))
    sky = y < ridge
    image = np.empty((height, width, 3))
    place = (y / height)[..., None]
    image[:] = np.array([70, 130, 215]) * (1 - place) + np.array([200, 225, 245]) * place
    hill = np.array([60, 75, 60]) + rng.normal(0, 9, (height, width, 1))
    meadow = np.array([120, 140, 60]) + rng.normal(0, 14, (height, width, 1))
    land = np.where((y > 0.7 * height)[..., None], meadow, hill)
    image = np.where(sky[..., None], image, land)
    if branches:
        trunk = (np.abs(x - 0.3 * width) < 4) & (y > 0.12 * height) & (y < 0.75 * height)
        for i in range(7):
            top = (0.15 + 0.04 * i) * height
            lean = (y - top) - (1 if i % 2 else -1) * (x - 0.3 * width) * 0.6
            trunk |= (np.abs(lean) < 3) & (np.abs(x - 0.3 * width) < 0.09 * width)
        image = np.where(trunk[..., None], np.array([30, 24, 22]), image)
        sky = sky & ~trunk
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8), sky


def iou(found, wanted):
    """Intersection over union of two masks."""
    either = (found | wanted).sum()
    return 1.0 if either == 0 else (found & wanted).sum() / either
