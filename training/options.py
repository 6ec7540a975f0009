"""The command-line options of a training run, made from `TrainConfig` so that the two cannot drift.

Names, types, defaults and help come from the fields and their docstrings; this module only says
under which heading each is shown and which values a range or choice allows.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

import click

from training.config import PRECISIONS, WARMUPS, TrainConfig
from training.generator.config import ARCHITECTURES, UPSAMPLINGS

__all__ = ["SECTIONS", "NameList", "SectionedGroup", "SectionedOption", "config_options", "field_help"]

F = TypeVar("F", bound=Callable[..., Any])

SECTIONS: dict[str, tuple[str, ...]] = {
    "Folders": ("photos", "art", "out", "samples", "cache", "init", "teacher", "check_folders"),
    "Generator": ("architecture", "ngf", "n_blocks", "n_downsampling", "upsample", "looks"),
    "Discriminator": ("ndf", "scales", "dense", "label_smoothing", "augment", "pool_size"),
    "Schedule": (
        "warmup", "warmup_steps", "warmup_back_every", "steps", "epochs", "decay_start", "batch", "crop", "views",
        "zoom", "lr", "warmup_lr", "look_lr", "generator_steps", "discriminator_steps", "ema", "clip", "seed",
    ),
    "Losses": (
        "lambda_cycle", "lambda_identity", "identity_every", "lambda_pair", "lambda_detail", "lambda_edge",
        "lambda_flat", "lambda_structure", "lambda_frame", "frame_every",
    ),
    "Machine": (
        "precision", "device", "compile", "threads", "workers", "save_every", "sample_every", "tensorboard",
    ),
}  # fmt: skip

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
    "upsample": click.Choice(UPSAMPLINGS),
    "precision": click.Choice(PRECISIONS),
    "warmup": click.Choice(WARMUPS),
    "n_downsampling": click.IntRange(1, 3),
    "scales": click.IntRange(1, 3),
    "crop": click.IntRange(min=32),
    "decay_start": click.FloatRange(0, 1),
    "label_smoothing": click.FloatRange(0, 1),
    "ema": click.FloatRange(0, 1),
}


class NameList(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """Names separated by commas."""

    name = "name,name,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """A tuple of the names; tuples pass through."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return tuple(value)


class SectionedOption(click.Option):
    """An option that knows under which heading the help shows it."""

    def __init__(self, *args: Any, section: str = "Run", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class SectionedGroup(click.Group):
    """A group whose help lists its own options under headings, then the commands."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one definition list per heading."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(param, "section", "Other"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)
        self.format_commands(ctx, formatter)


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
        for name in reversed(names):
            function = _option(section, fields[name], hints[name])(function)
    return function


def _option(section: str, field: dataclasses.Field[Any], hint: Any) -> Callable[[F], F]:
    flag = "--" + field.name.replace("_", "-")
    default = None if field.default is dataclasses.MISSING else field.default
    settings: dict[str, Any] = {
        "cls": SectionedOption, "section": section, "help": field_help()[field.name], "default": default,
        "show_default": default is not None,
    }  # fmt: skip
    if hint is bool:
        flag = f"{flag}/--no-{flag[2:]}"
    elif hint == tuple[str, ...]:
        settings |= {"type": NameList(), "default": ",".join(default or ())}
    elif hint == tuple[float, float]:
        settings |= {"type": float, "nargs": 2}
    else:
        settings["type"] = _TYPES.get(field.name) or next(t for t in (int, float, str) if _allows(hint, t))
    return click.option(flag, field.name, **settings)


def _allows(hint: Any, kind: type) -> bool:
    return hint is kind or kind in getattr(hint, "__args__", ())
