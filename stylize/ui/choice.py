"""What was chosen on the page: as settings, as a command, and as a file."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from stylize.preview import command_for
from stylize.settings import StyleSettings
from stylize.ui.source import Task

__all__ = ["Choice"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The state of the controls."""

    frame: int = 0
    """Which picture of the strip is shown."""
    look: str = ""
    """Empty: the usual one."""
    ends: str = ""
    """Look at the end of a video; empty: the same all the way."""
    wallpaper: str = ""
    """Picture that a look was taken from; empty: none."""
    strength: float = 1.0
    haze: float = 0.0
    layers: int = 0
    """0: the land is not cut."""
    detail: float = 1.0
    keep_color: float = 0.0
    model: str = "auto"

    def style(self, own: str = "") -> StyleSettings:
        """The settings; `own` is the name of the wallpaper's look, which is left out where no look needs it."""
        look = self.look or None
        if look and self.ends and self.ends != look:
            look = f"{look}:{self.ends}"
        wallpaper = self.wallpaper if not look or own in (self.look, self.ends) else ""
        if wallpaper and look == own:
            look = None  # it is the usual one then
        return StyleSettings(
            model=self.model,
            look=look,
            look_from=wallpaper or None,
            haze=self.haze,
            layers=self.layers or None,
            strength=self.strength,
            detail=self.detail,
            keep_color=self.keep_color,
        )


def command_text(task: Task, style: StyleSettings) -> str:
    """The command that does the same as the page."""
    return command_for(task.source, style, model=style.model, command=task.command, target=task.target)


def config_text(task: Task, style: StyleSettings) -> str:
    """The settings as a section of ``stylize.toml``."""
    default = StyleSettings()
    lines = [f"[{task.command}]"]
    for field in fields(style):
        value = getattr(style, field.name)
        if value != getattr(default, field.name):
            words = json.dumps(value, ensure_ascii=False)
            lines.append(f"{field.name.replace('_', '-')} = {words}")
    return "\n".join(lines) + "\n"


def save_config(folder: Path, task: Task, style: StyleSettings) -> Path:
    """Write ``stylize.toml`` into a folder.  Raises OutputError where there is one already, which stays."""
    from stylize.files import write_bytes

    path = folder / "stylize.toml"
    write_bytes(path, config_text(task, style).encode(), overwrite=False)
    return path
