"""The page that `--report` writes: one HTML file with everything in it, to be opened from the disk.

Before/after sliders, a row for every file, settings, times, errors.  The page loads nothing: a content
security policy in it forbids the network.
"""

from __future__ import annotations

import base64
import html
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylize import __version__
from stylize.errors import OutputError, StylizeError
from stylize.files import write_bytes
from stylize.html.assets import CSS, PAIR_CSS, SCRIPT

if TYPE_CHECKING:
    from stylize.frame import Image
    from stylize.photos.report import FolderReport
    from stylize.video.job import VideoReport

__all__ = [
    "Entry", "Pair", "check_report", "folder_entries", "jpeg", "page", "pair_figure", "pair_of", "report_path",
    "video_entries", "write_report",
]  # fmt: skip

log = logging.getLogger(__name__)

SIDE = 800
"""Long side of the pictures in pixels."""
SMALL_SIDE = 320
"""The same where there are many."""
FEW = 40
"""Up to so many files have large pictures."""
MOST = 400
"""Up to so many files have pictures at all."""
SCENES = 3
"""Pictures of a video."""
CHART_ROWS = 25

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Before and after, as JPEG files of one size."""

    before: bytes
    after: bytes
    width: int
    height: int
    label: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file of the run."""

    source: str
    target: str
    status: str
    seconds: float = 0.0
    detail: str = ""
    """Size and the like."""
    messages: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = field(default=(), repr=False)


MARK = '<meta name="generator" content="stylize --report">'
"""Tells a page of ours, which the next run may replace, from the user's own."""


def check_report(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError where something else than an earlier report stands under the page's name."""
    if overwrite or not os.path.lexists(path):
        return
    try:
        ours = MARK.encode() in path.read_bytes()[:2000]
    except OSError:
        ours = False
    if not ours:
        raise OutputError(f"{path}, for the report, exists already and is no report: move it away, or --overwrite")


def write_report(
    path: Path, title: str, entries: Iterable[Entry], settings: Mapping[str, Any], *, seconds: float
) -> None:
    """Write the page in one go.  OutputError where that cannot be done."""
    text = page(title, list(entries), settings, seconds=seconds, made=datetime.now().astimezone())
    write_bytes(path, text.encode(), overwrite=True)  # replaces an older report


def page(title: str, entries: Sequence[Entry], settings: Mapping[str, Any], *, seconds: float, made: datetime) -> str:
    """The page as text."""
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry.status] = counts.get(entry.status, 0) + 1
    summary = ", ".join(f"{number} {status}" for status, number in counts.items()) or "nothing to do"
    body = [
        f"<h1>{_text(title)}</h1>",
        f'<p>{_text(summary)} in {_duration(seconds)} <span class="soft">stylize {_text(__version__)}, '
        f'<time datetime="{made.isoformat(timespec="seconds")}">{made:%Y-%m-%d %H:%M}</time></span></p>',
        *_errors(entries),
        *_pictures(entries),
        *_files(entries, counts),
        *_chart(entries),
        *_settings(settings),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{MARK}\n"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{_text(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{CSS}{PAIR_CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + f"\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    """Anything as HTML; names of files may hold bytes that are no UTF-8."""
    return html.escape(str(value).encode("utf-8", "replace").decode())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _errors(entries: Sequence[Entry]) -> Iterator[str]:
    bad = [entry for entry in entries if entry.status in ("failed", "damaged")]
    if bad:
        yield "<h2>What went wrong</h2>\n<ul>"
        for entry in bad:
            why = "; ".join(entry.messages) or entry.status
            before, name, rest = why.partition(f"{entry.source}: ")
            why = rest if name and ": " not in before else why  # the name stands in front already
            yield f'<li><span class="bad">{_text(entry.source)}</span>: {_text(why)}</li>'
        yield "</ul>"


def _pictures(entries: Sequence[Entry]) -> Iterator[str]:
    if not any(entry.pairs for entry in entries):
        return
    yield "<h2>Before and after</h2>"
    yield '<p class="soft">Drag, or press Tab and the arrow keys.</p>\n<div class="grid">'
    for entry in entries:
        for pair in entry.pairs:
            yield pair_figure(pair)
    yield "</div>"


def pair_figure(pair: Pair) -> str:
    """Before and after as one figure of HTML, everything in it; a script moves `--at` with the range."""
    before, after = (base64.b64encode(data).decode() for data in (pair.before, pair.after))
    size = f'width="{pair.width}" height="{pair.height}"'
    name, ratio = _text(pair.label), f"{pair.width / pair.height:.4f}"
    return (
        f'<figure><div class="pair" style="--ratio:{ratio}"><img class="before" {size} alt="{name}, before" '
        f'src="data:image/jpeg;base64,{before}"><img class="after" {size} alt="{name}, after" '
        f'src="data:image/jpeg;base64,{after}"><span class="l">before</span><span class="r">after</span>'
        f'<input type="range" min="0" max="100" value="50" aria-label="How much of {name} is shown before">'
        f"</div><figcaption>{name}</figcaption></figure>"
    )


def _files(entries: Sequence[Entry], counts: Mapping[str, int]) -> Iterator[str]:
    yield "<h2>Files</h2>"
    if len(counts) > 1:
        yield '<div class="filter" role="group" aria-label="Show files">'
        for status, number in [("all", len(entries)), *counts.items()]:
            pressed = "true" if status == "all" else "false"
            yield f'<button data-status="{_text(status)}" aria-pressed="{pressed}">{_text(status)} {number}</button>'
        yield "</div>"
    yield (
        '<div class="wide"><table><thead><tr><th>Source</th><th>Status</th><th class="optional">Result</th>'
        '<th class="n optional">Size</th><th class="n">Time</th></tr></thead><tbody>'
    )
    for entry in entries:
        kind = {"done": "good", "failed": "bad", "damaged": "bad"}.get(entry.status, "soft")
        notes = "".join(f'<div class="soft">{_text(message)}</div>' for message in entry.messages)
        yield (
            f'<tr data-status="{_text(entry.status)}"><td>{_text(entry.source)}{notes}</td>'
            f'<td class="{kind} short">{_text(entry.status)}</td>'
            f'<td class="optional">{_text("" if entry.status == "failed" else entry.target)}</td>'
            f'<td class="n optional">{_text(entry.detail)}</td><td class="n">{_duration(entry.seconds)}</td></tr>'
        )
    yield "</tbody></table></div>"


def _chart(entries: Sequence[Entry]) -> Iterator[str]:
    """Bars of the slowest files."""
    timed = sorted((entry for entry in entries if entry.seconds > 0), key=lambda entry: -entry.seconds)
    if not timed:
        return
    more = f", the slowest {CHART_ROWS} of {len(timed)}" if len(timed) > CHART_ROWS else ""
    yield f'<h2>Time{more}</h2>\n<div class="chart" role="list">'
    for entry in timed[:CHART_ROWS]:
        share = 100 * entry.seconds / timed[0].seconds
        name = _text(Path(entry.source).name)
        yield (
            f'<div class="name" role="listitem" title="{_text(entry.source)}">{name}</div>'
            f'<div><div class="bar" style="width:{share:.1f}%"></div></div><div>{_duration(entry.seconds)}</div>'
        )
    yield "</div>"


def _settings(settings: Mapping[str, Any]) -> Iterator[str]:
    yield '<h2>Settings</h2>\n<div class="wide"><table><tbody>'
    for name, value in settings.items():
        yield f'<tr><th scope="row">{_text(name.replace("_", " "))}</th><td>{_text(_setting(value))}</td></tr>'
    yield "</tbody></table></div>"


def _setting(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return "by itself" if value is None else value


def report_path(targets: Sequence[Path]) -> Path:
    """Where the report of a video run goes: beside the one result, or into the folder that all share."""
    if len(targets) == 1:
        return targets[0].with_name(f"{targets[0].stem}.report.html")
    return Path(os.path.commonpath([target.absolute().parent for target in targets])) / "report.html"


def jpeg(image: Image) -> bytes:
    """A picture, RGB uint8, as JPEG for a page."""
    import cv2

    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return data.tobytes()


def pair_of(before: Image, after: Image, label: str, side: int) -> Pair:
    """Two pictures, RGB uint8, made small; the second takes the size of the first."""
    import cv2
    import numpy as np

    scale = min(1.0, side / max(before.shape[:2]))
    size = max(1, round(before.shape[1] * scale)), max(1, round(before.shape[0] * scale))
    small = (np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8) for image in (before, after))
    files = [jpeg(image) for image in small]
    return Pair(before=files[0], after=files[1], width=size[0], height=size[1], label=label)


def folder_entries(report: FolderReport) -> Iterator[Entry]:
    """Every photo of a run; those that have a result with pictures."""
    from stylize.media.image.read import read_image

    shown = [p for p in report.photos if p.target and Path(p.target).is_file() and p.status in ("done", "skipped")]
    side = SIDE if len(shown) <= FEW else SMALL_SIDE
    with_pictures = {photo.source for photo in shown[:MOST]}
    for photo in report.photos:
        name = os.path.relpath(photo.source, report.source)
        pairs: tuple[Pair, ...] = ()
        if photo.source in with_pictures and photo.target:
            try:
                before, after = read_image(Path(photo.source)).data, read_image(Path(photo.target)).data
                pairs = (pair_of(before, after, name, side),)
            except StylizeError as error:
                log.warning("no picture in the report: %s", error)
        yield Entry(
            source=name,
            target=os.path.relpath(photo.target, report.output) if photo.target else "",
            status=photo.status,
            seconds=photo.seconds,
            detail=f"{photo.width} x {photo.height}" if photo.width else "",
            messages=tuple(filter(None, (photo.message, *photo.notes))),
            pairs=pairs,
        )


def video_entries(reports: Iterable[VideoReport]) -> Iterator[Entry]:
    """Every video of a run; finished ones with a picture for each of a few scenes."""
    for report in reports:
        pairs: tuple[Pair, ...] = ()
        if report.status in ("done", "damaged") and Path(report.target).is_file():
            try:
                pairs = tuple(_scenes(Path(report.source), Path(report.target)))
            except StylizeError as error:
                log.warning("no pictures in the report: %s", error)
        speed = f"{report.frames_out} frames, {report.fps:.2f} fps" if report.frames_out else ""
        yield Entry(
            source=report.source,
            target=report.target,
            status=report.status,
            seconds=report.seconds,
            detail=speed,
            messages=tuple(filter(None, (report.message, *report.lost, *report.warnings))),
            pairs=pairs,
        )


def _scenes(source: Path, target: Path) -> Iterator[Pair]:
    from stylize.media.video.probe import probe_video
    from stylize.video.frame_choice import choose_times, frame_at

    before, after = probe_video(source), probe_video(target)
    for time in choose_times(before, SCENES):
        frame = frame_at(before, time)
        result = frame_at(after, frame.pts)
        yield pair_of(frame.data, result.data, f"{source.name} at {float(frame.pts):.2f} s", SIDE)
