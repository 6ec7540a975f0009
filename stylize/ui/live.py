"""Previews at once: what a change of the settings leaves as it is, is kept.

A picture is probed once; each look takes its layout and tones.  A stylized picture is kept for strength and kept
colour, which only mix it with the source.  What is left of a change of look, haze or layers is the render graph: fields
and shader together.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from engine.conditions import Conditions
from stylize.api import Stylizer
from stylize.frame import Image
from stylize.preview import Picture
from stylize.settings import StyleSettings
from stylize.ui.source import shrunk

__all__ = ["LivePreview"]

SWATCH_SIDE = 320
"""Long side of the pictures that looks are shown on."""

MIXING: dict[str, Any] = {"strength": 1.0, "keep_color": 0.0}
"""Settings that only mix, and their values for the pure style."""
OF_THE_LOOK = (
    "look", "look_file", "look_from", "haze", "layers", "detail", "strength", "keep_color"
)  # fmt: skip
"""Settings under which an opened model stays open."""


class LivePreview:
    """One opened model, and what it has found out about the pictures of a source; may be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._stylizer: Stylizer | None = None
        self._opened: tuple[object, ...] = ()
        self._found: dict[int, tuple[Picture, Image, Conditions]] = {}
        """By the picture's identity: itself, its view, and its conditions under some look."""
        self._pure: tuple[object, Image] | None = None
        """The last picture that was rendered, and what it was rendered with."""

    def close(self) -> None:
        """Give the model's memory back, and forget all pictures."""
        with self._lock:
            if self._stylizer is not None:
                self._stylizer.close()
            self._stylizer, self._opened, self._pure = None, (), None
            self._found.clear()

    def forget(self) -> None:
        """Forget all pictures; the model stays open."""
        with self._lock:
            self._found.clear()
            self._pure = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else uses the model meanwhile."""
        with self._lock:
            yield

    def opened(self, style: StyleSettings, *, video: bool) -> Stylizer:
        """The model of these settings, opened, under these settings.

        Raises what `Stylizer` raises.
        """
        with self._lock:
            fixed = dataclasses.replace(style, **{name: getattr(StyleSettings(), name) for name in OF_THE_LOOK})
            if self._stylizer is None or self._opened != (fixed, video):
                self.close()
                self._stylizer = Stylizer(fixed, video=video).__enter__()
                self._opened = fixed, video
            if self._stylizer.settings != style:  # from the last one, which knows the pictures it has measured
                wanted = {name: getattr(style, name) for name in OF_THE_LOOK}
                self._stylizer = self._stylizer.restyled(**wanted)
            return self._stylizer

    def names(self, style: StyleSettings, *, video: bool) -> list[str]:
        """The looks that there are under these settings, that of the user's own picture first."""
        looks = self.opened(style, video=video).looks
        return sorted(looks.names, key=lambda name: name != looks.usual or style.look_from is None)

    def stylized(self, picture: Picture, style: StyleSettings, *, video: bool) -> Image:
        """A picture under settings, RGB uint8 of its size."""
        with self._lock:
            stylizer = self.opened(style, video=video)
            pure = dataclasses.replace(style, **MIXING)
            key = (id(picture), picture.position, pure)
            if self._pure is None or self._pure[0] != key:
                self._pure = key, self._rendered(stylizer.restyled(**MIXING), picture)
            return stylizer.mix(picture.data, self._pure[1])

    def small(self, picture: Picture, styles: Sequence[StyleSettings], *, video: bool) -> list[Image]:
        """A small copy of a picture under each of several settings."""
        scale = min(1.0, SWATCH_SIDE / max(picture.data.shape[:2]))
        data = shrunk(picture.data, scale)
        results = []
        for style in styles:
            with self._lock:  # for each of its own: a preview need not wait for all of them
                stylizer = self.opened(style, video=video)
                conditions = self._conditions(stylizer, picture)
                results.append(stylizer.mix(data, stylizer.restyled(**MIXING).render(data, conditions)))
        return results

    def _rendered(self, stylizer: Stylizer, picture: Picture) -> Image:
        return stylizer.render(picture.data, self._conditions(stylizer, picture))

    def _conditions(self, stylizer: Stylizer, picture: Picture) -> Conditions:
        kept = self._found.get(id(picture))
        if kept is None or not stylizer.spec.has_layout:
            view = stylizer.view(picture.data)
            kept = self._found[id(picture)] = picture, view, stylizer.probe_view(view, picture.position)
            return kept[2]
        return stylizer.relooked(kept[2], kept[1], picture.position)
