"""The map of the program: picture -> working size -> conditions -> tiles -> render -> mix -> picture.

`Pipeline` does this for one picture; `stylize.video.stylizer` for a stream of frames, with conditions that
are smoothed over time.  Reading and writing files is done elsewhere (`stylize.media`).
"""

from __future__ import annotations

import copy
import logging
import math
import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import cv2
import numpy as np

from engine.backends.base import Backend, BackendOptions
from engine.backends.frames import FrameRenderer, Rendering
from engine.choice import CPU_BACKENDS, open_backend
from engine.conditions import MAP_STRIDE, Conditions, on_grid
from engine.errors import PlanError
from engine.looks.layout import complete
from engine.memory import default_tile
from engine.model_store import find_model
from engine.spec import F32, ModelSpec
from engine.tiling import TilePlan
from stylize.frame import NOTHING, Image
from stylize.looks import LookChoice
from stylize.model_choice import AUTO, choose_model, model_key, usual_backend
from stylize.settings import BASE_SIDE, FINE_SIDE, StyleSettings

__all__ = ["Pipeline", "Stylizing"]

log = logging.getLogger(__name__)

P = TypeVar("P", bound="Pipeline")

BAND = 256
"""Rows that are mixed at once."""


class Pipeline:
    """One opened model with its settings; a context manager.

    Args:
        settings: see `StyleSettings`; single settings may be given by name instead.
        cache: folder for compiled models.
        video: what model `auto` is to be chosen for.
        frame: height and width of a video's frames, which a TensorRT plan is made for.

    Raises ModelError or BackendError on entering, ValueError for a look that does not exist, and PaletteError or
    InputError for a file that no look can be read from.
    """

    def __init__(
        self,
        settings: StyleSettings | None = None,
        *,
        cache: Path | None = None,
        video: bool = False,
        frame: tuple[int, int] | None = None,
        **values: Any,
    ) -> None:
        if settings is not None and values:
            raise ValueError("give either settings or single values, not both")
        self.settings = settings or StyleSettings(**values)
        self.folder = find_model(choose_model(self.settings, video=video))
        self._chosen_for_gpu = video and self.settings.model == AUTO and self.folder.name != "light"
        self.spec = ModelSpec.load(self.folder)
        """The model's descriptor."""
        self._options = BackendOptions(
            device=self.settings.device,
            precision=self.settings.precision,
            threads=self.settings.threads,
            cache=cache,
            plan=None if self.settings.plan is None else Path(self.settings.plan),
            frame=None if frame is None or self.settings.tile else self._frame_size(*frame),
        )
        self._open = self._opener(usual_backend(self.settings), *self.settings.gpu_numbers[:1])
        self._opened: list[tuple[ExitStack, Backend, FrameRenderer]] = []
        """At most one entry; one list for a pipeline and all that were restyled from it: they open and close as one."""
        self.seconds = {"probe": 0.0, "render": 0.0}
        """Time spent in each graph since the stylizer was opened."""
        self.looks = LookChoice(self.spec, self.settings)
        """What the settings of the look have come to."""
        if self.settings.tile:
            self._check_tile(self.settings.tile)

    def _opener(self, name: str, gpu: int | None = None) -> AbstractContextManager[Backend]:
        options = self._options if gpu is None else replace(self._options, device=f"cuda:{gpu}")
        return open_backend(self.folder, name=name, options=options)

    def restyled(self: P, **values: Any) -> P:
        """The same opened model under other settings of the look; to be used while this one is open.

        Raises ValueError for what `StyleSettings` or the model does not have.
        """
        other = copy.copy(self)
        other.settings = replace(self.settings, **values)
        other.looks = self.looks.restyled(other.settings)
        other.looks.measure(other.layout_of)
        return other

    @property
    def key(self) -> str:
        """Hash of model and settings: two pipelines with one key give the same pictures."""
        return self.settings.key(model_key(self.folder, self.spec), self.looks.text)

    @property
    def chosen(self) -> dict[str, str]:
        """The settings that were left open, and what was chosen for them (inside `with` alone).

        Of a look with `auto` in it also what that has mixed so far, in the mean over all pictures.
        """
        found = {"model": self.spec.name, "backend": self.backend.name, "look": self.looks.chosen}
        left_open = {name for name in found if getattr(self.settings, name) in (None, "auto")}
        return {name: found[name] for name in found if name in left_open or (name == "look" and self.looks.seen)}

    @classmethod
    def open(cls: type[P], model: str = "auto", **values: Any) -> P:
        """An opened one: for a `with` block, or until `close` (or the end of the program)."""
        return cls(model=model, **values).__enter__()

    def close(self) -> None:
        """Give the backend's memory back."""
        self.__exit__(None, None, None)

    def __enter__(self: P) -> P:
        if self._opened:  # with Stylizer.open(...)
            return self
        with ExitStack() as stack:
            first = stack.enter_context(self._open)
            others = [self._opener(first.name, gpu) for gpu in self.settings.gpu_numbers[1:]]
            backends = [first, *(stack.enter_context(other) for other in others)]
            self._opened.append((stack.pop_all(), first, FrameRenderer(backends)))
        try:
            self.looks.measure(self.layout_of)
        except BaseException:
            self.close()
            raise
        for backend in backends:
            log.info("%s", backend.description)
        if self._chosen_for_gpu and self.backend.name in CPU_BACKENDS:
            log.warning("model %s was chosen for a GPU and is slow on a CPU: --model light is quicker", self.spec.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened:
            self._opened.pop()[0].close()
            if self.looks.seen:
                log.info("look %s", self.looks.chosen)

    def image(self, image: Image) -> Image:
        """Stylize one picture, RGB uint8 ``(H, W, 3)`` of any size; the result has the same size.

        Raises ValueError for another shape or dtype, or when the stylizer is not open.
        """
        self._check_open()
        if not isinstance(image, np.ndarray):
            found = type(image).__name__  # type: ignore[unreachable]  # callers need not check types
            raise ValueError(f"an image is a numpy array, got {found}: for Pillow's, np.asarray(image.convert('RGB'))")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"an image is RGB uint8 (H, W, 3), got {image.dtype} {image.shape}")
        if self.settings.strength == 0:
            return image.copy()
        return self.render(image, self.probe(image))

    def _check_open(self) -> None:
        if not self._opened:
            raise ValueError("the stylizer is not open: use it in a 'with' block, or begin with Stylizer.open")

    @property
    def backend(self) -> Backend:
        """What renders; of several GPUs the first.  ValueError when the stylizer is not open."""
        self._check_open()
        return self._opened[0][1]

    @property
    def _renderer(self) -> FrameRenderer:
        self._check_open()
        return self._opened[0][2]

    def look_at(self, position: float) -> F32:
        """Weights ``(K,)`` of the looks at a position 0..1 of a video."""
        return self.looks.at(position)

    def probe(self, image: Image, position: float = 0.0) -> Conditions:
        """What a picture is rendered with, taken from a thumbnail of it."""
        return self.probe_view(self.view(image), position)

    def view(self, image: Image) -> Image:
        """The thumbnail of a picture that the probe is shown: a copy, RGB uint8 ``(h, w, 3)``.

        A picture and its `reduced` have the same one.
        """
        half = self.reduced(image)
        height, width = half.shape[:2]
        scale = min(1.0, self.spec.probe_side / max(height, width))
        # A layout has a cell for every so many pixels: its cells then cover the picture exactly.
        unit = MAP_STRIDE if self.spec.has_layout else 1
        view = _resize(half, *(max(1, round(side * scale / unit)) * unit for side in (height, width)))
        return view.copy() if view is image else view

    def reduced(self, image: Image) -> Image:
        """A picture halved as often as leaves more than the probe is shown: a tenth of the time that `view` takes.

        For whatever looks at a frame as a whole; it may be the picture itself.
        """
        while max(image.shape[:2]) >= 2 * self.spec.probe_side and min(image.shape[:2]) >= 2:
            image = _resize(image, image.shape[0] // 2, image.shape[1] // 2)
        return image

    def probe_view(self, view: Image, position: float = 0.0) -> Conditions:
        """What a picture is rendered with whose `view` was taken before."""
        started = time.perf_counter()
        weights = self.look_at(position)
        padded = _pad(view, self.spec.view_multiple, self.spec.view_min_side)
        conditions = self.looks.complete(view, self._renderer.probe(padded, weights), weights)
        self.seconds["probe"] += time.perf_counter() - started
        return conditions

    def relooked(self, conditions: Conditions, view: Image, position: float = 0.0) -> Conditions:
        """Conditions that were taken of a `view` under other settings of the look, under these; no graph is run.

        Raises ValueError for a model without a layout, whose looks are part of what its probe returns.
        """
        if not self.spec.has_layout:
            raise ValueError(f"model {self.spec.name} has no layout: probe again")
        return self.looks.dressed(view, conditions, self.look_at(position))

    def layout_of(self, view: Image) -> F32:
        """Sky, depth, sky coordinate and glow of a `view`, ``(4, h, w)``, from a model with a layout."""
        padded = _pad(view, self.spec.view_multiple, self.spec.view_min_side)
        return complete(view, self._renderer.probe(padded, np.ones(1, np.float32))).maps["layout"]

    def render(self, image: Image, conditions: Conditions) -> Image:
        """Stylize a picture with given conditions; the result has the picture's size."""
        return self.begin(image, conditions).result()

    def begin(self, image: Image, conditions: Conditions) -> Stylizing:
        """Begin to `render` a picture; as many as `depth` are under way at once."""
        started = time.perf_counter()
        work = _resize(image, *self._work_size(*image.shape[:2]))
        padded = _pad(work, self.spec.multiple, self.spec.min_side)
        if conditions.maps:
            conditions = on_grid(conditions, (work.shape[0], work.shape[1]), (padded.shape[0], padded.shape[1]))
        rendering = self._renderer.submit(padded, conditions, lambda size, limit: self.tile_plan(*size, limit).tiles)
        self.seconds["render"] += time.perf_counter() - started
        return Stylizing(self, image, (work.shape[0], work.shape[1]), rendering)

    @property
    def depth(self) -> int:
        """Pictures that may be under way at once: more than one on a GPU."""
        return self._renderer.depth

    def _work_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which a picture goes through the network.

        Fields have pixels of several of the picture's: a small picture is enlarged first, up to twice, so that thin
        branches and people keep their outlines.
        """
        side, detail, scale = max(height, width), self.settings.detail, 1.0
        if detail > 0:
            least = FINE_SIDE * detail if self.spec.has_layout else 0.0
            scale = min(BASE_SIDE * detail / side, max(1.0, min(2.0, least / side)))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _frame_size(self, height: int, width: int) -> tuple[int, int]:
        """The same, with the border that fills it up to what the network takes."""
        return _padded_size(self._work_size(height, width), self.spec.multiple, self.spec.min_side)

    def tile_plan(self, height: int, width: int, limit: int | None = None) -> TilePlan:
        """How a padded picture is cut: as the settings say, else whole when memory and the backend allow.

        `limit`: pixels that a tile may have, as memory has run out with more; ValueError where that is too few.
        """
        side = self.settings.tile
        largest = self._renderer.largest_tile
        if side is None and largest is None:
            side = default_tile(self.spec, height, width)
        most = largest or (height, width)
        if side:
            self._check_tile(side)
            most = min(side, most[0]), min(side, most[1])
        if most[0] >= height and most[1] >= width and (limit is None or height * width <= limit):
            return TilePlan.whole(height, width)
        if limit is not None:
            self._check_tile(math.isqrt(limit))
        if largest is not None and min(largest) < self._least_tile:
            raise PlanError(
                f"the plan takes tiles of up to {largest[0]}x{largest[1]}, {self.spec.name} needs sides of "
                f"{self._least_tile}: build-engine --model {self.spec.name} --tile 1088x1920"
            )
        halo, multiple = self.spec.halo, self.spec.multiple
        return TilePlan.balanced(height, width, most=most, halo=halo, multiple=multiple, pixels=limit)

    @property
    def _least_tile(self) -> int:
        return 2 * self.spec.halo + self.spec.multiple

    def _check_tile(self, side: int) -> None:
        least = self._least_tile
        if side < least:
            raise ValueError(
                f"a tile of {side} pixels is smaller than twice the halo of {self.spec.halo}: choose {least} or more"
            )

    def mix(self, image: Image, fake: Image) -> Image:
        """A picture with its stylization, RGB uint8 of one size: strength and kept colour, in CIE Lab."""
        strength, keep = self.settings.strength, self.settings.keep_color
        if strength == 1 and keep == 0:
            return np.ascontiguousarray(fake)
        share = np.array([strength, strength * (1 - keep), strength * (1 - keep)], np.float32)
        mixed = np.empty_like(fake)
        for top in range(0, image.shape[0], BAND):  # float32 copies of a panorama would take gigabytes
            rows = slice(top, top + BAND)
            lab = [cv2.cvtColor(x[rows].astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB) for x in (image, fake)]
            rgb = cv2.cvtColor(lab[0] + (lab[1] - lab[0]) * share, cv2.COLOR_LAB2RGB)
            mixed[rows] = np.clip(np.rint(rgb * 255.0), 0, 255)
        return mixed


class Stylizing:
    """A picture under way; what `Pipeline.begin` returns."""

    def __init__(self, pipeline: Pipeline, image: Image, size: tuple[int, int], rendering: Rendering) -> None:
        self._pipeline, self._image, self._size, self._rendering = pipeline, image, size, rendering
        self._result: Image | None = None

    def result(self) -> Image:
        """Wait for the stylized picture, of the picture's size; the same array at every call."""
        if self._result is None:
            started = time.perf_counter()
            height, width = self._size
            fake = self._rendering.result()[:height, :width]
            self._result = self._pipeline.mix(self._image, _resize(fake, *self._image.shape[:2]))
            self._image = NOTHING
            self._pipeline.seconds["render"] += time.perf_counter() - started
        return self._result


def _padded_size(size: tuple[int, int], multiple: int, least: int) -> tuple[int, int]:
    """The next height and width that the network takes."""
    return max(least, -(-size[0] // multiple) * multiple), max(least, -(-size[1] // multiple) * multiple)


def _pad(image: Image, multiple: int, least: int) -> Image:
    """Mirror the right and lower border up to the sizes that the network takes."""
    height, width = _padded_size((image.shape[0], image.shape[1]), multiple, least)
    if (height, width) == image.shape[:2]:
        return np.ascontiguousarray(image)
    bottom, right = height - image.shape[0], width - image.shape[1]
    return np.asarray(cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REFLECT), np.uint8)


def _resize(image: Image, height: int, width: int) -> Image:
    if image.shape[:2] == (height, width):
        return image
    smaller = height * width < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)
