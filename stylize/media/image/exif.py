"""EXIF blocks: read, and corrected for a picture that was turned.

An EXIF block is a small TIFF file (EXIF 3.0, section 4.6; TIFF 6.0, section 2): a header, then
directories of 12-byte entries that point to their values by offset.  Camera makers' own notes hold
offsets of their own, so a block is corrected *in place*, byte for byte, and never laid out anew.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = [
    "DESCRIPTIVE",
    "EXIF_IFD",
    "INTEROP_IFD",
    "SUB_DIRECTORIES",
    "descriptive_entries",
    "exif_as_shown",
    "orientation_of",
]

ORIENTATION: Final = 0x0112
EXIF_IFD: Final = 0x8769
GPS_IFD: Final = 0x8825
INTEROP_IFD: Final = 0xA005
SUB_DIRECTORIES: Final = frozenset({EXIF_IFD, GPS_IFD, INTEROP_IFD})
_WIDTHS: Final = frozenset({0x0100, 0xA002})
_HEIGHTS: Final = frozenset({0x0101, 0xA003})

# Bytes of one value of each field type: BYTE ASCII SHORT LONG RATIONAL, then their signed kin, FLOAT, DOUBLE, IFD.
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_LONGEST: Final = 4096
"""Entries a directory may hold before it counts as damaged."""

DESCRIPTIVE: Final = frozenset(
    {0x010D, 0x010E, 0x010F, 0x0110, 0x0112, 0x011A, 0x011B, 0x011D, 0x0128, 0x0131, 0x0132, 0x013B, 0x013C}
    | {0x4746, 0x4749, 0x8298, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F}
    | SUB_DIRECTORIES
)
"""Tags of a TIFF's first directory that tell about the photo, not about how its pixels are laid out."""


@dataclass(frozen=True)
class _Entry:
    """One directory entry: where it lies, and where its value lies."""

    tag: int
    kind: int
    count: int
    position: int
    value: int
    size: int


def _header(data: bytes) -> tuple[str, int]:
    """Return byte order and offset of the first directory; ValueError where `data` is no classic TIFF."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(data[:4]))
    if order is None or len(data) < 8:
        raise ValueError("not a TIFF header")
    return order, struct.unpack_from(order + "I", data, 4)[0]


def _entries(data: bytes, order: str, offset: int) -> Iterator[_Entry]:
    """Yield the sound entries of the directory at `offset`; ValueError where the directory itself is cut off."""
    if offset < 8 or offset + 2 > len(data):
        raise ValueError("a directory outside the block")
    (count,) = struct.unpack_from(order + "H", data, offset)
    if count > _LONGEST or offset + 2 + 12 * count > len(data):
        raise ValueError("a directory that is cut off")
    for position in range(offset + 2, offset + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, position)
        size = _SIZES.get(kind, 0) * number
        value = position + 8 if size <= 4 else struct.unpack_from(order + "I", data, position + 8)[0]
        if size and value + size <= len(data):
            yield _Entry(tag, kind, number, position, value, size)


def _number(data: bytes, order: str, entry: _Entry) -> int | None:
    """The value of a SHORT or LONG entry with one value."""
    if entry.count != 1 or entry.kind not in (3, 4, 13):
        return None
    value: int = struct.unpack_from(order + ("H" if entry.kind == 3 else "I"), data, entry.value)[0]
    return value


def orientation_of(exif: bytes) -> int:
    """Orientation 1 to 8 of an EXIF block (a TIFF stream, without the ``Exif`` prefix); 1 where it has none.

    Raises ValueError where the block is damaged.
    """
    order, offset = _header(exif)
    for entry in _entries(exif, order, offset):
        if entry.tag == ORIENTATION:
            value = _number(exif, order, entry)
            return value if value is not None and 1 <= value <= 8 else 1
    return 1


def exif_as_shown(exif: bytes, *, width: int, height: int) -> bytes:
    """Correct an EXIF block in place for upright pixels of `width` x `height`.

    Orientation becomes 1, the pixel dimensions become those given, and the thumbnail, which shows the
    picture as it was, is unlinked and its bytes cut off or blanked.  All else, makers' notes included,
    keeps its bytes and its place.  Raises ValueError where the block is damaged.
    """
    order, first = _header(exif)
    data = bytearray(exif)
    _patch(data, order, first, {ORIENTATION: 1} | dict.fromkeys(_WIDTHS, width) | dict.fromkeys(_HEIGHTS, height))
    (count,) = struct.unpack_from(order + "H", data, first)
    link = first + 2 + 12 * count
    if link + 4 > len(data):
        return bytes(data)
    (second,) = struct.unpack_from(order + "I", data, link)
    struct.pack_into(order + "I", data, link, 0)
    if second not in (0, first):
        _drop_thumbnail(data, order, second)
    return bytes(data)


def _patch(data: bytearray, order: str, offset: int, wanted: dict[int, int]) -> None:
    """Overwrite the numbers in `wanted` in the directory at `offset` and in its EXIF sub-directory."""
    for entry in list(_entries(bytes(data), order, offset)):
        number = _number(bytes(data), order, entry)
        if number is None:
            continue
        if entry.tag == EXIF_IFD:
            try:
                _patch(data, order, number, {tag: value for tag, value in wanted.items() if tag != ORIENTATION})
            except ValueError:
                continue  # a damaged sub-directory stays as it is
        elif entry.tag in wanted:
            value, code = wanted[entry.tag], "H" if entry.kind == 3 else "I"
            if code == "I" or value < 0x10000:
                struct.pack_into(order + code, data, entry.value, value)


def _drop_thumbnail(data: bytearray, order: str, second: int) -> None:
    """Blank or cut off the JPEG thumbnail that the second directory points to, and that directory."""
    try:
        entries = list(_entries(bytes(data), order, second))
    except ValueError:
        return
    numbers = {entry.tag: _number(bytes(data), order, entry) for entry in entries}
    start, size = numbers.get(0x0201), numbers.get(0x0202)
    spans = [(second, second + 2 + 12 * len(entries) + 4)]
    spans += [(entry.value, entry.value + entry.size) for entry in entries if entry.size > 4]
    if start and size and start + size <= len(data):
        spans.append((start, start + size))
    for begin, end in sorted(spans, reverse=True):
        if end >= len(data):
            del data[begin:]
        else:
            data[begin:end] = bytes(end - begin)


def descriptive_entries(exif: bytes) -> dict[int, bytes]:
    """Tag to the 12 bytes of its entry in the first directory, of what tells about the photo; offsets as they are.

    Raises ValueError where the block is damaged.
    """
    order, first = _header(exif)
    found = _entries(exif, order, first)
    return {entry.tag: exif[entry.position : entry.position + 12] for entry in found if entry.tag in DESCRIPTIVE}
