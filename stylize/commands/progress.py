"""A progress bar that also behaves in a log: without a terminal, a line now and then."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from tqdm import tqdm

__all__ = ["progress_bar"]

SECONDS = 60
"""Between two lines, and before the first one."""

LINE = "{desc}{percentage:.0f}% {n_fmt}/{total_fmt} in {elapsed}, {remaining} to go, {rate_fmt}"


class _Lines:
    """A stream that ends what it is given by a line break, and drops what moves a cursor."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        line = text.strip("\r\n ")
        return self.stream.write(f"{line}\n") if line else 0

    def flush(self) -> None:
        self.stream.flush()


class _LogBar(tqdm):  # type: ignore[misc]
    """Shows nothing but what is due."""

    def reset(self, total: float | None = None) -> None:
        """Begin anew, without a line for that."""
        self.n, self.last_print_n, self.total = 0, 0, total
        self.start_t = self.last_print_t = self._time()


def progress_bar(*, unit: str, total: int | None = None, quiet: bool = False, every: float = SECONDS) -> tqdm[Any]:
    """A bar on standard error: redrawn on a terminal; elsewhere a line every `every` seconds; nothing if `quiet`."""
    if quiet or sys.stderr.isatty():
        return tqdm(total=total, unit=unit, dynamic_ncols=True, disable=quiet)
    lines = _Lines(sys.stderr)
    times = {"mininterval": every, "maxinterval": every, "delay": every}
    return _LogBar(total=total, unit=unit, file=lines, bar_format=LINE, leave=False, **times)
