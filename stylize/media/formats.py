"""Which file names mean photos, which mean videos, and which codecs each container takes."""

from __future__ import annotations

from typing import Final

__all__ = ["CONTAINERS", "READ_ONLY_SUFFIXES", "READ_SUFFIXES", "VIDEO_SUFFIXES", "WRITE_SUFFIXES"]

WRITE_SUFFIXES: Final[dict[str, str]] = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".png": "png",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".bmp": "bmp",
    ".dib": "bmp",
}
"""Suffix, in lower case, to the format that is written under it."""

READ_ONLY_SUFFIXES: Final[dict[str, str]] = {
    ".heic": ".jpg",
    ".heif": ".jpg",
    ".hif": ".jpg",
    ".avif": ".jpg",
    ".gif": ".png",
}
"""Suffix of a format that is read but not written, to the suffix that its result gets."""

READ_SUFFIXES: Final = frozenset(WRITE_SUFFIXES) | frozenset(READ_ONLY_SUFFIXES)
"""Suffixes, in lower case, that a folder run takes for photos."""

CONTAINERS: dict[str, tuple[str, ...]] = {
    ".mp4": ("h264", "hevc", "av1", "vp9", "lossless", "h264_nvenc", "hevc_nvenc", "av1_nvenc"),
    ".m4v": ("h264", "hevc", "lossless", "h264_nvenc", "hevc_nvenc"),
    ".mov": ("h264", "hevc", "prores", "lossless", "h264_nvenc", "hevc_nvenc"),
    ".mkv": ("h264", "hevc", "av1", "vp9", "prores", "lossless", "h264_nvenc", "hevc_nvenc", "av1_nvenc"),
    ".webm": ("av1", "vp9", "av1_nvenc"),
}
"""Codecs each container takes; the first is its default."""

VIDEO_SUFFIXES: Final = frozenset(CONTAINERS) | {
    ".264", ".265", ".266", ".360", ".3g2", ".3gp", ".amv", ".apv", ".asf", ".av1", ".avc", ".avi", ".bik",
    ".cdxl", ".dav", ".dif", ".divx", ".dv", ".dvr-ms", ".evo", ".f4v", ".flv", ".gxf", ".h261", ".h263",
    ".h264", ".h265", ".h266", ".h26l", ".hevc", ".insv", ".ismv", ".ivf", ".ivr", ".kux", ".lrv", ".m1v",
    ".m2p", ".m2t", ".m2ts", ".m2v", ".mj2", ".mjpeg", ".mjpg", ".mk3d", ".mod", ".moflex", ".mpe", ".mpeg",
    ".mpg", ".mpv", ".mts", ".mxf", ".nsv", ".nut", ".nuv", ".obu", ".ogm", ".ogv", ".ogx", ".psp", ".qt",
    ".rm", ".rmvb", ".roq", ".ser", ".smk", ".tod", ".tp", ".trp", ".ts", ".ty", ".vc1", ".viv", ".vob",
    ".vvc", ".wmv", ".wtv", ".xesc", ".xmv", ".y4m", ".yop",
}  # fmt: skip
"""Suffixes, in lower case, that a run over a folder takes for videos: those of ffmpeg's containers and raw streams
that hold pictures, and those that cameras and recorders give to such files."""
