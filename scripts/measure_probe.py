"""What the probe should look at: views compared with the whole frame, by PSNR of the picture and by cost.

The reference is whole-frame instance norm (the probe sees the frame itself).  Views: thumbnails of several
sizes, and native-scale crops normalised jointly.

    python scripts/measure_probe.py PHOTOS --model full --side 1920 --json probe.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from engine.compare import psnr
from stylize import Stylizer
from stylize.media.images import read_image

U8 = npt.NDArray[np.uint8]


def thumbnail(image: U8, side: int) -> U8:
    """One view ``(1, h, w, 3)`` with a long side of `side` pixels, multiples of 8."""
    scale = side / max(image.shape[:2])
    size = tuple(max(8, round(v * scale / 8) * 8) for v in (image.shape[1], image.shape[0]))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)[None]


def crops(image: U8, count: int, side: int) -> U8:
    """`count` views ``(count, side, side, 3)`` at native scale on a regular grid."""
    columns = int(np.ceil(np.sqrt(count * image.shape[1] / image.shape[0])))
    rows = -(-count // columns)
    ys = np.linspace(0, image.shape[0] - side, rows).astype(int)
    xs = np.linspace(0, image.shape[1] - side, columns).astype(int)
    return np.stack([image[y : y + side, x : x + side] for y in ys for x in xs][:count])


def main() -> None:
    """Parse the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="full")
    parser.add_argument("--side", type=int, default=1920, help="long side of the frames (default: %(default)s)")
    parser.add_argument("--count", type=int, default=4, help="photos (default: %(default)s)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    files = [p for p in sorted(args.photos.iterdir()) if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".heic")]
    results: dict[str, list[tuple[float, float]]] = {}
    with Stylizer(model=args.model, detail=0) as stylizer:
        look = stylizer.look_at(0.0)
        for path in files[: args.count]:
            frame = thumbnail(read_image(path).data, args.side)[0]
            reference = stylizer.render(frame, stylizer.backend.probe(frame[None], look))
            views = {f"thumbnail {side}": thumbnail(frame, side) for side in (256, 384, 512, 768, 1024)}
            views |= {f"{n} crops of {side}": crops(frame, n, side) for n, side in ((8, 128), (8, 256), (20, 128))}
            for name, view in views.items():
                stylizer.backend.probe(view, look)
                started = time.perf_counter()
                statistics = stylizer.backend.probe(view, look)
                seconds = time.perf_counter() - started
                started = time.perf_counter()
                picture = stylizer.render(frame, statistics)
                cost = seconds / (time.perf_counter() - started)
                results.setdefault(name, []).append((psnr(picture, reference), cost))
    print("| view | PSNR to whole-frame norm, median (worst), dB | cost, share of the render |\n|---|---|---|")
    for name, pairs in results.items():
        quality, cost = (np.array(values) for values in zip(*pairs, strict=True))
        print(f"| {name} | {np.median(quality):.1f} ({quality.min():.1f}) | {np.median(cost):.0%} |")
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
