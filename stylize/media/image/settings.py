"""How photos are written: one frozen dataclass, and which file name means which format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final, Literal, get_args

from stylize.media.formats import READ_ONLY_SUFFIXES, WRITE_SUFFIXES
from stylize.settings import as_declared

__all__ = ["ImageSettings", "format_of"]

ImageFormat = Literal["keep", "jpeg", "png", "webp", "tiff", "bmp"]
ProfilePolicy = Literal["keep", "srgb"]

_FORMAT_SUFFIX: Final = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif", "bmp": ".bmp"}


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How photos are read, written and gone through."""

    format: ImageFormat = "keep"
    """Format of a folder run's results; ``keep``: as the source, HEIC and AVIF as JPEG, GIF as PNG."""
    quality: int = 92
    """JPEG and WebP quality, 1 to 100; from 90 on, JPEG keeps colour at full resolution (4:4:4)."""
    lossless: bool = False
    """WebP without loss."""
    compression: int = 3
    """PNG and TIFF deflate level, 0 (large, quick) to 9 (small, slow)."""
    profile: ProfilePolicy = "keep"
    """``keep``: results are in the source's RGB profile, which travels with them (sRGB for CMYK, grey and
    Lab sources); ``srgb``: results of sources with a profile are all in sRGB and say so."""
    metadata: bool = True
    """Carry EXIF, XMP, IPTC, comments and texts over; False leaves them out (position, camera, dates)."""
    keep_times: bool = False
    """Give results the access and modification times of their sources."""
    overwrite: bool = False
    """Replace results that exist and differ in source or settings."""
    recursive: bool = True
    """Go through sub-folders, too."""
    jobs: int = 3
    """Pictures in the works at once in a folder run: 1 one after the other, 2 reads one ahead, 3 also writes
    one behind."""
    max_megapixels: int = 500
    """Sources with more pixels are refused, undecoded: damage or malice asks for absurd sizes."""

    def __post_init__(self) -> None:
        as_declared(self)
        if self.format not in get_args(ImageFormat):
            raise ValueError(f"format is one of {', '.join(get_args(ImageFormat))}, got {self.format!r}")
        if self.profile not in get_args(ProfilePolicy):
            raise ValueError(f"profile is one of {', '.join(get_args(ProfilePolicy))}, got {self.profile!r}")
        for name, low, high in (
            ("quality", 1, 100),
            ("compression", 0, 9),
            ("jobs", 1, 3),
            ("max_megapixels", 1, None),
        ):
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                to = "up" if high is None else f"to {high}"
                raise ValueError(f"{name} is a whole number from {low} {to}, got {value!r}")

    def suffix_for(self, source: PurePath) -> str:
        """Suffix of the result of `source` in a folder run."""
        suffix = source.suffix.lower()
        if self.format == "keep":
            return READ_ONLY_SUFFIXES.get(suffix, source.suffix)
        return source.suffix if WRITE_SUFFIXES.get(suffix) == self.format else _FORMAT_SUFFIX[self.format]

    def output_key(self) -> str:
        """What of these settings changes a result's bytes, as one line."""
        return f"{self.format} q{self.quality} l{self.lossless:d} c{self.compression} {self.profile} m{self.metadata:d}"


def format_of(path: Path) -> str | None:
    """Format written under this name; None where the suffix is none of ours."""
    return WRITE_SUFFIXES.get(path.suffix.lower())
