"""TensorRT plans on disk: what they were made for, where they lie, whether they fit this machine.

A plan is a folder of the cache, named by the hash of everything that decides its content::

    <cache>/plans/<key>/probe.plan render.plan plan.json

TensorRT itself is not needed here; `engine.builder` makes plans, `engine.backends.tensorrt` runs them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import PlanError
from engine.files import replace_folder
from engine.spec import ModelSpec, sha256
from engine.trt.api import RUNTIMES, Machine, title

__all__ = ["GRAPHS", "PlanCache", "PlanConfig", "PlanRecord", "ShapeProfile", "default_cache", "parse_size"]

FORMAT = "firewatch-plan-1"
GRAPHS = ("probe", "render")
FILES = {"plan.json", "probe.plan", "render.plan"}
"""All that a plan folder holds."""
BARS = {"fp32": 70.0, "fp16": 45.0, "bf16": 32.0}
"""PSNR in dB that a plan must reach against the float32 reference."""

Shape = tuple[int, int, int]
"""Batch, height, width."""


@dataclass(frozen=True, kw_only=True)
class ShapeProfile:
    """Shapes that a plan can take, and the one that it is tuned for."""

    min: Shape
    """Smallest batch, height and width."""
    opt: Shape
    """What the builder times its kernels with."""
    max: Shape
    """Largest; decides how much memory a tile of that size takes, not what smaller ones take."""

    def __post_init__(self) -> None:
        for low, middle, high in zip(self.min, self.opt, self.max, strict=True):
            if not 1 <= low <= middle <= high:
                raise ValueError(f"a profile grows from min over opt to max, got {self}")

    @property
    def shapes(self) -> tuple[Shape, Shape, Shape]:
        """Smallest, usual, largest."""
        return self.min, self.opt, self.max

    def holds(self, shape: Shape) -> bool:
        """Whether a plan with this profile takes the shape."""
        return all(low <= n <= high for low, n, high in zip(self.min, shape, self.max, strict=True))

    @property
    def is_fixed(self) -> bool:
        """Whether it is of one shape alone."""
        return self.min == self.max

    def check(self, spec: ModelSpec) -> None:
        """ValueError if the model could not take one of the shapes."""
        for name in ("min", "opt", "max"):
            _, height, width = getattr(self, name)
            if height % spec.multiple or width % spec.multiple or min(height, width) < spec.min_side:
                raise ValueError(
                    f"{spec.name} takes sides that are multiples of {spec.multiple} from {spec.min_side} up, "
                    f"got {height}x{width} for --{name}"
                )

    @classmethod
    def of_tile(cls, spec: ModelSpec, height: int, width: int, batch: int) -> ShapeProfile:
        """Tuned for one size of tile and a full batch; anything smaller works too."""
        return cls(min=(1, spec.min_side, spec.min_side), opt=(batch, height, width), max=(batch, height, width))

    @classmethod
    def fixed(cls, height: int, width: int, batch: int = 1) -> ShapeProfile:
        """One shape alone, which TensorRT can tune for better: for the frames of a video."""
        shape = (batch, height, width)
        return cls(min=shape, opt=shape, max=shape)

    @classmethod
    def of_probe(cls, spec: ModelSpec) -> ShapeProfile:
        """The thumbnails that `probe` is given."""
        multiple, least = spec.view_multiple, spec.view_min_side
        side = -(-spec.probe_side // multiple) * multiple
        usual = max(least, side * 9 // 16 // multiple * multiple)
        return cls(min=(1, least, least), opt=(1, usual, side), max=(1, side, side))


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Everything that the user decides about a plan."""

    profile: ShapeProfile
    """Of `render`."""
    precision: str = "fp16"
    """Of the feature maps: fp16, bf16 or fp32 (without TF32)."""
    workspace: int = 4 << 30
    """Bytes that kernels may use beside the feature maps."""
    optimization_level: int = 3
    """0 builds at once, 5 tries everything."""
    hardware_compatible: bool = False
    """Run on every GPU from Ampere on, at some cost in speed."""
    version_compatible: bool = False
    """Run in later TensorRT versions of the same major version, at some cost in speed."""
    runtime: str = "tensorrt"
    """What runs the plan: `tensorrt`, or `rtx` for TensorRT-RTX, whose plans run on every GPU of its `TARGETS`."""

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise ValueError(f"unknown runtime, got {self.runtime!r}; allowed: {', '.join(RUNTIMES)}")
        if self.runtime == "rtx" and (self.hardware_compatible or self.version_compatible):
            raise ValueError("plans of TensorRT-RTX are portable by themselves: leave out the options for that")
        if self.precision not in BARS:
            raise ValueError(f"unknown precision, got {self.precision!r}; allowed: {', '.join(BARS)}")
        if not 0 <= self.optimization_level <= 5:
            raise ValueError(f"optimization levels run from 0 to 5, got {self.optimization_level}")
        if self.workspace < 1 << 20:
            raise ValueError(f"the workspace is at least 1 MiB, got {self.workspace} bytes")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PlanConfig:
        """Inverse of `dataclasses.asdict`."""
        shapes = {name: tuple(values["profile"][name]) for name in ("min", "opt", "max")}
        return cls(**{**values, "profile": ShapeProfile(**shapes)})


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """The sidecar plan.json."""

    model: str
    """Name of the model."""
    graphs: Mapping[str, str]
    """sha256 of the ONNX graphs that the plan was built from, by graph."""
    config: PlanConfig
    machine: Machine
    """What it was built on."""
    files: Mapping[str, str] = field(default_factory=dict)
    """sha256 of the plan files, by graph."""
    psnr: float | None = None
    """Against the float32 reference, in dB; None: not measured."""
    frames_per_second: float | None = None
    """Of tiles of the size `opt`, engine alone."""

    @property
    def key(self) -> str:
        """Name of the plan's folder."""
        decisive = [dict(self.graphs), asdict(self.config), asdict(self.machine)]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"format": FORMAT, "key": self.key, **asdict(self)}

    def save(self, folder: Path) -> None:
        """Write plan.json."""
        folder.joinpath("plan.json").write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> PlanRecord:
        """Read plan.json of a plan folder; PlanError says what is wrong with it."""
        path = folder / "plan.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("format", None) != FORMAT:
                raise PlanError(f"{path} was written by another version: build the plan again with build-engine")
            values.pop("key")
            config, machine = PlanConfig.from_dict(values.pop("config")), Machine(**values.pop("machine"))
            return cls(config=config, machine=machine, **values)
        except FileNotFoundError as error:
            raise PlanError(f"{folder} is no plan folder: build-engine list shows those there are") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PlanError(f"{path} is damaged ({error}): build the plan again with build-engine --force") from error

    def verify(self, folder: Path) -> None:
        """Compare the plan files with the sidecar; PlanError names the one that differs."""
        for graph in GRAPHS:
            path = folder / f"{graph}.plan"
            if not path.is_file() or sha256(path) != self.files.get(graph):
                raise PlanError(f"{path} is missing or damaged: {self.rebuild()} --force")

    def mismatch(self, machine: Machine, runtime: str = "tensorrt") -> str | None:
        """Why the plan cannot run on a machine by a runtime; None if it can."""
        ours, theirs = self.machine, machine
        if self.config.runtime != runtime:
            other = "tensorrt-rtx" if self.config.runtime == "rtx" else "tensorrt"
            return f"was built for {title(self.config.runtime)} (--backend {other} runs it), not for {title(runtime)}"
        if runtime == "rtx":
            if theirs.capability not in ours.capability.split():
                return (
                    f"runs on GPUs of compute capability {ours.capability}, this is {theirs.gpu} ({theirs.capability})"
                )
        elif self.config.hardware_compatible:
            if _version(theirs.capability) < (8, 0):
                return f"needs a GPU from Ampere on, this is {theirs.gpu} ({theirs.capability})"
        elif (ours.gpu, ours.capability) != (theirs.gpu, theirs.capability):
            return f"was built for {ours.gpu} ({ours.capability}), this is {theirs.gpu} ({theirs.capability})"
        built, here = _version(ours.tensorrt), _version(theirs.tensorrt)
        fits = here[:1] == built[:1] and here >= built if self.config.version_compatible else here == built
        return None if fits else f"was built with {title(runtime)} {ours.tensorrt}, this is {theirs.tensorrt}"

    def rebuild(self) -> str:
        """The command that makes such a plan on this machine."""
        c = self.config
        n, h, w = c.profile.opt
        flags = [f"--model {self.model}", f"--precision {c.precision}", f"--tile {h}x{w}", f"--batch {n}"]
        flags += ["--fixed"] if c.profile.is_fixed else []
        flags += [f"--runtime {c.runtime}"] if c.runtime != "tensorrt" else []
        flags += ["--hardware-compatible ampere+"] if c.hardware_compatible else []
        flags += ["--version-compatible"] if c.version_compatible else []
        return f"build-engine {' '.join(flags)}"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def parse_size(text: str) -> int:
    """Bytes of ``4GiB``, ``512MB``, ``1.5G`` or a plain number; ValueError for anything else."""
    number = text.strip().rstrip("iIbB")
    unit = number[-1:].upper()
    powers = {"K": 10, "M": 20, "G": 30, "T": 40}
    try:
        value = float(number[:-1]) * 2 ** powers[unit] if unit in powers else float(number)
        return int(value)
    except (ValueError, OverflowError):
        raise ValueError(f"a size is like 4GiB or 512MiB, got {text!r}") from None


def default_cache() -> Path:
    """$FIREWATCH_CACHE, or the user's cache folder."""
    if "FIREWATCH_CACHE" in os.environ:
        return Path(os.environ["FIREWATCH_CACHE"])
    from platformdirs import user_cache_path

    return user_cache_path("firewatch-stylizer")


class PlanCache:
    """The plans below a cache folder.  Only `install` and `remove` write.

    Args:
        root: cache folder; None: `default_cache`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_cache()
        self.plans = self.root / "plans"

    def folder(self, record: PlanRecord) -> Path:
        """Where a plan lies, or would."""
        return self.plans / record.key

    def records(self) -> list[tuple[Path, PlanRecord]]:
        """All readable plans, the newest first."""
        found = []
        for path in self.plans.glob("*/plan.json"):
            if not path.parent.name.startswith("."):
                try:
                    found.append((path.stat().st_mtime, path.parent, PlanRecord.load(path.parent)))
                except (PlanError, OSError):
                    continue
        return [(folder, record) for _, folder, record in sorted(found, key=lambda item: -item[0])]

    def find(
        self, graphs: Mapping[str, str], machine: Machine, runtime: str = "tensorrt", frame: Shape | None = None
    ) -> tuple[Path, PlanRecord] | None:
        """The newest plan of the ONNX graphs that runs on the machine.

        With `frame`, one of that shape alone, else one that takes the shape among others; without, none that is of
        one shape alone.
        """
        fitting = [
            (folder, record)
            for folder, record in self.records()
            if dict(record.graphs) == dict(graphs) and record.mismatch(machine, runtime) is None
        ]
        if frame is None:
            return next((found for found in fitting if not found[1].config.profile.is_fixed), None)
        holding = [found for found in fitting if found[1].config.profile.holds(frame)]
        return min(holding, key=lambda found: not found[1].config.profile.is_fixed, default=None)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock of one plan; others who build it wait."""
        from filelock import FileLock

        with self._writable():
            self.plans.mkdir(parents=True, exist_ok=True)
            held = FileLock(self.plans / f".{name}.lock")
            held.acquire()
        try:
            yield
        finally:
            held.release()

    @contextmanager
    def workplace(self, target: Path) -> Iterator[Path]:
        """A fresh folder beside `target`, so that it can be renamed; gone afterwards unless it was installed.

        PlanError where something other than a plan stands under that name, or the folder cannot be written.
        """
        if target.exists():
            strange = {"."} if not target.is_dir() else {p.name for p in target.iterdir()} - FILES
            if strange:
                raise PlanError(f"{target} holds other files: choose a new or empty folder for --output")
        with self._writable(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def install(self, built: Path, target: Path) -> None:
        """Put a finished folder in its place, whole or not at all."""
        with self._writable(target):
            replace_folder(built, target)

    def remove(self, folder: Path) -> None:
        """Delete one plan."""
        with self._writable():
            shutil.rmtree(folder)

    @contextmanager
    def _writable(self, target: Path | None = None) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            inside = target is None or target.parent == self.plans
            place, option = (self.root, "--cache or FIREWATCH_CACHE") if inside else (target, "--output")
            raise PlanError(
                f"{place} cannot be written ({error.strerror or error}): choose another folder with {option}"
            ) from error
