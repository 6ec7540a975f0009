"""What a generator looks like; free of torch, so that the command line can say it quickly."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ARCHITECTURES", "TRUNKS", "UPSAMPLINGS", "GeneratorConfig", "LayersConfig"]

ARCHITECTURES = ("resnet9", "resnet9-skip", "light")
UPSAMPLINGS = ("resize", "transposed")
TRUNKS = ("efficientnet-lite0", "efficientnet-lite1")


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Everything that rebuilds a generator; travels with its checkpoint."""

    architecture: str = "resnet9-skip"
    """`resnet9` is the plain net of the CycleGAN paper; `resnet9-skip` adds two feature skips and
    keeps instance norm out of the first convolution and the up-sampling blocks; `light` works at a
    quarter of the resolution behind a pixel unshuffle (the model `light` is of another one, `layers`)."""
    ngf: int = 32
    """Channels of the first convolution (`light`: of every block)."""
    n_blocks: int = 9
    """Residual blocks."""
    n_downsampling: int = 2
    """Stride-2 convolutions: 2 gives d64, d128; 3 gives the wider net with d256 and u128."""
    upsample: str = "resize"
    """`resize` (nearest x2, then a 3x3 convolution: no checkerboard) or `transposed`."""
    looks: tuple[str, ...] = ("auto",)
    """Names of the looks, in the order of the rows of every `gamma` and `beta`."""

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"unknown architecture, got {self.architecture = }; allowed: {', '.join(ARCHITECTURES)}")
        if self.upsample not in UPSAMPLINGS:
            raise ValueError(f"unknown upsampling, got {self.upsample = }; allowed: {', '.join(UPSAMPLINGS)}")
        if self.ngf < 1 or self.n_blocks < 1 or self.n_downsampling not in (1, 2, 3):
            raise ValueError(f"got {self.ngf = }, {self.n_blocks = }, {self.n_downsampling = }")
        if not self.looks or len(set(self.looks)) != len(self.looks):
            raise ValueError(f"looks need distinct names, got {self.looks = }")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GeneratorConfig:
        """Inverse of `to_dict`; TypeError on unknown keys."""
        return cls(**{**values, "looks": tuple(values.get("looks", ("auto",)))})

    def describe(self) -> str:
        """In words, for messages."""
        return f"{self.architecture} with ngf {self.ngf}, {self.n_blocks} blocks and looks {', '.join(self.looks)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "looks": list(self.looks)}


@dataclass(frozen=True, kw_only=True)
class LayersConfig:
    """Everything that rebuilds a generator of the architecture `layers`; travels with its checkpoint."""

    architecture: str = "layers"
    """Always `layers`."""
    trunk: str = "efficientnet-lite0"
    """Frozen network whose features the layout is read from; see `training.generator.trunk`."""
    head: int = 48
    """Channels of the layout's head."""
    ngf: int = 24
    """Channels of the residual blocks of the fields, an even number."""
    n_blocks: int = 5
    """Residual blocks of the fields."""
    pool: int = 1
    """The fields are made from a picture shrunk by this: 1 or 2."""
    stride: int = 4
    """Pixel unshuffle in front of the residual blocks: 2 or 4; the fields have `pool * stride / 2` pixels each."""
    looks: tuple[str, ...] = ("dusk",)
    """Names of the palettes that the model is meant for."""

    def __post_init__(self) -> None:
        if self.architecture != "layers" or self.trunk not in TRUNKS:
            raise ValueError(f"got {self.architecture = }, {self.trunk = }; allowed: layers, {', '.join(TRUNKS)}")
        if self.ngf < 8 or self.ngf % 2 or self.n_blocks < 1 or self.head < 1:
            raise ValueError(f"ngf is even and from 8 up, got {self.ngf = }, {self.n_blocks = }, {self.head = }")
        if self.pool not in (1, 2) or self.stride not in (2, 4):
            raise ValueError(f"pool is 1 or 2, stride 2 or 4, got {self.pool = }, {self.stride = }")
        if not self.looks or len(set(self.looks)) != len(self.looks):
            raise ValueError(f"looks need distinct names, got {self.looks = }")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LayersConfig:
        """Inverse of `to_dict`; TypeError on unknown keys."""
        return cls(**{**values, "looks": tuple(values.get("looks", ("dusk",)))})

    def describe(self) -> str:
        """In words, for messages."""
        return (
            f"layers on {self.trunk} with ngf {self.ngf}, {self.n_blocks} blocks, pool {self.pool} "
            f"and stride {self.stride}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "looks": list(self.looks)}
