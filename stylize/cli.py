"""The ``stylize`` command: a group whose commands are imported when they are called.

Only click is imported here, so that ``stylize --help`` answers at once.
"""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path

import click

from stylize import __version__
from stylize.config_file import CONFIGURED, load_defaults, show_environment

__all__ = ["main", "stylize"]

COMMANDS = {
    "video": "Stylize videos: every frame at its own time, sound and subtitles kept.",
    "folder": "Stylize all photos of a folder and below.",
    "image": "Stylize one photo.",
    "preview": "See a few frames, or a grid of looks and settings, before a long run.",
    "compare": "Source and result side by side, with figures.",
    "join": "Put the segments that a job array made together.",
    "doctor": "Check the installation and say how to mend it.",
    "models": "List, show and import models; choose the usual one.",
}
"""Name and summary; command NAME is `NAME` in `stylize.commands.NAME`."""


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
    epilog="Options can also be set by environment variables, which each command's help names, and in stylize.toml "
    "(docs/configuration.md). Completion, here for bash; zsh_source and fish_source likewise: "
    'eval "$(_STYLIZE_COMPLETE=bash_source stylize)"',
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
    """
    if verbose and quiet:
        raise click.UsageError("choose -v or -q, not both")
    ctx.obj = {"quiet": quiet}
    _set_up_logging(-1 if quiet else verbose, log_file)
    if ctx.invoked_subcommand in CONFIGURED:
        ctx.default_map = load_defaults()


def _set_up_logging(verbosity: int, log_file: Path | None) -> None:
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    console = logging.StreamHandler()
    console.setLevel({-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
    console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    root.handlers = [console]
    if log_file is not None:
        try:
            file = logging.FileHandler(log_file, encoding="utf-8")
        except OSError as error:
            raise click.UsageError(f"the log file cannot be written: {error}") from error
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(file)
    for noisy in ("PIL", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def main() -> None:
    """Entry point: errors of the world outside become one line and exit code 1."""
    from engine.errors import EngineError
    from stylize.errors import StylizeError

    try:
        code = stylize.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        code = 130
    except (StylizeError, EngineError) as error:
        logging.getLogger(__name__).debug("failed", exc_info=True)
        click.echo(f"Error: {error}", err=True)
        code = 1
    except BrokenPipeError:
        code = 141
    sys.exit(code if isinstance(code, int) else 0)
