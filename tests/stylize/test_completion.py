"""Shell completion as documented, in the shells that are there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"

ASK = {
    "bash": "COMP_WORDS=({words}) COMP_CWORD={at}; _stylize_completion stylize; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
    # The widget cannot be pressed without a terminal; what it would insert is shown by a stand-in for compadd.
    "zsh": (
        "words=({words}) CURRENT=$(({at} + 1)); compadd() {{ shift 3; print -l -- ${{(P)1}}; }}; "
        '_describe() {{ print -l -- "${{(@P)3}}"; }}; _stylize_completion'
    ),
    "fish": 'complete -C "{line}"',
}

OPTIONS = {"bash": ["--norc", "-c"], "zsh": ["-f", "-c"], "fish": ["--no-config", "-c"]}


@pytest.fixture(params=ASK)
def complete(request, tmp_path):
    """What the shell offers for a line, after the documented line was run."""
    shell, program = request.param, Path(sys.executable).with_name("stylize")
    if shutil.which(shell) is None or not program.is_file():
        pytest.skip(f"no {shell} here" if program.is_file() else "the program is not installed")
    set_up = next(line for line in PAGE.read_text().splitlines() if f"{shell}_source stylize" in line)
    if shell == "zsh":
        set_up = f"autoload -Uz compinit; compinit -u -D; {set_up}"

    def ask(line):
        words = line.split(" ")
        script = ASK[shell].format(words=" ".join(word or '""' for word in words), at=len(words) - 1, line=line)
        path = os.pathsep.join((str(program.parent), os.environ["PATH"]))
        env = {**os.environ, "PATH": path, "HOME": str(tmp_path)}
        done = subprocess.run(
            [shell, *OPTIONS[shell], f"{set_up}\n{script}"],
            capture_output=True, text=True, timeout=120, env=env, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert not done.stderr, done.stderr
        return {re.split(r"[\t:]", text)[0] for text in done.stdout.splitlines()}

    return ask


def test_commands_and_options_are_completed(complete):
    assert complete("stylize vi") == {"video"}
    assert {"folder", "video", "models"} <= complete("stylize ")
    assert {"--strength", "--stabilize"} <= complete("stylize video --st")
    assert "set-default" in complete("stylize models set")
