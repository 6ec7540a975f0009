"""A narrower `light` generator from a wide one: its strongest channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from training.generator.config import GeneratorConfig

__all__ = ["can_be_narrowed", "narrowed"]


def can_be_narrowed(given: GeneratorConfig, wanted: GeneratorConfig) -> bool:
    """Whether `wanted` is `given`, a `light` generator, with fewer channels."""
    return (
        given.architecture == "light"
        and given.ngf > wanted.ngf
        and dataclasses.replace(given, ngf=wanted.ngf) == wanted
    )


def narrowed(weights: Mapping[str, Tensor], config: GeneratorConfig, ngf: int) -> dict[str, Tensor]:
    """State dict of a `light` generator with `ngf` of the channels of another, to be trained on.

    Channels are ranked by the size of the weights that read them (Li et al. 2017, arXiv 1608.08710) times
    the scale that writes them (Liu et al. 2017, arXiv 1708.06519).  The sum that all residual blocks add to
    is one ranking, each block's inner feature map another.

    Args:
        weights: state dict of the wide generator.
        config: its config.
        ngf: channels to keep.
    """
    blocks = [f"blocks.{i}" for i in range(config.n_blocks)]
    # ReLU lets a shift pass as it does the scaled feature map, but a constant carries less.
    inner = {
        b: _strongest(
            _read(weights[f"{b}.conv2.weight"])
            * (_mean(weights[f"{b}.norm1.gamma"].abs()) + 0.3 * _mean(weights[f"{b}.norm1.beta"]).clamp(min=0)),
            ngf,
        )
        for b in blocks
    }
    readers = [*(f"{b}.conv1.weight" for b in blocks), "tail.conv.weight", "head.weight"]
    read = sum((_even(_read(weights[name])) for name in readers), torch.zeros(config.ngf))
    written = weights["stem.conv.weight"].abs().mean(dim=(1, 2, 3))
    written = written + sum((_mean(weights[f"{b}.norm2.gamma"].abs()) for b in blocks), torch.zeros(config.ngf))
    outer = _strongest(read * _even(written), ngf)

    def convolution(name: str, out: Tensor, into: Tensor) -> dict[str, Tensor]:
        return {f"{name}.weight": weights[f"{name}.weight"][out][:, into]}

    def affine(name: str, channels: Tensor) -> dict[str, Tensor]:
        return {f"{name}.{part}": weights[f"{name}.{part}"][:, channels] for part in ("gamma", "beta")}

    result = {name: weights[name][outer] for name in ("stem.conv.weight", "stem.conv.bias", "tail.conv.bias")}
    for b in blocks:
        result |= convolution(f"{b}.conv1", inner[b], outer) | affine(f"{b}.norm1", inner[b])
        result |= convolution(f"{b}.conv2", outer, inner[b]) | affine(f"{b}.norm2", outer)
    result |= convolution("tail.conv", outer, outer) | affine("tail.norm", outer)
    result |= {"head.weight": weights["head.weight"][:, outer], "head.bias": weights["head.bias"]}
    return {name: value.contiguous() for name, value in result.items()}


def _strongest(strength: Tensor, count: int) -> Tensor:
    return torch.sort(torch.argsort(strength, descending=True)[:count]).values


def _read(weight: Tensor) -> Tensor:
    """Root of the sum of squares of what reads each channel."""
    return weight.square().sum(dim=(0, 2, 3)).sqrt()


def _mean(rows: Tensor) -> Tensor:
    return rows.mean(dim=0)


def _even(values: Tensor) -> Tensor:
    """Values with a mean of one."""
    return values / values.mean()
