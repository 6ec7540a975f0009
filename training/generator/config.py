"""What a generator looks like; free of torch, so that the command line can say it quickly."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ARCHITECTURES", "UPSAMPLINGS", "GeneratorConfig"]

ARCHITECTURES = ("resnet9", "resnet9-skip", "light")
UPSAMPLINGS = ("resize", "transposed")


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Everything that rebuilds a generator; travels with its checkpoint."""

    architecture: str = "resnet9-skip"
    """`resnet9` is the plain net of the CycleGAN paper; `resnet9-skip` adds two feature skips and
    keeps instance norm out of the first convolution and the up-sampling blocks; `light` works at a
    quarter of the resolution behind a pixel unshuffle."""
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
