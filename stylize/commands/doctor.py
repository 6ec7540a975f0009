"""``stylize doctor``."""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING

import click

from stylize.commands.config_file import config_files, load_defaults

if TYPE_CHECKING:
    from stylize.doctor import Check

__all__ = ["doctor"]

MARKS = {"ok": "ok     ", "missing": "missing", "fault": "FAULT  "}


@click.command()
@click.option("--json", "json_", is_flag=True, help="Print the findings as JSON.")
@click.option("--self-test/--no-self-test", default=True, show_default=True, help="Render for two seconds a backend.")
@click.pass_context
def doctor(ctx: click.Context, json_: bool, self_test: bool) -> None:
    """Check the installation: programs, devices, models, speed; and say how to mend what is amiss.

    What is missing but not needed is no fault.  Exit codes: 0 ready for work, 1 something needed is broken.
    """
    from stylize.doctor import examine

    checks = []
    settings, models = _settings(ctx)
    for check in chain([settings], examine(self_test=self_test, models=models)):
        checks.append(check)
        if not json_:
            title = check.name if check.name == check.group else f"{check.group}: {check.name}"
            click.echo(f"{MARKS[check.status]}  {title}  {check.detail}")
            if check.fix:
                click.echo(f"         -> {check.fix}")
    faults = [check for check in checks if check.status == "fault"]
    if json_:
        click.echo(json.dumps({"ready": not faults, "checks": [check.as_dict() for check in checks]}, indent=2))
    elif faults:
        click.echo(f"{len(faults)} fault{'s' * (len(faults) != 1)}: see the lines with -> above.")
    else:
        click.echo("Ready.")
    ctx.exit(1 if faults else 0)


def _settings(ctx: click.Context) -> tuple[Check, set[str]]:
    """Whether the files of settings can be used, and the models that they make the default."""
    from stylize.doctor import Check
    from stylize.errors import InputError

    program = ctx.find_root().command
    try:
        defaults = load_defaults(program)
    except InputError as error:
        fix = "correct the file, or remove it"
        return Check("settings", "stylize.toml", "fault", str(error), fix=fix), {"auto"}
    files = ", ".join(map(str, config_files())) or "no file: every option has the default of its --help"
    models = {str(defaults.get(name, {}).get("model", "auto")) for name in ("video", "folder", "image", "preview")}
    return Check("settings", "stylize.toml", "ok", files), models
