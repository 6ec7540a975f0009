"""The training loop: a supervised warm-up on pseudo-pairs, then CycleGAN (arXiv 1703.10593).

Names are the field's: netG_A maps photos (A) to art (B), netG_B maps back, netD_A judges art,
netD_B judges photos.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from training.checkpoint import load_state, save_generator, save_state
from training.config import TrainConfig
from training.dataset import Batch, PhotoArtDataset
from training.errors import CheckpointError, DivergenceError
from training.image_pool import ImagePool
from training.losses import blur, diff_augment, lsgan, pair_loss, total_variation
from training.networks import GeneratorConfig, MultiScaleDiscriminator, build_generator, init_weights
from training.samples import write_grid

__all__ = ["Trainer", "run_folder"]

Losses = dict[str, Tensor]


def run_folder(out: Path) -> Path:
    """The next free numbered folder below `out`, created."""
    taken = [int(p.name) for p in out.glob("[0-9]" * 5) if p.is_dir()] if out.exists() else []
    folder = out / f"{max(taken, default=-1) + 1:05d}"
    folder.mkdir(parents=True)
    return folder


class Trainer:
    """One run in one folder: networks, optimisers, and the loop over steps.

    Args:
        config: the settings.
        folder: the numbered run folder; holds options.json, stats.jsonl, last.pt, generator.safetensors
            and the sample grids.
    """

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.device = _device(config.device)
        self.autocast_dtype = _autocast_dtype(config.precision, self.device)
        self.dataset = PhotoArtDataset(config)
        self.netG_A = build_generator(config.generator)
        way_back = {**config.generator.to_dict(), "looks": ["photo"]}
        self.netG_B = build_generator(GeneratorConfig.from_dict(way_back))
        self.netD_A = MultiScaleDiscriminator(config.scales, ndf=config.ndf, dense=config.dense)
        self.netD_B = MultiScaleDiscriminator(config.scales, ndf=config.ndf, dense=config.dense)
        self.nets: dict[str, nn.Module] = {
            "netG_A": self.netG_A, "netG_B": self.netG_B, "netD_A": self.netD_A, "netD_B": self.netD_B,
        }  # fmt: skip
        for name, net in self.nets.items():
            if "D" in name:
                init_weights(net)
            net.to(self.device, memory_format=torch.channels_last)
        self.ema = {k: v.detach().clone() for k, v in self.netG_A.state_dict().items()}
        adam: Any = {"lr": config.lr, "betas": (0.5, 0.999)}
        self.optimizers = {
            "G": torch.optim.Adam(_generator_groups((self.netG_A, self.netG_B), config.look_lr), **adam),
            "D": torch.optim.Adam([*self.netD_A.parameters(), *self.netD_B.parameters()], **adam),
        }
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.autocast_dtype == torch.float16)
        self.pool_A, self.pool_B = ImagePool(config.pool_size), ImagePool(config.pool_size)
        self.step = 0
        epoch = math.ceil(len(self.dataset.photos) / config.batch)
        self.adversarial_steps = config.epochs * epoch if config.epochs is not None else config.steps
        self.total_steps = config.warmup_steps + self.adversarial_steps

    # -- the loop ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Train from the current step to the last; DivergenceError keeps the last good checkpoint."""
        config = self.config
        config.save(self.folder / "options.json")
        batches = self.dataset.batches(self.step, self.total_steps)
        with (self.folder / "stats.jsonl").open("a", encoding="utf-8") as stats, tqdm(
            total=self.total_steps, initial=self.step, unit="step", dynamic_ncols=True
        ) as bar:
            for batch in batches:
                started = time.perf_counter()
                losses = self.train_step(batch.to(self.device))
                self.step += 1
                values = {k: float(v) for k, v in losses.items()}
                self._guard(values)
                seconds = time.perf_counter() - started
                stats.write(json.dumps({"step": self.step, "lr": self.lr(), "seconds": seconds, **values}) + "\n")
                bar.set_postfix({k: f"{v:.3f}" for k, v in values.items()}, refresh=False)
                bar.update()
                last = self.step == self.total_steps
                if self.step % config.sample_every == 0 or last:
                    self.write_samples()
                if self.step % config.save_every == 0 or last:
                    stats.flush()
                    self.save()

    def train_step(self, batch: Batch) -> Losses:
        """One step on one batch: the warm-up, or the generators and then the discriminators."""
        config, rng = self.config, random.Random(f"{self.config.seed}-{self.step}")
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.lr() * group.get("factor", 1.0)
        if self.step < config.warmup_steps:
            losses = self._update("G", self.warmup_losses(batch))
        else:
            for _ in range(config.generator_steps):
                losses, fakes = self.generator_losses(batch)
                losses = self._update("G", losses)
            fake_B = self.pool_A.query(fakes["fake_B"], rng)
            fake_A = self.pool_B.query(fakes["fake_A"], rng) if "fake_A" in fakes else None
            for _ in range(config.discriminator_steps):
                losses |= self._update("D", self.discriminator_losses(batch, fake_B, fake_A))
        self._average()
        return losses

    # -- the losses -------------------------------------------------------------------------------

    def warmup_losses(self, batch: Batch) -> Losses:
        """Both generators learn from pseudo-pairs: photo -> flat art, flat art -> photo."""
        config = self.config
        with self._autocast():
            fake_B = self.netG_A(batch.real_A, batch.look_A)
            losses = {"pair_A": pair_loss(fake_B.float(), batch.pair_A, config.lambda_edge)}
            if config.lambda_cycle > 0 and self.step % config.warmup_back_every == 0:
                fake_A = self.netG_B(batch.pair_A)
                losses["pair_B"] = pair_loss(fake_A.float(), batch.real_A, config.lambda_edge)
            losses |= self._regularisers(batch, fake_B)
        return losses

    def generator_losses(self, batch: Batch) -> tuple[Losses, dict[str, Tensor]]:
        """GAN, cycle, identity and pseudo-pair terms of netG_A and netG_B; and the fakes."""
        config, cycle = self.config, self.config.lambda_cycle
        for net in (self.netD_A, self.netD_B):
            net.requires_grad_(False)
        with self._autocast():
            fake_B = self.netG_A(batch.real_A, batch.look_A)
            fakes = {"fake_B": fake_B.detach().float()}
            losses = {"G_A": lsgan(self.netD_A(self._augment(fake_B, 0)), 1.0)}
            if cycle > 0:
                fake_A = self.netG_B(batch.real_B)
                fakes["fake_A"] = fake_A.detach().float()
                losses["G_B"] = lsgan(self.netD_B(self._augment(fake_A, 1)), 1.0)
                rec_A, rec_B = self.netG_B(fake_B), self.netG_A(fake_A, batch.look_B)
                losses["cycle_A"] = cycle * F.l1_loss(rec_A.float(), batch.real_A)
                losses["cycle_B"] = cycle * F.l1_loss(rec_B.float(), batch.real_B)
            if config.lambda_identity > 0 and self.step % config.identity_every == 0:
                weight = config.lambda_identity * (cycle or 10.0)
                idt_A = self.netG_A(batch.real_B, batch.look_B)
                losses["idt_A"] = weight * F.l1_loss(idt_A.float(), batch.real_B)
                if cycle > 0:
                    losses["idt_B"] = weight * F.l1_loss(self.netG_B(batch.real_A).float(), batch.real_A)
            if config.lambda_pair > 0:
                losses["pair_A"] = config.lambda_pair * F.l1_loss(blur(fake_B.float()), blur(batch.pair_A))
            losses |= self._regularisers(batch, fake_B)
        for net in (self.netD_A, self.netD_B):
            net.requires_grad_(True)
        return losses, fakes

    def discriminator_losses(self, batch: Batch, fake_B: Tensor, fake_A: Tensor | None) -> Losses:
        """Real against pooled fake, halved as in the paper."""
        with self._autocast():
            losses = {"D_A": self._judge(self.netD_A, batch.real_B, fake_B, 2)}
            if fake_A is not None:
                losses["D_B"] = self._judge(self.netD_B, batch.real_A, fake_A, 4)
        return losses

    def _judge(self, net: nn.Module, real: Tensor, fake: Tensor, salt: int) -> Tensor:
        on_real = lsgan(net(self._augment(real, salt)), 1.0 - self.config.label_smoothing)
        return 0.5 * (on_real + lsgan(net(self._augment(fake, salt + 1)), 0.0))

    def _regularisers(self, batch: Batch, fake_B: Tensor) -> Losses:
        config, losses = self.config, {}
        if config.lambda_flat > 0:
            losses["flat"] = config.lambda_flat * total_variation(fake_B.float())
        if config.lambda_frame > 0 and self.step % config.frame_every == 0:
            losses["frame"] = config.lambda_frame * self._frame_difference(batch, fake_B.float())
        return losses

    def _frame_difference(self, batch: Batch, fake_B: Tensor) -> Tensor:
        """A copy moved by whole pixels and given sensor noise must map to the moved result.

        After Wang et al. 2021 (arXiv 2102.05822); only the part that both copies see is compared.
        """
        generator = self._generator(6)
        dy, dx = (int(v) - 4 for v in torch.randint(0, 9, (2,), generator=generator))
        noise = torch.randn(batch.real_A.shape, generator=generator).to(self.device) * 0.02
        moved = torch.roll(batch.real_A, (dy, dx), (2, 3)) + noise
        result = self.netG_A(moved.clamp(-1, 1), batch.look_A).float()
        inner = (..., slice(8, -8), slice(8, -8))
        return F.l1_loss(result[inner], torch.roll(fake_B, (dy, dx), (2, 3))[inner])

    # -- the mechanics ----------------------------------------------------------------------------

    def _update(self, which: str, losses: Losses) -> Losses:
        optimizer = self.optimizers[which]
        optimizer.zero_grad(set_to_none=True)
        total = torch.stack(list(losses.values())).sum()
        self.scaler.scale(total).backward()
        if which == "G":
            self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], self.config.clip * 10)
        self.scaler.step(optimizer)
        self.scaler.update()
        return {k: v.detach() for k, v in losses.items()}

    def lr(self) -> float:
        """Learning rate of this step: constant, then falling linearly to zero."""
        config = self.config
        if self.step < config.warmup_steps:
            return config.warmup_lr
        done = (self.step - config.warmup_steps) / max(1, self.adversarial_steps)
        tail = (1.0 - done) / max(1e-9, 1.0 - config.decay_start)
        return config.lr * min(1.0, tail)

    def _average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.netG_A.state_dict().items():
            self.ema[name].lerp_(value.detach(), 1 - decay)

    def _augment(self, image: Tensor, salt: int) -> Tensor:
        return diff_augment(image, self._generator(salt)) if self.config.augment else image

    def _generator(self, salt: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.config.seed * 1_000_003 + self.step) * 16 + salt)

    @contextlib.contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast(self.device.type, self.autocast_dtype, enabled=self.autocast_dtype != torch.float32):
            yield

    def _guard(self, values: dict[str, float]) -> None:
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise DivergenceError(
                f"loss {bad[0]} is no longer a number at step {self.step}: the last good checkpoint is in "
                f"{self.folder}; resume it with a lower --lr or --precision fp32"
            )

    # -- what is kept -----------------------------------------------------------------------------

    def save(self) -> None:
        """Write last.pt (everything that a resumed run needs) and generator.safetensors (the average)."""
        state = {
            "step": self.step,
            "generator": json.dumps(self.config.generator.to_dict()),
            "nets": {k: v.state_dict() for k, v in self.nets.items()},
            "ema": self.ema,
            "optimizers": {k: v.state_dict() for k, v in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "pools": [self.pool_A.images, self.pool_B.images],
        }
        save_state(self.folder / "last.pt", state)
        save_generator(self.folder / "generator.safetensors", self.ema, self.config.generator, step=self.step)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint; CheckpointError if it belongs to another architecture."""
        state = load_state(path)
        if state["generator"] != json.dumps(self.config.generator.to_dict()):
            raise CheckpointError(f"{path} holds another architecture ({state['generator']}): resume with its options")
        for name, net in self.nets.items():
            net.load_state_dict(state["nets"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.scaler.load_state_dict(state["scaler"])
        self.ema = {k: v.to(self.device) for k, v in state["ema"].items()}
        self.pool_A.images, self.pool_B.images = ([i.to(self.device) for i in pool] for pool in state["pools"])
        self.step = state["step"]

    def write_samples(self) -> None:
        """A grid of photos and their stylizations in every look, by the averaged weights."""
        write_grid(self)


def _generator_groups(nets: tuple[nn.Module, ...], look_lr: float) -> list[dict[str, Any]]:
    """Convolutions, and the looks' scales and shifts with their own learning rate."""
    named = [item for net in nets for item in net.named_parameters()]
    looks = [p for name, p in named if name.endswith((".gamma", ".beta"))]
    others = [p for name, p in named if not name.endswith((".gamma", ".beta"))]
    return [{"params": others, "factor": 1.0}, {"params": looks, "factor": look_lr}]


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _autocast_dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    # A CPU without bf16 instructions emulates them, several times slower than fp32.
    has_bf16 = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if has_bf16 else torch.float32
