"""Losses of the CycleGAN and of what surrounds it; all take images ``(N, 3, H, W)`` in -1..1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from training.evaluation.metrics import GRADIENT_CONSTANT

__all__ = ["blur", "diff_augment", "edge_loss", "lsgan", "pair_loss", "structure_loss", "total_variation"]


def lsgan(scores: Sequence[Tensor], target: float) -> Tensor:
    """Least-squares GAN loss (Mao et al. 2017), the mean over all scales of a discriminator."""
    return torch.stack([(s.float() - target).square().mean() for s in scores]).mean()


def edge_loss(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the first differences in x and y."""
    dx = (image[..., 1:] - image[..., :-1]) - (target[..., 1:] - target[..., :-1])
    dy = (image[..., 1:, :] - image[..., :-1, :]) - (target[..., 1:, :] - target[..., :-1, :])
    return dx.abs().mean() + dy.abs().mean()


def pair_loss(fake: Tensor, target: Tensor, lambda_edge: float) -> Tensor:
    """Supervised loss of the warm-up: L1 of the pixels plus weighted L1 of the gradients."""
    return F.l1_loss(fake, target) + lambda_edge * edge_loss(fake, target)


def total_variation(image: Tensor) -> Tensor:
    """Mean absolute first difference: small where areas are flat (Rudin et al. 1992)."""
    return edge_loss(image, torch.zeros_like(image))


def structure_loss(fake: Tensor, photo: Tensor) -> Tensor:
    """1 minus the mean gradient-magnitude similarity of the lumas (Xue et al. 2014, arXiv 1308.3052).

    The differentiable form of `metrics.gradient_similarity`: an edge of the photo that the result has
    lost, or one that it has made up, costs most where it is strong.
    """
    a, b = _gradient_magnitude(fake), _gradient_magnitude(photo)
    return 1 - ((2 * a * b + GRADIENT_CONSTANT) / (a * a + b * b + GRADIENT_CONSTANT)).mean()


def _gradient_magnitude(image: Tensor) -> Tensor:
    """Prewitt gradient of the luma (0..255) at half the size, ``(N, 1, H/2 - 2, W/2 - 2)``."""
    weights = image.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    luma = F.avg_pool2d((image * weights).sum(1, keepdim=True) * 127.5, 2)
    step = image.new_tensor([[1.0, 0.0, -1.0]]).expand(3, 3) / 3
    found = F.conv2d(luma, torch.stack([step, step.T])[:, None])
    # The root has no slope at zero.
    return (found.square().sum(1, keepdim=True) + 1e-4).sqrt()


def blur(image: Tensor, radius: int = 8) -> Tensor:
    """Box blur that keeps colours and drops detail; the size is divided by `radius`."""
    return F.avg_pool2d(image, radius)


def diff_augment(image: Tensor, draws: Tensor) -> Tensor:
    """Translation and cutout, differentiable (Zhao et al. 2020, arXiv 2006.10738).

    Real and fake images get the same distribution of changes, so a small art set is not learnt by
    heart.  Colour is left alone: it is what the discriminator has to judge.  `draws` holds four
    random non-negative integers per image, ``(N, 4)``.
    """
    _, _, h, w = image.shape
    limit_y, limit_x = h // 8, w // 8
    out = []
    for i, draw in enumerate(draws.tolist()):
        y, x = draw[0] % (2 * limit_y + 1), draw[1] % (2 * limit_x + 1)
        padded = F.pad(image[i : i + 1], (limit_x, limit_x, limit_y, limit_y), mode="reflect")
        moved = padded[..., y : y + h, x : x + w]
        mask = torch.ones_like(moved[:, :1])
        top, left = draw[2] % (h - h // 4), draw[3] % (w - w // 4)
        mask[..., top : top + h // 4, left : left + w // 4] = 0
        out.append(moved * mask)
    return torch.cat(out)
