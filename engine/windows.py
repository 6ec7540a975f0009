"""Tiles as the engine sees them: a part of a frame to render, and the part of it that is kept.

Where tiles lie is not decided here; `engine.tiling.TilePlan.tiles` are windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Protocol

__all__ = ["Rectangle", "Window", "batches"]


class Rectangle(Protocol):
    """Pixels of a frame."""

    @property
    def top(self) -> int:
        """First row."""
        ...

    @property
    def left(self) -> int:
        """First column."""
        ...

    @property
    def height(self) -> int:
        """Rows."""
        ...

    @property
    def width(self) -> int:
        """Columns."""
        ...


class Window(Protocol):
    """One tile."""

    @property
    def padded(self) -> Rectangle:
        """What is rendered, context included."""
        ...

    @property
    def region(self) -> Rectangle:
        """What is kept; it lies inside `padded`."""
        ...


def batches(windows: Sequence[Window], size: int) -> Iterator[list[Window]]:
    """Windows whose tiles have one shape, at most `size` at a time."""

    def shape(window: Window) -> tuple[int, int]:
        return window.padded.height, window.padded.width

    for _, group in groupby(sorted(windows, key=shape), key=shape):
        same = list(group)
        for i in range(0, len(same), size):
            yield same[i : i + size]
