"""Appearance height: how high in a picture things that look like this tend to stand, 0 top to 1 bottom.

What stands high in a landscape photo tends to be far away.  A small network learns a pixel's row from the frozen
features around it alone; nothing is labelled.  From that, texture and place follow the first guess of the sky.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.teacher.filters import F32, Image, lab

__all__ = ["HeightNet", "first_sky", "fit_height"]

SAMPLES = 160
"""Cells that are taken of each photo."""
EPOCHS = 12
FIRST_SIDE = 256
"""Long side at which the first guess of the sky is made."""


class HeightNet(nn.Module):
    """Features ``(N, C)`` -> row in 0..1 ``(N,)``."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.layers = nn.Sequential(
            nn.Linear(channels, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Rows of features."""
        return torch.as_tensor(self.layers((features - self.mean) / self.deviation)[:, 0])

    @torch.no_grad()
    def map(self, features: Tensor) -> F32:
        """Appearance height of every cell of ``(C, h, w)``."""
        channels, height, width = features.shape
        found = self.eval()(features.reshape(channels, -1).T.float())
        return np.asarray(found.reshape(height, width).numpy(), np.float32)


def fit_height(photos: Sequence[Tensor], seed: int = 0) -> HeightNet:
    """Learn appearance height from the features ``(C, h, w)`` of photos."""
    draw = torch.Generator().manual_seed(seed)
    features, rows = [], []
    for photo in photos:
        channels, height, width = photo.shape
        cells = torch.randint(0, height * width, (SAMPLES,), generator=draw)
        features.append(photo.reshape(channels, -1)[:, cells].T.float())
        rows.append((cells // width).float() / (height - 1))
    x, y = torch.cat(features), torch.cat(rows)
    net = HeightNet(x.shape[1])
    net.mean.copy_(x.mean(0))
    net.deviation.copy_(x.std(0) + 1e-5)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-2)
    for _ in range(EPOCHS):
        for part in torch.split(torch.randperm(len(x), generator=draw), 512):
            noise = 0.1 * net.deviation * torch.randn(len(part), x.shape[1], generator=draw)
            loss = F.smooth_l1_loss(net(x[part] + noise), y[part], beta=0.1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return net


def first_sky(image: Image, height: F32) -> F32:
    """A first guess of the sky, 0 or 1, ``(h, w)`` with a long side of 256: GrabCut (Rother et al. 2004) from seeds.

    Seeds are what looks as if it stood high, is smooth and lies high; of the result counts what touches the top.
    """
    scale = FIRST_SIDE / max(image.shape[:2])
    small = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    rows, columns = small.shape[:2]
    stands = cv2.resize(height, (columns, rows))
    light = lab(small)[..., 0]
    texture = cv2.GaussianBlur(np.abs(light - cv2.GaussianBlur(light, (0, 0), 2)), (0, 0), 2)
    row = np.linspace(0, 1, rows)[:, None]
    seeds = np.full((rows, columns), cv2.GC_PR_BGD, np.uint8)
    seeds[(stands < 0.42) & (row < 0.75) & (texture < 4)] = cv2.GC_PR_FGD
    seeds[(stands < 0.25) & (row < 0.3) & (texture < 2.5)] = cv2.GC_FGD
    seeds[((row > 0.8) & (stands > 0.35)) | (texture > 7) | (stands > 0.62)] = cv2.GC_BGD
    none = np.zeros((rows, columns), np.float32)
    if not (seeds == cv2.GC_FGD).any():
        seeds[(seeds == cv2.GC_PR_FGD) & (row < 0.2)] = cv2.GC_FGD
    sure = (seeds == cv2.GC_FGD).sum()
    if sure in (0, seeds.size) or (sure < 50 and (seeds == cv2.GC_PR_FGD).sum() < 200):
        return none
    models = np.zeros((1, 65)), np.zeros((1, 65))
    bgr = np.ascontiguousarray(small[..., ::-1])
    cv2.grabCut(bgr, seeds, (0, 0, 1, 1), *models, 3, cv2.GC_INIT_WITH_MASK)
    found = ((seeds == cv2.GC_FGD) | (seeds == cv2.GC_PR_FGD)).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(found)
    kept = (stats[:, cv2.CC_STAT_TOP] <= 0.08 * rows) & (stats[:, cv2.CC_STAT_AREA] > 0.01 * found.size)
    kept[0] = False
    return np.asarray(kept[labels], np.float32)
