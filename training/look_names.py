"""The names of the looks, and the five colours that each is anchored to; free of heavy imports."""

from __future__ import annotations

__all__ = ["ANCHORS", "AUTO"]

AUTO = "auto"
"""The look that keeps a picture's own hues and is only tinted with its palette (`poster.SHARES_OF_AUTO`)."""

ANCHORS: dict[str, tuple[str, ...]] = {
    AUTO: ("140f36", "4a2f5e", "b0656a", "f2ac7c", "fdebcf"),
    "day": ("0b1840", "1c4a70", "5a93a0", "efc08c", "fdf0d4"),
    "dusk": ("170b33", "581a50", "bf3d48", "f58150", "ffd8ac"),
    "golden": ("200a10", "702018", "c94e20", "f6923a", "ffe6b0"),
    "violet": ("150b3e", "43207e", "9243b0", "e8709f", "ffd0bb"),
    "night": ("060a24", "10245e", "1f549e", "57a3d6", "d6f2ff"),
    "fog": ("1c2140", "465075", "828cb4", "bbc2dc", "f0f1f8"),
}
