"""What the probe should look at: views compared with the whole frame, by PSNR of the picture and by cost.

The reference is whole-frame instance norm (the probe sees the frame itself).  Views: thumbnails of several
sizes, and native-scale crops normalised jointly.  Of a video the middle frame counts.  Pictures smaller than
`--side` are left out; the cost is in CPU seconds.  Rendering is local, so `--samples` squares of the picture say as
much as all of it, at a fraction of the time for large ones.

    python scripts/measure_probe.py /photos/*.jpg --model classic --side 3840 --samples 6 --json probe.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from engine.conditions import Conditions
from engine.metrics import psnr
from stylize import Stylizer
from stylize.media.image.read import read_image
from stylize.media.video.probe import probe_video
from stylize.media.video.source import VideoSource

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


def read(path: Path) -> U8:
    """A photo, or the frame in the middle of a clip."""
    if path.suffix not in (".mp4", ".mov"):
        return read_image(path).data
    info = probe_video(path)
    with VideoSource(info) as source:
        frames = [frame.data for frame, _ in zip(source, range(24), strict=False)]
    return np.asarray(frames[len(frames) // 2], np.uint8)


def samples(image: U8, count: int) -> list[U8]:
    """The whole picture, or `count` squares of 384 pixels spread over it."""
    return [image] if count == 0 else list(crops(image, count, 384))


def rendered(stylizer: Stylizer, parts: list[U8], statistics: Conditions) -> U8:
    """Parts of a picture with given statistics, one after the other."""
    return np.concatenate([stylizer.render(part, statistics).reshape(-1, 3) for part in parts])


def measure(stylizer: Stylizer, frame: U8, names: list[str], count: int) -> dict[str, tuple[float, float]]:
    """PSNR against whole-frame norm, and CPU seconds over those of the render, of every view."""
    look = stylizer.look_at(0.0)
    parts = samples(frame, count)
    whole = stylizer.backend.probe(frame[None], look)
    rendered(stylizer, parts[:1], whole)  # compiles the graph
    started = time.process_time()
    reference = rendered(stylizer, parts, whole)
    render = (time.process_time() - started) * (frame.size / reference.size)
    views = {f"thumbnail {side}": thumbnail(frame, side) for side in (256, 384, 512, 768, 1024)}
    views |= {f"{n} crops of {side}": crops(frame, n, side) for n, side in ((8, 128), (8, 256), (20, 128))}
    results = {}
    for name in names or list(views):
        stylizer.backend.probe(views[name], look)
        started = time.process_time()
        statistics = stylizer.backend.probe(views[name], look)
        seconds = time.process_time() - started
        results[name] = psnr(rendered(stylizer, parts, statistics), reference), seconds / render
    return results


def main() -> None:
    """Parse the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="photos and clips")
    parser.add_argument("--model", default="classic", help="one with instance norm (default: %(default)s)")
    parser.add_argument("--side", type=int, default=1920, help="long side of the frames (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=0, help="squares that are rendered; 0: all of it")
    parser.add_argument("--views", default="", help="names of views, by commas (default: all)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results: dict[str, list[tuple[float, float]]] = {}
    with Stylizer(model=args.model, detail=0) as stylizer:
        for path in args.files:
            picture = read(path)
            if max(picture.shape[:2]) < args.side:
                print(f"{path.name}: left out, smaller than {args.side} pixels")
                continue
            frame = thumbnail(picture, args.side)[0]
            for name, pair in measure(stylizer, frame, list(filter(None, args.views.split(","))), args.samples).items():
                results.setdefault(name, []).append(pair)
                print(f"{path.name}, {name}: {pair[0]:.1f} dB, {pair[1]:.1%}", flush=True)
    print("| view | PSNR to whole-frame norm, median (worst), dB | cost, share of the render |\n|---|---|---|")
    for name, pairs in results.items():
        quality, cost = (np.array(values) for values in zip(*pairs, strict=True))
        print(f"| {name} | {np.median(quality):.1f} ({quality.min():.1f}) | {np.median(cost):.0%} |")
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
