"""Options that several commands share."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stylize.settings import StyleSettings

if TYPE_CHECKING:
    from stylize.pipeline import Stylizer

__all__ = ["open_stylizer", "settings_or_usage", "stop_on_terminate", "style_options"]

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")

STYLE: list[Callable[[Any], Any]] = [
    click.option(
        "--model",
        default="auto",
        show_default=True,
        help="Model by name, or the path of a model folder; auto: light for video on a CPU, else full.",
    ),
    click.option(
        "--look", help="Look by name, a mixture (dusk=0.7,night=0.3), or for video from:to.  [default: the model's]"
    ),
    click.option(
        "--strength", type=float, default=1.0, show_default=True, help="0 leaves the picture, 1 is full style."
    ),
    click.option(
        "--keep-color", type=float, default=0.0, show_default=True, help="Share of its own colours kept, 0..1."
    ),
    click.option(
        "--detail",
        type=float,
        default=1.0,
        show_default=True,
        help="Working size: long side of at most 1920 pixels times this; 0 works at the picture's own size.",
    ),
    click.option("--backend", default="auto", show_default=True, help="auto, openvino, torch, tensorrt."),
    click.option("--device", help="Device of the backend, such as cuda:1.  [default: its usual one]"),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "fp16", "bf16"]),
        default="auto",
        show_default=True,
        help="Arithmetic of the network.",
    ),
    click.option("--threads", type=int, default=0, show_default=True, help="CPU threads; 0: all."),
    click.option("--tile", type=int, help="Side of the rendered tiles; 0: whole picture.  [default: by free memory]"),
]


TEMPORAL: list[Callable[[Any], Any]] = [
    click.option(
        "--smoothing",
        type=float,
        default=0.5,
        show_default=True,
        help="Seconds over which the toning is averaged, before and after each frame; 0: none.",
    ),
    click.option(
        "--stabilize",
        type=float,
        default=0.0,
        show_default=True,
        help="Weight 0..1 of the flow-guided filter against the flicker that is left.",
    ),
]


def style_options(smoothing: bool = False) -> Callable[[Command], Command]:
    """Add the options of `StyleSettings`; the command receives them as ``style``."""
    options = [*STYLE, *TEMPORAL] if smoothing else STYLE

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapper(**values: Any) -> Any:
            names = {f for f in StyleSettings.__dataclass_fields__ if f in values}
            style = settings_or_usage(StyleSettings, **{name: values.pop(name) for name in names})
            return command(style=style, **values)

        wrapped: Any = wrapper
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return decorate


def settings_or_usage(kind: Callable[..., T], **values: Any) -> T:
    """Build a settings record; what it refuses is a usage error (exit code 2)."""
    try:
        return kind(**values)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


@contextmanager
def open_stylizer(style: StyleSettings, *, video: bool = False) -> Iterator[Stylizer]:
    """An entered stylizer; an unknown look or a tile that is too small is a usage error."""
    from stylize.pipeline import Stylizer

    stylizer = settings_or_usage(Stylizer, settings=style, video=video)
    with stylizer:
        yield stylizer


@contextmanager
def stop_on_terminate() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, so that a run ends as cleanly as with Ctrl-C."""
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
