"""Write the pictures of the documentation: photos beside their stylizations, and a sheet for every look.

python scripts/make_sheets.py PHOTOS docs/images [--model full]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from stylize import Stylizer
from stylize.media.image.read import read_image

U8 = npt.NDArray[np.uint8]

WIDTH, HEIGHT = 420, 280


def cell(image: U8) -> U8:
    """Scaled and cropped around its centre to the size of a cell."""
    scale = max(WIDTH / image.shape[1], HEIGHT / image.shape[0])
    size = (max(WIDTH, round(image.shape[1] * scale)), max(HEIGHT, round(image.shape[0] * scale)))
    image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    top, left = (image.shape[0] - HEIGHT) // 2, (image.shape[1] - WIDTH) // 2
    return image[top : top + HEIGHT, left : left + WIDTH]


def save(path: Path, rows: list[list[U8]]) -> None:
    """Write a grid of cells as JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = np.vstack([np.hstack(row) for row in rows])
    if not cv2.imwrite(str(path), grid[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88]):
        raise SystemExit(f"Error: {path} cannot be written")
    print(path)


def main() -> None:
    """Parse the command line and write the sheets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder with photos that no generator was trained on")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="full")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the photos for the before/after sheet")
    args = parser.parse_args()
    files = sorted(p for p in args.photos.iterdir() if p.is_file())
    picked = [files[i] for i in args.only] if args.only else files[:: max(1, len(files) // 8)][:8]
    photos = [read_image(path).data for path in picked]

    def stylized(look: str | None) -> list[U8]:
        with Stylizer(model=args.model, look=look) as stylizer:
            return [cell(stylizer.image(photo)) for photo in photos]

    with Stylizer(model=args.model) as stylizer:
        looks = stylizer.looks.names
    results = stylized(None)
    pairs = [[cell(photo), result] for photo, result in zip(photos, results, strict=True)]
    save(args.out / "sheet.jpg", [[*pairs[i], *pairs[i + 1]] for i in range(0, len(pairs) - 1, 2)])
    for look in looks:
        done = stylized(look)
        save(args.out / f"look-{look}.jpg", [done[i : i + 4] for i in range(0, len(done), 4)])


if __name__ == "__main__":
    main()
