"""Small random generators, and pictures to try them on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.conditions import Conditions, on_grid
from engine.graphs.export import CHECKPOINT_FORMAT, export_model
from engine.program.architecture import Program
from engine.spec import ModelSpec

CONFIGS: dict[str, dict[str, Any]] = {
    "skip": {"architecture": "resnet9-skip", "ngf": 8, "n_blocks": 3, "n_downsampling": 2, "upsample": "resize"},
    "plain": {"architecture": "resnet9", "ngf": 8, "n_blocks": 2, "n_downsampling": 2, "upsample": "transposed"},
    "deep": {"architecture": "resnet9-skip", "ngf": 4, "n_blocks": 1, "n_downsampling": 3, "upsample": "resize"},
    "light": {"architecture": "light", "ngf": 16, "n_blocks": 2, "n_downsampling": 2, "upsample": "resize"},
}
LOOKS = ["auto", "dusk"]

LAYERS: dict[str, dict[str, Any]] = {
    "layers": {"trunk": "efficientnet-lite0", "head": 8, "ngf": 16, "n_blocks": 1, "pool": 1, "stride": 4},
    "layers-fast": {"trunk": "efficientnet-lite0", "head": 8, "ngf": 16, "n_blocks": 1, "pool": 2, "stride": 4},
    "layers-fine": {"trunk": "efficientnet-lite0", "head": 8, "ngf": 8, "n_blocks": 1, "pool": 1, "stride": 2},
}
"""Small nets of the architecture that has a layout; their looks are palettes."""


def config(kind: str) -> dict[str, Any]:
    """Generator config of a small net of every architecture."""
    if kind in LAYERS:
        return {"architecture": "layers", **LAYERS[kind], "looks": ["dusk", "day"]}
    return {**CONFIGS[kind], "looks": LOOKS}


def random_weights(
    values: Mapping[str, Any], *, seed: int = 0, gain: float = 1.0, amplitude: float = 1.0
) -> dict[str, npt.NDArray[np.float32]]:
    """Parameters of `Program.parameters`: He-scaled convolutions, affines near one and zero.

    Args:
        values: generator config.
        seed: of the random numbers.
        gain: of the convolutions whose norm takes it back by its statistics.
        amplitude: of the feature maps at full resolution; the head takes it back.
    """
    rng = np.random.default_rng(seed)
    program = Program.of(values)
    normed = {op.inputs[0] for op in program.ops if op.kind == "norm" and op.instance}
    gained = {op.weight for op in program.ops if op.output in normed}
    weights = {}
    for name, shape in program.parameters(len(values["looks"])).items():
        prefix, _, part = name.rpartition(".")
        if part == "weight":
            fan = int(np.prod(shape)) / (shape[1] if "up" in name and values["upsample"] == "transposed" else shape[0])
            array = rng.normal(0, np.sqrt(2 / fan), shape) * (gain if prefix in gained else 1.0)
        else:
            array = rng.uniform(0.7, 1.3, shape) if part == "gamma" else rng.normal(0, 0.1, shape)
        weights[name] = array.astype(np.float32)
    last = f"up.{values['n_downsampling'] - 1}.norm"
    for name in (f"{last}.gamma", f"{last}.beta"):
        if name in weights:
            weights[name] *= np.float32(amplitude)
    if "stem.conv" not in gained:
        weights["stem.conv.weight"] *= np.float32(amplitude)
        weights["stem.conv.bias"] *= np.float32(amplitude)
    # tanh should see its whole range, not its ends.
    weights["head.weight"] *= np.float32(0.4 / amplitude)
    return weights


def random_layers(values: Mapping[str, Any], *, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Parameters of a net of `LAYERS`: He-scaled convolutions, of which those in front of a sum are quiet.

    A trained net's fields are as smooth as these, which are near the planes that they are residuals on.
    """
    rng = np.random.default_rng(seed)
    quiet = (".project", ".conv2", "fields.leave")
    weights = {}
    for name, shape in Program.of(values).parameters(len(values["looks"])).items():
        prefix, _, part = name.rpartition(".")
        if part == "weight":
            size = np.sqrt(2 / np.prod(shape[1:])) * (0.1 if prefix.endswith(quiet) else 1.0)
            weights[name] = rng.normal(0, size, shape).astype(np.float32)
        else:
            weights[name] = rng.normal(0, 0.1, shape).astype(np.float32)
    return weights


def save_checkpoint(path: Path, values: Mapping[str, Any], weights: Mapping[str, npt.NDArray[Any]]) -> Path:
    """A safetensors file as train-generator writes it."""
    from safetensors.numpy import save_file

    save_file(dict(weights), path, metadata={"format": CHECKPOINT_FORMAT, "config": json.dumps(dict(values))})
    return path


def make_model(
    folder: Path, kind: str = "skip", *, seed: int = 0, gain: float = 1.0, amplitude: float = 1.0
) -> ModelSpec:
    """A model folder with a random generator."""
    values = config(kind)
    folder.mkdir(parents=True, exist_ok=True)
    if kind in LAYERS:
        weights = random_layers(values, seed=seed)
    else:
        weights = random_weights(values, seed=seed, gain=gain, amplitude=amplitude)
    path = save_checkpoint(folder / "checkpoint", values, weights)
    spec = export_model(path, folder)
    path.unlink()
    return spec


def landscape(height: int, width: int, *, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A structured picture ``(H, W, 3)``: sky gradient, ridges with sharp edges, sun, grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    picture = np.stack([255 - 120 * y, 150 + 60 * y, 90 + 100 * x], -1)
    for i in range(4):
        ridge = 0.35 + 0.15 * i + 0.08 * np.sin(2 * np.pi * (x * (1.3 + i) + rng.random()))
        picture[y > ridge] = rng.uniform(0, 200, 3)
    picture[(x - 0.7) ** 2 + (y - 0.2) ** 2 < 0.01] = (255, 250, 200)
    picture += rng.normal(0, 6, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def given(height: int, width: int, *, seed: int = 0, layers: float = 0) -> Conditions:
    """Conditions for a frame with a layout like a landscape's, on its grid, and a palette."""
    y, x = np.mgrid[0:12, 0:18] / np.array([12.0, 18.0]).reshape(2, 1, 1)
    ridge = 0.4 + 0.15 * np.sin(6 * x + seed)
    layout = np.stack([ridge - y + 0.5, 1 - y, y / 0.6, 1 - 2 * np.hypot(y - 0.2, x - 0.7)])
    rng = np.random.default_rng(seed)
    vectors = {
        "tone": np.array([0.1, 0.25, 0.4, 0.62, 0.7, 0.4, 0.9], np.float32),
        "sky_lut": rng.random((3, 17, 64), np.float32),
        "land_lut": rng.random((3, 64, 33), np.float32),
        "controls": np.array([4, 5, 0.3, 0.8, layers], np.float32),
    }
    whole = Conditions(vectors=vectors, maps={"layout": np.clip(layout, 0, 1).astype(np.float32)})
    return on_grid(whole, (height, width), (height, width))


def photos() -> Path | None:
    """The folder of real photos beside the repository, if there is one."""
    root = Path(os.environ.get("FIREWATCH_SHARED", Path(__file__).parents[2].parent / "shared"))
    return root / "photos" if (root / "photos").is_dir() else None
