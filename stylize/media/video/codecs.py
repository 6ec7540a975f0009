"""How each codec is asked for: ffmpeg's options, sample formats, and whether this machine can encode it."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from stylize.errors import ToolError
from stylize.media.ffmpeg import find_ffmpeg
from stylize.media.video.settings import VideoSettings

__all__ = ["Encoder", "encoder_for"]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """One codec with all its settings, the same for every segment of a job."""

    codec: str
    """One of `CODECS`."""
    pixel_format: str
    """What is stored: yuv420p as a rule."""
    arguments: tuple[str, ...]
    """ffmpeg's output options, ``-c:v`` included."""
    tag: str | None
    """Sample entry to be written in MP4 and MOV where players insist on one (hvc1)."""
    note: str | None
    """What the user should know, None if there is nothing."""


def _rate(rate: Fraction | None) -> str:
    rate = rate or Fraction(25)
    return f"{rate.numerator}/{rate.denominator}"


def _h264(settings: VideoSettings, rate: Fraction | None) -> tuple[str, ...]:
    crf = 18 if settings.crf is None else settings.crf
    # On flat pictures `faster` makes files of `medium`'s size with half of its work (docs/performance.md).
    preset = settings.preset or "faster"
    # fps is pinned: guessed anew in each segment it would change the headers from one to the next
    return ("libx264", "-crf", str(crf), "-preset", preset, "-x264-params", f"fps={_rate(rate)}")


def _hevc(settings: VideoSettings, rate: Fraction | None) -> tuple[str, ...]:
    crf = 20 if settings.crf is None else settings.crf
    parameters = f"log-level=error:open-gop=0:fps={_rate(rate)}"
    return ("libx265", "-crf", str(crf), "-preset", settings.preset or "medium", "-x265-params", parameters)


def _av1(settings: VideoSettings, rate: Fraction | None) -> tuple[str, ...]:
    crf = 28 if settings.crf is None else settings.crf
    return ("libsvtav1", "-crf", str(crf), "-preset", settings.preset or "8")


def _aom(settings: VideoSettings, rate: Fraction | None) -> tuple[str, ...]:
    crf = 28 if settings.crf is None else settings.crf
    return (
        "libaom-av1",
        "-crf",
        str(crf),
        "-cpu-used",
        str(min(8, int(settings.preset or "6"))),
        "-lag-in-frames",
        "0",
    )


def _vp9(settings: VideoSettings, rate: Fraction | None) -> tuple[str, ...]:
    crf = 28 if settings.crf is None else settings.crf
    quality = ("-crf", str(crf), "-b:v", "0", "-row-mt", "1")
    return ("libvpx-vp9", *quality, "-deadline", "good", "-cpu-used", settings.preset or "4")


def _prores(settings: VideoSettings, rate: Fraction | None) -> tuple[str, ...]:
    return ("prores_ks", "-profile:v", settings.preset or "hq", "-vendor", "apl0")


def _lossless(settings: VideoSettings, rate: Fraction | None) -> tuple[str, ...]:
    preset = settings.preset or "veryfast"
    return ("libx264rgb", "-qp", "0", "-preset", preset, "-x264-params", f"fps={_rate(rate)}")


def _nvenc(name: str) -> Callable[[VideoSettings, Fraction | None], tuple[str, ...]]:
    def arguments(settings: VideoSettings, rate: Fraction | None) -> tuple[str, ...]:
        crf = 21 if settings.crf is None else settings.crf
        quality = ("-rc", "vbr", "-cq", str(crf), "-b:v", "0")
        return (name, "-preset", settings.preset or "p5", "-tune", "hq", *quality)

    return arguments


_ARGUMENTS: dict[str, Callable[[VideoSettings, Fraction | None], tuple[str, ...]]] = {
    "h264": _h264,
    "hevc": _hevc,
    "av1": _av1,
    "vp9": _vp9,
    "prores": _prores,
    "lossless": _lossless,
    "h264_nvenc": _nvenc("h264_nvenc"),
    "hevc_nvenc": _nvenc("hevc_nvenc"),
    "av1_nvenc": _nvenc("av1_nvenc"),
}

SMALLEST_SVT = 64
"""SVT-AV1 takes no picture with a shorter side; libaom does."""


def encoder_for(codec: str, *, width: int, height: int, rate: Fraction | None, settings: VideoSettings) -> Encoder:
    """Settle how `codec` encodes pictures of this size.

    H.264 and HEVC with 4:2:0 chroma have even sizes only; an odd size is kept by storing chroma at full
    resolution (4:4:4), which software players show and some hardware players do not.

    Raises:
        ToolError: this ffmpeg or this machine cannot encode it.
    """
    make = _ARGUMENTS[codec]
    if codec == "av1" and min(width, height) < SMALLEST_SVT:
        make = _aom
    name, *options = make(settings, rate)
    if name not in find_ffmpeg().encoders:
        raise ToolError(f"this ffmpeg has no {name}: choose another codec, or pip install imageio-ffmpeg")
    if codec.endswith("_nvenc"):
        _require_nvenc(name)
    pixel_format, note = _pixel_format(codec, width, height, settings)
    return Encoder(
        codec=codec,
        pixel_format=pixel_format,
        arguments=("-c:v", name, *options, *settings.encoder_args),
        tag="hvc1" if codec in {"hevc", "hevc_nvenc"} else None,
        note=note,
    )


def _pixel_format(codec: str, width: int, height: int, settings: VideoSettings) -> tuple[str, str | None]:
    if codec == "lossless":
        return "rgb24", None
    if codec == "prores":
        return ("yuv444p10le" if settings.preset == "4444" else "yuv422p10le"), None
    deep = settings.ten_bit
    odd = (width % 2 or height % 2) and codec not in {"av1", "vp9", "av1_nvenc"}
    if odd:
        note = f"{width}x{height} is odd: stored as 4:4:4 to keep the size, which some hardware players do not show"
        if codec.endswith("_nvenc"):
            return ("yuv444p16le" if deep else "yuv444p"), note
        return ("yuv444p10le" if deep else "yuv444p"), note
    if codec.endswith("_nvenc"):
        return ("p010le" if deep else "yuv420p"), None
    return ("yuv420p10le" if deep else "yuv420p"), None


NVENC_SECONDS = 60
"""A GPU that has not encoded one frame by then is not waited for."""


@functools.lru_cache(maxsize=8)
def _require_nvenc(name: str) -> None:
    """Encode one grey frame: the only sure way to know that driver and GPU are there."""
    program = find_ffmpeg().path
    source = ["-f", "lavfi", "-i", "color=gray:s=256x256:r=25:d=0.04"]
    command = [program, "-hide_banner", "-nostdin", "-loglevel", "error", *source, "-c:v", name, "-f", "null", "-"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=NVENC_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ToolError(
            f"{name} gave no answer in {NVENC_SECONDS} s: the GPU's driver may hang; choose h264, hevc or av1"
        ) from error
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise ToolError(f"{name} does not start here ({lines[0]}): choose h264, hevc or av1")
