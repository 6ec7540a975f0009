"""What is known of a video before it is decoded: size as shown, times, colour, and all its streams."""

from __future__ import annotations

import contextlib
import itertools
import struct
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from stylize.errors import InputError
from stylize.media.ffmpeg import open_media
from stylize.media.formats import READ_SUFFIXES
from stylize.media.video.boxes import file_boxes, spherical_boxes
from stylize.media.video.clock import MAY_JUMP, read_clock

__all__ = ["ColorInfo", "StreamInfo", "VideoInfo", "probe_video"]

LARGEST = 16384
"""Longest side that is taken; a damaged header often claims more."""

_ZERO_BASED = frozenset({"mov", "mp4", "matroska", "webm", "avi", "nut", "gif", "apng", "webp_pipe"})
"""Containers whose clock starts at 0 by definition: a late first frame there means a late first frame."""

_PACKETS_TO_TRY = 2000
_PICTURE_CODECS = frozenset({"mjpeg", "png", "bmp", "tiff", "webp", "gif", "jpeg2000"})


MAY_MOVE = {".gif", ".webp", ".png", ".avif"}
"""Suffixes of pictures that may hold a film."""


@dataclass(frozen=True, kw_only=True)
class ColorInfo:
    """How the samples of a video become light; what the file does not say is guessed, and said so."""

    matrix: str
    """ffmpeg's name of the YCbCr matrix: bt709, smpte170m, bt470bg, bt2020nc, ...; "gbr" for RGB sources."""
    full_range: bool
    """True for 0-255, False for 16-235."""
    primaries: str | None
    """ffmpeg's name of the primaries, None where untagged (then taken as BT.709)."""
    transfer: str | None
    """"smpte2084" (PQ), "arib-std-b67" (HLG), or None for every SDR curve."""
    guessed: bool
    """The matrix is not in the file: BT.601 was assumed up to 1024x576, BT.709 above, as players do."""


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """One stream beside the video that is stylized."""

    index: int
    """Number in the source."""
    kind: str
    """video, audio, subtitle, data or attachment."""
    codec: str
    """ffmpeg's name of the codec, "" where it knows none."""
    language: str
    """ISO 639-2 code, "" if not told."""
    title: str
    """Title, "" if it has none."""
    picture: bool
    """A still picture such as a cover, not a moving one."""


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """A source as `probe_video` found it."""

    path: Path
    """The file."""
    container: str
    """libavformat's names of the container, such as ``mov,mp4,m4a,3gp,3g2,mj2``."""
    stream: StreamInfo
    """The video stream that is meant."""
    others: tuple[StreamInfo, ...]
    """All other streams, in order."""
    width: int
    """Pixels a row as shown, rotation applied."""
    height: int
    """Rows as shown, rotation applied."""
    sample_aspect_ratio: Fraction
    """Width of a pixel over its height, as shown."""
    rate: Fraction | None
    """Average frames a second, None if the container does not say; an estimate, never used for times."""
    nominal_rate: Fraction | None
    """The rate the encoder is told: the nearest usual one of `rate`."""
    time_base: Fraction
    """Seconds a tick of the video stream; every presentation time is a whole number of them."""
    start: Fraction | None
    """First presentation time in the container's own clock, seconds."""
    origin: Fraction
    """Subtracted from the container's clock, seconds: 0 but for streams such as MPEG-TS that start anywhere."""
    duration: Fraction | None
    """Seconds, None if the container does not say."""
    frames: int | None
    """Number of frames as far as the container tells or lets guess; for progress, not for counting."""
    rotation: int
    """Degrees clockwise in which the picture is to be turned: 0, 90, 180 or 270; ffmpeg does it while decoding."""
    mirrored: bool
    """The display matrix also mirrors the picture."""
    pixel_format: str
    """ffmpeg's name of the stored samples, such as yuv420p10le."""
    color: ColorInfo
    """How samples become light."""
    interlaced: bool
    """Fields instead of frames: deinterlaced, one frame per frame."""
    has_alpha: bool
    """Transparency that the output will not have."""
    chapters: int
    """Number of chapters."""
    metadata: dict[str, str]
    """Global tags."""
    timecode: str = ""
    """Time of day or of tape of the first frame, such as 01:00:00:00; empty: none is told."""
    spherical: bytes = b""
    """Boxes of ISO media that say how a 360-degree picture is to be shown; empty: it is none."""
    captions: bool = False
    """Closed captions (CEA-608 or 708) travel inside the pictures."""
    jumps: tuple[Fraction, ...] = ()
    """Seconds by which the container's clock jumps, place by place; ffmpeg takes them out (see `video_clock`)."""

    @property
    def dynamic_range(self) -> str:
        """ "SDR", "PQ" or "HLG"."""
        return {"smpte2084": "PQ", "arib-std-b67": "HLG"}.get(self.color.transfer or "", "SDR")


_MATRICES = {
    1: "bt709",
    4: "fcc",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "ycgco",
    9: "bt2020nc",
    10: "bt2020c",
}
_PRIMARIES = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "film",
    9: "bt2020",
    11: "smpte431",
    12: "smpte432",
    22: "jedec-p22",
}
_TRANSFERS = {16: "smpte2084", 18: "arib-std-b67"}
_USUAL_RATES = [
    *(Fraction(number * 1000, 1001) for number in (24, 30, 48, 60, 120)),
    *(Fraction(number) for number in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)),
]


def probe_video(path: Path) -> VideoInfo:
    """Open `path` and tell what is in it.

    One frame is decoded, for what only a frame knows (display matrix, interlacing).

    Raises:
        InputError: missing, not readable, no video in it, or no frame that can be decoded.
    """
    import av

    if not path.exists():
        raise InputError(f"{path} does not exist: check the name")
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a video: use stylize folder for photos")
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty")
        if path.suffix.lower() in READ_SUFFIXES - MAY_MOVE:
            raise InputError(f"{path} is a picture, not a video: use `stylize image`")
        with contextlib.ExitStack() as stack:
            try:
                container = stack.enter_context(open_media(path))
            except (av.error.FFmpegError, ValueError) as error:
                raise InputError(_cannot_open(path, error)) from error
            return _without_jumps(_describe(path, container), container)
    except PermissionError as error:
        raise InputError(f"{path} may not be read: check its permissions") from error
    except (av.error.FFmpegError, OSError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise InputError(f"{path} cannot be read as a video ({_reason(error)}): is it damaged?") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _cannot_open(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        head = file.read(4096)
        file.seek(0)
        movie = head[4:8] == b"ftyp" and not _has_moov(path)
    if movie:
        return f"{path} has lost its index (moov): it was cut off; copy it again, or repair it with untrunc"
    return f"{path} is not a video that ffmpeg can read ({_reason(error)})"


def _has_moov(path: Path) -> bool:
    """Whether an ISO media file has its top-level index box, whole."""
    length = path.stat().st_size
    return next((at + size <= length for at, size, name in file_boxes(path) if name == b"moov"), False)


def _describe(path: Path, container: Any) -> VideoInfo:
    stream = _choose(container)
    if stream is None:
        raise InputError(f"{path} has no video in it")
    context = stream.codec_context
    if context is None:
        raise InputError(f"{path}: its video codec is unknown to ffmpeg")
    frame = _first_frame(container, stream)
    if frame is None and path.suffix.lower() == ".webp":
        raise InputError(f"{path}: ffmpeg does not decode WebP animations: save it as MP4 or GIF first")
    if frame is None:
        raise InputError(f"{path}: no frame of its video can be decoded: is it damaged?")
    width, height = frame.width, frame.height
    if max(width, height) > LARGEST:
        raise InputError(f"{path} claims {width}x{height} pixels; at most {LARGEST} a side can be done: is it damaged?")
    rotation, mirrored = _orientation(frame)
    aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
    if rotation in {90, 270}:
        width, height, aspect = height, width, 1 / aspect
    rate = Fraction(stream.average_rate) if stream.average_rate else None
    time_base = Fraction(stream.time_base)
    start = stream.start_time * time_base if stream.start_time is not None else None
    duration = _duration(container, stream)
    name = str(frame.format.name)
    return VideoInfo(
        path=path,
        container=container.format.name,
        stream=_stream_info(stream),
        others=tuple(_stream_info(other) for other in container.streams if other.index != stream.index),
        width=width,
        height=height,
        sample_aspect_ratio=aspect,
        rate=rate,
        nominal_rate=_nominal(rate),
        time_base=time_base,
        start=start,
        origin=_origin(container, stream, start),
        duration=duration,
        frames=stream.frames or (round(duration * rate) if duration and rate else None),
        rotation=rotation,
        mirrored=mirrored,
        pixel_format=name,
        color=_color(frame, name),
        interlaced=bool(frame.interlaced_frame),
        has_alpha=_has_alpha(stream, name),
        chapters=len(container.chapters()),
        metadata={str(key): str(value) for key, value in container.metadata.items()},
        timecode=_timecode(container),
        spherical=spherical_boxes(*(_side_data(frame, name) for name in ("SPHERICAL", "STEREO3D"))),
        captions=bool(_side_data(frame, "A53_CC")),
    )


def _without_jumps(info: VideoInfo, container: Any) -> VideoInfo:
    """`info` with start, length and number of frames as they are once the jumps of the clock are taken out."""
    if not int(container.format.flags) & MAY_JUMP:
        return info
    clock = read_clock(info.path, info.stream.index)
    if not clock.jumps or clock.origin is None or clock.start is None or clock.length is None:
        return info
    return replace(
        info,
        start=clock.start,
        origin=clock.origin // info.time_base * info.time_base,
        duration=clock.length + (1 / info.rate if info.rate else 0),
        frames=clock.frames,
        jumps=tuple(clock.jumps),
    )


def _picture(stream: Any) -> bool:
    return bool(int(stream.disposition) & 0x400) or "attached_pic" in str(stream.disposition)


def _choose(container: Any) -> Any:
    """The stream to stylize: moving rather than still, then the default one, then the first."""
    moving = [stream for stream in container.streams.video if not _picture(stream)]
    candidates = [stream for stream in moving if stream.frames != 1] or moving
    if len(candidates) > 1:
        candidates = [stream for stream in candidates if not _still(container, stream)] or candidates
    defaults = [stream for stream in candidates if int(stream.disposition) & 1]
    return next(iter(defaults or candidates), None)


def _still(container: Any, stream: Any) -> bool:
    """Whether a stream of a picture codec holds one picture: a cover that nobody has marked as one."""
    if stream.codec_context is None or stream.codec_context.name not in _PICTURE_CODECS:
        return False
    count = sum(1 for _ in itertools.islice((packet for packet in container.demux(stream) if packet.size), 2))
    container.seek(0)
    return count == 1


def _stream_info(stream: Any) -> StreamInfo:
    context = stream.codec_context
    return StreamInfo(
        index=stream.index,
        kind=stream.type,
        codec=context.codec.canonical_name if context is not None else "",
        language=str(stream.metadata.get("language", "")),
        title=str(stream.metadata.get("title", "")),
        picture=stream.type == "video" and _picture(stream),
    )


def _first_frame(container: Any, stream: Any) -> Any:
    """The first frame that decodes, None if none does."""
    import av

    stream.codec_context.thread_count = 1
    packets = container.demux(stream)
    for _ in range(_PACKETS_TO_TRY):
        try:
            packet = next(packets, None)
            if packet is None:
                return None
            for frame in packet.decode():
                return frame
        except av.error.EOFError:
            return None
        except av.error.FFmpegError:
            continue
    return None


def _side_data(frame: Any, name: str) -> bytes:
    return next((bytes(side) for side in frame.side_data if side.type.name == name), b"")


def _timecode(container: Any) -> str:
    places = [*(stream.metadata for stream in container.streams), container.metadata]
    tags = {key.lower(): value for place in reversed(places) for key, value in place.items()}
    return str(tags.get("timecode", ""))


def _orientation(frame: Any) -> tuple[int, bool]:
    """Clockwise quarter turns in degrees, and whether the display matrix mirrors (ISO/IEC 14496-12, 6.2.2)."""
    for side in frame.side_data:
        if side.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = struct.unpack("<5i", bytes(side)[:20])
            mirrored = a * d - b * c < 0
            if abs(a) >= abs(b):
                turn = 0 if d >= 0 else 180
                return (0 if a >= 0 else 180, False) if not mirrored else (turn, True)
            return (90 if b > 0 else 270), mirrored
    return 0, False


def _duration(container: Any, stream: Any) -> Fraction | None:
    if stream.duration:
        return Fraction(stream.duration) * Fraction(stream.time_base)
    return Fraction(container.duration, 1_000_000) if container.duration else None


def _nominal(rate: Fraction | None) -> Fraction | None:
    """The usual rate within half a per cent of `rate`, else `rate` itself in small numbers."""
    if rate is None or not 0 < rate <= 1000:
        return None
    nearest = min(_USUAL_RATES, key=lambda usual: abs(usual - rate))
    return nearest if abs(nearest - rate) <= rate / 1000 else rate.limit_denominator(1001)


def _origin(container: Any, stream: Any, start: Fraction | None) -> Fraction:
    """Where the container's clock starts, on a tick of the video stream."""
    base = Fraction(stream.time_base)
    if set(container.format.name.split(",")) & _ZERO_BASED:
        return min(Fraction(0), start or Fraction(0))
    starts = [
        other.start_time * Fraction(other.time_base) for other in container.streams if other.start_time is not None
    ]
    return min(starts, default=Fraction(0)) // base * base


def _has_alpha(stream: Any, pixel_format: str) -> bool:
    if str(stream.metadata.get("alpha_mode", "")) == "1":
        return True
    return pixel_format.startswith(("yuva", "rgba", "argb", "bgra", "abgr", "gbrap", "ya8", "ya16", "ayuv", "vuya"))


def _color(frame: Any, pixel_format: str) -> ColorInfo:
    """Colour of a frame as tagged; the guesses of `ColorInfo` where it is not."""
    primaries = _PRIMARIES.get(int(frame.color_primaries))
    transfer = _TRANSFERS.get(int(frame.color_trc))
    if pixel_format.startswith(("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal8", "x2rgb", "x2bgr")):
        return ColorInfo(matrix="gbr", full_range=True, primaries=primaries, transfer=transfer, guessed=False)
    full = int(frame.color_range) == 2 or pixel_format.startswith("yuvj")
    matrix = _MATRICES.get(int(frame.colorspace))
    guessed = matrix is None
    if matrix is None and transfer is not None:
        matrix = "bt2020nc"
    elif matrix is None:
        small = (frame.width <= 1024 and frame.height <= 576) or (frame.height <= 1024 and frame.width <= 576)
        matrix = "smpte170m" if small or pixel_format.startswith("yuvj") else "bt709"
    return ColorInfo(matrix=matrix, full_range=full, primaries=primaries, transfer=transfer, guessed=guessed)
