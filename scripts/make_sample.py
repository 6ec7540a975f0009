"""Render a sample clip: a photo-like mountain landscape that the camera pans along, with sound.

Everything is computed here (fractal noise, parallax, haze, grain, wind and birds), so the repository
needs no footage to show what it does.  Writes H.264 and AAC.

    python scripts/make_sample.py hike.mp4
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
SAMPLE_RATE = 48_000


def fractal(rng: np.random.Generator, height: int, width: int, *, octaves: int = 7, gain: float = 0.55) -> F32:
    """Value noise summed over octaves, 0..1, ``(height, width)``."""
    total = np.zeros((height, width), np.float32)
    amplitude, norm = 1.0, 0.0
    for octave in range(octaves):
        cells = rng.random((2 ** (octave + 1) + 1, 2 ** (octave + 1) * max(1, width // height) + 1), np.float32)
        total += amplitude * cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
        norm += amplitude
        amplitude *= gain
    return np.clip(total / norm, 0, 1)


def ridge(rng: np.random.Generator, width: int, roughness: float) -> F32:
    """The skyline of one mountain range, 0..1, by midpoint displacement."""
    points = np.array([0.5, 0.5], np.float32)
    spread = 0.5
    while len(points) < width:
        middle = (points[1:] + points[:-1]) / 2 + rng.normal(0, spread, len(points) - 1).astype(np.float32)
        points = np.insert(points, np.arange(1, len(points)), middle).astype(np.float32)
        spread *= roughness
    return cv2.resize(points[None], (width, 1), interpolation=cv2.INTER_AREA)[0]


class Layer:
    """One mountain range or forest edge, wider than the picture, that moves by its own distance."""

    def __init__(self, rng: np.random.Generator, index: int, count: int, height: int, width: int) -> None:
        near = index / (count - 1)
        self.speed = 0.15 + near**2 * 0.85
        span = 2 * width
        base = height * (0.42 + 0.5 * near)
        skyline = base - (ridge(rng, span, 0.5 + 0.08 * near) - 0.5) * height * (0.35 - 0.12 * near)
        if near > 0.55:
            skyline -= self._trees(rng, span, height * 0.10 * near)
        rock = np.array([96, 92, 88], np.float32) * (1 - near) + np.array([62, 84, 40], np.float32) * near
        texture = fractal(rng, height, span, octaves=9, gain=0.75)
        grain = rng.normal(0, 0.10 + 0.10 * near, (height, span)).astype(np.float32)
        light = cv2.GaussianBlur(texture, (0, 0), 3) - cv2.GaussianBlur(texture, (0, 0), 12)
        shade = np.clip(0.45 + 1.1 * (texture - 0.4) + 3.0 * light + grain * 0.5, 0.05, 1.6)
        self.color = rock[None, None] * shade[..., None]
        haze = np.array([188, 205, 224], np.float32)
        self.color += (haze - self.color) * (1 - near) ** 1.3 * 0.85
        rows = np.arange(height, dtype=np.float32)[:, None]
        self.alpha = np.clip(rows - skyline[None], 0, 1)

    @staticmethod
    def _trees(rng: np.random.Generator, span: int, tall: float) -> F32:
        """Heights of a row of conifers above the skyline."""
        out = np.zeros(span, np.float32)
        at = 0
        while at < span:
            half = int(max(3, tall * rng.uniform(0.12, 0.28)))
            size = tall * rng.uniform(0.5, 1.3)
            x = np.arange(max(0, at - half), min(span, at + half))
            out[x] = np.maximum(out[x], size * (1 - np.abs(x - at) / half) * rng.uniform(0.75, 1.0, len(x)))
            at += int(half * rng.uniform(0.6, 1.8)) + 1
        return out

    def over(self, picture: F32, shift: float) -> F32:
        """Lay the range, moved to the left by `shift` pixels, over a picture."""
        height, width = picture.shape[:2]
        matrix = np.array([[1, 0, -shift * self.speed], [0, 1, 0]], np.float32)
        color = cv2.warpAffine(self.color, matrix, (width, height), flags=cv2.INTER_LINEAR)
        alpha = cv2.warpAffine(self.alpha, matrix, (width, height), flags=cv2.INTER_LINEAR)[..., None]
        return picture * (1 - alpha) + color * alpha


def render(width: int, height: int, count: int, seed: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield `count` RGB uint8 frames ``(height, width, 3)``."""
    rng = np.random.default_rng(seed)
    layers = [Layer(rng, i, 6, height, width) for i in range(6)]
    clouds = fractal(rng, height, 2 * width, octaves=8, gain=0.6)
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    sky = np.array([82, 132, 206], np.float32) * (1 - down) + np.array([206, 220, 232], np.float32) * down
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    sun = np.exp(-np.hypot(xs - width * 0.7, ys - height * 0.22) / (height * 0.16))[..., None]
    for n in range(count):
        shift = n * width * 0.0035
        moved = cv2.warpAffine(
            clouds, np.array([[1, 0, -shift * 0.1 - n * 0.2], [0, 1, 0]], np.float32), (width, height)
        )
        cover = np.clip((moved - 0.52) * 5, 0, 1)[..., None] * 0.85
        picture = sky * (1 - cover) + np.array([244, 244, 246], np.float32) * cover
        for layer in layers:
            picture = layer.over(picture, shift)
        picture = picture + sun * np.array([120, 100, 60], np.float32)
        picture = picture + rng.normal(0, 2.5, picture.shape).astype(np.float32)
        yield np.clip(picture, 0, 255).astype(np.uint8)


def sound(seconds: float, seed: int) -> npt.NDArray[np.int16]:
    """Wind and a few birds: int16 stereo ``(samples, 2)`` at 48 kHz."""
    rng = np.random.default_rng(seed)
    n = int(seconds * SAMPLE_RATE)
    t = np.arange(n) / SAMPLE_RATE
    spectrum = np.fft.rfft(rng.normal(0, 1, n))
    spectrum *= 1 / (1 + (np.fft.rfftfreq(n, 1 / SAMPLE_RATE) / 250) ** 2)
    wind = np.fft.irfft(spectrum, n)
    wind *= (0.6 + 0.4 * np.sin(2 * np.pi * t / 3.1)) * 0.25 / np.abs(wind).max()
    channels = np.stack([wind, np.roll(wind, 400)], 1)
    for start in np.arange(0.4, seconds, 1.3):
        chirp = np.clip(t - start, 0, 0.18)
        tone = np.sin(2 * np.pi * (3200 * chirp + 6000 * chirp**2)) * np.sin(np.pi * chirp / 0.18) * 0.12
        channels[:, int(start * 7) % 2] += tone
    return (channels.clip(-1, 1) * 32767).astype(np.int16)


def write(target: Path, width: int, height: int, seconds: float, rate: int, seed: int) -> None:
    """Encode the rendered frames and the sound into one file."""
    count = round(seconds * rate)
    with tempfile.TemporaryDirectory() as folder:
        track = Path(folder) / "sound.wav"
        with wave.open(str(track), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(sound(count / rate, seed).tobytes())
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate), "-i", "-"]
        command += ["-i", str(track), "-vf", "scale=out_color_matrix=bt709:out_range=limited", "-pix_fmt", "yuv420p"]
        command += ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
        command += ["-c:v", "libx264", "-crf", "20", "-c:a", "aac", "-movflags", "+faststart", str(target)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as encoder:
            assert encoder.stdin is not None
            for frame in render(width, height, count, seed):
                encoder.stdin.write(frame.tobytes())
            encoder.stdin.close()
        if encoder.returncode:
            raise SystemExit(f"Error: ffmpeg could not write {target}")


def main() -> None:
    """Parse the command line and write the clip."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", type=Path)
    parser.add_argument("--size", default="640x360", help="WIDTHxHEIGHT, even numbers (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=24, help="frames per second (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="another number, another landscape")
    args = parser.parse_args()
    width, height = (int(v) for v in args.size.split("x"))
    args.target.parent.mkdir(parents=True, exist_ok=True)
    write(args.target, width, height, args.seconds, args.rate, args.seed)
    print(args.target)


if __name__ == "__main__":
    main()
