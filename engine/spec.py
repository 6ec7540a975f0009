"""What a model is and what its two graphs take; read this before writing a backend.

A generator is deployed as two ONNX graphs.  With instance norm they share weights:

``probe.onnx``
    ``view`` uint8 ``(N, H, W, 3)`` RGB, ``look`` float32 ``(1, K)`` ->
    ``scale`` and ``shift`` float32 ``(1, C)``: what instance norm would apply, statistics taken
    jointly over the batch.
``render.onnx``
    ``tiles`` uint8 ``(N, H, W, 3)`` RGB, ``scale`` and ``shift`` -> ``output`` uint8 ``(N, H, W, 3)``.
    A local function of pixels: what lies further away than `ModelSpec.radius` changes nothing.

H and W are multiples of `ModelSpec.multiple`, and at least `ModelSpec.min_side`.

Models of the architecture `layers` (`ModelSpec.has_layout`) have other inputs beside the pictures:

``probe.onnx``
    ``view``, sides multiples of 32 -> ``layout`` float32 ``(N, 2, H/8, W/8)``: sky and depth.
``render.onnx``
    ``tiles``, ``layout`` float32 ``(N, 4, H/8 + 2, W/8 + 2)``, and the vectors ``tone``, ``sky_lut``, ``land_lut``
    and ``controls`` -> ``output``.  `engine.looks.layout` makes them of what the probe returns, and
    `engine.looks.palette` of a look.

What `render` takes beside its tiles is `engine.conditions.Conditions` in either case.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import ModelError
from engine.program.architecture import Program
from engine.program.layers import LAND_LUT, LAYOUT_CHANNELS, SKY_LUT, TONE_VECTOR
from engine.program.shader import CONTROLS

__all__ = ["F32", "ModelSpec", "look_weights", "sha256"]

FORMAT = "firewatch-model-1"
MOST_WEIGHT = 1e6
"""Weights of the looks of a mixture add up to less."""

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The descriptor that travels with a model as spec.json."""

    name: str
    """Name of the model folder."""
    config: Mapping[str, Any]
    """Generator config of the checkpoint; see `engine.program.architecture.Program.of`."""
    looks: tuple[str, ...]
    """Names of the looks."""
    default_look: str = ""
    """The look that is taken when none is asked for; empty: the first."""
    probe_side: int = 512
    """Long side of the view that the probe is given, in pixels."""
    precision: str = "fp32"
    """Arithmetic of the graphs: fp32, fp16 or bf16 (statistics are always taken in float32)."""
    hashes: Mapping[str, str] | None = None
    """sha256 of each file of the model folder."""

    def __post_init__(self) -> None:
        if not self.looks:
            raise ValueError("a model has at least one look")
        if self.default_look and self.default_look not in self.looks:
            raise ValueError(f"the default look {self.default_look!r} is none of {', '.join(self.looks)}")

    @property
    def usual_look(self) -> str:
        """`default_look`, or the first of the looks."""
        return self.default_look or self.looks[0]

    @cached_property
    def program(self) -> Program:
        """The operations of the generator."""
        return Program.of(self.config)

    @property
    def norm_channels(self) -> int:
        """C, the length of the statistics vectors."""
        return self.program.norm_channels

    @property
    def has_layout(self) -> bool:
        """Whether the probe returns a layout of the picture instead of statistics."""
        return bool(self.program.probe_ops)

    @property
    def render_vectors(self) -> dict[str, tuple[int, ...]]:
        """Vectors that `render` takes, and their shapes without the batch."""
        if not self.has_layout:
            return {"scale": (self.norm_channels,), "shift": (self.norm_channels,)}
        return {"tone": (TONE_VECTOR,), "sky_lut": SKY_LUT, "land_lut": LAND_LUT, "controls": (len(CONTROLS),)}

    @property
    def render_maps(self) -> dict[str, tuple[int, ...]]:
        """Maps that `render` takes, and their channels."""
        return {"layout": (LAYOUT_CHANNELS,)} if self.has_layout else {}

    @property
    def multiple(self) -> int:
        """Height and width are multiples of this."""
        return self.program.multiple

    @property
    def min_side(self) -> int:
        """Smallest height or width that reflection padding allows at every depth."""
        return max(8, 2 * self.multiple)

    @property
    def view_multiple(self) -> int:
        """Height and width of the probe's view are multiples of this."""
        return self.program.probe_multiple or self.multiple

    @property
    def view_min_side(self) -> int:
        """Smallest height or width of the probe's view."""
        return self.program.probe_multiple or self.min_side

    @property
    def radius(self) -> int:
        """Receptive-field radius in pixels, rounded up to `multiple`."""
        return -(-self.program.radius // self.multiple) * self.multiple

    @property
    def halo(self) -> int:
        """Context that a tile is rendered with on each side: three quarters of the radius.

        The outer part of a receptive field carries almost no weight (Luo et al. 2016, arXiv
        1701.04128).  Half the radius is enough for most trained nets, three quarters leave 60 dB and
        more for random weights as well, the full radius is exact.  Models of `layers` take it: their borders
        would show the rest, and their radius is small.
        """
        if self.has_layout:
            return self.radius
        return -(-self.radius * 3 // 4 // self.multiple) * self.multiple

    def save(self, folder: Path) -> None:
        """Write spec.json."""
        values = {"format": FORMAT, **asdict(self), "looks": list(self.looks)}
        folder.joinpath("spec.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> ModelSpec:
        """Read spec.json of a model folder; ModelError says what is wrong with it."""
        path = folder / "spec.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ModelError(f"{folder} is no model folder: it has no spec.json") from error
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} cannot be read ({error})") from error
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ModelError(f"{path} is not of format {FORMAT}: export the checkpoint again")
        try:
            spec = cls(**{**values, "looks": tuple(values["looks"])})
            assert spec.program.ops
        except (TypeError, KeyError, ValueError) as error:
            raise ModelError(f"{path} is incomplete ({error}): export the checkpoint again") from error
        return spec

    def verify(self, folder: Path) -> None:
        """Compare the files of the folder with `hashes`; ModelError names the file that differs."""
        for name, expected in (self.hashes or {}).items():
            path = folder / name
            if not path.is_file():
                raise ModelError(f"{path} is missing: install the model again")
            if sha256(path) != expected:
                raise ModelError(f"{path} is damaged (its sha256 differs from spec.json): install the model again")


def look_weights(spec: ModelSpec | Sequence[str], look: str, owner: str = "") -> F32:
    """Weights ``(K,)`` of a look: a name, or a mixture such as ``dusk=0.7,night=0.3``.

    Args:
        spec: the model, or the names of the looks that there are.
        look: in words.
        owner: of the names, for messages.

    Raises:
        ValueError: a name is unknown (the message has the nearest, and all), or a weight is no number.
    """
    names, owner = (spec.looks, spec.name) if isinstance(spec, ModelSpec) else (tuple(spec), owner)
    weights = np.zeros(len(names), np.float32)
    for part in look.split(","):
        name, given, amount = (word.strip() for word in part.partition("="))
        if name not in names:
            near = difflib.get_close_matches(name, names, n=2)
            hint = f": did you mean {' or '.join(near)}?" if near else ";"
            raise ValueError(f"unknown look {name!r}{hint} {owner} has {', '.join(names)}")
        try:
            weights[names.index(name)] += min(float(amount), MOST_WEIGHT) if given else 1.0
        except ValueError as error:
            raise ValueError(f"the weight of a look is a number, such as dusk=0.7, got {look!r}") from error
    if not 0 < weights.sum() < MOST_WEIGHT or weights.min() < 0:
        raise ValueError(f"the weights of looks are positive numbers, such as dusk=0.7,night=0.3, got {look!r}")
    return np.asarray(weights / weights.sum(), np.float32)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
