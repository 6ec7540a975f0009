"""Sample grids: one row per photo, the photo first and then every look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch

from training.config import TrainConfig
from training.data.image_io import image_files, read_rgb, write_rgb
from training.data.pseudo_pairs import U8
from training.generator.networks import build_generator

__all__ = ["sample_photos", "stylize_array", "write_grid"]

WIDTH, HEIGHT, ROWS = 288, 192, 6


def sample_photos(folder: str) -> list[U8]:
    """Up to six photos, spread over the folder, at one size."""
    files = image_files(folder)
    files = files[:: max(1, len(files) // ROWS)][:ROWS]
    return [np.asarray(cv2.resize(read_rgb(f), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)) for f in files]


@torch.no_grad()
def stylize_array(net: torch.nn.Module, photo: U8, look: torch.Tensor) -> U8:
    """One RGB uint8 photo ``(H, W, 3)`` through a generator; sides are multiples of 4 (8 when wide)."""
    device = next(net.parameters()).device
    x = torch.from_numpy(photo).to(device).permute(2, 0, 1)[None].float().div(127.5).sub(1)
    y = net(x, look.to(device)[None])[0].float().add(1).mul(127.5).round().clamp(0, 255)
    return np.ascontiguousarray(y.permute(1, 2, 0).byte().cpu().numpy())


def write_grid(path: Path, config: TrainConfig, weights: Mapping[str, torch.Tensor], device: torch.device) -> U8:
    """Write a grid of the generator with these weights; returns it: RGB uint8."""
    net = build_generator(config.generator)
    net.load_state_dict(weights)
    net.to(device).eval()
    looks = torch.eye(len(config.looks))
    rows = [
        np.hstack([photo, *(stylize_array(net, photo, look) for look in looks)])
        for photo in sample_photos(config.samples or config.photos)
    ]
    grid = np.vstack(rows)
    write_rgb(path, grid)
    return grid
