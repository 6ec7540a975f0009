"""Every setting of a training run, in one frozen record that is saved with it."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from training.errors import CheckpointError
from training.files import write_file
from training.generator.config import GeneratorConfig
from training.look_names import ANCHORS

__all__ = ["DISCRIMINATORS", "PRECISIONS", "WARMUPS", "TrainConfig"]

DISCRIMINATORS = ("patch", "projected")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
WARMUPS = ("pairs", "content")

AT_LEAST_ONE = (
    "batch", "generator_steps", "discriminator_steps", "warmup_back_every", "identity_every", "frame_every",
    "save_every", "sample_every", "workers", "ndf",
)  # fmt: skip
NOT_NEGATIVE = (
    "warmup_steps", "steps", "epochs", "lr", "warmup_lr", "look_lr", "lambda_gan", "lambda_cycle", "lambda_identity",
    "lambda_pair", "lambda_detail", "lambda_edge", "lambda_flat", "lambda_structure", "lambda_frame", "pool_size",
    "clip", "threads", "seed",
)  # fmt: skip
SHARES = ("decay_start", "label_smoothing", "ema")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a run; defaults are the recipe of the model `classic`."""

    photos: str
    """Folder of domain A: photos."""
    art: str
    """Folder of domain B: flat, layered art; not looked at where a teacher paints the targets."""
    out: str
    """Folder that holds the numbered run folders."""
    samples: str | None = None
    """Photos for the sample grids; default: the first of `photos`."""
    cache: str | None = None
    """Folder for flattened photos, the slow part of the pseudo-pairs; default: `flat` inside `out`."""
    init: str | None = None
    """Generator to start from, a generator.safetensors of the same architecture and looks; a wider `light` one is
    narrowed to its strongest channels (`training.generator.narrow`)."""
    teacher: str | None = None
    """Generator whose output takes the place of pseudo-pairs and art (see `train-generator distill`)."""
    check_folders: bool = True
    """Read every image once before training, and refuse folders that look swapped; without it, images that cannot be
    read are left out as they come up."""

    architecture: str = "resnet9-skip"
    """`resnet9`: the plain net; `resnet9-skip`: with feature skips; `light`: a quarter of the resolution inside (not
    the model of that name, which paints in layers)."""
    ngf: int = 32
    """Channels of the generator's first convolution."""
    n_blocks: int = 9
    """Residual blocks."""
    n_downsampling: int = 2
    """Stride-2 convolutions: 3 gives the wider generator with d256 and u128."""
    upsample: str = "resize"
    """`resize` or `transposed`."""
    looks: tuple[str, ...] = tuple(ANCHORS)
    """Looks that the generator learns; one name alone gives a plain generator."""
    discriminator: str = "patch"
    """`patch`: PatchGANs with the least-squares loss; `projected`: heads on pretrained features with the hinge loss
    (Sauer et al. 2021)."""
    ndf: int = 64
    """Channels of the discriminator's first convolution, or of a projected one's heads."""
    scales: int = 2
    """PatchGANs, each at half the size of the one before; 1 is the plain one."""
    dense: bool = False
    """PatchGANs give one score per image instead of one per patch."""
    feature_strides: tuple[int, ...] = (4, 8, 16)
    """Strides of the features that a projected discriminator looks at: of 4, 8, 16 and 32."""

    warmup: str = "pairs"
    """What the warm-up teaches: `pairs` (photo to pseudo-pair) or `content` (photo to itself, as in AnimeGAN)."""
    warmup_steps: int = 2000
    """Supervised steps before the adversarial part."""
    warmup_back_every: int = 3
    """netG_B, the way back, learns in every k-th warm-up step only (it never ships)."""
    steps: int = 4000
    """Adversarial steps."""
    epochs: int | None = None
    """Adversarial part in passes over `photos`; overrides `steps`."""
    decay_start: float = 0.5
    """Share of the adversarial part after which the learning rate falls linearly to zero."""
    batch: int = 1
    """Images of each domain in one step, over all processes."""
    crop: int = 160
    """Side of the training crops, in pixels, a multiple of 8."""
    views: bool = True
    """Crops take the statistics of a view of their whole picture, as in use; a step then has twice the images."""
    zoom: tuple[float, float] = (0.5, 2.5)
    """Range of the scale at which photos are cropped; above 1 stands for high resolution."""
    lr: float = 2e-4
    """Learning rate of Adam (0.5, 0.999)."""
    warmup_lr: float = 3e-4
    """Learning rate of the supervised part."""
    look_lr: float = 3.0
    """Factor on the learning rate of the looks' scales and shifts: each sees only its own images."""
    generator_steps: int = 1
    """Generator updates per step: more of them help when the discriminator runs away."""
    discriminator_steps: int = 1
    """Discriminator updates per step."""

    lambda_gan: float = 1.0
    """Weight of the adversarial loss."""
    lambda_cycle: float = 10.0
    """Weight of |rec - real|; 0 trains without the way back, at a third of the cost."""
    lambda_identity: float = 0.5
    """Weight of |idt - real|, as a share of `lambda_cycle` (of 10 without a cycle)."""
    identity_every: int = 1
    """Compute the identity loss in every k-th step only."""
    lambda_pair: float = 2.0
    """Weight of the pseudo-pair's colours (blurred) in the adversarial part; 0: none."""
    lambda_detail: float = 0.0
    """Weight of the whole pseudo-pair, pixels and gradients, in the adversarial part; 0: none."""
    lambda_edge: float = 1.0
    """Weight of the gradient term of the supervised loss."""
    lambda_flat: float = 0.0
    """Weight of total variation."""
    lambda_structure: float = 0.0
    """Weight of 1 minus the gradient-magnitude similarity of crops to their photos: more keeps more edges."""
    lambda_frame: float = 1.0
    """Weight of the frame-difference loss: a moved, noisy copy must give the moved result."""
    frame_every: int = 4
    """Compute the frame-difference loss in every k-th step only."""
    label_smoothing: float = 0.0
    """PatchGANs pull real patches towards 1 minus this."""
    augment: bool = True
    """Differentiable augmentation of what the discriminators see (colour is left alone)."""
    pool_size: int = 50
    """Images in the pool of earlier fakes (Shrivastava et al. 2017); 0: none."""
    ema: float = 0.999
    """Decay of the moving average of the generator's weights, which is what ships."""
    clip: float = 10.0
    """Largest gradient norm of a generator update; 0: no limit."""

    precision: str = "auto"
    """`fp32`, `bf16`, `fp16`, or `auto`: what the device does fast."""
    device: str = "auto"
    """`cpu`, `cuda`, `mps`, or `auto`."""
    compile: bool = False
    """Run the networks through torch.compile; worth its minutes on a GPU."""
    threads: int = 0
    """CPU threads; 0: all."""
    workers: int = 2
    """Threads that prepare crops ahead."""
    seed: int = 0
    """Every random choice of step n follows from this and n."""
    save_every: int = 200
    """Steps between checkpoints."""
    sample_every: int = 200
    """Steps between sample grids."""
    tensorboard: bool = False
    """Write losses and grids for TensorBoard as well (extra `tensorboard`)."""

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_discriminator()
        if self.crop < 32 or self.crop % 8:
            raise ValueError(f"crops are a multiple of 8 from 32 up, got {self.crop = }")
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"zoom is a range above 0, got {self.zoom = }")
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision, got {self.precision = }; allowed: {', '.join(PRECISIONS)}")
        if self.warmup not in WARMUPS:
            raise ValueError(f"unknown warm-up, got {self.warmup = }; allowed: {', '.join(WARMUPS)}")
        unknown = [name for name in self.looks if name not in ANCHORS]
        if unknown:
            raise ValueError(f"unknown look {unknown[0]!r}; allowed: {', '.join(ANCHORS)}")
        self.generator  # noqa: B018  validates the architecture as well

    def _check_numbers(self) -> None:
        for name, value in vars(self).items():
            if any(isinstance(v, float) and not math.isfinite(v) for v in (value if type(value) is tuple else [value])):
                raise ValueError(f"{name} is a finite number, got {value}")
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} starts at 1, got {getattr(self, name)}")
        for name in NOT_NEGATIVE:
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} is not negative, got {getattr(self, name)}")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share 0..1, got {getattr(self, name)}")

    def _check_discriminator(self) -> None:
        if self.discriminator not in DISCRIMINATORS:
            raise ValueError(f"unknown discriminator {self.discriminator!r}; allowed: {', '.join(DISCRIMINATORS)}")
        if self.scales not in (1, 2, 3):
            raise ValueError(f"1 to 3 discriminator scales, got {self.scales = }")
        if self.discriminator == "patch" and self.crop < 24 * 2 ** (self.scales - 1):
            raise ValueError(f"{self.scales} discriminator scales need larger crops, got {self.crop = }")
        if self.discriminator == "projected" and (self.dense or self.label_smoothing):
            raise ValueError("dense and label_smoothing are settings of PatchGANs: leave them out with projected")
        strides = self.feature_strides
        if not strides or list(strides) != sorted({4, 8, 16, 32} & set(strides)):
            raise ValueError(f"feature_strides are of 4, 8, 16, 32, in this order, got {strides}")

    @property
    def generator(self) -> GeneratorConfig:
        """What `netG_A` looks like."""
        return GeneratorConfig(
            architecture=self.architecture,
            ngf=self.ngf,
            n_blocks=self.n_blocks,
            n_downsampling=self.n_downsampling,
            upsample=self.upsample,
            looks=self.looks,
        )

    def save(self, path: Path) -> None:
        """Write as options.json."""
        write_file(path, json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read options.json; CheckpointError names a key that this version does not know."""
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read as options.json ({error})") from error
        if not isinstance(values, dict):
            raise CheckpointError(f"{path} cannot be read as options.json: it holds no settings")
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise CheckpointError(f"{path} holds settings this version does not know: {', '.join(sorted(unknown))}")
        try:
            given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            return cls(**given)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path} holds settings that cannot be used ({error})") from error
