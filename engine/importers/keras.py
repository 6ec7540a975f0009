"""Generators of CycleGAN-Keras (``G_A2B_model_weights_epoch_200.hdf5``), with h5py.

Plain, with resize convolution, and the deeper one that goes with a multi-scale discriminator; as Keras
2 saves weights, and as Keras 3 does (``.weights.h5``).  The file holds arrays alone: nothing of it is
run, and neither Keras nor TensorFlow is needed.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ModelError
from engine.importers.net import F32, ImportedNet, Layer, Norm

__all__ = ["Weights", "net_of", "read_keras"]

EPS = 1e-5
"""Of keras_contrib's instance norm, added to the deviation and not to the variance."""

KERAS_EPS = 1e-3
"""Of the norms that Keras itself has, added to the variance; its group norm of one channel each is instance norm."""

Weights = dict[str, F32]
"""Arrays of a layer by Keras' names: kernel, bias; gamma, beta, moving_mean, moving_variance."""

ROLES = {2: ("gamma", "beta"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}
"""What the numbered arrays of a norm are in Keras 3; a convolution has kernel and bias."""


def read_keras(path: Path) -> ImportedNet:
    """Read an HDF5 file that ``save_weights`` wrote.

    Raises ModelError for a file that is not one, or whose net is not the CycleGAN generator.
    """
    try:
        import h5py
    except ImportError as error:
        raise ModelError(f"{path} needs h5py to be read: pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            layers = _layers(root) if "layer_names" in root.attrs else _numbered(root["layers"])
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
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


def _numbered(group: Any) -> list[tuple[str, Weights]]:
    """The layers of a Keras 3 file, in the net's order.

    They are numbered within each kind (conv2d, conv2d_1), so the order among kinds has to be known: all
    convolutions, the transposed ones before the last, each with the norm of its number behind it.
    """
    kinds: dict[str, list[tuple[int, str, Weights]]] = {}
    norm_kinds = set()
    for name, entry in group.items():
        arrays = [np.asarray(entry["vars"][str(i)], np.float32) for i in range(len(entry.get("vars", ())))]
        if not arrays:
            continue
        roles = ("kernel", "bias") if arrays[0].ndim == 4 else ROLES.get(len(arrays), ())
        match = re.fullmatch(r"(.*?)(?:_(\d+))?", name)
        assert match is not None  # it takes any name
        kind = "norm" if arrays[0].ndim == 1 else match[1]
        norm_kinds |= {match[1]} if kind == "norm" else set()
        kinds.setdefault(kind, []).append((int(match[2] or 0), name, dict(zip(roles, arrays, strict=False))))
    for kind, entries in kinds.items():
        if kind != "norm" and sorted(entry[0] for entry in entries) != list(range(len(entries))):
            raise ValueError(f"the numbers of the layers {kind} have a gap: a layer is missing")
    parts = {kind: [entry[1:] for entry in sorted(entries, key=lambda e: e[0])] for kind, entries in kinds.items()}
    convs, ups, norms = (parts.pop(kind, []) for kind in ("conv2d", "conv2d_transpose", "norm"))
    if parts or not convs or len(norm_kinds) > 1 or len(norms) not in (0, len(convs) + len(ups) - 1):
        raise ValueError(f"kinds of layers: {', '.join(sorted(kinds)) or 'none'}, as no generator has them")
    order = [*convs[:-1], *ups, convs[-1]]
    return [layer for pair in zip_longest(order, norms) for layer in pair if layer is not None]


def _names(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def net_of(
    layers: list[tuple[str, Weights]],
    what: str,
    *,
    kind: str = "CycleGAN-Keras",
    eps: float | None = None,
    notes: tuple[str, ...] = (),
) -> ImportedNet:
    """The net of layers in their order; `eps` of its instance norm is added to the variance (None: as `EPS` says).

    Raises ModelError that says why it is none that can be run.
    """
    convs: list[tuple[F32, F32 | None, Norm | None]] = []
    for name, arrays in layers:
        if arrays.get("kernel", np.empty(0)).ndim == 4:
            # (h, w, in, out), transposed (h, w, out, in) -> (out, in, h, w), transposed (in, out, h, w)
            convs.append((np.ascontiguousarray(arrays["kernel"].transpose(3, 2, 0, 1)), arrays.get("bias"), None))
        elif "gamma" in arrays and "beta" in arrays and convs and convs[-1][2] is None:
            gamma, beta = arrays["gamma"].ravel(), arrays["beta"].ravel()
            mean, variance = arrays.get("moving_mean"), arrays.get("moving_variance")
            if mean is not None and variance is not None:
                norm = Norm(gamma=gamma, beta=beta, mean=mean, variance=variance, eps=KERAS_EPS)
            elif eps is not None or name.startswith("group_normalization"):
                norm = Norm(gamma=gamma, beta=beta, eps=KERAS_EPS if eps is None else eps)
            else:
                norm = Norm(gamma=gamma, beta=beta, eps=0.0, eps_outside=EPS)
            convs[-1] = (*convs[-1][:2], norm)
        else:
            raise ModelError(f"{what}: layer {name} does not belong to a generator of {kind}")
    widths = [kernel.shape[0] for kernel, _, _ in convs]
    depth = 1
    while depth + 1 < len(widths) and widths[depth] == 2 * widths[depth - 1]:
        depth += 1
    depth -= 1
    inner = len(convs) - 2 - 2 * depth
    if depth < 1 or inner < 2 or inner % 2:
        raise ModelError(f"{what} is not a generator of {kind}: it has {len(convs)} convolutions")

    def layer(at: int, pad: Any, **values: Any) -> Layer:
        kernel, bias, norm = convs[at]
        return Layer(weight=kernel, bias=bias, norm=norm, pad=pad, **values)

    first, behind = 1 + depth, 1 + depth + inner
    # (out, in) of a resize convolution halve the channels; (in, out) of a transposed one look doubled.
    transposed = convs[behind][0].shape[0] == 2 * convs[behind][0].shape[1]
    up = {"pad": "same", "stride": 2, "transposed": True} if transposed else {"pad": "reflect", "doubled": True}
    return ImportedNet(
        kind=kind,
        notes=notes,
        stem=layer(0, "reflect"),
        down=tuple(layer(1 + i, "same", stride=2) for i in range(depth)),
        blocks=tuple((layer(i, "reflect"), layer(i + 1, "reflect")) for i in range(first, behind, 2)),
        up=tuple(layer(behind + i, **up) for i in range(depth)),
        head=layer(len(convs) - 1, "reflect"),
    )
