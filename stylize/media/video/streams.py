"""What becomes of the source's other streams: copied where the new container can hold them, else converted."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylize.media.ffmpeg import open_media
from stylize.media.video.probe import StreamInfo, VideoInfo

__all__ = ["MUXERS", "StreamPlan", "plan_streams", "stream_arguments"]

MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""ffmpeg's name of each container."""

_INSTEAD: dict[tuple[str, str], tuple[str, ...]] = {
    ("audio", "mp4"): ("aac", "-b", "256k"),
    ("audio", "mov"): ("aac", "-b", "256k"),
    ("audio", "matroska"): ("flac",),
    ("audio", "webm"): ("libopus", "-b", "192k"),
    ("subtitle", "mp4"): ("mov_text",),
    ("subtitle", "mov"): ("mov_text",),
    ("subtitle", "matroska"): ("subrip",),
    ("subtitle", "webm"): ("webvtt",),
}
"""Encoder for a kind of stream that a container cannot hold as it is."""

_PICTURE_SUBTITLES = frozenset({"dvd_subtitle", "hdmv_pgs_subtitle", "dvb_subtitle", "xsub", "dvb_teletext"})
"""Subtitles that are pictures: no text can be had from them."""


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """What is done with one stream of the source."""

    stream: StreamInfo
    """The stream."""
    action: str
    """copy, convert or drop."""
    encoder: tuple[str, ...]
    """Encoder and its options for "convert", else empty."""
    note: str | None
    """What the user should know about it, None for a plain copy."""


def plan_streams(info: VideoInfo, target: Path) -> tuple[StreamPlan, ...]:
    """Decide for every stream beside the video whether the container of `target` holds it.

    Each is tried: a header with this stream alone is written to memory.
    """
    muxer = MUXERS[target.suffix.lower()]
    with open_media(info.path) as container:
        by_index = {stream.index: stream for stream in container.streams}
        return tuple(_plan(stream, by_index.get(stream.index), muxer) for stream in info.others)


def _plan(stream: StreamInfo, template: Any, muxer: str) -> StreamPlan:
    name = f"{stream.kind} stream {stream.index} ({stream.codec or 'unknown codec'})"
    if stream.kind == "video" and not stream.picture:
        note = f"{name} left out: only one video stream is stylized"
        return StreamPlan(stream=stream, action="drop", encoder=(), note=note)
    held = template is not None and _holds(template, muxer)
    if held and (stream.kind != "attachment" or muxer == "matroska"):  # others write the header and drop the content
        return StreamPlan(stream=stream, action="copy", encoder=(), note=None)
    encoder = _INSTEAD.get((stream.kind, muxer), ())
    if not encoder or not stream.codec or stream.codec in _PICTURE_SUBTITLES:
        return StreamPlan(stream=stream, action="drop", encoder=(), note=f"{name} left out: {muxer} cannot hold it")
    note = f"{name} converted to {encoder[0]}: {muxer} cannot hold it as it is"
    return StreamPlan(stream=stream, action="convert", encoder=encoder, note=note)


def _holds(template: Any, muxer: str) -> bool:
    """Whether a header with a copy of `template` can be written."""
    import av

    try:
        with av.open(io.BytesIO(), "w", format=muxer) as trial:
            trial.add_stream_from_template(template)
            trial.start_encoding()
    except (av.error.FFmpegError, ValueError, TypeError, NotImplementedError):
        return False
    return True


_MAC_LANGUAGES = {
    "deu": "ger",
    "nld": "dut",
    "ell": "gre",
    "isl": "ice",
    "zho": "chi",
    "sqi": "alb",
    "mkd": "mac",
    "hye": "arm",
    "kat": "geo",
}
"""Codes of ISO 639-2 that ffmpeg finds no Macintosh language for (QuickTime File Format), and their twins it does."""


def stream_arguments(plans: Iterable[StreamPlan], *, source: int, muxer: str) -> list[str]:
    """ffmpeg's options that map and treat the streams of input number `source`, after one video stream."""
    arguments: list[str] = []
    number = 1
    for plan in plans:
        if plan.action == "drop":
            continue
        arguments += ["-map", f"{source}:{plan.stream.index}"]
        if muxer == "mov" and plan.stream.language in _MAC_LANGUAGES:
            arguments += [f"-metadata:s:{number}", f"language={_MAC_LANGUAGES[plan.stream.language]}"]
        if plan.action == "copy":
            arguments += [f"-c:{number}", "copy"]
        else:
            encoder, *options = plan.encoder
            arguments += [f"-c:{number}", encoder]
            arguments += [f"{word}:{number}" if word.startswith("-") else word for word in options]
        number += 1
    return arguments
