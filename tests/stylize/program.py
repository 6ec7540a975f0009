"""The program in this process: quick, with the exit codes and the messages that a person sees."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass

import pytest

from stylize.cli import main


@dataclass(frozen=True)
class Done:
    out: str
    err: str


@dataclass
class Program:
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *args: object, expect: int = 0) -> Done:
        handlers = logging.getLogger().handlers
        self.monkeypatch.setattr(sys, "argv", ["stylize", *map(str, args)])
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            root = logging.getLogger()
            for handler in set(root.handlers) - set(handlers):
                handler.close()
            root.handlers = handlers
        out, err = self.capsys.readouterr()
        assert ended.value.code == expect, out + err
        return Done(out, err)
