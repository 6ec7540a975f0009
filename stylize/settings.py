"""How a picture is to be stylized: everything that changes its pixels, in one frozen record."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import PurePath
from typing import Any

__all__ = ["BASE_SIDE", "FINE_SIDE", "StyleSettings", "as_declared", "option_changes"]

BASE_SIDE = 1920
"""Long side in pixels at which detail 1 works."""

FINE_SIDE = 1280
"""Long side in pixels below which pictures are enlarged for models that paint in layers, times the detail."""

MOST_LAYERS = 32
"""More cannot be told apart."""


_KINDS: list[tuple[str, Any, Any, str]] = [
    ("tuple", (tuple, list), tuple, "a list"),
    ("bool", bool, bool, "True or False"),
    ("Fraction", numbers.Real, Fraction, "a number"),
    ("str", (str, PurePath), str, "a text"),
    ("int", numbers.Integral, int, "a whole number"),
    ("float", numbers.Real, float, "a number"),
]
"""What a field's declaration names, what is taken for it, what it becomes, and what that is called."""


def as_declared(settings: Any) -> None:
    """Bring the fields of a frozen dataclass to their declared types; ValueError for what is of another kind.

    A path may stand for its text, and numpy's numbers for Python's.
    """
    for field in dataclasses.fields(settings):
        value, declared = getattr(settings, field.name), str(field.type)
        kind = next((kind for kind in _KINDS if kind[0] in declared), None)
        if kind is None or (value is None and "None" in declared):
            continue
        name, allowed, exact, words = kind
        endless = isinstance(value, float) and not math.isfinite(value)
        if endless or not isinstance(value, allowed) or (isinstance(value, bool) and name != "bool"):
            raise ValueError(f"{field.name.replace('_', '-')} is {words}, got {value!r}")
        object.__setattr__(settings, field.name, exact(value))


@dataclass(frozen=True, kw_only=True)
class StyleSettings:
    """Settings of the look and of the machinery behind it; ValueError says what is out of range."""

    model: str = "auto"
    """Name of a model, the path of a model folder, or `auto`: `light` for video on a CPU, else `full`."""
    backend: str = "auto"
    """`mnn`, `openvino`, `torch`, `tensorrt`, `tensorrt-rtx`, or `auto`."""
    device: str | None = None
    """Device of the backend, such as `cuda:1`; None: its usual one."""
    gpus: str | None = None
    """NVIDIA GPUs that frames are shared out over, by number (`0,1`), instead of one `device`."""
    plan: str | None = None
    """Folder of a TensorRT plan; None: one that fits is taken from the cache, or built."""
    precision: str = "auto"
    """`fp32`, `fp16`, `bf16`, or `auto`: what the device does fast."""
    threads: int = 0
    """CPU threads; 0: all."""
    look: str | None = None
    """A look, a mixture (`dusk=0.7,night=0.3`), or for video a way from one to another (`dusk:night`);
    None: that of `look_file` or `look_from`, else the model's usual one.  `auto` mixes palettes by the picture's
    light."""
    look_file: str | None = None
    """TOML file with a palette (`engine.looks.palette_file`), a look that has the file's name."""
    look_from: str | None = None
    """Picture whose colours are a look, which has the file's name."""
    haze: float = 0.0
    """How far the land that is furthest away takes the colour of the horizon, 0..1."""
    layers: int | None = None
    """Layers that the land is cut into by its distance, with no more tones than that; None: distance is not cut."""
    strength: float = 1.0
    """0 leaves the picture as it is, 1 is the full style; mixed in CIE Lab."""
    keep_color: float = 0.0
    """Share of the picture's own hue and chroma that is kept (a and b of CIE Lab)."""
    detail: float = 1.0
    """Working size: the picture is stylized with a long side of at most 1920 pixels times this, then
    brought back.  Small values give large flat shapes; 0 works at the picture's own size.  Models that paint in
    layers enlarge small pictures, up to twice, to 1280 pixels times this."""
    tile: int | None = None
    """Side of the rendered tiles in pixels; 0: the whole picture at once; None: whole when memory allows."""
    smoothing: float = 0.5
    """Video: seconds before and after a frame over which its layout and tones (or statistics) are averaged; 0: none."""

    stabilize: float = 0.0
    """Video: weight 0..1 of the flow-guided filter (`stylize.video.flow`), against flicker that smoothing leaves."""

    def __post_init__(self) -> None:
        as_declared(self)
        for name in ("haze", "strength", "keep_color", "stabilize"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name.replace('_', '-')} lies between 0 and 1, got {getattr(self, name)}")
        if self.layers is not None and not 1 <= self.layers <= MOST_LAYERS:
            raise ValueError(f"layers are 1 to {MOST_LAYERS}, got {self.layers}")
        if not 0.0 <= self.detail <= 16.0:
            raise ValueError(f"detail lies between 0 (own size) and 16, got {self.detail}")
        if self.tile is not None and self.tile < 0:
            raise ValueError(f"tile is a number of pixels, or 0 for the whole picture, got {self.tile}")
        if not 0.0 <= self.smoothing <= 10.0:
            raise ValueError(f"smoothing lies between 0 and 10 seconds, got {self.smoothing}")
        if self.gpus is not None:
            self._check_gpus(self.gpus)
        if self.plan is not None and self.backend not in ("auto", "tensorrt", "tensorrt-rtx"):
            raise ValueError(f"a plan is run by backend tensorrt, got backend {self.backend}: leave out one of them")
        if self.threads < 0:
            raise ValueError(f"threads is a number of CPU threads, or 0 for all, got {self.threads}")

    def _check_gpus(self, gpus: str) -> None:
        from engine.choice import CPU_BACKENDS

        if not (self.gpu_numbers and len(set(self.gpu_numbers)) == len(self.gpu_numbers)):
            raise ValueError(f"gpus are numbers such as 0,1, each of them once, got {gpus!r}")
        if self.device is not None or self.backend in CPU_BACKENDS:
            clash = "device" if self.device is not None else f"backend {self.backend}"
            raise ValueError(f"gpus share frames out over NVIDIA GPUs by tensorrt or torch: leave out {clash} or gpus")

    @property
    def gpu_numbers(self) -> tuple[int, ...]:
        """Numbers in `gpus`; none where it is no list of numbers."""
        parts = [part.strip() for part in (self.gpus or "").split(",")]
        return tuple(int(part) for part in parts) if all(p.isascii() and p.isdigit() for p in parts) else ()

    def key(self, model: str, look: str) -> str:
        """All that decides the pixels, as one line: two settings with one key give the same pictures.

        Tiles, threads and the backend are left out: they change no more than rounding.

        Args:
            model: what the model that was chosen is known by.
            look: the look as it was resolved.
        """
        values = dataclasses.asdict(self) | {"model": model, "look": look}
        # a look is told in words that files have no part in
        left_out = ("backend", "device", "gpus", "look_file", "look_from", "plan", "precision", "threads", "tile")
        for name in left_out:
            del values[name]
        return json.dumps(values, sort_keys=True, separators=(",", ":"))


def option_changes(before: str | Mapping[str, Any], now: str | Mapping[str, Any], *without: str) -> list[str]:
    """The options that differ between two records, or two keys of `StyleSettings`, in words: ``--look a, now b``."""

    def values(record: str | Mapping[str, Any]) -> Mapping[str, Any]:
        if not isinstance(record, str):
            return record
        with contextlib.suppress(ValueError):
            found = json.loads(record)
            return found if isinstance(found, dict) else {}
        return {}

    def word(value: Any) -> str:
        return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

    old, new = values(before), values(now)
    return [
        f"--{name.removesuffix('_seconds').replace('_', '-')} {word(old.get(name))}, now {word(new.get(name))}"
        for name in sorted({*old, *new} - {*without})
        if old.get(name) != new.get(name)
    ]
