"""Tiny folders of made-up photos and art, and settings that train on them in a blink."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from training.config import TrainConfig


def photo(seed: int, size: tuple[int, int] = (64, 80)) -> np.ndarray:
    """A textured gradient: RGB uint8."""
    rng = np.random.default_rng(seed)
    y = np.linspace(0, 1, size[0])[:, None, None]
    base = y * rng.uniform(40, 220, 3) + (1 - y) * rng.uniform(40, 220, 3)
    return np.clip(base + rng.normal(0, 22, (*size, 3)), 0, 255).astype(np.uint8)


def art(seed: int, size: tuple[int, int] = (64, 80)) -> np.ndarray:
    """Flat horizontal layers: RGB uint8."""
    rng = np.random.default_rng(1000 + seed)
    colors = rng.integers(0, 256, (4, 3), dtype=np.uint8)
    layers = colors[np.arange(size[0]) * 4 // size[0]]
    return np.ascontiguousarray(np.repeat(layers[:, None], size[1], 1))


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])
    return path


@pytest.fixture(scope="session")
def make_photo() -> Callable[..., np.ndarray]:
    return photo


@pytest.fixture(scope="session")
def make_art() -> Callable[..., np.ndarray]:
    return art


@pytest.fixture(scope="session")
def write_image() -> Callable[[Path, np.ndarray], Path]:
    return write


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("data")
    for i in range(4):
        write(root / "photos" / f"p{i}.png", photo(i))
        write(root / "art" / f"a{i}.png", art(i))
    return root / "photos", root / "art"


TINY: dict[str, Any] = {
    "ngf": 4, "n_blocks": 1, "ndf": 4, "scales": 1, "crop": 32, "batch": 1, "looks": ("auto", "dusk"),
    "warmup_steps": 2, "steps": 4, "pool_size": 2, "device": "cpu", "precision": "fp32", "threads": 1, "workers": 1,
    "save_every": 100, "sample_every": 100,
}  # fmt: skip


@pytest.fixture
def tiny(folders: tuple[Path, Path], tmp_path: Path) -> Callable[..., TrainConfig]:
    def make(**changes: Any) -> TrainConfig:
        data = {"photos": str(folders[0]), "art": str(folders[1]), "out": str(tmp_path / "runs")}
        return TrainConfig(**{**data, **TINY, **changes})

    return make


@pytest.fixture(autouse=True)
def quiet_torch() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
