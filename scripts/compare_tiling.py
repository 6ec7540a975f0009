"""Pictures of what external statistics do: tile borders and flicker, naive, blended and ours.

Writes ``seams.png`` (a crop around tile borders) and ``flicker.png`` (one row of pixels over time), each for
three ways of using the same network: tiles normalised by their own statistics, such tiles blended over
their overlap, and ours.  Printed for each: the gradient energy across its tile borders over that across the
same lines of the picture rendered in one piece, and the PSNR against that picture.

    python scripts/compare_tiling.py PHOTO CLIP --out docs/images
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from engine.metrics import psnr
from stylize import Stylizer
from stylize.frame import Frame
from stylize.media.image.read import read_image
from stylize.media.video.probe import probe_video
from stylize.media.video.source import VideoSource

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

TILE, OVERLAP = 256, 64


def own_statistics(stylizer: Stylizer, tile: U8) -> U8:
    """A tile normalised by its own statistics: instance norm as the network was trained."""
    return stylizer.render(tile, stylizer.backend.probe(tile[None], stylizer.look_at(0.0)))


def naive(stylizer: Stylizer, image: U8) -> U8:
    """Tiles side by side."""
    out = np.empty_like(image)
    for top in range(0, image.shape[0], TILE):
        for left in range(0, image.shape[1], TILE):
            out[top : top + TILE, left : left + TILE] = own_statistics(
                stylizer, np.ascontiguousarray(image[top : top + TILE, left : left + TILE])
            )
    return out


def blended(stylizer: Stylizer, image: U8) -> U8:
    """Tiles that overlap by 64 pixels and fade into each other."""
    total, weights = np.zeros(image.shape, np.float32), np.zeros((*image.shape[:2], 1), np.float32)
    ramp = np.minimum(np.arange(1, TILE + 1), np.arange(TILE, 0, -1)).clip(max=OVERLAP) / OVERLAP
    window = (ramp[:, None] * ramp[None])[..., None].astype(np.float32)
    step = TILE - OVERLAP
    for top in [*range(0, image.shape[0] - TILE, step), image.shape[0] - TILE]:
        for left in [*range(0, image.shape[1] - TILE, step), image.shape[1] - TILE]:
            part = (slice(top, top + TILE), slice(left, left + TILE))
            total[part] += own_statistics(stylizer, np.ascontiguousarray(image[part])) * window
            weights[part] += window
    return np.rint(total / weights).astype(np.uint8)


def ours(stylizer: Stylizer, image: U8) -> U8:
    """Tiles with a halo and the statistics of the whole picture."""
    return stylizer.image(image)


def whole(model: str, image: U8) -> U8:
    """The control: the picture in one piece."""
    with Stylizer(model=model, tile=0, detail=0) as stylizer:
        return stylizer.image(image)


def every(step: int, image: U8) -> tuple[list[int], list[int]]:
    """Rows and columns that begin a tile, when tiles lie `step` pixels apart."""
    return list(range(step, image.shape[0], step)), list(range(step, image.shape[1], step))


def borders(stylizer: Stylizer, height: int, width: int) -> tuple[list[int], list[int]]:
    """Rows and columns inside a picture where the parts that are kept of two tiles meet."""
    multiple, least = stylizer.spec.multiple, stylizer.spec.min_side
    padded = (max(least, -(-side // multiple) * multiple) for side in (height, width))
    kept = [tile.region for tile in stylizer.tile_plan(*padded).tiles]
    return (
        sorted({region.top for region in kept if 0 < region.top < height}),
        sorted({region.left for region in kept if 0 < region.left < width}),
    )


def energy(image: U8, rows: list[int], columns: list[int]) -> float:
    """Mean squared difference, in levels, between the pixels on both sides of these rows and columns."""
    x = image.astype(np.float32)
    across = [x[rows] - x[[r - 1 for r in rows]], x[:, columns] - x[:, [c - 1 for c in columns]]]
    return float(np.mean(np.concatenate([part.ravel() for part in across]) ** 2))


def seam(image: U8, control: U8, rows: list[int], columns: list[int]) -> float:
    """Gradient energy across tile borders over that across the same lines of the whole-frame render.

    1: no seam, also where both are without any gradient there.  Lines of one picture are not compared with other lines
    of it: what the photo shows there differs.
    """
    own, expected = energy(image, rows, columns), energy(control, rows, columns)
    if expected == 0:
        return 1.0 if own == 0 else float("inf")
    return own / expected


def flicker(stylizer: Stylizer, frames: list[Frame], rate: float) -> list[U8]:
    """Strips of one row over time: source, frame by frame, smoothed."""
    alone = [own_statistics(stylizer, f.data) for f in frames]
    calm = [f.data for f in stylizer.transform(rate)(frames, range(len(frames)))]
    rows = [[f.data for f in frames], alone, calm]
    return [np.repeat(np.stack([x[x.shape[0] // 3] for x in row]), 4, axis=0) for row in rows]


def main() -> None:
    """Parse the command line and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--model", default="classic", help="one with instance norm (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    photo = read_image(args.photo).data
    scale = 4 * TILE / photo.shape[1]
    height = max(2, round(photo.shape[0] * scale / TILE)) * TILE
    photo = np.asarray(cv2.resize(photo, (4 * TILE, height), interpolation=cv2.INTER_AREA), np.uint8)
    ways: dict[str, Callable[[Stylizer, U8], U8]] = {"naive": naive, "blended": blended, "ours": ours}
    control = whole(args.model, photo)
    with Stylizer(model=args.model, tile=2 * TILE, detail=0, smoothing=0.5) as stylizer:
        lines = {"naive": every(TILE, photo), "blended": every(TILE - OVERLAP, photo)}
        lines["ours"] = borders(stylizer, photo.shape[0], photo.shape[1])
        cells = []
        for name, way in ways.items():
            picture = way(stylizer, photo)
            cells.append(picture[: 2 * TILE, TILE // 2 : TILE // 2 + 2 * TILE])
            ratio, likeness = seam(picture, control, *lines[name]), psnr(picture, control)
            print(f"{name}: gradient energy across tile borders {ratio:.3f} x the whole frame's, {likeness:.1f} dB")
        cv2.imwrite(str(args.out / "seams.png"), np.hstack(cells)[..., ::-1])
        info = probe_video(args.clip)
        frames = []
        with VideoSource(info) as source:
            for frame in source:
                size = (480, round(480 * frame.data.shape[0] / frame.data.shape[1] / 8) * 8)
                data = np.asarray(cv2.resize(frame.data, size, interpolation=cv2.INTER_AREA), np.uint8)
                frames.append(Frame(data=data, index=frame.index, pts=frame.pts))
                if len(frames) == 48:
                    break
        strips = flicker(stylizer, frames, float(info.rate or 30))
    cv2.imwrite(str(args.out / "flicker.png"), np.vstack(strips)[..., ::-1])


if __name__ == "__main__":
    main()
