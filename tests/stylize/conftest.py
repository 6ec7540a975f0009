import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from engine_models import make_model


@pytest.fixture(scope="session")
def skip_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random generator with feature skips and two looks."""
    folder = tmp_path_factory.mktemp("model") / "skip"
    make_model(folder, "skip", seed=3)
    return folder


@pytest.fixture(scope="session")
def layered_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random generator of the architecture `layers`, with the looks dusk and day."""
    folder = tmp_path_factory.mktemp("model") / "layers"
    make_model(folder, "layers", seed=3)
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture(scope="session")
def landscape() -> np.ndarray:
    """A picture with large areas, edges and texture: RGB uint8 (180, 320, 3)."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:180, 0:320].astype(np.float32)
    sky = np.stack([120 + y / 2, 160 + y / 3, 230 - y / 4], -1)
    hill = y > 90 + 30 * np.sin(x / 40)
    sky[hill] = np.stack([60 + 20 * np.sin(x / 3), 90 + 20 * np.cos(y / 2), 40 + 0 * x], -1)[hill]
    return np.clip(sky + rng.normal(0, 4, sky.shape), 0, 255).astype(np.uint8)
