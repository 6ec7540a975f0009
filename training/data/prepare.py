"""From a heap of images and videos to a folder that trains well: `train-generator prepare`.

What is kept is scaled down and written as JPEG; what is dropped is listed with the reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from training.data.contact_sheet import contact_sheet
from training.data.image_io import CLIP_SUFFIXES, SUFFIXES, U8, fit, read_rgb, write_rgb
from training.errors import DataError, TrainingError
from training.files import write_text

__all__ = [
    "PrepareConfig",
    "Verdict",
    "perceptual_hash",
    "prepare",
    "scene_frames",
    "sharpness",
    "summary",
    "text_share",
]

IMAGE_SUFFIXES = SUFFIXES | {".heic", ".heif", ".gif"}


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What is kept, and how."""

    long_side: int = 640
    """Longer side of what is written, in pixels; images are never scaled up."""
    min_side: int = 256
    """Images whose shorter side is below this are dropped."""
    min_sharpness: float = 30.0
    """Variance of the Laplacian at 512 pixels below which an image counts as blurred; 0 keeps all (flat art)."""
    max_text: float = 0.08
    """Share of the picture that may be covered by text; 1 keeps all."""
    distance: int = 6
    """Two images whose 64-bit hashes differ in no more bits than this are the same one; -1 keeps all."""
    scene_change: float = 0.35
    """How unlike (0..1) a video frame must be to the last one taken."""
    frames_per_video: int = 40
    """At most this many frames of one video."""
    quality: int = 92
    """JPEG quality."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of one image or frame."""

    source: str
    """File, and time in seconds for a frame."""
    kept: str | None
    """Name of the written file; None if dropped."""
    reason: str
    """Why it was dropped: `unreadable`, `tiny`, `blurry`, `text`, `duplicate`; empty if kept."""
    detail: str = ""
    """The number, or the other file, behind the reason."""


def prepare(
    sources: Sequence[Path], out: Path, config: PrepareConfig, *, progress: Callable[[], object] = lambda: None
) -> list[Verdict]:
    """Sort files and folders into `out`: images/, report.json and sheet.jpg.

    Raises:
        DataError: a source is missing, nothing was found, or nothing was kept.
        TrainingError: `out` holds images already, or cannot be written.
    """
    files = _source_files(sources)
    _claim(out)
    verdicts: list[Verdict] = []
    hashes: list[tuple[npt.NDArray[np.bool_], str]] = []
    for path in files:
        for name, image in _images_of(path, config):
            verdict = _judge(name, image, hashes, config)
            if not verdict.reason and image is not None:
                kept = f"{len(hashes):05d}.jpg"
                hashes.append((perceptual_hash(image), kept))
                write_rgb(out / "images" / kept, fit(image, config.long_side), quality=config.quality)
                verdict = Verdict(source=name, kept=kept, reason="")
            verdicts.append(verdict)
        progress()
    _report(out, verdicts, config)
    if not hashes:
        raise DataError(f"nothing of {len(verdicts)} images was kept: {out / 'report.json'} says why")
    return verdicts


def summary(verdicts: Sequence[Verdict]) -> str:
    """One line: how many were kept, how many were dropped and why."""
    dropped = Counter(v.reason for v in verdicts if v.reason)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "none"
    return f"{sum(v.kept is not None for v in verdicts)} kept, dropped: {reasons}"


# -- judging ------------------------------------------------------------------------------------------


def _judge(
    name: str, image: U8 | None, hashes: Sequence[tuple[npt.NDArray[np.bool_], str]], config: PrepareConfig
) -> Verdict:
    if image is None:
        return Verdict(source=name, kept=None, reason="unreadable")
    if min(image.shape[:2]) < config.min_side:
        return Verdict(source=name, kept=None, reason="tiny", detail=f"{image.shape[1]}x{image.shape[0]}")
    small = fit(image, 512)
    sharp = sharpness(small)
    if sharp < config.min_sharpness:
        return Verdict(source=name, kept=None, reason="blurry", detail=f"{sharp:.1f}")
    text = text_share(small) if config.max_text < 1 else 0.0
    if text > config.max_text:
        return Verdict(source=name, kept=None, reason="text", detail=f"{text:.2f}")
    own = perceptual_hash(image)
    for other, kept in hashes:
        if int((own != other).sum()) <= config.distance:
            return Verdict(source=name, kept=None, reason="duplicate", detail=kept)
    return Verdict(source=name, kept=None, reason="")


def perceptual_hash(image: U8) -> npt.NDArray[np.bool_]:
    """64 bits that survive scaling and recompression: signs of the low frequencies (pHash, Zauner 2010)."""
    luma = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(luma.astype(np.float32))[:8, :8].ravel()
    # The first term is the brightness alone.
    return np.asarray(low > np.median(low[1:]), np.bool_)


def sharpness(image: U8) -> float:
    """Variance of the Laplacian of the luma (Pech-Pacheco et al. 2000)."""
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def text_share(image: U8) -> float:
    """Share of the picture inside boxes that look like lines of text.

    A morphological gradient, closed sideways, joins the letters of a line to one box; boxes that are
    wide, low and densely filled with letter-sized pieces count.
    """
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    gradient = cv2.morphologyEx(luma, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    _, strokes = cv2.threshold(gradient, 90, 255, cv2.THRESH_BINARY)
    lines = cv2.morphologyEx(strokes, cv2.MORPH_CLOSE, np.ones((1, 13), np.uint8))
    _, _, boxes, _ = cv2.connectedComponentsWithStats(lines)
    covered = 0.0
    values: list[list[int]] = boxes[1:].tolist()
    for x, y, w, h, area in values:
        if not (6 <= h <= image.shape[0] // 8 and w >= 3 * h and area >= 0.45 * w * h):
            continue
        letters = cv2.connectedComponents(strokes[y : y + h, x : x + w])[0] - 1
        if w / (2.5 * h) <= letters <= 4 * w / h:
            covered += w * h
    return float(covered / (image.shape[0] * image.shape[1]))


# -- reading ------------------------------------------------------------------------------------------


def _source_files(sources: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            found = (p for p in source.rglob("*") if not p.name.startswith("."))
            files += sorted(p for p in found if p.suffix.lower() in IMAGE_SUFFIXES | CLIP_SUFFIXES)
        elif source.is_file():
            files.append(source)
        else:
            raise DataError(f"{source} does not exist: give files or folders")
    if not files:
        raise DataError("no images or videos were found: give other files or folders")
    return files


def _images_of(path: Path, config: PrepareConfig) -> Iterator[tuple[str, U8 | None]]:
    """Name and pixels of an image, or of the scenes of a video; None where it cannot be read."""
    if path.suffix.lower() not in CLIP_SUFFIXES:
        yield str(path), _read_image(path)
        return
    try:
        for seconds, frame in scene_frames(path, threshold=config.scene_change, limit=config.frames_per_video):
            yield f"{path} at {seconds:.2f} s", frame
    except DataError:
        yield str(path), None


def _read_image(path: Path) -> U8 | None:
    """The whole image, upright; None if any part of it is missing."""
    from PIL import Image, ImageOps

    try:
        if path.suffix.lower() in (".heic", ".heif"):
            import pillow_heif

            pillow_heif.register_heif_opener()
        with Image.open(path) as image:
            image.load()  # fails on a truncated file, where OpenCV would fill up with grey
            upright = ImageOps.exif_transpose(image)
            return np.ascontiguousarray(_flat_rgb(upright), np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _flat_rgb(image: object) -> npt.NDArray[np.uint8]:
    from PIL import Image

    assert isinstance(image, Image.Image)
    if "A" in image.getbands() or "transparency" in image.info:
        backdrop = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(backdrop, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"), np.uint8)


def scene_frames(path: Path, *, threshold: float, limit: int, every: float = 0.5) -> Iterator[tuple[float, U8]]:
    """Time in seconds and pixels of frames unlike the one taken before; at most `limit`.

    The colours of a 4x4 grid of the picture, as histograms, are compared twice a second.
    DataError if the file is no readable video.
    """
    import av

    taken, last, due = 0, None, 0.0
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                seconds = float(frame.time or 0.0)
                if seconds < due:
                    continue
                due = seconds + every
                image = np.ascontiguousarray(frame.to_ndarray(format="rgb24"), np.uint8)
                look = _grid_histogram(image)
                if last is None or 0.5 * float(np.abs(look - last).sum()) / 16 >= threshold:
                    yield seconds, np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
                    last, taken = look, taken + 1
                if taken == limit:
                    return
    except (av.FFmpegError, IndexError, OSError) as error:
        raise DataError(f"{path} cannot be decoded ({error}): remove it") from error


def _grid_histogram(image: U8) -> npt.NDArray[np.float64]:
    """Histograms of 4x4 cells, each adding up to 1: ``(16, 64)``."""
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA) // 64
    codes = (small[..., 0] * 16 + small[..., 1] * 4 + small[..., 2]).reshape(4, 16, 4, 16).transpose(0, 2, 1, 3)
    return np.stack([np.bincount(cell.ravel(), minlength=64) / 256 for cell in codes.reshape(16, 16, 16)])


# -- writing ------------------------------------------------------------------------------------------


def _claim(out: Path) -> None:
    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{out} cannot be created ({error}): choose another --out") from error
    if any((out / "images").iterdir()):
        raise TrainingError(f"{out} holds images already: choose an empty --out")


def _report(out: Path, verdicts: Sequence[Verdict], config: PrepareConfig) -> None:
    values = {"settings": asdict(config), "summary": summary(verdicts), "images": [asdict(v) for v in verdicts]}
    write_text(out / "report.json", json.dumps(values, indent=2) + "\n")
    kept = [v.kept for v in verdicts if v.kept is not None]
    some = kept[:: max(1, len(kept) // 60)][:60]
    if some:
        across = min(6, len(some))
        tiles = [read_rgb(out / "images" / name) for name in some[: len(some) // across * across]]
        contact_sheet(out / "sheet.jpg", {f"column {c + 1}": tiles[c::across] for c in range(across)}, width=240)
