"""Before and after for a few frames, for the current settings or a grid of them, on one sheet."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from engine.conditions import Conditions
from stylize.frame import Image
from stylize.pipeline import Pipeline
from stylize.result_name import beside
from stylize.settings import StyleSettings

__all__ = ["Cell", "Picture", "cells", "command_for", "render_sheet", "video_pictures"]

GRID_WIDTH = 3200
"""Pixels that the cells of a row share."""
CELL_WIDTHS = (320, 960)
"""Narrowest and widest cell."""
CELL_HEIGHT = 720
MOST_ACROSS = 5
"""Cells in a row at the most."""
LABEL = 34
"""Height of the strip above each cell."""
GAP = 8
BACKGROUND, INK = (20, 23, 28), (226, 228, 232)


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A frame or a photo to show."""

    data: Image
    label: str
    position: float = 0.0
    """Place in the video, 0..1, for looks that change on the way."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Settings of one column."""

    settings: StyleSettings
    label: str
    """What sets it apart from the others."""


def cells(
    base: StyleSettings, usual_look: str, looks: Sequence[str], strengths: Sequence[float], details: Sequence[float]
) -> list[Cell]:
    """All combinations; an empty sequence stands for the value of `base`.

    Raises ValueError for values that `StyleSettings` refuses.
    """
    import dataclasses

    result = []
    for look in looks or [base.look or usual_look]:
        for detail in details or [base.detail]:
            for strength in strengths or [base.strength]:
                settings = dataclasses.replace(base, look=look, strength=strength, detail=detail)
                parts = [look]
                parts += [f"strength {strength:g}"] if len(strengths) > 1 or strength != 1 else []
                parts += [f"detail {detail:g}"] if len(details) > 1 or detail != 1 else []
                result.append(Cell(settings=settings, label=", ".join(parts)))
    return result


def command_for(
    source: Path, settings: StyleSettings, *, model: str, command: str = "video", target: Path | None = None
) -> str:
    """The command line that gives a whole source these settings.

    Args:
        source: a video, a photo, or a folder of photos.
        settings: those of the look.
        model: what is said for ``--model``.
        command: video, image or folder.
        target: the result; None: beside the source.
    """
    video = command == "video"
    suffix = ".mp4" if video else source.suffix if source.suffix.lower() in (".jpg", ".jpeg", ".png") else ".jpg"
    target = target or beside(source, suffix)
    words = ["stylize", command, str(source), "-o", str(target), "--model", model]
    default = StyleSettings()
    for field in fields(settings):
        value = getattr(settings, field.name)
        always = field.name in ("look", "strength", "detail")
        if field.name == "model" or (field.name == "smoothing" and not video):
            continue
        if value is not None and (always or value != getattr(default, field.name)):
            words += [f"--{field.name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)


def video_pictures(path: Path, count: int, at: Sequence[Fraction]) -> list[Picture]:
    """Frames of a video: at the times given, else one for each of its scenes."""
    from stylize.media.video.probe import probe_video
    from stylize.video.frame_choice import choose_times, frame_at

    info = probe_video(path)
    pictures = []
    for time in at or choose_times(info, count):
        frame = frame_at(info, time)
        share = float(frame.pts / info.duration) if info.duration else 0.0
        minutes, seconds = divmod(float(frame.pts), 60)
        label = f"{int(minutes)}:{seconds:05.2f}"
        pictures.append(Picture(data=frame.data, label=label, position=min(1.0, max(0.0, share))))
    return pictures


def render_sheet(
    stylizer: Pipeline,
    pictures: Sequence[Picture],
    columns: Sequence[Cell],
    *,
    progress: Callable[[int], None] | None = None,
) -> Image:
    """The sheet, RGB uint8: for each picture a row, first as it is, then under the settings of every cell.

    Rows of many cells are broken.  Pictures are rendered at their working size, as a run would, and made
    smaller afterwards.
    """
    narrowest, widest = CELL_WIDTHS
    per_row = len(columns) + 1 if len(columns) < MOST_ACROSS else MOST_ACROSS - 1
    wide = max(narrowest, min(widest, GRID_WIDTH // per_row))
    # All cells share one width: narrower where a picture is high, and not wider than the pictures are.
    wide = min(wide, max(narrowest, *(p.data.shape[1] for p in pictures)))
    width = min(wide, *(max(narrowest // 2, CELL_HEIGHT * p.data.shape[1] // p.data.shape[0]) for p in pictures))
    rows = []
    for number, picture in enumerate(pictures):
        row = [_labelled(picture.data, width, f"before, {picture.label}")]
        for done, (cell, result) in enumerate(_rendered(stylizer, picture, columns)):
            row.append(_labelled(result, width, cell.label))
            if progress is not None:
                progress(number * len(columns) + done + 1)
        rows += [_joined(row[at : at + per_row], axis=1) for at in range(0, len(row), per_row)]
    return _joined(rows, axis=0)


def _rendered(stylizer: Pipeline, picture: Picture, columns: Sequence[Cell]) -> Iterator[tuple[Cell, Image]]:
    """A picture under the settings of every cell; what only mixes differently is rendered once."""
    statistics: dict[str | None, Conditions] = {}
    fakes: dict[tuple[str | None, float], Image] = {}
    for cell in columns:
        look, detail = cell.settings.look, cell.settings.detail
        if (look, detail) not in fakes:
            pure = stylizer.restyled(look=look, detail=detail, strength=1.0, keep_color=0.0)
            if look not in statistics:
                statistics[look] = pure.probe(picture.data, picture.position)
            fakes = {(look, detail): pure.render(picture.data, statistics[look])}
        mixed = stylizer.restyled(strength=cell.settings.strength, keep_color=cell.settings.keep_color)
        yield cell, mixed.mix(picture.data, fakes[look, detail])


def _labelled(image: Image, width: int, text: str) -> Image:
    """A picture made `width` wide, with a line of text above it."""
    from PIL import Image as Pil
    from PIL import ImageDraw, ImageFont

    height = max(1, round(image.shape[0] * width / image.shape[1]))
    method = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_CUBIC
    small = cv2.resize(image, (width, height), interpolation=method)
    strip = Pil.new("RGB", (width, LABEL), BACKGROUND)
    size = 18
    font = ImageFont.load_default(size)
    while size > 9 and font.getlength(text) > width:
        size -= 1
        font = ImageFont.load_default(size)
    ImageDraw.Draw(strip).text((2, LABEL // 2), text, fill=INK, font=font, anchor="lm")
    return np.concatenate([np.asarray(strip), small])


def _joined(parts: Sequence[Image], *, axis: int) -> Image:
    """Pictures side by side (1) or one below the other (0), with gaps of background, at the upper left."""
    other = 1 - axis
    length = max(part.shape[other] for part in parts)
    filled = []
    for number, part in enumerate(parts):
        before = GAP if number else 0
        missing = length - part.shape[other]
        widths = [(before, 0), (0, missing)] if axis == 0 else [(0, missing), (before, 0)]
        layers = [np.pad(part[..., c], widths, constant_values=BACKGROUND[c]) for c in range(3)]
        filled.append(np.stack(layers, -1))
    return np.ascontiguousarray(np.concatenate(filled, axis=axis), np.uint8)
