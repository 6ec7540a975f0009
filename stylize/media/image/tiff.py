"""TIFF files in and out, by tifffile.

Of several pages the one that is the photo counts: previews, thumbnails and masks are passed over.
LZW, JPEG, ZSTD and the like are the business of imagecodecs, and where that is not installed of libtiff (in Pillow
and OpenCV), which reads all kinds but some with 16 bits.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from stylize.errors import InputError, OutputError
from stylize.files import shown
from stylize.media.image.exif import DESCRIPTIVE, EXIF_IFD, INTEROP_IFD, SUB_DIRECTORIES, descriptive_entries
from stylize.media.image.metadata import Metadata, iptc_from_photoshop
from stylize.media.image.opened import check_size, decoding, pillow
from stylize.media.image.samples import Stored, at_depth, split_alpha

if TYPE_CHECKING:
    from PIL import Image as PilImage
    from tifffile import TiffFile, TiffPage

__all__ = ["is_tiff", "read_tiff", "tiff_size", "write_tiff"]

Samples = npt.NDArray[Any]
"""uint8 or uint16, ``(H, W, S)``."""

_SIGNATURES: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Values of the tag PhotometricInterpretation
_WHITE_IS_ZERO, _RGB, _PALETTE, _MASK, _CMYK, _YCBCR, _CIELAB, _ICCLAB = 0, 2, 3, 4, 5, 6, 8, 9
_COLOURS: Final = {0: 1, 1: 1, _PALETTE: 1, _RGB: 3, _CMYK: 4, _YCBCR: 3, _CIELAB: 3, _ICCLAB: 3}
"""Photometric interpretation to samples a pixel, opacity not counted."""
_RAW: Final = frozenset({32803, 34892})
"""Colour filter array and linear raw: what DNG files hold."""
_TO_RGB: Final = frozenset({6, 7, 34892, 34712, 50001})
"""Compressions (JPEG, JPEG 2000, WebP) whose decoders turn YCbCr to RGB."""
_ALONE: Final = frozenset({1, 8, 32773, 32946, 34925})
"""Compressions that tifffile decodes by itself: none, deflate, PackBits, LZMA."""
_ASSOCIATED, _UNASSOCIATED = 1, 2
_STRIP_BYTES: Final = 1 << 20

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs every oddity of a damaged file


def is_tiff(path: Path) -> bool:
    """Whether the file begins as TIFF or BigTIFF files do."""
    with decoding(path), path.open("rb") as file:
        return file.read(4) in _SIGNATURES


def tiff_size(path: Path) -> tuple[int, int]:
    """Width and height as stored; InputError where there is no photo in the file, or one of a kind that is not read."""
    from tifffile import TiffFile

    with decoding(path), TiffFile(path) as tif:
        page = _photo(path, tif)
        _check_kind(path, page)
        return page.imagewidth, page.imagelength


def read_tiff(path: Path, max_megapixels: int) -> Stored:
    """Decode the photo of a TIFF file.

    Raises InputError for one that is damaged, too large, of several pages, a camera's raw data, or of samples that
    are signed, floating-point or of more than 16 bits.
    """
    from tifffile import TiffFile

    with decoding(path), TiffFile(path) as tif:
        page = _photo(path, tif)
        check_size(path, page.imagewidth, page.imagelength, max_megapixels)
        _check_kind(path, page)
        if _is_known(page):
            stored = _coloured(path, page, _interleaved(page))
        else:
            stored = _by_libtiff(path, tif, page)
        if any(other.photometric == _MASK for other in _all_pages(tif)):
            stored.notes.append("a mask, which hides parts of the photo, was left out")
        value = page.tags.valueof(274, 1)
        stored.orientation = int(value) if value in range(1, 9) else 1
        stored.metadata = _metadata(tif, page, stored.notes)
        return stored


def _all_pages(tif: TiffFile) -> list[TiffPage]:
    """The pages of a file and the sub-pages of each."""
    found: list[Any] = []
    for page in tif.pages:
        found += [page, *(page.pages or ())]
    return found


def _photo(path: Path, tif: TiffFile) -> TiffPage:
    """The page that is the photo."""
    pages = [page for page in _all_pages(tif) if page.imagewidth and page.imagelength]
    whole = [page for page in pages if not page.subfiletype & ~2 and page.photometric != _MASK]  # 2: one page of many
    if len(whole) > 1:
        raise InputError(f"{shown(path)}: a TIFF with {len(whole)} pages: save its pages as files of their own first")
    if not pages:
        raise ValueError("no page with pixels")
    return whole[0] if whole else max(pages, key=lambda page: page.imagewidth * page.imagelength)


def _check_kind(path: Path, page: TiffPage) -> None:
    name, bits = shown(path), page.bitspersample
    if page.photometric in _RAW:
        raise InputError(
            f"{name}: a camera's raw data: develop it first, with darktable or RawTherapee, and save it as TIFF or JPEG"
        )
    if page.photometric not in _COLOURS:
        raise InputError(f"{name}: a TIFF of kind {page.photometric}, which is not read: save it as RGB first")
    if page.sampleformat != 1 or bits > 16:
        kind = {2: "signed ", 3: "floating-point "}.get(int(page.sampleformat), "")
        raise InputError(f"{name}: has {kind}samples of {bits} bits: save it with 8 or 16 bits first")


def _is_known(page: TiffPage) -> bool:
    """Whether tifffile can decode the page, with the codecs that are installed."""
    from tifffile import TIFF

    if page.photometric == _YCBCR and page.compression not in _TO_RGB and page.subsampling not in (None, (1, 1)):
        return False
    if not _has_codecs():
        return page.compression in _ALONE and page.predictor in (1, 2) and page.bitspersample in (1, 2, 4, 8, 16)
    return page.compression in TIFF.DECOMPRESSORS and page.predictor in TIFF.UNPREDICTORS


def _has_codecs() -> bool:
    return importlib.util.find_spec("imagecodecs") is not None


def _interleaved(page: TiffPage) -> Samples:
    """Samples of a page, ``(H, W, S)``, uint8 or uint16, unscaled."""
    array = page.asarray(maxworkers=1)
    shape = (page.samplesperpixel, page.imagelength, page.imagewidth)
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        array = np.moveaxis(array.reshape(shape), 0, -1)
    array = array.reshape(*shape[1:], shape[0])
    return array.astype(np.uint16 if page.bitspersample > 8 else np.uint8, copy=False)


def _coloured(path: Path, page: TiffPage, samples: Samples) -> Stored:
    """Samples as colour of 8 bits and opacity, by TIFF 6.0, sections 3 to 8, 16, 18 and 20 to 23."""
    count = _COLOURS[page.photometric]
    if samples.shape[2] < count:
        raise ValueError(f"{samples.shape[2]} samples for a pixel instead of {count}")
    colour, extra = samples[..., :count], samples[..., count:]
    if page.photometric == _PALETTE:
        table = np.asarray(page.colormap, np.uint16)
        return Stored(image=_pil((table >> 8).astype(np.uint8).T[colour[..., 0].clip(max=table.shape[1] - 1)], "RGB"))
    depth = 16 if page.bitspersample > 8 else 8
    most, full = (1 << page.bitspersample) - 1, (1 << depth) - 1
    if most != full:
        colour, extra = (((part.astype(np.uint32) * full + most // 2) // most).astype(samples.dtype)
                         for part in (colour, extra))  # fmt: skip
    if page.photometric == _WHITE_IS_ZERO:
        colour = full - colour
    kinds = [int(kind) for kind in page.extrasamples] or [_UNASSOCIATED]
    place = next((i for i, kind in enumerate(kinds[: extra.shape[2]]) if kind in (_ASSOCIATED, _UNASSOCIATED)), None)
    alpha = None if place is None else np.ascontiguousarray(extra[..., place])
    if alpha is not None and place is not None and kinds[place] == _ASSOCIATED:
        colour = _divided(colour, alpha, full)
    image = _image(page, colour)
    if depth == 16 and image.mode not in ("L", "RGB"):
        depth, alpha = 8, None if alpha is None else at_depth(alpha, 8)
        return Stored(image=image, alpha=alpha, notes=["a kind of 16-bit picture that comes back with 8 bits"])
    return Stored(image=image, alpha=alpha, depth=depth)


def _divided(colour: Samples, alpha: Samples, full: int) -> Samples:
    """Colour that opacity was multiplied into, as it was before."""
    share = np.maximum(alpha, 1)[..., None].astype(np.uint32)
    return np.asarray(np.minimum((colour.astype(np.uint32) * full + share // 2) // share, full), colour.dtype)


def _image(page: TiffPage, colour: Samples) -> PilImage.Image:
    """Full-range colour samples as a picture of 8 bits in Pillow's mode for them."""
    from PIL import Image as PilImage

    deep = colour.dtype == np.uint16
    if page.photometric in (_CIELAB, _ICCLAB):  # a and b: signed, or with an offset, in units of 1/256
        shift, sign = (8, 0x8000) if deep else (0, 0x80)
        tones = (colour[..., 1:] ^ (sign if page.photometric == _CIELAB else 0)) >> shift
        bands = [at_depth(colour[..., 0], 8), *np.moveaxis(tones.astype(np.uint8), -1, 0)]
        return PilImage.merge("LAB", [PilImage.fromarray(np.ascontiguousarray(band)) for band in bands])
    pixels = at_depth(colour, 8)
    if page.photometric == _CMYK:
        return _pil(pixels, "CMYK")
    if page.photometric == _YCBCR and page.compression not in _TO_RGB:
        return _pil(pixels, "YCbCr").convert("RGB")
    return _pil(pixels, "L" if pixels.shape[2] == 1 else "RGB")


def _pil(pixels: npt.NDArray[np.uint8], mode: str) -> PilImage.Image:
    from PIL import Image as PilImage

    height, width = pixels.shape[:2]
    return PilImage.frombytes(mode, (width, height), np.ascontiguousarray(pixels).tobytes())


def _by_libtiff(path: Path, tif: TiffFile, page: TiffPage) -> Stored:
    """Decode a page through Pillow, or, with 16 bits of red, green and blue, through OpenCV."""
    import cv2
    from PIL import Image as PilImage

    number = next((number for number, other in enumerate(tif.pages) if other is page), None)
    grey = page.photometric in (0, 1) and page.samplesperpixel == 1
    if number is not None and (page.bitspersample <= 8 or (grey and page.bitspersample in (12, 16))):
        with pillow(), PilImage.open(path, formats=["TIFF"]) as image:
            image.seek(number)
            tags = image.tag_v2  # type: ignore[attr-defined]
            tags.pop(274, None)  # else Pillow turns it
            image.load()
            if page.bitspersample > 8:
                return _coloured(path, page, np.array(image).astype(np.uint16)[..., None])
            picture, alpha = split_alpha(image)
            return Stored(image=picture, alpha=alpha)
    plain = page.photometric == _RGB and page.planarconfig == 1 and page.compression in (5, *_ALONE)
    if plain and number == 0 and page.bitspersample == 16:
        wide = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if wide is not None and wide.dtype == np.uint16 and wide.ndim == 3 and wide.shape[2] == page.samplesperpixel:
            return _coloured(path, page, wide[..., [2, 1, 0, 3][: wide.shape[2]]])
    kind = getattr(page.compression, "name", page.compression)
    raise InputError(
        f"{shown(path)}: a TIFF with {page.bitspersample} bits in {kind} needs a package that is "
        "not installed: pip install imagecodecs"
    )


def _metadata(tif: TiffFile, page: TiffPage, notes: list[str]) -> Metadata:
    """What the tags of the photo's page, or else of the file's first page, say about the photo."""
    pages: list[Any] = [page, tif.pages.first]

    def raw(code: int) -> bytes | None:
        for tag in filter(None, (each.tags.get(code) for each in pages)):
            tif.filehandle.seek(tag.valueoffset)
            return tif.filehandle.read(tag.valuebytecount) or None
        return None

    dpi = None
    if page.tags.valueof(296, 2) in (2, 3) and 282 in page.tags and 283 in page.tags:
        across, down = page.get_resolution("inch")
        dpi = (across, down) if 1 <= across < 1e5 and 1 <= down < 1e5 else None
    exif = None
    try:
        described = next((each for each in pages if any(code in each.tags for code in DESCRIPTIVE - {274})), page)
        exif = _exif(tif, described.offset)
    except Exception:  # Pillow lets every kind of error out
        notes.append("the tags of this kind of TIFF were not taken over")
    iptc = raw(33723) or iptc_from_photoshop(raw(34377) or b"")
    return Metadata(exif=exif, xmp=raw(700), iptc=iptc, icc=raw(34675), dpi=dpi)


def _exif(tif: TiffFile, offset: int) -> bytes | None:
    """An EXIF block of the tags that tell about the photo, or None where there are none."""
    from PIL.Image import Exif

    with pillow():
        found, kept = Exif(), Exif()
        found.endian = kept.endian = tif.byteorder
        found.bigtiff = tif.is_bigtiff
        found.load_from_fp(tif.filehandle, offset)  # type: ignore[arg-type]  # a file to all intents
        for tag in sorted(DESCRIPTIVE & found.keys()):
            kept[tag] = dict(found.get_ifd(tag)) if tag in SUB_DIRECTORIES else found[tag]
        if INTEROP_IFD in kept.get(EXIF_IFD, {}):
            kept[EXIF_IFD][INTEROP_IFD] = found.get_ifd(INTEROP_IFD)
        return kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else None


def write_tiff(pixels: Samples, metadata: Metadata, level: int) -> bytes:
    """A TIFF of deflated strips from RGB or RGBA ``(H, W, 3 or 4)``, uint8 or uint16.

    The EXIF block, a small TIFF file itself, is the beginning of the file: all its offsets stay true, those inside
    makers' notes included.  Raises OutputError beyond 4 GiB.
    """
    from tifffile import TiffWriter

    exif = metadata.exif or b"II*\0" + struct.pack("<IHI", 8, 0, 0)
    order = "<" if exif[:2] == b"II" else ">"
    stub = len(exif) + len(exif) % 2
    file = io.BytesIO(_with_directory(exif, {274: struct.pack(order + "HHIHH", 274, 3, 1, 1, 0)}))
    extra = ((700, 1, metadata.xmp), (33723, 7, metadata.iptc))
    with TiffWriter(file, append=True) as writer:
        writer.write(
            pixels,
            photometric="rgb",
            planarconfig="contig",
            extrasamples=["unassalpha"] if pixels.shape[2] == 4 else None,
            compression="zlib",
            compressionargs={"level": level},
            predictor=True,
            rowsperstrip=min(max(1, _STRIP_BYTES // pixels[0].nbytes), len(pixels)),
            iccprofile=metadata.icc,
            resolution=metadata.dpi,
            resolutionunit="inch" if metadata.dpi else None,
            software=False,
            metadata=None,
            extratags=[(tag, kind, len(raw), raw, True) for tag, kind, raw in extra if raw],
        )
    data = file.getvalue()
    if len(data) >= 1 << 32:
        raise OutputError("a TIFF holds at most 4 GiB: use PNG")
    (start,) = struct.unpack_from(order + "I", data, stub + 2 + 12)
    (count,) = struct.unpack_from(order + "H", data, start)
    layout = [data[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
    entries = {int(struct.unpack_from(order + "H", entry)[0]): entry for entry in layout}
    return _with_directory(data, descriptive_entries(exif) | entries)


def _with_directory(tiff: bytes, entries: dict[int, bytes]) -> bytes:
    """A TIFF with a first directory of these entries (TIFF 6.0, section 2) behind all else in the file."""
    order = "<" if tiff[:2] == b"II" else ">"
    start = len(tiff) + len(tiff) % 2
    table = struct.pack(order + "H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    return tiff[:4] + struct.pack(order + "I", start) + tiff[8:].ljust(start - 8, b"\0") + table
