"""Photos in: any file Pillow and pillow-heif read becomes RGB uint8, upright, in sRGB, with what travels beside it.

Refused with one line each: files that are no pictures, are cut off or damaged, hold several pictures
(animations, multi-page TIFF; a second reduced page is a preview and passes), hold floating-point
samples, or are larger than `max_megapixels`.  Of a HEIC collection the primary picture is taken.
"""

from __future__ import annotations

import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from stylize.errors import InputError
from stylize.frame import Image
from stylize.media.formats import CONTAINERS
from stylize.media.image.color import is_srgb, profile_space, srgb_profile, to_srgb
from stylize.media.image.exif import orientation_of
from stylize.media.image.metadata import Metadata
from stylize.media.image.settings import ImageSettings, shown
from stylize.media.image.tags import exif_block, file_metadata, missing_bytes, tiff_metadata

if TYPE_CHECKING:
    from PIL import Image as PilImage

__all__ = ["ImageSettings", "Picture", "image_size", "read_image"]

Alpha = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

MAX_MEGAPIXELS: Final = ImageSettings.max_megapixels
_FORMATS: Final = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "HEIF", "AVIF")
_HDR_TRANSFERS: Final = {16: "PQ", 18: "HLG"}
_TURNS: Final = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}
"""EXIF orientation to (quarter turns anticlockwise, then mirrored left to right)."""

_pillow = threading.Lock()
"""Held while Pillow decodes: its warnings and its size limit are settings of the whole process."""


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
    status = _regular(path)
    with _opened(path) as image:
        _check(path, image, max_megapixels)
        try:
            picture = _decode(path, image)
        except InputError:
            raise
        except MemoryError as error:
            raise InputError(f"{shown(path)}: too large for this machine's memory: make it smaller first") from error
        except Exception as error:  # Pillow's decoders let every kind of error out
            raise InputError(_damaged(path, error)) from error
    return replace(picture, times=(status.st_atime_ns, status.st_mtime_ns))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height as stored (not turned), from the header alone; InputError where it is no picture."""
    _regular(path)
    with _opened(path) as image:
        return image.size


def _regular(path: Path) -> Any:
    """Status of a regular, non-empty file (never opens a pipe, which would wait for ever)."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise InputError(f"{shown(path)}: no such file: check the path") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(path)}: cannot be read ({_reason(error)}): check the path and its rights") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{shown(path)}: is a folder, not a photo: use `stylize folder`")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{shown(path)}: is not a regular file: name a photo")
    if status.st_size == 0:
        raise InputError(f"{shown(path)}: the file is empty: copy it again from where it came from")
    return status


def _reason(error: BaseException) -> str:
    """An error's own words as part of one line."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(shown(" ".join(str(words).split())).split())[:160]


def _damaged(path: Path, error: BaseException) -> str:
    return f"{shown(path)}: the picture is damaged or cut off ({_reason(error)}): copy it again from where it came from"


@contextmanager
def _opened(path: Path) -> Iterator[PilImage.Image]:
    """Open a photo with Pillow, its header read; our own limit of size stands in for Pillow's."""
    import pillow_heif
    from PIL import Image as PilImage
    from PIL import UnidentifiedImageError

    with _pillow, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "HEIF" not in PilImage.OPEN:
            pillow_heif.register_heif_opener()
        PilImage.init()
        limit, PilImage.MAX_IMAGE_PIXELS = PilImage.MAX_IMAGE_PIXELS, None
        try:
            try:
                image = PilImage.open(path, formats=[name for name in _FORMATS if name in PilImage.OPEN])
            except UnidentifiedImageError as error:
                if path.suffix.lower() in (*CONTAINERS, ".avi"):
                    raise InputError(f"{shown(path)}: is a video: use `stylize video`") from error
                raise InputError(
                    f"{shown(path)}: not a picture that can be read (JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC, AVIF): "
                    "check that the file is what its name says"
                ) from error
            except PermissionError as error:
                raise InputError(f"{shown(path)}: no permission to read it: check its rights") from error
            except Exception as error:  # as in read_image
                raise InputError(_damaged(path, error)) from error
            with image:
                yield image
        finally:
            PilImage.MAX_IMAGE_PIXELS = limit


def _check(path: Path, image: PilImage.Image, max_megapixels: int) -> None:
    """Refuse what is too large or more than one picture."""
    width, height = image.size
    if width < 1 or height < 1:
        raise InputError(f"{shown(path)}: the picture has no pixels: copy it again from where it came from")
    if width * height > max_megapixels * 1_000_000:
        raise InputError(
            f"{shown(path)}: {width} x {height} pixels are more than the {max_megapixels} megapixels allowed: "
            "the file is damaged, or make the picture smaller first"
        )
    if image.format in ("HEIF", "AVIF") and (missing := missing_bytes(path)):
        raise InputError(_damaged(path, EOFError(f"{missing} bytes are missing")))
    try:
        pages = _pages(image)
    except Exception as error:  # as in read_image
        raise InputError(_damaged(path, error)) from error
    if pages > 1 and image.format == "TIFF":
        raise InputError(f"{shown(path)}: a TIFF with {pages} pages: save its pages as files of their own first")
    if pages > 1:
        raise InputError(f"{shown(path)}: an animation of {pages} frames: save it as a video and use `stylize video`")


def _pages(image: PilImage.Image) -> int:
    """How many pictures of equal standing a file holds; previews and the extras of phones do not count."""
    if image.format in ("MPO", "HEIF"):
        return 1
    count = int(getattr(image, "n_frames", 1))
    if image.format != "TIFF" or count == 1:
        return count
    full = 0
    for page in range(count):
        image.seek(page)
        full += not int(image.tag_v2.get(254, 0)) & 1  # type: ignore[attr-defined]  # bit 0: a reduced picture
    image.seek(0)
    return max(full, 1)


def _decode(path: Path, image: PilImage.Image) -> Picture:
    notes: list[str] = []
    deep = _is_deep(path, image)
    orientation = 1 if image.format == "TIFF" else _orientation(image, notes)  # Pillow turns TIFFs itself
    turned = orientation > 1 or (image.format == "TIFF" and _tag(image, 274) not in (None, 1))
    metadata = tiff_metadata(path, image, notes) if image.format == "TIFF" else None
    image.load()
    metadata = metadata or file_metadata(image)
    _note_hdr(image, notes)
    depth = 8
    alpha: Alpha | None = None
    if deep:
        image, alpha, depth = _sixteen_bits(path, image, notes)
    if depth == 8:
        image, alpha = _split_alpha(image)
    if image.mode == "F" or (image.mode == "I" and depth == 8):
        raise InputError(f"{shown(path)}: has samples of 32 bits: save it with 8 or 16 bits first")
    rgb, icc = _managed(image, metadata.icc, notes)
    data = _turn(np.asarray(rgb), orientation)
    if alpha is not None:
        alpha = _turn(alpha, orientation)
    height, width = data.shape[:2]
    metadata, lost = metadata.with_profile(icc).as_shown(width=width, height=height, turned=turned)
    return Picture(data=data, alpha=alpha, depth=depth, metadata=metadata, notes=(*notes, *lost))


def _turn(array: Any, orientation: int) -> Any:
    """Apply an EXIF orientation; always a fresh, C-contiguous array."""
    turns, mirrored = _TURNS.get(orientation, (0, False))
    array = np.rot90(array, turns) if turns else array
    return np.array(array[:, ::-1] if mirrored else array, order="C")


def _tag(image: PilImage.Image, number: int) -> Any:
    return image.tag_v2.get(number)  # type: ignore[attr-defined]


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


def _is_deep(path: Path, image: PilImage.Image) -> bool:
    """Whether the samples have 16 bits."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24:] == b"\x10"
    return image.format == "TIFF" and 16 in (_tag(image, 258) or ()) and set(_tag(image, 339) or (1,)) == {1}


def _sixteen_bits(path: Path, image: PilImage.Image, notes: list[str]) -> tuple[PilImage.Image, Alpha | None, int]:
    """Decode 16-bit samples, which Pillow cuts to their high byte or to grey; round them to 8 bits.

    Returns the 8-bit picture, the 16-bit alpha, and the depth that was kept: 8, with Pillow's picture, where
    OpenCV does not know the kind (CMYK, Lab, palettes).
    """
    import cv2
    from PIL import Image as PilImage

    wide = None
    if image.mode in ("L", "LA", "RGB", "RGBA", "RGBX", "RGBa", "I", "I;16", "I;16B"):
        wide = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if wide is None or wide.dtype != np.uint16:
        notes.append("a kind of 16-bit picture that comes back with 8 bits")
        return image, None, 8
    alpha: Any = None
    if wide.ndim == 3 and wide.shape[2] == 4:
        alpha, wide = wide[..., 3], wide[..., :3]
    elif wide.ndim == 3 and wide.shape[2] == 2:
        alpha, wide = wide[..., 1], wide[..., 0]
    levels = ((np.arange(65536, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    narrow = levels[wide]
    return PilImage.fromarray(narrow if narrow.ndim == 2 else narrow[..., ::-1].copy()), alpha, 16


def _split_alpha(image: PilImage.Image) -> tuple[PilImage.Image, npt.NDArray[np.uint8] | None]:
    """Part colour and opacity; palettes and single transparent colours count as opacity, too."""
    if image.mode == "La" or (image.mode in ("L", "1") and "transparency" in image.info):
        image = image.convert("LA")
    elif image.mode in ("PA", "RGBa") or (image.mode in ("P", "RGB") and "transparency" in image.info):
        image = image.convert("RGBA")
    if image.mode not in ("LA", "RGBA"):
        return image, None
    alpha = np.array(image.getchannel("A"))
    return image.convert("L" if image.mode == "LA" else "RGB"), alpha


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
    try:
        return to_srgb(image, icc), icc if space == "RGB" else srgb_profile()
    except ValueError:
        notes.append("the ICC profile cannot be used: colours are taken as sRGB")
        return image.convert("RGB"), None
