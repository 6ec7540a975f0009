"""How steady stylized clips are: frame by frame, with smoothed statistics, and with the flow filter.

The figure is the occlusion-masked warping error of the output over that of the source (Lai et al. 2018):
1.0 adds no flicker.  Prints a table, with the cost in CPU seconds, and writes JSON and, for every clip, a strip
of one row of pixels over time.

    python scripts/measure_stability.py CLIPS --model light --out docs/stability
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from stylize import Stylizer
from stylize.errors import StylizeError
from stylize.frame import Frame
from stylize.media.video.probe import probe_video
from stylize.media.video.source import VideoSource
from training.evaluation.temporal import warping_error

U8 = npt.NDArray[np.uint8]

VARIANTS: dict[str, dict[str, Any]] = {
    "frame by frame": {"smoothing": 0.0},
    "smoothed": {"smoothing": 0.5},
    "smoothed + flow": {"smoothing": 0.5, "stabilize": 1.0},
}


def read(path: Path, count: int, side: int) -> tuple[list[Frame], float]:
    """The first frames of a clip, scaled down, and its rate."""
    info = probe_video(path)
    frames = []
    with VideoSource(info) as source:
        for frame in source:
            scale = min(1.0, side / max(frame.data.shape[:2]))
            size = (round(frame.data.shape[1] * scale), round(frame.data.shape[0] * scale))
            data = np.asarray(cv2.resize(frame.data, size, interpolation=cv2.INTER_AREA), np.uint8)
            frames.append(Frame(data=data, index=frame.index, pts=frame.pts))
            if len(frames) == count:
                break
    return frames, float(info.rate or 30)


def strip(frames: list[U8]) -> U8:
    """The middle row of every frame, one under the other."""
    return np.repeat(np.stack([f[f.shape[0] // 2] for f in frames]), 3, axis=0)


def measure(model: str, look: str | None, frames: list[Frame], rate: float) -> tuple[dict[str, Any], list[U8]]:
    """Every variant's error over the source's and CPU seconds a frame, and its strip."""
    source = [f.data for f in frames]
    base = max(warping_error(source, source)[0], 1e-6)
    row: dict[str, Any] = {}
    strips = [strip(source)]
    for name, values in VARIANTS.items():
        with Stylizer(model=model, look=look, **values) as stylizer:
            transform = stylizer.transform(rate)
            list(transform(frames[:2], range(1)))  # compiles the graphs
            started = time.process_time()
            out = [f.data for f in transform(frames, range(len(frames)))]
            seconds = (time.process_time() - started) / len(frames)
        error = warping_error(source, out)[0]
        row[name] = {"ratio": error / base, "error": error, "source": base, "seconds": seconds}
        strips.append(strip(out))
    return row, strips


def main() -> None:
    """Parse the command line, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path, nargs="+", help="files, or a folder of them")
    parser.add_argument("--model", default="light")
    parser.add_argument("--look")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--side", type=int, default=480, help="long side of the frames (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    files = [file for path in args.clips for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    for path in (p for p in files if p.suffix in (".mp4", ".mov")):
        try:
            frames, rate = read(path, args.frames, args.side)
        except StylizeError as error:
            print(f"{path.name}: left out ({error})")
            continue
        measured, strips = measure(args.model, args.look, frames, rate)
        row = {"clip": path.stem, "frames": len(frames), **measured}
        rows.append(row)
        told = {name: f"{row[name]['ratio']:.2f} at {row[name]['seconds'] * 1e3:.0f} ms" for name in VARIANTS}
        print(row["clip"], told, flush=True)
        picture = np.hstack(strips)[..., ::-1]
        cv2.imwrite(str(args.out / f"{path.stem}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    (args.out / "stability.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print("| variant | median ratio | worst | CPU ms a frame |\n|---|---|---|---|")
    for name in VARIANTS:
        ratios = [row[name]["ratio"] for row in rows]
        cost = np.median([row[name]["seconds"] for row in rows]) * 1e3
        print(f"| {name} | {np.median(ratios):.2f} | {max(ratios):.2f} | {cost:.0f} |")


if __name__ == "__main__":
    main()
