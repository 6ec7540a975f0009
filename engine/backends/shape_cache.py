"""What backends prepare once for every shape of tiles, and keep for the few shapes that come again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

__all__ = ["SHAPES", "ShapeCache"]

SHAPES = 4
"""Shapes kept at once: a frame, its edge tiles, the probe's view or another size of video."""

T = TypeVar("T")


class ShapeCache(OrderedDict[Hashable, T]):
    """The last `SHAPES` that were used."""

    def get_or_make(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under a key, made now if it is not there; the least recently used gives way."""
        if key not in self:
            while len(self) >= SHAPES:
                self.popitem(last=False)  # its memory is free before the next is taken
            self[key] = make()
        self.move_to_end(key)
        return self[key]
