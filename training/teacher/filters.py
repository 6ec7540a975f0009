"""Edge-preserving filters of the teacher.  Pictures are RGB uint8 ``(H, W, 3)``, maps float32 ``(H, W)``.

Lengths are in pixels of a picture whose long side is `BASE_SIDE`; `unit` converts them.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

__all__ = ["BASE_SIDE", "F32", "Image", "edge_evidence", "l0_smooth", "lab", "masked_blur", "smooth", "unit"]

Image = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

BASE_SIDE = 640
"""Long side of the pictures that the lengths in this package were chosen on."""


def unit(image: npt.NDArray[np.generic]) -> float:
    """Pixels of this picture per pixel of one whose long side is `BASE_SIDE`."""
    return float(max(image.shape[:2])) / BASE_SIDE


def lab(image: Image) -> F32:
    """CIE Lab, float32 ``(H, W, 3)``, lightness 0..100."""
    return np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def masked_blur(values: F32, mask: npt.NDArray[np.generic], sigma: float) -> F32:
    """Gaussian blur that looks at the mask alone (normalised convolution, Knutsson and Westin 1993)."""
    share = mask.astype(np.float32)
    total = cv2.GaussianBlur(share, (0, 0), sigma) + 1e-3
    if values.ndim == 3:
        share, total = share[..., None], total[..., None]
    return np.asarray(cv2.GaussianBlur(values * share, (0, 0), sigma) / total, np.float32)


def l0_smooth(image: Image, weight: float) -> Image:
    """Flat colours between strong edges: L0 gradient minimization (Xu et al. 2011).

    `weight` is the paper's lambda: the larger, the fewer edges stay.
    """
    height, width = image.shape[:2]
    size = [cv2.getOptimalDFTSize(side + 16) for side in (height, width)]
    bottom, right = size[0] - height, size[1] - width
    padded = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
    x = torch.from_numpy(padded).permute(2, 0, 1).float() / 255
    across = torch.cos(2 * torch.pi * torch.fft.rfftfreq(size[1]))[None]
    down = torch.cos(2 * torch.pi * torch.fft.fftfreq(size[0]))[:, None]
    laplacian = 4 - 2 * across - 2 * down
    source, beta = torch.fft.rfft2(x), 2 * weight
    while beta < 1e5:
        dx, dy = torch.roll(x, -1, 2) - x, torch.roll(x, -1, 1) - x
        kept = (dx**2 + dy**2).sum(0) >= weight / beta
        dx, dy = dx * kept, dy * kept
        divergence = torch.roll(dx, 1, 2) - dx + torch.roll(dy, 1, 1) - dy
        x = torch.fft.irfft2((source + beta * torch.fft.rfft2(divergence)) / (1 + beta * laplacian), s=size)
        beta *= 2
    flat = (x[:, :height, :width].permute(1, 2, 0) * 255).round().clamp(0, 255).byte().numpy()
    return np.ascontiguousarray(flat)


def edge_evidence(image: Image) -> F32:
    """How strong the edges are at the scale of some pixels, in levels.

    Low where a slow gradient was cut into steps by `l0_smooth`, high at the borders of things.
    """
    s = unit(image)
    blurred = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.5 * s)
    reach = max(1, round(2 * s))
    across = np.abs(np.roll(blurred, -reach, 1) - np.roll(blurred, reach, 1))
    down = np.abs(np.roll(blurred, -reach, 0) - np.roll(blurred, reach, 0))
    across[:, :reach] = across[:, -reach:] = 0
    down[:reach] = down[-reach:] = 0
    return np.asarray(np.sqrt((across**2 + down**2).sum(-1)), np.float32)


def smooth(
    values: F32,
    guide: Image,
    *,
    strength: float,
    tolerance: float,
    regions: npt.NDArray[np.bool_],
    evidence: F32 | None = None,
) -> F32:
    """Smooth a map except across the edges of a guide: the fast global smoother (Min et al. 2014).

    Args:
        values: what is smoothed.
        guide: its edges stay.
        strength: the paper's lambda for a picture of `BASE_SIDE`.
        tolerance: the paper's sigma, in levels of the guide.
        regions: nothing flows between what this tells apart (sky and land).
        evidence: see `edge_evidence`; an edge counts no more than it has of it.
    """
    strength *= unit(guide) ** 2
    weights = [_weights(guide, axis, tolerance, regions, evidence) for axis in (1, 0)]
    result = values.astype(np.float64)
    for step in range(3):
        part = 1.5 * strength * 4 ** (2 - step) / 63
        result = _solve(result, weights[0], part)
        result = _solve(result.T, weights[1].T, part).T
    return np.ascontiguousarray(result, np.float32)


def _weights(
    guide: Image, axis: int, tolerance: float, regions: npt.NDArray[np.bool_], evidence: F32 | None
) -> npt.NDArray[np.float64]:
    """Of neighbours along an axis: 1 where they are alike."""
    difference = np.sqrt((np.diff(guide.astype(np.float32), axis=axis) ** 2).sum(-1))
    if evidence is not None:
        difference = np.minimum(difference, 1.2 * np.take(evidence, range(difference.shape[axis]), axis))
    border = np.diff(regions.astype(np.int8), axis=axis) != 0
    return np.asarray(np.exp(-difference / tolerance) * np.where(border, 1e-4, 1.0), np.float64)


def _solve(
    values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], strength: float
) -> npt.NDArray[np.float64]:
    """(I + strength * A) x = values for every row, A the Laplacian of the row's weights (Thomas' algorithm)."""
    n = values.shape[1]
    lower, upper = np.zeros_like(values), np.zeros_like(values)
    lower[:, 1:] = upper[:, :-1] = -strength * weights
    diagonal = 1 - lower - upper
    c, x = np.zeros_like(values), np.zeros_like(values)
    c[:, 0], x[:, 0] = upper[:, 0] / diagonal[:, 0], values[:, 0] / diagonal[:, 0]
    for i in range(1, n):
        scale = 1 / (diagonal[:, i] - lower[:, i] * c[:, i - 1])
        c[:, i] = upper[:, i] * scale
        x[:, i] = (values[:, i] - lower[:, i] * x[:, i - 1]) * scale
    for i in range(n - 2, -1, -1):
        x[:, i] -= c[:, i] * x[:, i + 1]
    return x
