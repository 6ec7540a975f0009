"""Write docs/cli.md from the commands themselves; ``--check`` only says whether it is up to date."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

TARGET = Path(__file__).parents[1] / "docs" / "cli.md"

WIDTH = 100

HEAD = """# Commands

<!-- Written by scripts/make_cli_docs.py: change the commands, then run it. -->

Every option of `stylize` may also be given by an environment variable or in `stylize.toml`: see
[configuration](configuration.md).
"""


def sections(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """Full name and help page of a command and of all below it."""
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    context = command.context_class(command, info_name=name, parent=parent, **settings)
    text = command.get_help(context)
    yield context.command_path, "\n".join(line.rstrip() for line in text.splitlines())
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None and not found.hidden:
                yield from sections(found, child, context)


def text() -> str:
    from engine.cli import main as build_engine
    from stylize.cli import stylize
    from training.cli import main as train_generator

    parts = [HEAD]
    programs = {"stylize": stylize, "build-engine": build_engine, "train-generator": train_generator}
    for name, command in programs.items():
        for path, page in sections(command, name):
            level = "##" if " " not in path else "###"
            parts.append(f"{level} `{path}`\n\n```text\n{page}\n```\n")
    return "\n".join(parts)


def main() -> int:
    current = TARGET.read_text(encoding="utf-8") if TARGET.is_file() else ""
    wanted = text()
    if "--check" in sys.argv[1:]:
        if current != wanted:
            print("docs/cli.md is out of date: run python scripts/make_cli_docs.py", file=sys.stderr)
        return int(current != wanted)
    TARGET.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
