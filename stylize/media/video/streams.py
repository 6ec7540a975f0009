"""What becomes of the source's other streams: copied where the new container can hold them, else converted."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylize.media.ffmpeg import FfmpegProcess, command_line, explain, file_url, open_media
from stylize.media.video.probe import StreamInfo, VideoInfo

__all__ = ["MUXERS", "StreamPlan", "plan_streams", "stream_arguments"]

MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""ffmpeg's name of each container."""

TRIAL_SECONDS = 60
"""A trial conversion that takes longer is not waited for."""

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

    Each is tried: a header with this stream alone is written to memory, and sound that has to be converted is
    for its first two seconds.

    Raises:
        MediaError: a track cannot be converted.
    """
    muxer = MUXERS[target.suffix.lower()]
    with open_media(info.path) as container:
        by_index = {stream.index: stream for stream in container.streams}
        empty = _empty_tracks(container)
        plans = tuple(_plan(stream, by_index.get(stream.index), muxer, empty) for stream in info.others)
    for plan in plans:
        if plan.action == "convert" and plan.stream.kind == "audio":
            _try_conversion(info, plan, muxer)
    return plans


def _empty_tracks(container: Any) -> frozenset[int]:
    """Sound tracks that are declared and have nothing in them: muxers leave them out, or fail."""
    import av

    waiting = {stream.index for stream in container.streams.audio}
    try:
        for packet in container.demux(*container.streams.audio) if waiting else ():
            if packet.size:
                waiting.discard(packet.stream_index)
            if not waiting:
                break
    except av.error.FFmpegError:  # damaged: what is behind may well have sound
        return frozenset()
    return frozenset(waiting)


def _try_conversion(info: VideoInfo, plan: StreamPlan, muxer: str) -> None:
    """Convert the beginning of a track; raises MediaError where the join would fail."""
    import ffmpeg

    sound = ffmpeg.output(ffmpeg.input(file_url(info.path), t=2)[str(plan.stream.index)], "-", format="null")
    command = command_line(sound, extra=stream_arguments([plan], source=0, muxer=muxer, first=0)[2:])
    try:
        with FfmpegProcess(command) as process:
            code = process.wait(TRIAL_SECONDS)
    except subprocess.TimeoutExpired:
        return
    if code != 0:
        what = (
            f"audio stream {plan.stream.index} ({plan.stream.codec}) cannot be converted for {muxer}, try .mkv or .mov"
        )
        raise explain(process.complaints, what)


def _plan(stream: StreamInfo, template: Any, muxer: str, empty: frozenset[int]) -> StreamPlan:
    name = f"{stream.kind} stream {stream.index} ({stream.codec or 'unknown codec'})"
    if stream.index in empty:
        return StreamPlan(stream=stream, action="drop", encoder=(), note=f"{name} left out: it has nothing in it")
    if stream.kind == "video" and not stream.picture:
        note = f"{name} left out: only one video stream is stylized"
        return StreamPlan(stream=stream, action="drop", encoder=(), note=note)
    if stream.kind == "data" and template is not None and "timecode" in template.metadata:
        return StreamPlan(stream=stream, action="drop", encoder=(), note=None)  # is written anew, from `info.timecode`
    held = template is not None and _holds(template, muxer)
    if held and (stream.kind != "attachment" or muxer == "matroska"):  # others write the header and drop the content
        return StreamPlan(stream=stream, action="copy", encoder=(), note=None)
    encoder = _INSTEAD.get((stream.kind, muxer), ())
    if not encoder or not stream.codec or stream.codec in _PICTURE_SUBTITLES:
        return StreamPlan(stream=stream, action="drop", encoder=(), note=f"{name} left out: {muxer} cannot hold it")
    mixed = ""
    if stream.kind == "audio":
        options, mixed = _layout(encoder[0], template.codec_context.layout)
        encoder = (*encoder, *options)
    note = f"{name} converted to {encoder[0]}{mixed}: {muxer} cannot hold it as it is"
    return StreamPlan(stream=stream, action="convert", encoder=encoder, note=note)


_OPUS_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""ffmpeg's name of the one layout that Opus has for each number of channels (RFC 7845, 5.1.1.2)."""


def _layout(encoder: str, layout: Any) -> tuple[tuple[str, ...], str]:
    """Options that bring channels into a layout that `encoder` takes, and words on it; empty where none is needed."""
    if layout.nb_channels > 8:  # more than any of the encoders has
        names = [channel.name.replace("LFE", "") for channel in layout.channels]
        known = any("L" in name for name in names) and any("R" in name for name in names)
        sides = [
            [f"c{n}" for n, name in enumerate(names) if (other not in name if known else n % 2 == place)]
            for place, other in enumerate("RL")
        ]
        pan = "|".join(f"c{place}<{'+'.join(side)}" for place, side in enumerate(sides))
        return ("-filter", f"pan=stereo|{pan}"), f", its {layout.nb_channels} channels mixed down to stereo"
    wanted = _OPUS_LAYOUTS.get(layout.nb_channels)
    if encoder != "libopus" or wanted is None or layout.name == wanted:
        return (), ""
    words = f", {layout.name} as {wanted}" if layout.nb_channels > 2 else ""
    return ("-filter", f"aformat=channel_layouts={wanted}"), words


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


def stream_arguments(plans: Iterable[StreamPlan], *, source: int, muxer: str, first: int = 1) -> list[str]:
    """ffmpeg's options that map and treat the streams of input number `source`, behind `first` other streams."""
    arguments: list[str] = []
    number = first
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
