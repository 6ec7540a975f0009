"""What a result is called that was given no name."""

from __future__ import annotations

from pathlib import Path

__all__ = ["RESULT", "beside"]

RESULT = ".firewatch"
"""Last but one suffix of such a result; runs over folders pass it over."""


def beside(source: Path, suffix: str) -> Path:
    """``NAME.firewatch`` with `suffix` (``.mp4``), in the folder of `source`."""
    return source.with_name(f"{source.stem}{RESULT}{suffix}")
