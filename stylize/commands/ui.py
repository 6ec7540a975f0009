"""``stylize ui``."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["ui"]


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the page.  [default: one that is free]")
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page in the browser.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where results of uploads and stylize.toml go.  [default: this folder]",
)
def ui(path: Path | None, port: int, browser: bool, folder: Path) -> None:
    """Choose with your eyes: a page on this machine, with live previews, that does what the commands do.

    PATH is opened at once: a video, a photo, or a folder of either.  The page is for this machine alone: it listens on
    127.0.0.1, needs the token in its address, and nothing is sent anywhere.  Ctrl-C ends it; what was not finished
    goes on when it is resumed, on the page or by the same command.
    """
    try:
        from stylize.ui.server import serve
    except ImportError as error:
        from stylize.doctor import extra_command
        from stylize.errors import ToolError

        if error.name is None or error.name.startswith("stylize"):
            raise
        raise ToolError(f"the page needs Gradio, which is not installed: {extra_command('ui')}") from error
    serve(path, folder.absolute(), port=port, browser=browser)
