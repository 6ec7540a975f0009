"""Options that several commands share."""

from __future__ import annotations

import functools
import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
import cloup
from click.core import ParameterSource

from stylize.settings import StyleSettings

if TYPE_CHECKING:
    from stylize.api import Stylizer

__all__ = [
    "CLUSTER",
    "command_text",
    "counted",
    "open_stylizer",
    "refuse_with_ray",
    "settings_or_usage",
    "shard_option",
    "stop_on_terminate",
    "style_options",
]

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")


class ShardType(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """One job of an array: 3/8."""

    name = "i/n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A `Shard`."""
        from stylize.sharding import Shard

        try:
            return value if isinstance(value, Shard) else Shard.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def shard_option(help_text: str) -> Callable[[Any], Any]:
    """The option ``--shard``."""
    return cloup.option("--shard", type=ShardType(), help=help_text)


LOOK = cloup.option_group(
    "Look",
    cloup.option(
        "--model",
        default="auto",
        show_default=True,
        help="Model by name, or the path of a model folder; auto: light for video on a CPU, else full.",
    ),
    cloup.option(
        "--look",
        help="Look by name, a mixture (dusk=0.7,night=0.3), for video from:to; auto: by the picture's own light.  "
        "[default: the model's]",
    ),
    cloup.option(
        "--look-file",
        type=click.Path(dir_okay=False, resolve_path=True),
        help="Palette of your own, TOML; 'stylize looks --write' makes one to start from.",
    ),
    cloup.option(
        "--look-from",
        type=click.Path(dir_okay=False, resolve_path=True),
        help="Take the look from a picture's colours.",
    ),
    cloup.option(
        "--haze", type=float, default=0.0, show_default=True, help="Fade far land into the colour of the horizon, 0..1."
    ),
    cloup.option("--layers", type=int, help="Cut the land into so many layers by its distance.  [default: not cut]"),
    cloup.option(
        "--strength", type=float, default=1.0, show_default=True, help="0 leaves the picture, 1 is full style."
    ),
    cloup.option(
        "--keep-color", type=float, default=0.0, show_default=True, help="Share of its own colours kept, 0..1."
    ),
)

DETAIL = (
    cloup.option(
        "--detail",
        type=float,
        default=1.0,
        show_default=True,
        help="Working size: long side of at most 1920 pixels times this; 0 works at the picture's own size.",
    ),
)
STEADY = (
    cloup.option(
        "--smoothing",
        type=float,
        default=0.5,
        show_default=True,
        help="Seconds over which layout and tones are averaged, before and after each frame; 0: none.",
    ),
    cloup.option(
        "--stabilize",
        type=float,
        default=0.0,
        show_default=True,
        help="Weight 0..1 of the flow-guided filter against the flicker that is left.",
    ),
)
ENGINE = (
    cloup.option(
        "--backend", default="auto", show_default=True, help="auto, mnn, openvino, torch, tensorrt, tensorrt-rtx."
    ),
    cloup.option("--device", help="Device of the backend, such as cuda:1.  [default: its usual one]"),
    cloup.option(
        "--plan",
        type=click.Path(file_okay=False),
        help="Plan folder for tensorrt (build-engine --output).  [default: from the cache, or built]",
    ),
    cloup.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "fp16", "bf16"]),
        default="auto",
        show_default=True,
        help="Arithmetic of the network.",
    ),
    cloup.option("--threads", type=int, default=0, show_default=True, help="CPU threads; 0: all."),
    cloup.option("--tile", type=int, help="Side of the rendered tiles; 0: whole picture.  [default: by free memory]"),
)
GPUS = (
    cloup.option(
        "--gpus",
        help="NVIDIA GPUs that share the work, such as 0,1; with tensorrt or torch.  [default: one]",
    ),
)


def style_options(smoothing: bool = False, gpus: bool = False) -> Callable[[Command], Command]:
    """Add the options of `StyleSettings`; the command receives them as ``style``."""
    groups = [
        LOOK,
        cloup.option_group("Picture", *DETAIL, *(STEADY if smoothing else ())),
        cloup.option_group("Machine", *ENGINE, *(GPUS if gpus else ())),
    ]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapper(**values: Any) -> Any:
            names = {f for f in StyleSettings.__dataclass_fields__ if f in values}
            style = settings_or_usage(StyleSettings, **{name: values.pop(name) for name in names})
            return command(style=style, **values)

        wrapped: Any = wrapper
        for group in reversed(groups):
            wrapped = group(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return decorate


def settings_or_usage(kind: Callable[..., T], **values: Any) -> T:
    """Build a settings record; what it refuses is a usage error (exit code 2)."""
    try:
        return kind(**values)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _ray_address(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    from stylize.distributed.pool import check_address

    return None if value is None else settings_or_usage(check_address, address=value)


CLUSTER = (
    cloup.option(
        "--ray",
        metavar="ADDRESS",
        callback=_ray_address,
        help="Work on a Ray cluster: auto, local, ray://host:port or host:port.",
    ),
    cloup.option("--ray-cpus", type=click.IntRange(1), help="Cores of a Ray worker.  [default: up to 4]"),
)


def refuse_with_ray(ctx: click.Context, style: StyleSettings, *names: str) -> None:
    """A usage error where an option is given that has no meaning on a cluster."""
    if style.gpus is not None:
        raise click.UsageError("--gpus does not go with --ray: every GPU of the cluster gets a worker of its own")
    for name in names:
        if ctx.params[name]:
            raise click.UsageError(f"--{name.replace('_', '-')} does not go with --ray")


def command_text(ctx: click.Context, *arguments: object, without: Sequence[str] = ()) -> str:
    """The command line of a call with other `arguments` and `without` some options, as it is typed in a shell.

    Options with their built-in values are not named; those set in a file or by the environment are.
    """
    words = [ctx.command_path, *map(str, arguments)]
    for option in ctx.command.params:
        name = option.name or ""
        usual = ctx.get_parameter_source(name) in (None, ParameterSource.DEFAULT)
        if not isinstance(option, click.Option) or option.hidden or name in without or usual:
            continue
        value = ctx.params.get(name)
        if option.is_flag:
            words += [option.opts[0] if value else option.secondary_opts[0]]
        elif value is not None:
            words += [option.opts[-1] if option.opts[-1].startswith("--") else option.opts[0], str(value)]
    return shlex.join(words[0].split() + words[1:])


def counted(kinds: Mapping[str, int]) -> str:
    """Files by their suffix in words: ``5 files (3 .txt, 2 .xmp)``."""
    total = sum(kinds.values())
    most = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{number} {kind or 'without a suffix'}" for kind, number in most[:6])
    return f"{total} file{'s' * (total != 1)} ({shown}{', ...' if len(most) > 6 else ''})"


@contextmanager
def open_stylizer(
    style: StyleSettings, *, video: bool = False, frame: tuple[int, int] | None = None
) -> Iterator[Stylizer]:
    """An entered stylizer; an unknown look or a tile that is too small is a usage error."""
    from stylize.api import Stylizer

    stylizer = settings_or_usage(Stylizer, settings=style, video=video, frame=frame)
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
