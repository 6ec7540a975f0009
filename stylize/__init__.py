"""The Firewatch stylizer: hiking videos and photos in the look of the game.

`Stylizer` is the programming interface; the ``stylize`` command is made of the same parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylize.pipeline import Stylizer
    from stylize.settings import StyleSettings

__all__ = ["StyleSettings", "Stylizer", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line starts without OpenCV and OpenVINO."""
    if name == "Stylizer":
        from stylize.pipeline import Stylizer

        return Stylizer
    if name == "StyleSettings":
        from stylize.settings import StyleSettings

        return StyleSettings
    raise AttributeError(f"module 'stylize' has no attribute {name!r}")
