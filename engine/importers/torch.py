"""Generators of the PyTorch CycleGAN (``latest_net_G_A.pth``): the ResNet ones of any width and depth.

A state dict tells by its shapes and by the gaps in its numbering what the net looked like: layers
without parameters (padding, ReLU, dropout) leave gaps.
"""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.errors import ModelError
from engine.importers.net import F32, ImportedNet, Layer, Norm

__all__ = ["read_torch"]

KEY = re.compile(r"model\.(\d+)\.(?:conv_block\.(\d+)\.)?(weight|bias|running_mean|running_var|num_batches_tracked)")
WRAPPERS = ("state_dict", "model_state_dict", "params", "netG_A", "netG", "G_A", "model")

Pad = Literal["reflect", "zero"]

Place = tuple[int, int]
"""Number of a layer in the net, and within a residual block (-1 outside of one)."""


def read_torch(path: Path) -> ImportedNet:
    """Read a state dict without running any code of the file (``weights_only``).

    Raises ModelError for a file that is not one, or whose net is not a ResNet generator.
    """
    try:
        import torch
    except ImportError as error:
        raise ModelError(f"{path} needs torch to be read: pip install torch") from error
    try:
        with warnings.catch_warnings():  # about old pickles, which are read or refused all the same
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors, and code from files is never run: "
            "save the generator's state_dict() with torch.save and import that"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read as a PyTorch checkpoint: is it complete?") from error
    return net_of(_arrays(path, content), str(path))


def _arrays(path: Path, content: Any) -> dict[str, F32]:
    """The tensors of a state dict that may lie within another dict, or carry the prefix of DataParallel."""
    import torch

    for name in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    tensors = {k: v for k, v in content.items() if torch.is_tensor(v)} if isinstance(content, dict) else {}
    if not tensors:
        raise ModelError(f"{path} holds no state dict: save the generator's state_dict() with torch.save")
    try:
        return {str(k).removeprefix("module."): v.to(torch.float32).numpy() for k, v in tensors.items()}
    except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse, quantised, without data
        raise ModelError(f"{path} holds tensors of an unusual kind: save the generator in float32") from error


def net_of(state: dict[str, F32], what: str) -> ImportedNet:
    """The net of a state dict; ModelError says why it is none that can be run."""
    groups: dict[Place, dict[str, F32]] = {}
    for key, value in state.items():
        match = KEY.fullmatch(key)
        if match is None:
            kind = "a U-Net generator" if key.startswith("model.model.") else f"not a ResNet generator ({key})"
            raise ModelError(f"{what} is {kind}: the ResNet generators of the PyTorch CycleGAN can be imported")
        place = int(match[1]), int(match[2]) if match[2] else -1
        groups.setdefault(place, {})[match[3]] = value
    convs = sorted(place for place, group in groups.items() if group.get("weight", np.empty(0)).ndim == 4)
    outer = [place for place in convs if place[1] < 0]
    inner = [place for place in convs if place[1] >= 0]
    if len(outer) < 4 or not inner or len(inner) % 2:
        raise ModelError(f"{what} is not a ResNet generator: it has {len(outer)} and {len(inner)} convolutions")

    _check_numbering(outer, inner, what)
    first, last = inner[0][0], inner[-1][0]
    # A block that pads by reflection begins with a padding layer, which leaves number 0 free.
    pad: Pad = "reflect" if inner[0][1] == 1 else "zero"
    up = [place for place in outer[:-1] if place[0] > last]
    head = groups[outer[-1]]
    return ImportedNet(
        kind="PyTorch CycleGAN",
        stem=_layer(groups, outer[0], "reflect"),
        down=tuple(_layer(groups, place, "zero", stride=2) for place in outer[1:] if place[0] < first),
        blocks=tuple(
            (_layer(groups, a, pad), _layer(groups, b, pad)) for a, b in zip(inner[::2], inner[1::2], strict=True)
        ),
        up=_up(groups, up, last, what),
        head=Layer(weight=head["weight"], bias=head.get("bias"), norm=None, pad="reflect"),
        notes=_notes(groups, outer[0], resized=bool(up) and up[0][0] > last + 1, padded=pad == "reflect"),
    )


def _check_numbering(outer: list[Place], inner: list[Place], what: str) -> None:
    """ModelError where the numbers of the layers have a gap: a state dict with a block missing is not a smaller net.

    A convolution, its norm and ReLU take three numbers in front of the blocks, each block one, with two convolutions
    at the same places in all of them.
    """
    blocks = sorted({place[0] for place in inner})
    encoder = [place[0] for place in outer if place[0] < blocks[0]]
    expected = [encoder[0] + 3 * i for i in range(len(encoder))] if encoder else []
    within = {tuple(second for number, second in inner if number == block) for block in blocks}
    whole = blocks == list(range(blocks[0], blocks[-1] + 1)) and len(within) == 1 and len(next(iter(within))) == 2
    if not encoder or encoder != expected or blocks[0] != encoder[-1] + 3 or not whole:
        raise ModelError(
            f"{what} lacks layers: convolutions in model.{', '.join(map(str, encoder))} and blocks in "
            f"model.{', '.join(map(str, blocks))} leave a gap; save the whole state dict"
        )


def _layer(groups: dict[Place, dict[str, F32]], place: Place, pad: Pad, **values: Any) -> Layer:
    """A convolution and the norm behind it.

    Without an entry for the norm: the original gives its convolutions a bias in front of instance norm,
    which has no parameters there, and none where it has no norm.  Running statistics without a scale are
    those of instance norm in early releases, which did not use them.
    """
    conv = groups[place]
    entry = groups.get((place[0], place[1] + 1) if place[1] >= 0 else (place[0] + 1, -1), {})
    norm = None
    if entry.get("weight", np.empty((0, 0))).ndim == 1:
        gamma = entry["weight"]
        beta = entry.get("bias", np.zeros_like(gamma))
        norm = Norm(gamma=gamma, beta=beta, mean=entry.get("running_mean"), variance=entry.get("running_var"))
    elif "bias" in conv:
        norm = Norm(gamma=np.ones_like(conv["bias"]), beta=np.zeros_like(conv["bias"]))
    return Layer(weight=conv["weight"], bias=conv.get("bias"), norm=norm, pad=pad, **values)


def _up(groups: dict[Place, dict[str, F32]], places: list[Place], last: int, what: str) -> tuple[Layer, ...]:
    """The decoder: a transposed convolution follows at once; enlarging and padding take a number each."""
    layers = []
    start = last + 1
    for place in places:
        gap = place[0] - start
        first, second = groups[place]["weight"].shape[:2]
        if (first > second) != (gap == 0):  # (in, out) of a transposed convolution, else (out, in)
            raise ModelError(f"{what} lacks layers before model.{place[0]}: save the whole state dict")
        if gap == 0:
            layers.append(_layer(groups, place, "zero", stride=2, transposed=True))
        elif gap in (1, 2):
            layers.append(_layer(groups, place, "reflect" if gap == 2 else "zero", doubled=True))
        else:
            raise ModelError(f"{what} is not a ResNet generator: unknown layers before model.{place[0]}")
        start = place[0] + 3  # the convolution, its norm, ReLU
    return tuple(layers)


def _notes(groups: dict[Place, dict[str, F32]], stem: Place, *, resized: bool, padded: bool) -> tuple[str, ...]:
    notes = ["the file does not say how its blocks pad: reflection is taken, replication looks the same in a file"]
    notes = notes if padded else []
    notes += ["the file does not say how it enlarges: nearest neighbour is taken"] if resized else []
    behind = groups.get((stem[0] + 1, -1), {})
    if "weight" in behind and "running_mean" in behind:
        notes.append("batch norm: the statistics of training are used, as the original does with --eval")
    return tuple(notes)
