"""The ``stylize`` command: a group whose commands are imported when they are called.

Only click is imported here, so that ``stylize --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from stylize import __version__
from stylize.commands.config_file import CONFIGURED, PROGRAM, load_defaults, show_environment

__all__ = ["main", "stylize"]

COMMANDS = {
    "video": "Stylize videos: every frame at its own time, sound and subtitles kept.",
    "folder": "Stylize all photos of a folder and below.",
    "image": "Stylize one photo.",
    "join": "Put the segments that a job array made together.",
    "preview": "See a few frames, or a grid of looks and settings, before a long run.",
    "ui": "Choose with your eyes: a page on this machine, with live previews.",
    "looks": "List the looks with their colours; write one as a file to start from.",
    "compare": "Source and result side by side, with figures.",
    "doctor": "Check the installation and say how to mend it.",
    "models": "List, show and import models; choose the usual one.",
}
"""Name and summary; command NAME is `NAME` in `stylize.commands.NAME`."""


LOG_FILE = "stylize log file"
"""Name of the handler that writes it."""


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"stylize.commands.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        _also_behind(command)
        return show_environment(command, f"STYLIZE_{cmd_name.upper()}")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summaries from the table instead of importing every command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the commands there are when one is misspelt."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"{error.format_message()} Commands: {', '.join(COMMANDS)}.", ctx) from error


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
        "auto_envvar_prefix": "STYLIZE",
    },
    epilog="""\b
Environment variables:
  STYLIZE_VIDEO_LOOK, ...  an option of a command; its --help lists them
  STYLIZE_VERBOSE, STYLIZE_QUIET, STYLIZE_LOG_FILE
                           the options above
  STYLIZE_FFMPEG           the ffmpeg program to use
  STYLIZE_MODELS           folder of your models
  FIREWATCH_CACHE          folder of TensorRT plans

\b
Settings may also stand in stylize.toml, in the current folder or your own (docs/configuration.md).

\b
Completion, in the start-up file of your shell:
  bash: eval "$(_STYLIZE_COMPLETE=bash_source stylize)"
  zsh:  eval "$(_STYLIZE_COMPLETE=zsh_source stylize)"
  fish: _STYLIZE_COMPLETE=fish_source stylize | source""",
)
@click.version_option(__version__, prog_name="stylize")
@click.option("-v", "--verbose", count=True, help="Say more: -v what was chosen and why, -vv everything.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--log-file", type=click.Path(dir_okay=False, path_type=Path), help="Write a full log to this file.")
@click.pass_context
def stylize(ctx: click.Context, verbose: int, quiet: bool, log_file: Path | None) -> None:
    """Turn hiking videos and photos into the look of the game Firewatch.

    \b
    stylize video hike.mp4 -o firewatch.mp4
    stylize folder ./photos
    stylize image lake.jpg -o lake.png --look dusk

    -v, -q and --log-file may stand before the command or behind it.
    """
    if ctx.invoked_subcommand in CONFIGURED:
        ctx.default_map = load_defaults(ctx.command)
        verbose, quiet, log_file = _from_files(ctx, verbose, quiet, log_file)
    ctx.obj = {}
    _apply(ctx, verbose, quiet, log_file)


def _apply(ctx: click.Context, verbose: int, quiet: bool, log_file: Path | None) -> None:
    if verbose and quiet:
        raise click.UsageError("choose -v or -q, not both", ctx)
    ctx.obj |= {"verbose": verbose, "quiet": quiet, "log_file": log_file}
    _set_up_logging(-1 if quiet else verbose, log_file)


def _also_behind(command: click.Command) -> None:
    """Let a command, or those of a group, take the program's own options too; their help does not repeat them."""
    if isinstance(command, click.Group):
        for child in command.commands.values():
            _also_behind(child)
    elif not any(param.callback is _given_behind for param in command.params):
        command.params += [
            click.Option(
                option.opts,
                count=option.count,
                is_flag=option.is_flag and not option.count,
                type=None if option.count else option.type,
                hidden=True,
                expose_value=False,
                is_eager=True,
                callback=_given_behind,
            )
            for option in stylize.params
            if isinstance(option, click.Option) and option.name in ("verbose", "quiet", "log_file")
        ]


def _given_behind(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """What stands behind the command overrules what stands before it and in the files."""
    if value and ctx.obj is not None:
        seen = ctx.meta.setdefault("stylize.behind", set())
        seen.add(param.name)
        if not {"verbose", "quiet"} <= seen:
            overruled: dict[str | None, dict[str, Any]] = {"verbose": {"quiet": False}, "quiet": {"verbose": 0}}
            ctx.obj |= overruled.get(param.name, {})
        ctx.obj[param.name] = value
        _apply(ctx, **ctx.obj)


def _from_files(ctx: click.Context, verbose: int, quiet: bool, log_file: Path | None) -> tuple[int, bool, Path | None]:
    """The program's own options, with what stylize.toml says of those that were not given.

    -v and -q are one choice: who gives one of them overrules both in the file.
    """
    values: dict[str, Any] = (ctx.default_map or {}).get(PROGRAM, {})
    default = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.DEFAULT}
    if {"verbose", "quiet"} <= default:
        verbose, quiet = int(values.get("verbose", 0)), bool(values.get("quiet", False))
    if "log_file" in default and "log_file" in values:
        log_file = Path(values["log_file"]).expanduser()
    return verbose, quiet, log_file


def _set_up_logging(verbosity: int, log_file: Path | None) -> None:
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    console = logging.StreamHandler()
    console.setLevel({-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
    console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    for old in root.handlers:
        if old.name == LOG_FILE:
            old.close()
    root.handlers = [console]
    if log_file is not None:
        try:
            file = logging.FileHandler(log_file, encoding="utf-8")
        except OSError as error:
            raise click.UsageError(f"the log file cannot be written: {error}") from error
        file.name = LOG_FILE
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(file)
    for noisy in ("PIL", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _open_standard_streams() -> None:
    """Let what a shell closed (``2>&-``) lead nowhere, lest a file of ours takes its number; names hold any bytes."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")


def _drop_output() -> None:
    """Let what is still to be written to a full disk or a closed pipe go nowhere: Python would complain at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Entry point: whatever goes wrong becomes one line and exit code 1; see `stylize.errors.fault`."""
    from stylize.errors import fault

    _open_standard_streams()
    try:
        code = stylize.main(standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        code = 130
    except BrokenPipeError:
        code = 141
        _drop_output()
    except Exception as error:  # one policy for the program and for each of its files
        place = "the output" if isinstance(error, OSError) and error.filename is None else ""
        message = f"Error: {fault(error, place)}"
        if isinstance(error, OSError):
            _drop_output()
        with contextlib.suppress(OSError):
            click.echo(message, err=True)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
