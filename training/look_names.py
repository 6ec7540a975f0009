"""The names of the looks, and the five colours that each is anchored to; free of heavy imports."""

from __future__ import annotations

__all__ = ["ANCHORS", "AUTO"]

AUTO = "auto"

ANCHORS: dict[str, tuple[str, ...]] = {
    "day": ("0f2436", "23616b", "6fa58a", "f0c987", "fdf3d0"),
    "dusk": ("1c0f33", "5e1c4c", "c4443e", "f68a48", "ffdca6"),
    "golden": ("2a1107", "7c2e0b", "d6680f", "f9ad31", "fff0b5"),
    "violet": ("150b3e", "43207e", "9243b0", "e8709f", "ffd0bb"),
    "night": ("060a24", "10245e", "1f549e", "57a3d6", "d6f2ff"),
    "fog": ("232f3c", "4d6070", "8699a5", "bdcad0", "f0f4f4"),
}
