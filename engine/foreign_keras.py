"""Generators of CycleGAN-Keras (``G_A2B_model_weights_epoch_200.hdf5``), with h5py.

Plain, with resize convolution, and the deeper one that goes with a multi-scale discriminator.  The
file holds arrays alone: nothing of it is run, and neither Keras nor TensorFlow is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ModelError
from engine.foreign_net import F32, ForeignNet, Layer, Norm

__all__ = ["read_keras"]

EPS = 1e-5
"""Of keras_contrib's instance norm, added to the deviation and not to the variance."""

Weights = dict[str, F32]


def read_keras(path: Path) -> ForeignNet:
    """Read an HDF5 file that ``save_weights`` wrote.

    Raises ModelError for a file that is not one, or whose net is not the CycleGAN generator.
    """
    try:
        import h5py
    except ImportError as error:
        raise ModelError(f"{path} needs h5py to be read: pip install 'firewatch-stylizer[keras]'") from error
    try:
        with h5py.File(path, "r") as file:
            layers = _layers(file.get("model_weights", file))
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as weights of Keras ({error}): save them with save_weights") from error
    return net_of(layers, str(path))


def _layers(group: Any) -> list[tuple[str, Weights]]:
    """Name and arrays of every layer that has some, in the net's order."""
    result = []
    for name in _names(group.attrs["layer_names"]):
        entry = group[name]
        arrays = {
            weight.rpartition("/")[2].partition(":")[0]: np.asarray(entry[weight], np.float32)
            for weight in _names(entry.attrs["weight_names"])
        }
        if arrays:
            result.append((name, arrays))
    return result


def _names(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def net_of(layers: list[tuple[str, Weights]], what: str) -> ForeignNet:
    """The net of the layers of a file; ModelError says why it is none that can be run."""
    convs: list[tuple[F32, F32 | None, Norm | None]] = []
    for name, arrays in layers:
        if arrays.get("kernel", np.empty(0)).ndim == 4:
            # (h, w, in, out), transposed (h, w, out, in) -> (out, in, h, w), transposed (in, out, h, w)
            convs.append((np.ascontiguousarray(arrays["kernel"].transpose(3, 2, 0, 1)), arrays.get("bias"), None))
        elif "gamma" in arrays and "beta" in arrays and convs and convs[-1][2] is None:
            gamma, beta = arrays["gamma"].ravel(), arrays["beta"].ravel()
            mean, variance = arrays.get("moving_mean"), arrays.get("moving_variance")
            if mean is None or variance is None:
                norm = Norm(gamma=gamma, beta=beta, eps=0.0, eps_outside=EPS)
            else:
                norm = Norm(gamma=gamma, beta=beta, mean=mean, variance=variance, eps=1e-3)
            convs[-1] = (*convs[-1][:2], norm)
        else:
            raise ModelError(f"{what}: layer {name} does not belong to a generator of CycleGAN-Keras")
    widths = [kernel.shape[0] for kernel, _, _ in convs]
    depth = 1
    while depth + 1 < len(widths) and widths[depth] == 2 * widths[depth - 1]:
        depth += 1
    depth -= 1
    inner = len(convs) - 2 - 2 * depth
    if depth < 1 or inner < 2 or inner % 2:
        raise ModelError(f"{what} is not a generator of CycleGAN-Keras: it has {len(convs)} convolutions")

    def layer(at: int, pad: Any, **values: Any) -> Layer:
        kernel, bias, norm = convs[at]
        return Layer(weight=kernel, bias=bias, norm=norm, pad=pad, **values)

    first, behind = 1 + depth, 1 + depth + inner
    # (out, in) of a resize convolution halve the channels; (in, out) of a transposed one look doubled.
    transposed = convs[behind][0].shape[0] == 2 * convs[behind][0].shape[1]
    up = {"pad": "same", "stride": 2, "transposed": True} if transposed else {"pad": "reflect", "doubled": True}
    return ForeignNet(
        kind="CycleGAN-Keras",
        stem=layer(0, "reflect"),
        down=tuple(layer(1 + i, "same", stride=2) for i in range(depth)),
        blocks=tuple((layer(i, "reflect"), layer(i + 1, "reflect")) for i in range(first, behind, 2)),
        up=tuple(layer(behind + i, **up) for i in range(depth)),
        head=layer(len(convs) - 1, "reflect"),
    )
