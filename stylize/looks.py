"""The look of a run: what `StyleSettings` asks for, among what its model has."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from engine.conditions import MAP_STRIDE, Conditions
from engine.errors import PaletteError
from engine.looks.auto_look import AUTO
from engine.looks.layout import complete
from engine.looks.measured_palette import measured_palette
from engine.looks.palette import Palette, Shading
from engine.looks.palette_file import read_palette, shipped_palettes
from engine.probing import Looks
from engine.spec import F32, ModelSpec, look_weights
from stylize.errors import InputError
from stylize.frame import Image
from stylize.settings import StyleSettings

__all__ = ["LookChoice"]

log = logging.getLogger(__name__)

OWN = ("look_file", "look_from", "haze", "layers")
"""Settings that only palettes have a use for."""


class LookChoice:
    """The look at every place of a video, and the palettes behind it.

    Models with instance norm have looks of their own.  Those with a layout have the palettes that come with
    the program, `auto`, and the user's: of a file, and of a picture (`measure`), each by its file's name.

    Raises:
        ValueError: a look that there is not, or a palette for a model that has none.
        PaletteError, InputError: the user's file is no palette, or not to be read.
    """

    def __init__(
        self, spec: ModelSpec, settings: StyleSettings, measured: Mapping[Path, Palette] | None = None
    ) -> None:
        self.spec = spec
        self.settings = settings
        self.palettes = Looks(shading=self._shading())
        self.seen: dict[str, float] = {}
        """Sums of the shares that `auto` has chosen, by palette."""
        self._measured = dict(measured or {})
        self._pictures: dict[str, Path] = {}
        """Looks that are still to be measured."""
        self._contents: dict[str, str] = {}
        """Own looks, and a hash of their file."""
        usual = self._own_palettes() if spec.has_layout else ""
        start, _, end = (settings.look or usual or spec.usual_look).partition(":")
        self._ends = tuple(look_weights(self.names, part, spec.name) for part in (start, end or start))

    def _shading(self) -> Shading:
        given = [f"--{name.replace('_', '-')}" for name in OWN if getattr(self.settings, name)]
        if given and not self.spec.has_layout:
            raise ValueError(
                f"model {self.spec.name} has looks of its own and no palettes: leave {' and '.join(given)} out, "
                "or choose a model that paints in layers"
            )
        return Shading(haze=self.settings.haze, layers=self.settings.layers or 0)

    def _own_palettes(self) -> str:
        """Take in the user's palettes; returns the name of the one that is meant if none is named."""
        own: dict[str, Palette] = {}
        if self.settings.look_file is not None:
            path = Path(self.settings.look_file)
            own[self._named(path)] = read_palette(path)
        if self.settings.look_from is not None:
            path = Path(self.settings.look_from)
            name = self._named(path)
            if path not in self._measured:
                self._pictures[name] = path
            own[name] = self._measured.get(path, next(iter(shipped_palettes().values())))
        if len(self._contents) > 1 and not self.settings.look:
            words = " or --look ".join(self._contents)
            raise ValueError(f"--look-file and --look-from make two looks: say --look {words}, or mix them")
        self.palettes = replace(self.palettes, palettes={**shipped_palettes(), **own})
        return next(iter(own), "")

    def _named(self, path: Path) -> str:
        """The name of a file's look."""
        name = "".join("-" if c in "=,:;" or c.isspace() else c for c in path.stem)
        if name in self._contents or name == AUTO:
            raise ValueError(f"the look of {path} would be called {name}, which is taken: give the file another name")
        self._contents[name] = _digest(path)
        return name

    def restyled(self, settings: StyleSettings) -> LookChoice:
        """The same under other settings; pictures that were measured are not measured again."""
        return LookChoice(self.spec, settings, self._measured)

    def measure(self, layout_of: Callable[[Image], F32]) -> None:
        """Take the palettes of pictures, with what an opened model says of a view.

        Raises InputError for a picture that cannot be read, PaletteError for one of a single colour.
        """
        for name, path in self._pictures.items():
            view = _view_of(path, self.spec.probe_side)
            try:
                self._measured[path] = measured_palette(view, layout_of(view))
            except PaletteError as error:
                raise PaletteError(f"{path}: {error}") from error
            own = {**self.palettes.palettes, name: self._measured[path]}
            self.palettes = replace(self.palettes, palettes=own)
        self._pictures.clear()

    @property
    def names(self) -> tuple[str, ...]:
        """Looks that there are."""
        return self.palettes.names if self.spec.has_layout else self.spec.looks

    @property
    def usual(self) -> str:
        """The look that is taken when none is named."""
        return next(iter(self._contents), self.spec.usual_look)

    @property
    def text(self) -> str:
        """The look in full words, the same however it was asked for; own palettes with a hash of their file."""

        def words(weights: F32) -> str:
            parts = [(name, float(weight)) for name, weight in zip(self.names, weights, strict=True) if weight]
            named = [(f"{n}#{self._contents[n]}" if n in self._contents else n, w) for n, w in parts]
            return named[0][0] if len(named) == 1 else ",".join(f"{name}={weight:.6g}" for name, weight in named)

        start, end = map(words, self._ends)
        return start if start == end else f"{start}:{end}"

    @property
    def chosen(self) -> str:
        """The look in words for people; of `auto` also what it has chosen so far, in the mean over all pictures."""
        name = self.settings.look or self.usual
        total = sum(self.seen.values())
        if self.spec.has_layout and total:
            shares = sorted(((share / total, n) for n, share in self.seen.items()), reverse=True)
            name += " (" + ", ".join(f"{n} {share:.0%}" for share, n in shares if share >= 0.05) + ")"
        return name

    def at(self, position: float) -> F32:
        """Look weights ``(K,)`` at a position 0..1 of a video."""
        start, end = self._ends
        share = min(max(position, 0.0), 1.0)
        return np.asarray(start * (1 - share) + end * share, np.float32)

    def complete(self, view: Image, found: Conditions, weights: F32) -> Conditions:
        """What a probe has returned for a view, with all that the look adds."""
        if not self.spec.has_layout:
            return found
        return self.dressed(view, complete(view, found), weights)

    def dressed(self, view: Image, completed: Conditions, weights: F32) -> Conditions:
        """Completed conditions of a model with a layout with this look, in place of any other's."""
        shares = self.palettes.shares(view, completed.maps["layout"], weights)
        if weights[-1] > 0:
            for name, share in shares.items():
                self.seen[name] = self.seen.get(name, 0.0) + share
            log.debug("look auto: %s", ", ".join(f"{name} {share:.2f}" for name, share in shares.items()))
        return completed.plus(**self.palettes.vectors(shares))


@lru_cache(maxsize=8)
def _digest_of(path: Path, size: int, modified: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _digest(path: Path) -> str:
    """Short hash of a file's content."""
    try:
        stat = path.stat()
        return _digest_of(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): name a picture to take a look from"
        ) from error


def _view_of(path: Path, side: int) -> Image:
    """A picture as the probe is shown it, RGB uint8, its sides multiples of the layout's cells."""
    from stylize.media.image.read import read_image

    picture = read_image(path).data
    scale = min(1.0, side / max(picture.shape[:2]))
    height, width = (max(1, round(length * scale / MAP_STRIDE)) * MAP_STRIDE for length in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
