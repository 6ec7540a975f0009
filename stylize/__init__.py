"""The Firewatch stylizer: hiking videos and photos in the look of the game.

`Stylizer` is the programming interface; the ``stylize`` command is made of the same parts.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.errors import EngineError
    from stylize.api import Stylizer
    from stylize.errors import StylizeError
    from stylize.frame import Frame
    from stylize.settings import StyleSettings

__all__ = ["EngineError", "Frame", "StyleSettings", "StylizeError", "Stylizer", "__version__"]

__version__ = "0.1.0"

_HOMES = {
    "EngineError": "engine.errors",
    "Frame": "stylize.frame",
    "StyleSettings": "stylize.settings",
    "StylizeError": "stylize.errors",
    "Stylizer": "stylize.api",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line starts without OpenCV and OpenVINO."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'stylize' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
