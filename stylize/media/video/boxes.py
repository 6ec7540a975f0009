"""Boxes of ISO media files (ISO/IEC 14496-12) that ffmpeg does not write, or writes twice."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

__all__ = ["file_boxes", "set_creation_time", "spherical_boxes", "with_boxes"]

SAMPLE_ENTRY = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"")
"""Where the description of the first track lies; the empty name is any box."""
EPOCH = datetime(1904, 1, 1, tzinfo=timezone.utc)
"""That times of ISO media files are counted from."""
PARENTS = frozenset({b"moov", b"trak", b"mdia"})
TIMED = frozenset({b"mvhd", b"tkhd", b"mdhd"})


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def spherical_boxes(spherical: bytes, stereo: bytes) -> bytes:
    """`st3d` and `sv3d` (Spherical Video V2, Google) of what ffmpeg tells of a frame; empty for other projections.

    Args:
        spherical: ffmpeg's AVSphericalMapping: projection, yaw, pitch, roll (16.16), four bounds (0.32), padding.
        stereo: ffmpeg's AVStereo3D, which begins with its kind; empty: none.
    """
    if len(spherical) < 36:
        return b""
    projection, yaw, pitch, roll, left, top, right, bottom, padding = struct.unpack("=i3i4II", spherical[:36])
    if projection == 1:
        shape = _box(b"cbmp", struct.pack(">3I", 0, 0, padding))
    elif projection in (0, 2):  # whole, or a part of it
        shape = _box(b"equi", struct.pack(">5I", 0, top, bottom, left, right))
    else:
        return b""
    pose = _box(b"prhd", struct.pack(">I3i", 0, yaw, pitch, roll))
    head = _box(b"svhd", bytes(5))
    both = {1: 2, 2: 1}.get(
        struct.unpack("=i", stereo[:4])[0] if len(stereo) >= 4 else 0, 0
    )  # side by side, top-bottom
    return _box(b"st3d", struct.pack(">IB", 0, both)) + _box(b"sv3d", head + _box(b"proj", pose + shape))


def with_boxes(head: bytes, boxes: bytes) -> bytes | None:
    """The beginning of a fragmented file with boxes in the description of its track; None: `moov` is not whole yet."""
    for at, size, name, _ in _boxes(head, 0, len(head)):
        if name == b"moov":
            return _extended(head, SAMPLE_ENTRY, boxes) if at + size <= len(head) else None
    return None


def _boxes(data: bytes | bytearray, start: int, end: int) -> Iterator[tuple[int, int, bytes, int]]:
    """Place, size, name and length of the header of every box in a part of some bytes."""
    at = start
    while at + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, at)
        header = 8
        if size == 1 and at + 16 <= end:
            size, header = struct.unpack_from(">Q", data, at + 8)[0], 16
        if size < header:
            return
        yield at, size, name, header
        at += size


def _extended(data: bytes, path: tuple[bytes, ...], more: bytes) -> bytes:
    """Boxes with more at the end of the one that a path leads to."""
    for at, size, name, header in _boxes(data, 0, len(data)):
        if path[0] in (name, b""):
            header += 8 if name == b"stsd" else 0  # version, flags, number of entries
            inner = data[at + header : at + size]
            inner = _extended(inner, path[1:], more) if len(path) > 1 else inner + more
            return (
                data[:at]
                + struct.pack(">I", header + len(inner))
                + data[at + 4 : at + header]
                + inner
                + data[at + size :]
            )
    return data


def file_boxes(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Place, size and name of every box of a file that is in no other; the last may be cut off.  Raises OSError."""
    at, end = 0, path.stat().st_size
    with path.open("rb") as file:
        while at + 8 <= end:
            file.seek(at)
            head = file.read(16)
            found = next(_boxes(head, 0, len(head)), None)
            if found is None:
                return
            yield at, found[1], found[2]
            at += found[1]


def set_creation_time(path: Path, moment: datetime) -> None:
    """Set when the film and its tracks were made, in place.  Raises OSError."""
    seconds = int((moment - EPOCH).total_seconds())
    for at, size, name in file_boxes(path):
        if name == b"moov":
            with path.open("r+b") as file:
                file.seek(at)
                moov = bytearray(file.read(size))
                _set_times(moov, 0, len(moov), seconds)
                file.seek(at)
                file.write(moov)
            return


def _set_times(data: bytearray, start: int, end: int, seconds: int) -> None:
    for at, size, name, header in _boxes(data, start, end):
        if name in PARENTS:
            _set_times(data, at + header, at + size, seconds)
        elif name in TIMED:  # version and flags, made, changed
            wide = data[at + header] == 1
            struct.pack_into(
                ">QQ" if wide else ">II", data, at + header + 4, *[seconds if wide else seconds % 2**32] * 2
            )
