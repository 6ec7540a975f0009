"""Generators in checkpoints of TensorFlow, with its own reader: names and arrays, no code and no graph.

Known are the ResNet generators of three programs that are called CycleGAN-tensorflow: those of xhujoy
(``cyclegan.model-1002.index``) and vanhuyz (``model.ckpt-100000.index``), whose variables carry the
names of their scopes, and that of LynnHo (``ckpt-200.index``), where Keras numbers the layers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from engine.errors import ModelError
from engine.importers.keras import Weights, net_of
from engine.importers.net import F32, ImportedNet

__all__ = ["checkpoint_prefix", "net_of_variables", "read_tensorflow"]

PART = re.compile(r"\.(?:index|meta|data-\d{5}-of-\d{5})$")

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"

PARAMETERS = {
    "weights": "kernel",
    "weights1": "kernel",
    "weights2": "kernel",
    "kernel": "kernel",
    "biases": "bias",
    "bias": "bias",
    "scale": "gamma",
    "gamma": "gamma",
    "offset": "beta",
    "beta": "beta",
    "moving_mean": "moving_mean",
    "moving_variance": "moving_variance",
}
"""Last part of a variable's name, and what it is called in Keras.  Slots of optimisers have other names."""

XHUJOY = re.compile(r"(?P<g>.+)/g_(?P<stage>e|r|d|pred)(?P<n>\d*)_(?P<what>c|dc|bn)(?P<half>\d?)(?:/\w+)?/(?P<p>\w+)")
VANHUYZ = re.compile(
    r"(?P<g>.+)/(?P<stage>c7s1|d|R|u|output)(?:_?(?P<n>\d+))?(?:_(?P<i>\d+)/layer(?P<half>\d))?"
    r"(?P<norm>/(?:instance|batch)_norm(?:/BatchNorm)?)?/(?P<p>\w+)"
)
LYNNHO = re.compile(r"(?P<g>.+)/layer_with_weights-(?P<n>\d+)/(?P<p>\w+)")

PREFERRED = ("G", "generatorA2B", "G_A2B")
"""The generators from A to B, X to Y, of a checkpoint that holds both directions."""

INSTANCE_EPS = {"xhujoy": 1e-5, "vanhuyz": 1e-5, "LynnHo": 1e-3}

Place = tuple[int, ...]
"""Sorts the layers of a generator; the last number is 1 for the norm behind a convolution."""


def checkpoint_prefix(path: Path) -> Path | None:
    """What TensorFlow calls a checkpoint, from any of its files, their common name or their folder.

    None where there is no checkpoint.  Of a folder the newest one, by its file `checkpoint`.
    """
    if path.is_dir():
        listing = path / "checkpoint"
        text = listing.read_text(encoding="utf-8", errors="replace") if listing.is_file() else ""
        newest = re.search(r'(?m)^model_checkpoint_path:\s*"(.*)"', text)
        # The name alone: where the folder lay when it was written does not matter.
        return checkpoint_prefix(path / re.split(r"[\\/]", newest[1])[-1]) if newest else None
    prefix = path.with_name(PART.sub("", path.name))
    with_index = prefix.with_name(f"{prefix.name}.index").is_file()
    old = prefix.is_file() and prefix.with_name(f"{prefix.name}.meta").is_file()  # one file, before TensorFlow 0.12
    return prefix if with_index or old else None


def read_tensorflow(prefix: Path, generator: str | None = None) -> ImportedNet:
    """Read one generator of a checkpoint; see `net_of_variables`.

    Raises ModelError for a checkpoint that cannot be read, or has no such generator.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ModelError(f"{prefix} needs TensorFlow to be read: pip install tensorflow") from error
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        # Most of a checkpoint is the optimiser's: only what a generator has is read.
        names = [name for name in reader.get_variable_to_shape_map() if _found(name)]
        variables = {name: np.asarray(reader.get_tensor(name), np.float32) for name in names}
    except (tf.errors.OpError, LookupError, ValueError, TypeError, RuntimeError, OSError) as error:
        what = str(error).splitlines()[0]
        raise ModelError(f"{prefix} cannot be read as a TensorFlow checkpoint ({what}): is it complete?") from error
    return net_of_variables(variables, str(prefix), generator)


def net_of_variables(variables: Mapping[str, F32], what: str, generator: str | None = None) -> ImportedNet:
    """The generator of that scope (``G``, ``generatorA2B``; None: the one from A to B) by variables of its names.

    Raises ModelError that names the generators there are, or says why none can be run.
    """
    found: dict[str, dict[Place, Weights]] = {}
    makers: dict[str, str] = {}
    for name, value in variables.items():
        if (entry := _found(name)) is None:
            continue
        maker, scope, place, parameter = entry
        makers[scope] = maker
        found.setdefault(scope, {}).setdefault(place, {})[parameter] = value
    found = {scope: layers for scope, layers in found.items() if _has_head(layers)}
    if not found:
        raise ModelError(
            f"{what} holds no ResNet generator: those of CycleGAN-tensorflow (xhujoy, vanhuyz, LynnHo) can be imported"
        )
    scope = generator or next((name for name in PREFERRED if name in found), sorted(found)[0])
    if scope not in found:
        raise ModelError(f"{what} has no generator {scope!r}: choose {', '.join(sorted(found))}")
    others = sorted(set(found) - {scope})
    layers = [(_shown(place), arrays) for place, arrays in sorted(found[scope].items())]
    if "gamma" in layers[-1][1]:
        raise ModelError(f"{what} is an early version, with a norm behind the last layer: this is not supported")
    notes = (f"generator {scope}; also in the file: {', '.join(others)} (--generator)",) if others else ()
    return net_of(
        layers, what, kind=f"CycleGAN-tensorflow ({makers[scope]})", eps=INSTANCE_EPS[makers[scope]], notes=notes
    )


def _found(name: str) -> tuple[str, str, Place, str] | None:
    """Maker, generator, place in it and parameter of a variable; None for one that is of no generator."""
    name = name.removesuffix(VALUE)
    for maker, pattern, place in (
        ("LynnHo", LYNNHO, _lynnho),
        ("xhujoy", XHUJOY, _xhujoy),
        ("vanhuyz", VANHUYZ, _vanhuyz),
    ):
        match = pattern.fullmatch(name)
        if match and match["p"] in PARAMETERS and "discriminator" not in match["g"].lower():
            return maker, match["g"], place(match), PARAMETERS[match["p"]]
    return None


def _lynnho(match: re.Match[str]) -> Place:
    return (int(match["n"]),)


def _xhujoy(match: re.Match[str]) -> Place:
    stage = ("e", "r", "d", "pred").index(match["stage"])
    return stage, int(match["n"] or 0), int(match["half"] or 0), int(match["what"] == "bn")


def _vanhuyz(match: re.Match[str]) -> Place:
    stage = ("c7s1", "d", "R", "u", "output").index(match["stage"])
    width = int(match["n"] or 0)
    within = int(match["i"] or 0) if stage == 2 else -width if stage == 3 else width
    return stage, within, int(match["half"] or 0), int(match["norm"] is not None)


def _has_head(layers: Mapping[Place, Weights]) -> bool:
    """Whether any convolution looks at the seven pixels around, as ends of generators do, discriminators never."""
    return any(arrays["kernel"].shape[:2] == (7, 7) for arrays in layers.values() if "kernel" in arrays)


def _shown(place: Place) -> str:
    return ".".join(map(str, place))
