"""The command-line options of a training run, made from `TrainConfig` so that the two cannot drift.

Names, types, defaults and help come from the fields and their docstrings; this module only says
under which heading each is shown and which values a range or choice allows.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

import click
import cloup

from training.config import DISCRIMINATORS, PRECISIONS, WARMUPS, TrainConfig
from training.generator.config import ARCHITECTURES, UPSAMPLINGS

__all__ = ["SECTIONS", "FiniteRange", "NameList", "config_options", "field_help"]

F = TypeVar("F", bound=Callable[..., Any])

SECTIONS: dict[str, tuple[str, ...]] = {
    "Folders": ("photos", "art", "out", "samples", "cache", "init", "teacher", "check_folders"),
    "Generator": ("architecture", "ngf", "n_blocks", "n_downsampling", "upsample", "looks"),
    "Discriminator": (
        "discriminator", "ndf", "scales", "dense", "feature_strides", "label_smoothing", "augment", "pool_size",
    ),
    "Schedule": (
        "warmup", "warmup_steps", "warmup_back_every", "steps", "epochs", "decay_start", "batch", "crop", "views",
        "zoom", "lr", "warmup_lr", "look_lr", "generator_steps", "discriminator_steps", "ema", "clip", "seed",
    ),
    "Losses": (
        "lambda_gan", "lambda_cycle", "lambda_identity", "identity_every", "lambda_pair", "lambda_detail",
        "lambda_edge", "lambda_flat", "lambda_structure", "lambda_frame", "frame_every",
    ),
    "Machine": (
        "precision", "device", "compile", "threads", "workers", "save_every", "sample_every", "tensorboard",
    ),
}  # fmt: skip


class NameList(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """Names separated by commas; with `kind` int, whole numbers."""

    def __init__(self, kind: type[str] | type[int] = str) -> None:
        self.kind, self.name = kind, "n,n,..." if kind is int else "name,name,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str | int, ...]:
        """A tuple of the names or numbers; tuples pass through."""
        if not isinstance(value, str):
            return tuple(value)
        try:
            return tuple(self.kind(part.strip()) for part in value.split(",") if part.strip())
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers separated by commas", param, ctx)


class FiniteRange(click.FloatRange):
    """A range of numbers without nan and infinity, which pass every comparison of click's own."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A finite number of the range."""
        if not math.isfinite(float(click.FLOAT.convert(value, param, ctx))):
            self.fail(f"{value} is no finite number", param, ctx)
        return super().convert(value, param, ctx)


_FOLDER = click.Path(file_okay=False)
_TYPES: dict[str, Any] = {
    "photos": _FOLDER,
    "art": _FOLDER,
    "out": _FOLDER,
    "samples": _FOLDER,
    "cache": _FOLDER,
    "init": click.Path(),
    "teacher": click.Path(),
    "architecture": click.Choice(ARCHITECTURES),
    "discriminator": click.Choice(DISCRIMINATORS),
    "upsample": click.Choice(UPSAMPLINGS),
    "precision": click.Choice(PRECISIONS),
    "warmup": click.Choice(WARMUPS),
    "n_downsampling": click.IntRange(1, 3),
    "scales": click.IntRange(1, 3),
    "crop": click.IntRange(min=32),
    "decay_start": FiniteRange(0, 1),
    "label_smoothing": FiniteRange(0, 1),
    "ema": FiniteRange(0, 1),
}


@functools.cache
def field_help() -> dict[str, str]:
    """The docstring below each field of `TrainConfig`, on one line."""
    (tree,) = ast.parse(inspect.getsource(TrainConfig)).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for field, doc in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = " ".join(str(doc.value.value).split()).replace("`", "")
    return found


def config_options(function: F) -> F:
    """Decorate a command with one option per field of `TrainConfig`."""
    hints, fields = get_type_hints(TrainConfig), {f.name: f for f in dataclasses.fields(TrainConfig)}
    for section, names in reversed(SECTIONS.items()):
        function = cloup.option_group(section, *(_option(fields[name], hints[name]) for name in names))(function)
    return function


def _option(field: dataclasses.Field[Any], hint: Any) -> Callable[[F], F]:
    flag = "--" + field.name.replace("_", "-")
    default = None if field.default is dataclasses.MISSING else field.default
    settings: dict[str, Any] = {
        "help": field_help()[field.name],
        "default": default,
        "show_default": default is not None,
    }
    if hint is bool:
        flag = f"{flag}/--no-{flag[2:]}"
    elif hint in (tuple[str, ...], tuple[int, ...]):
        kind = int if hint == tuple[int, ...] else str
        settings |= {"type": NameList(kind), "default": ",".join(map(str, default or ()))}
    elif hint == tuple[float, float]:
        settings |= {"type": float, "nargs": 2}
    else:
        settings["type"] = _TYPES.get(field.name) or next(t for t in (int, float, str) if _allows(hint, t))
    return cloup.option(flag, field.name, **settings)


def _allows(hint: Any, kind: type) -> bool:
    return hint is kind or kind in getattr(hint, "__args__", ())
