"""Clips made with ffmpeg's lavfi, and ways to read a video back that owe nothing to the code under test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from stylize.frame import Frame
from stylize.media.ffmpeg import find_ffmpeg
from stylize.media.video.settings import VideoSettings
from stylize.video.job import VideoJob, VideoReport, run_video

VFR = "setpts='(N*0.04+mod(N*N,7)*0.004)/TB'"
"""Uneven times: 40 ms and a bit, never backwards."""

QUICK = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "0")
"""Lossless and quick."""


def run_ffmpeg(*arguments: object) -> None:
    """Run ffmpeg and fail with its words."""
    command = [find_ffmpeg().path, "-hide_banner", "-nostdin", "-loglevel", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr.decode(errors='replace')}"


def make_clip(
    path: Path,
    *,
    size: tuple[int, int] = (64, 48),
    rate: str = "25",
    frames: int = 12,
    pixel_format: str = "yuv420p",
    codec: Sequence[str] = QUICK,
    filters: str = "",
    audio: Sequence[str] = (),
    extra: Sequence[str] = (),
    audio_codec: str = "aac",
) -> Path:
    """A moving test picture with a counter; `audio` has a lavfi source for each track."""
    picture = f"testsrc2=s={size[0]}x{size[1]}:r={rate}"
    chain = ",".join(part for part in (filters, f"format={pixel_format}") if part)
    inputs: list[str] = ["-f", "lavfi", "-i", picture]
    maps = ["-map", "0:v"]
    seconds = float(frames / Fraction(rate))
    for number, source in enumerate(audio, 1):
        inputs += ["-f", "lavfi", "-t", f"{seconds:.4f}", "-i", source]
        maps += ["-map", f"{number}:a"]
    sound = ["-c:a", audio_codec] if audio else []
    run_ffmpeg(
        *inputs, *maps, "-vf", chain, "-frames:v", frames, "-fps_mode", "passthrough", *codec, *sound, *extra, path
    )
    return path


def turn(source: Path, target: Path, *, degrees: int = 0, mirrored: bool = False) -> Path:
    """Copy `source` with a display matrix."""
    options = ["-display_rotation", str(degrees)] + (["-display_hflip"] if mirrored else [])
    run_ffmpeg(*options, "-i", source, "-map", "0", "-c", "copy", target)
    return target


class Identity:
    """Gives every frame back, and remembers it."""

    def __init__(self, context: int = 0) -> None:
        self.context = context
        self.seen: list[Frame] = []

    def __call__(self, frames: Iterable[Frame], wanted: range) -> Iterator[Frame]:
        for frame in frames:
            self.seen.append(frame)
            if frame.index in wanted:
                yield frame


class Blend:
    """Mean of a frame and its neighbours within `context`: shows whether a cut into segments can be seen."""

    def __init__(self, context: int = 2) -> None:
        self.context = context

    def __call__(self, frames: Iterable[Frame], wanted: range) -> Iterator[Frame]:
        window: list[Frame] = []
        give = wanted.start
        source = iter(frames)
        ended = False
        while True:
            while not ended and (not window or window[-1].index < give + self.context):
                frame = next(source, None)
                if frame is None:
                    ended = True
                else:
                    window.append(frame)
            window = [frame for frame in window if frame.index >= give - self.context]
            middle = next((frame for frame in window if frame.index == give), None)
            if middle is None or give >= wanted.stop:
                return
            near = [frame.data.astype(np.uint16) for frame in window if abs(frame.index - give) <= self.context]
            data = (sum(near) // len(near)).astype(np.uint8)
            yield Frame(data=data, index=give, pts=middle.pts, duration=middle.duration)
            give += 1


def stylize_video(source: Path, target: Path, transform, settings: VideoSettings, **values) -> VideoReport:
    """Run the job; keyword arguments are those of `VideoJob`."""
    return run_video(VideoJob(source=source, target=target, settings=settings, **values), transform)


def stylized(source: Path, target: Path, transform=None, **values) -> VideoReport:
    """Run the job with quick settings; keyword arguments are those of `VideoSettings`."""
    values.setdefault("segment_seconds", Fraction(1, 4))
    if target.suffix in {".mp4", ".mov", ".mkv"}:
        values.setdefault("codec", "lossless")
        if values["codec"] in {"lossless", "h264", "hevc"}:
            values.setdefault("preset", "ultrafast")
    transform = transform if transform is not None else Identity()
    return stylize_video(source, target, transform, VideoSettings(**values), transform_key="test")


@dataclass
class Decoded:
    """A video as PyAV alone reads it."""

    times: list[Fraction]
    pictures: list[np.ndarray]
    kinds: list[str]
    context: object


def decode(path: Path, *, index: int | None = None) -> Decoded:
    """All frames of one video stream: exact times and RGB (H, W, 3) pictures, display matrix not applied."""
    with av.open(str(path)) as container:
        stream = container.streams[index] if index is not None else container.streams.video[0]
        base = Fraction(stream.time_base)
        times, pictures = [], []
        for frame in container.decode(stream):
            times.append(frame.pts * base)
            pictures.append(_rgb(frame))
        return Decoded(times, pictures, [other.type for other in container.streams], stream.codec_context)


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    if frame.format.name == "gbrp":
        planes = [np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size) for plane in frame.planes]
        green, blue, red = (plane[:, : frame.width] for plane in planes)
        return np.stack([red, green, blue], axis=-1)
    return frame.to_ndarray(format="rgb24")


def first_packet_times(path: Path) -> dict[int, Fraction]:
    """Presentation time of the first packet of each stream."""
    found: dict[int, Fraction] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.pts is not None and packet.size:
                time = packet.pts * Fraction(packet.time_base)
                found[packet.stream_index] = min(time, found.get(packet.stream_index, time))
    return found
