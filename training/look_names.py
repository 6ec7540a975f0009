"""The names of the looks, and the three colours that each is anchored to; free of heavy imports."""

from __future__ import annotations

__all__ = ["ANCHORS", "AUTO"]

AUTO = "auto"

ANCHORS: dict[str, tuple[str, str, str]] = {
    "day": ("10303a", "2f7f8c", "f2e4b8"),
    "dusk": ("2a163a", "b9504c", "ffd29c"),
    "golden": ("2b1a17", "d3812f", "ffd670"),
    "violet": ("241f55", "7a4490", "ff8f80"),
    "night": ("0b1030", "2d4494", "93b4f2"),
    "fog": ("35546b", "93bccb", "eef2f1"),
}
