"""What a user may choose about a video's output, and what each container and codec can take."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from stylize.media.formats import CONTAINERS
from stylize.settings import as_declared

__all__ = ["CODECS", "IMAGE_SUFFIXES", "VideoSettings", "default_codec", "output_kind"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
"""Formats of an image sequence."""

CODECS = ("h264", "hevc", "av1", "vp9", "prores", "lossless", "h264_nvenc", "hevc_nvenc", "av1_nvenc")

_HIGHEST_CRF = {"h264": 51, "hevc": 51, "av1": 63, "vp9": 63, "h264_nvenc": 51, "hevc_nvenc": 51, "av1_nvenc": 51}
_X26X = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
_NVENC = tuple(f"p{level}" for level in range(1, 8))
PRESETS: dict[str, tuple[str, ...]] = {
    "h264": _X26X,
    "hevc": _X26X,
    "av1": tuple(str(level) for level in range(14)),
    "vp9": tuple(str(level) for level in range(9)),
    "prores": ("proxy", "lt", "standard", "hq", "4444"),
    "lossless": _X26X,
    "h264_nvenc": _NVENC,
    "hevc_nvenc": _NVENC,
    "av1_nvenc": _NVENC,
}


@dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """Everything about the output that is not the look."""

    codec: str | None = None
    """One of `CODECS`; None takes the container's default (H.264, in WebM AV1)."""
    crf: int | None = None
    """Constant quality, smaller is better: 0-51, for av1 and vp9 0-63; None takes the codec's default."""
    preset: str | None = None
    """Speed of the encoder in its own words, see `PRESETS`; for ProRes the profile."""
    ten_bit: bool = False
    """Encode 10 bits a sample (h264, hevc, av1, vp9); less banding in skies. ProRes always has 10."""
    encoder_args: tuple[str, ...] = ()
    """More ffmpeg output options for the encoder, as they would stand on its command line."""
    fps: Fraction | None = None
    """Convert to this constant rate; None keeps every frame at its own time."""
    overwrite: bool = False
    """Replace a target that exists."""
    restart: bool = False
    """Throw an unfinished run's segments away instead of continuing it."""
    verify: bool = False
    """Decode the finished file and compare count, times, duration and streams before it gets its name."""
    segment_seconds: Fraction = Fraction(10)
    """Length of a segment; an interruption loses one at the most."""
    keep_work: bool = False
    """Leave the work folder with segments and journal in place after success."""

    def __post_init__(self) -> None:
        as_declared(self)
        if self.codec is not None and self.codec not in CODECS:
            raise ValueError(f"codec is one of {', '.join(CODECS)}, got {self.codec!r}")
        if self.codec is not None and self.crf is not None:
            highest = _HIGHEST_CRF.get(self.codec)
            if highest is None:
                raise ValueError(f"{self.codec} has no crf, got {self.crf = }; leave it out")
            if not 0 <= self.crf <= highest:
                raise ValueError(f"crf of {self.codec} is 0 to {highest}, got {self.crf}")
        if self.codec is not None and self.preset is not None and self.preset not in PRESETS[self.codec]:
            raise ValueError(f"preset of {self.codec} is one of {', '.join(PRESETS[self.codec])}, got {self.preset!r}")
        if self.ten_bit and self.codec in {"lossless", "h264_nvenc"}:
            raise ValueError(f"{self.codec} has no 10-bit mode here; choose hevc or av1")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ValueError(f"fps is above 0 and at most 1000, got {self.fps}")
        if self.segment_seconds <= 0:
            raise ValueError(f"segment_seconds is above 0, got {self.segment_seconds}")


def output_kind(target: Path) -> str:
    """What `target` asks for: "video", "gif" or "images" (a pattern such as ``out_%05d.png``, or a folder).

    Raises:
        ValueError: a suffix that is none of these.
    """
    suffix = target.suffix.lower()
    if suffix in CONTAINERS:
        return "video"
    if suffix == ".gif":
        return "gif"
    if suffix in IMAGE_SUFFIXES:
        if "%" not in target.name:
            raise ValueError(f"{target.name}: an image sequence needs a number in its name, such as out_%05d{suffix}")
        return "images"
    if suffix == "":
        return "images"
    known = ", ".join([*CONTAINERS, ".gif", *IMAGE_SUFFIXES])
    raise ValueError(f"{target.name}: unknown kind of output {suffix!r}; choose one of {known}, or a folder")


def default_codec(target: Path, settings: VideoSettings) -> str:
    """The codec to use for `target`.

    Raises:
        ValueError: the container does not take the codec that was chosen.
    """
    if output_kind(target) != "video":
        return "lossless"
    allowed = CONTAINERS[target.suffix.lower()]
    if settings.codec is None:
        chosen = allowed[0]
        VideoSettings(codec=chosen, crf=settings.crf, preset=settings.preset, ten_bit=settings.ten_bit)  # ranges
        return chosen
    if settings.codec not in allowed:
        fitting = ", ".join(name for name, codecs in CONTAINERS.items() if settings.codec in codecs)
        raise ValueError(
            f"{target.suffix} does not take {settings.codec}: use {', '.join(allowed)}, or one of {fitting}"
        )
    return settings.codec
