"""Defaults from ``stylize.toml``: the user's own, and that of the folder one works in.

An option's value comes from the first of: command line, environment (``STYLIZE_VIDEO_CRF``),
``stylize.toml`` in the current folder, ``stylize.toml`` of the user, built-in default.  Keys are the
names of the options.  Keys at the top apply to every command that has the option (``verbose``,
``quiet`` and ``log-file`` to the program), keys in a section such as ``[video]`` to that command.
"""

from __future__ import annotations

import difflib
import importlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from stylize.errors import InputError

__all__ = [
    "CONFIGURED",
    "FILE_NAME",
    "PROGRAM",
    "config_files",
    "defaults_from",
    "load_defaults",
    "set_user_value",
    "show_environment",
    "user_file",
]

FILE_NAME = "stylize.toml"

CONFIGURED = ("video", "folder", "image", "join", "preview", "compare")
"""Commands whose options may stand in the file."""

PROGRAM = ""
"""Stands among the commands for the program itself: its options have no section."""


def user_file() -> Path:
    """The user's own file, in the system's folder for settings."""
    import platformdirs

    return Path(platformdirs.user_config_dir("firewatch-stylizer", appauthor=False)) / FILE_NAME


def config_files() -> list[Path]:
    """The files that exist, the stronger one last."""
    return [path for path in (user_file(), Path.cwd() / FILE_NAME) if path.is_file()]


def show_environment(command: click.Command, prefix: str) -> click.Command:
    """Give every option its environment variable, ``PREFIX_KEEP_COLOR`` for --keep-color, and say so in the help."""
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            show_environment(child, f"{prefix}_{_variable(name)}")
        return command
    options = _options(command)
    for name, option in options.items():
        option.envvar = f"{prefix}_{_variable(name)}"
    if options:
        name, option = next(iter(options.items()))
        command.epilog = f"Every option may also stand in the environment: {option.envvar} for --{name}, and so on."
    return command


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")


def load_defaults(program: click.Command) -> dict[str, dict[str, Any]]:
    """`defaults_from` the files that exist, for the program and all commands that may be configured."""
    files = config_files()
    if not files:
        return {}
    modules = {name: importlib.import_module(f"stylize.commands.{name}") for name in CONFIGURED}
    return defaults_from(files, {PROGRAM: program, **{name: getattr(m, name) for name, m in modules.items()}})


def defaults_from(files: Iterable[Path], commands: Mapping[str, click.Command]) -> dict[str, dict[str, Any]]:
    """Click's default_map: for every command the values of its options.

    Raises InputError for a file that cannot be read, an unknown key, or a value that the option refuses.
    """
    defaults: dict[str, dict[str, Any]] = {name: {} for name in commands}
    for path in files:
        values = _read(path)
        sections = {key: value for key, value in values.items() if isinstance(value, dict)}
        for key in sections:
            if key not in commands or key == PROGRAM:
                raise InputError(f"{path}: unknown section [{key}]{_nearest(key, set(commands) - {PROGRAM})}")
        for key, value in values.items():
            if key not in sections:
                _set_for_all(path, key, value, commands, defaults)
        for section, entries in sections.items():
            options = _options(commands[section])
            for key, value in entries.items():
                option = options.get(_plain(key))
                if option is None:
                    raise InputError(f"{path}: unknown key {key!r} in [{section}]{_nearest(key, options)}")
                assert option.name is not None
                defaults[section][option.name] = _checked(path, key, value, option, commands[section])
    return defaults


def _set_for_all(
    path: Path, key: str, value: Any, commands: Mapping[str, click.Command], defaults: dict[str, dict[str, Any]]
) -> None:
    known: set[str] = set()
    found = False
    for name, command in commands.items():
        options = _options(command)
        known |= set(options)
        option = options.get(_plain(key))
        if option is not None:
            assert option.name is not None
            defaults[name][option.name] = _checked(path, key, value, option, command)
            found = True
    if not found:
        raise InputError(f"{path}: unknown key {key!r}{_nearest(key, known)}")


def _read(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return dict(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as TOML ({error}): correct or remove it") from error


def _plain(key: str) -> str:
    return key.replace("_", "-")


def _options(command: click.Command) -> dict[str, click.Option]:
    """The options of a command by their long names; hidden ones do not count."""
    return {
        name.removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden
        for name in option.opts
        if name.startswith("--") and name not in ("--help", "--version")
    }


def _nearest(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(_plain(key), list(known), n=1, cutoff=0.5)
    return f": did you mean {near[0]!r}?" if near else f": known are {', '.join(sorted(known))}"


def _checked(path: Path, key: str, value: Any, option: click.Option, command: click.Command) -> Any:
    """The value, if the option takes it."""
    parts = value if isinstance(value, list) and option.multiple else [value]
    wanted = bool if option.is_flag and option.count is False else (str, int, float)
    if not all(isinstance(part, wanted) and (wanted is bool or not isinstance(part, bool)) for part in parts):
        kind = "true or false" if wanted is bool else "a number or a text in quotes"
        raise InputError(f"{path}: {key} is {kind}, got {json.dumps(value, default=str)}")
    if wanted is bool:
        return value
    result = [str(part) for part in parts]
    cast = result if option.multiple else result[0]
    try:
        option.type_cast_value(click.Context(command), cast)
    except click.UsageError as error:
        raise InputError(f"{path}: {key}: {error.message}") from error
    return cast


def set_user_value(key: str, value: str) -> Path:
    """Write a text value at the top of the user's file, the rest of it kept; returns the file."""
    from stylize.files import write_bytes

    path = user_file()
    line = f"{key} = {json.dumps(value)}"
    try:
        text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
        head = re.split(r"(?m)^(?=\s*\[)", text, maxsplit=1)[0]
        tail = text[len(head) :]
        pattern = re.compile(rf"(?m)^\s*{re.escape(key)}\s*=.*$")
        head = pattern.sub(lambda _: line, head, count=1) if pattern.search(head) else f"{line}\n{head}"
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    write_bytes(path, (head + tail).encode(), overwrite=True)
    return path
