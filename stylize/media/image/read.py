"""Photos in: any file that can be read becomes RGB uint8, upright, in sRGB, with what travels beside it.

Refused with one line each: files that are no pictures, are cut off or damaged, hold several pictures
(animations, multi-page TIFF; previews and masks do not count), hold floating-point samples or a camera's raw
data, or are larger than `max_megapixels`.  Of a HEIC collection the primary picture is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from stylize.errors import InputError
from stylize.files import shown
from stylize.frame import Image
from stylize.media.image.color import is_srgb, profile_space, srgb_profile, to_srgb
from stylize.media.image.exif import orientation_of
from stylize.media.image.metadata import Metadata
from stylize.media.image.opened import check_size, decoding, missing_bytes, opened, regular_file
from stylize.media.image.samples import Alpha, Stored, at_depth, split_alpha
from stylize.media.image.settings import ImageSettings
from stylize.media.image.tags import exif_block, file_metadata
from stylize.media.image.tiff import is_tiff, read_tiff, tiff_size

if TYPE_CHECKING:
    from PIL import Image as PilImage

__all__ = ["ImageSettings", "Picture", "image_size", "read_image"]

MAX_MEGAPIXELS: Final = ImageSettings.max_megapixels
_HDR_TRANSFERS: Final = {16: "PQ", 18: "HLG"}
_TURNS: Final = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}
"""EXIF orientation to (quarter turns anticlockwise, then mirrored left to right)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A decoded photo and all that has to come back with it."""

    data: Image
    """RGB uint8 ``(height, width, 3)``, upright, sRGB: what the network takes."""
    alpha: Alpha | None = None
    """Opacity ``(height, width)``, uint8, or uint16 where `depth` is 16; None where the source has none."""
    depth: int = 8
    """Bits per sample of the source, 8 or 16; a result in PNG or TIFF is written with as many."""
    metadata: Metadata = field(default_factory=Metadata)
    """EXIF, XMP and the like, already true for the upright picture."""
    times: tuple[int, int] | None = None
    """Access and modification time of the source file, in nanoseconds."""
    notes: tuple[str, ...] = ()
    """What could not be taken over, each in one line."""

    def __post_init__(self) -> None:
        if self.data.ndim != 3 or self.data.shape[2] != 3 or self.data.dtype != np.uint8:
            raise ValueError(f"a picture is RGB uint8 (H, W, 3), got {self.data.shape = }, {self.data.dtype = }")
        if self.alpha is not None and self.alpha.shape != self.data.shape[:2]:
            raise ValueError(f"alpha is (H, W) as the picture, got {self.alpha.shape = }, {self.data.shape = }")
        if self.depth not in (8, 16):
            raise ValueError(f"depth is 8 or 16, got {self.depth = }")


def read_image(path: Path, *, max_megapixels: int = MAX_MEGAPIXELS) -> Picture:
    """Read a photo: orientation applied, colour converted to sRGB, alpha and metadata kept apart.

    Raises InputError where it is missing, no picture, damaged, too large, or several pictures in one.
    """
    status = regular_file(path)
    stored = read_tiff(path, max_megapixels) if is_tiff(path) else _by_pillow(path, max_megapixels)
    with decoding(path):
        rgb, icc = _managed(stored.image, stored.metadata.icc, stored.notes)
        data = _turn(np.asarray(rgb), stored.orientation)
        height, width = data.shape[:2]
        metadata, lost = stored.metadata.with_profile(icc).as_shown(
            width=width, height=height, turned=stored.orientation > 1
        )
        return Picture(
            data=data,
            alpha=None if stored.alpha is None else _turn(stored.alpha, stored.orientation),
            depth=stored.depth,
            metadata=metadata,
            times=(status.st_atime_ns, status.st_mtime_ns),
            notes=(*stored.notes, *lost),
        )


def image_size(path: Path) -> tuple[int, int]:
    """Width and height as stored (not turned), from the header alone; InputError where it is no picture."""
    regular_file(path)
    if is_tiff(path):
        return tiff_size(path)
    with opened(path, []) as image:
        return image.size


def _by_pillow(path: Path, max_megapixels: int) -> Stored:
    """Decode anything but a TIFF."""
    notes: list[str] = []
    with opened(path, notes) as image:
        check_size(path, *image.size, max_megapixels)
        with decoding(path):
            if image.format in ("HEIF", "AVIF") and (missing := missing_bytes(path)):
                raise EOFError(f"{missing} bytes are missing")
            pages = 1 if image.format in ("MPO", "HEIF") else int(getattr(image, "n_frames", 1))
            if pages > 1:
                use = "use `stylize video`" if image.format in ("GIF", "PNG") else "save it as MP4 or GIF first"
                raise InputError(f"{shown(path)}: an animation of {pages} frames, not a photo: {use}")
            image.load()
            orientation = _orientation(image, notes)  # a PNG may tell it behind the pixels
            metadata = file_metadata(image)
            _note_hdr(image, notes)
            depth, alpha = 8, None
            if image.format == "PNG" and _png_depth(path) == 16:
                image, alpha, depth = _sixteen_bits(path, image, notes)
            elif image.mode.startswith("I;16"):  # grey HEIC of 10 or 12 bits, which stand in the upper ones of 16
                bits = int(image.info.get("bit_depth") or 16)
                levels = np.array(image).astype(np.uint32) >> (16 - bits)
                image = _grey((levels * 255 + (1 << bits >> 1) - 1) // ((1 << bits) - 1))
            if depth == 8:
                image, alpha = split_alpha(image)
    return Stored(image=image, alpha=alpha, depth=depth, orientation=orientation, metadata=metadata, notes=notes)


def _grey(levels: Any) -> PilImage.Image:
    from PIL import Image as PilImage

    return PilImage.fromarray(levels.astype(np.uint8))


def _turn(array: Any, orientation: int) -> Any:
    """Apply an EXIF orientation; always a fresh, C-contiguous array."""
    turns, mirrored = _TURNS.get(orientation, (0, False))
    array = np.rot90(array, turns) if turns else array
    return np.array(array[:, ::-1] if mirrored else array, order="C")


def _orientation(image: PilImage.Image, notes: list[str]) -> int:
    exif = exif_block(image)
    try:
        return 1 if exif is None else orientation_of(exif)
    except Exception:
        notes.append("the EXIF data is damaged: the picture is taken as upright")
        return 1


def _note_hdr(image: PilImage.Image, notes: list[str]) -> None:
    nclx = image.info.get("nclx_profile") or {}
    name = _HDR_TRANSFERS.get(nclx.get("transfer_characteristics", 0))
    if name:
        notes.append(f"an HDR photo ({name}): read as if it were SDR, its colours look flat")


def _png_depth(path: Path) -> int:
    """Bits a sample, from the header (PNG 1.2, section 4.1.1)."""
    with path.open("rb") as file:
        return file.read(25)[24]


def _sixteen_bits(path: Path, image: PilImage.Image, notes: list[str]) -> tuple[PilImage.Image, Alpha | None, int]:
    """Decode a PNG of 16 bits, which Pillow cuts to the high byte or to grey; round it to 8 bits.

    Returns the 8-bit picture, the 16-bit alpha, and the depth that was kept.
    """
    import cv2
    from PIL import Image as PilImage

    wide = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if wide is None or wide.dtype != np.uint16:
        notes.append("a kind of 16-bit picture that comes back with 8 bits")
        return image, None, 8
    wide = wide[..., None] if wide.ndim == 2 else wide
    colours = 3 if wide.shape[2] > 2 else 1
    alpha: Any = wide[..., colours] if wide.shape[2] > colours else None
    colour = wide[..., :colours][..., ::-1]
    clear = image.info.get("transparency")
    if alpha is None and clear is not None:
        alpha = np.where((colour == np.array(clear, np.uint16)).all(axis=2), 0, 65535).astype(np.uint16)
    narrow = at_depth(colour, 8)
    return PilImage.fromarray(np.ascontiguousarray(narrow[..., 0] if colours == 1 else narrow)), alpha, 16


def _managed(image: PilImage.Image, icc: bytes | None, notes: list[str]) -> tuple[PilImage.Image, bytes | None]:
    """Convert to sRGB by the profile; also the profile that results are to be written in."""
    if image.mode not in ("L", "CMYK", "LAB", "RGB"):
        image = image.convert("RGB")
    if image.mode == "LAB" and icc is None:
        from PIL import ImageCms

        icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    if icc is None:
        return image.convert("RGB"), None
    space = profile_space(icc)
    if space == "RGB" and image.mode == "L":
        image = image.convert("RGB")
    if space != image.mode:
        notes.append("the ICC profile is damaged or of another kind of picture: colours are taken as sRGB")
        return image.convert("RGB"), None
    if is_srgb(icc):
        return image, icc
    return to_srgb(image, icc), icc if space == "RGB" else srgb_profile()
