"""The training loop: a supervised warm-up, then CycleGAN (arXiv 1703.10593); the losses are in `objective`."""

from __future__ import annotations

import contextlib
import json
import math
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.config import TrainConfig
from training.data.dataset import Batch, PhotoArtDataset
from training.data.image_io import U8
from training.devices import autocast_dtype, pick_device, used_memory_mib
from training.distill import Teacher
from training.errors import CheckpointError, DivergenceError
from training.generator.checkpoint import load_generator, load_state, save_generator, save_state
from training.generator.narrow import can_be_narrowed, narrowed
from training.generator.networks import (
    GeneratorConfig,
    LightGenerator,
    MultiScaleDiscriminator,
    ResnetGenerator,
    build_generator,
    init_weights,
    set_views_first,
)
from training.image_pool import ImagePool
from training.objective import Losses, Objective, StepDraws
from training.parallel import Parallel
from training.run_log import RunLog
from training.samples import write_grid

__all__ = ["Trainer", "run_folder"]


def run_folder(out: Path) -> Path:
    """The next free numbered folder below `out`, created; CheckpointError if it cannot be."""
    taken = [int(p.name) for p in out.glob("[0-9]" * 5) if p.is_dir()] if out.exists() else []
    folder = out / f"{max(taken, default=-1) + 1:05d}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be created ({error}): choose another --out") from error
    return folder


MOST_SKIPPED = 20
"""Updates in a row that may be left out because their gradient is no number."""


class Trainer:
    """One run in one folder: networks, optimisers, and the loop over steps.

    Args:
        config: the settings.
        folder: the numbered run folder; holds options.json, stats.jsonl, the state (see `checkpoint`),
            generator.safetensors and the sample grids.
        parallel: this process among those of the run.
    """

    def __init__(self, config: TrainConfig, folder: Path, parallel: Parallel | None = None) -> None:
        self.config, self.folder, self.parallel = config, folder, parallel or Parallel()
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.device = pick_device(config.device, self.parallel.local_rank)
        self.dtype = autocast_dtype(config.precision, self.device)
        self.rows = self.parallel.rows(config.batch)
        self.dataset = PhotoArtDataset(config)
        self.netG_A = _first_generator(config)
        self.teacher = None
        if config.teacher:
            self.teacher = Teacher(Path(config.teacher), config.looks, views=config.views, device=self.device)
        way_back = {**config.generator.to_dict(), "looks": ["photo"]}
        self.netG_B = build_generator(GeneratorConfig.from_dict(way_back))
        self.netD_A = MultiScaleDiscriminator(config.scales, ndf=config.ndf, dense=config.dense)
        self.netD_B = MultiScaleDiscriminator(config.scales, ndf=config.ndf, dense=config.dense)
        self.nets: dict[str, nn.Module] = {
            "netG_A": self.netG_A, "netG_B": self.netG_B, "netD_A": self.netD_A, "netD_B": self.netD_B,
        }  # fmt: skip
        synced = {}
        for name, net in self.nets.items():
            if "D" in name:
                init_weights(net)
            set_views_first(net, config.views)
            net.to(self.device)
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if config.compile:
                net.compile()
            synced[name] = self.parallel.wrap(net, self.device)
        self.objective = Objective(config, self.nets, synced, self.dtype)
        self.ema = {k: v.detach().clone() for k, v in self.netG_A.state_dict().items()}
        adam: Any = {"lr": config.lr, "betas": (0.5, 0.999)}
        self.optimizers = {
            "G": torch.optim.Adam(_generator_groups((self.netG_A, self.netG_B), config.look_lr), **adam),
            "D": torch.optim.Adam([*self.netD_A.parameters(), *self.netD_B.parameters()], **adam),
        }
        # One scaler each: an overflow in one player must not move the other's scale.
        scaled = self.dtype == torch.float16
        self.scalers = {name: torch.amp.GradScaler(self.device.type, enabled=scaled) for name in self.optimizers}
        self.pool_A, self.pool_B = ImagePool(config.pool_size), ImagePool(config.pool_size)
        self.step, self.stopping = 0, False
        self.skipped = 0
        epoch = math.ceil(len(self.dataset.photos) / config.batch)
        self.adversarial_steps = config.epochs * epoch if config.epochs is not None else config.steps
        self.total_steps = config.warmup_steps + self.adversarial_steps

    # -- the loop ---------------------------------------------------------------------------------

    def run(self, *, minutes: float | None = None) -> bool:
        """Train from the current step to the last; DivergenceError keeps the last good checkpoint.

        Args:
            minutes: stop after the first step that ends later than this, with a checkpoint.

        Returns:
            True when the last step is done, False when it stopped before.
        """
        config, leads = self.config, self.parallel.leads
        if leads:
            config.save(self.folder / "options.json")
        until = math.inf if minutes is None else time.perf_counter() + minutes * 60
        batches = self.dataset.batches(self.step, self.total_steps, self.rows)
        log = RunLog(self.folder, step=self.step, tensorboard=config.tensorboard) if leads else None
        bar = tqdm(total=self.total_steps, initial=self.step, unit="step", dynamic_ncols=True, disable=not leads)
        with bar, log or contextlib.nullcontext():
            for batch in batches:
                started = time.perf_counter()
                losses = self.train_step(batch.to(self.device))
                self.step += 1
                values = self.parallel.mean(losses)
                self._guard(values)
                late = self.stopping or time.perf_counter() > until
                stop = self.parallel.any(late, self.device) or self.step == self.total_steps
                if log is not None:
                    log.write(self.step, {**self._speed(time.perf_counter() - started), **values})
                    bar.set_postfix({k: f"{v:.3f}" for k, v in values.items()}, refresh=False)
                    bar.update()
                    if self.step % config.save_every == 0 or stop:
                        log.flush()
                        self.save()
                    if self.step % config.sample_every == 0 or stop:
                        log.grid(self.step, self.write_samples())
                if stop:
                    break
        return self.step >= self.total_steps

    def train_step(self, batch: Batch) -> Losses:
        """One step on one batch: the warm-up, or the generators and then the discriminators."""
        config, draws = self.config, self._draws()
        if self.teacher is not None:
            batch = self.teacher.teach(batch)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.lr() * group.get("factor", 1.0)
        if self.step < config.warmup_steps:
            losses = self._update("G", self.objective.warmup(batch, draws))
        else:
            for _ in range(config.generator_steps):
                losses, fakes = self.objective.generators(batch, draws)
                losses = self._update("G", losses)
            pooled = self._query_pools(fakes)
            for _ in range(config.discriminator_steps):
                losses |= self._update("D", self.objective.discriminators(batch, *pooled, draws))
        self._average()
        return losses

    # -- the mechanics ----------------------------------------------------------------------------

    def _draws(self) -> StepDraws:
        return StepDraws(seed=self.config.seed, step=self.step, batch=self.config.batch, rows=self.rows)

    def _query_pools(self, fakes: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Every process holds the same pools: it puts in the whole batch and takes its own rows out."""
        rng = random.Random(f"{self.config.seed}-{self.step}")
        fake_B = self.pool_A.query(self.parallel.gather(fakes["fake_B"]), rng)[self.rows]
        if "fake_A" not in fakes:
            return fake_B, None
        return fake_B, self.pool_B.query(self.parallel.gather(fakes["fake_A"]), rng)[self.rows]

    def _update(self, which: str, losses: Losses) -> Losses:
        optimizer, scaler = self.optimizers[which], self.scalers[which]
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(torch.stack(list(losses.values())).sum()).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        limit = self.config.clip if which == "G" and self.config.clip > 0 else math.inf
        norm = nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], limit)
        # A crop of one flat colour has no variance: behind twenty instance norms its gradient overflows.
        if torch.isfinite(norm):
            scaler.step(optimizer)
            self.skipped = 0
        else:
            self.skipped += 1
            if self.skipped > MOST_SKIPPED:
                raise self._diverged(f"the gradient of {which}")
        scaler.update()
        return {k: v.detach() for k, v in losses.items()}

    def lr(self) -> float:
        """Learning rate of this step, in each part constant, then falling linearly.

        To zero in the adversarial part; to a twentieth in the last third of the warm-up.
        """
        config = self.config
        if self.step < config.warmup_steps:
            return config.warmup_lr * min(1.0, max(0.05, 3 * (1 - self.step / config.warmup_steps)))
        done = (self.step - config.warmup_steps) / max(1, self.adversarial_steps)
        tail = (1.0 - done) / max(1e-9, 1.0 - config.decay_start)
        return config.lr * min(1.0, tail)

    def _average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.netG_A.state_dict().items():
            if value.is_floating_point():
                self.ema[name].lerp_(value.detach(), 1 - decay)
            else:  # a counter has no average
                self.ema[name].copy_(value)

    def _guard(self, values: dict[str, float]) -> None:
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise self._diverged(f"loss {bad[0]}")

    def _diverged(self, what: str) -> DivergenceError:
        kept = (
            "the last good checkpoint is kept" if any(self.folder.glob("last.*")) else "no checkpoint was written yet"
        )
        return DivergenceError(
            f"{what} is no longer a number at step {self.step}; {kept}: "
            f"train-generator --resume {self.folder} with a lower --lr, or with --precision fp32"
        )

    def _speed(self, seconds: float) -> dict[str, float]:
        return {
            "lr": self.lr(),
            "seconds": round(seconds, 4),
            "images_per_s": round(self.config.batch * (2 if self.config.views else 1) / seconds, 3),
            "memory_mib": round(used_memory_mib(self.device), 1),
        }

    # -- what is kept -----------------------------------------------------------------------------

    def save(self) -> None:
        """Write the state (everything that a resumed run needs) and generator.safetensors (the average).

        DivergenceError if a weight is no longer a number: nothing is written then.
        """
        broken = [name for name, weights in self._weights() if not all(_finite(v) for v in weights)]
        if broken:
            raise self._diverged(f"a weight of {broken[0]}")
        state = {
            "step": self.step,
            "generator": json.dumps(self.config.generator.to_dict()),
            "nets": {k: v.state_dict() for k, v in self.nets.items()},
            "ema": self.ema,
            "optimizers": {k: v.state_dict() for k, v in self.optimizers.items()},
            "scalers": {k: v.state_dict() for k, v in self.scalers.items()},
            "pools": [self.pool_A.images, self.pool_B.images],
        }
        save_state(self.folder, state)
        save_generator(self.folder / "generator.safetensors", self.ema, self.config.generator, step=self.step)

    def _weights(self) -> Iterable[tuple[str, Iterable[Tensor]]]:
        yield "the averaged generator", self.ema.values()
        for name, net in self.nets.items():
            yield name, net.state_dict().values()

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint; CheckpointError if it belongs to another architecture."""
        state = load_state(path)
        if state["generator"] != json.dumps(self.config.generator.to_dict()):
            raise CheckpointError(
                f"{path} holds another architecture ({state['generator']}): resume with its own options, or start anew"
            )
        try:
            for name, net in self.nets.items():
                net.load_state_dict(state["nets"][name])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{path} does not fit these options ({error}): resume with the options it was made with"
            ) from error
        for name, scaler in self.scalers.items():
            kept = state["scalers"][name] if "scalers" in state else state["scaler"]
            if kept:  # empty after a run in fp32 or bf16
                scaler.load_state_dict(kept)
        self.ema = {k: v.to(self.device) for k, v in state["ema"].items()}
        self.pool_A.images, self.pool_B.images = (
            [image.to(self.device) for image in pool[: self.config.pool_size]] for pool in state["pools"]
        )
        self.step = state["step"]

    def write_samples(self) -> U8:
        """A grid of photos and their stylizations in every look, by the averaged weights; RGB uint8."""
        return write_grid(self.folder / f"samples-{self.step:06d}.png", self.config, self.ema, self.device)


def _first_generator(config: TrainConfig) -> ResnetGenerator | LightGenerator:
    """Fresh weights, or those of `config.init`; CheckpointError if that is another architecture.

    Of a wider `light` generator the strongest channels are taken.
    """
    net = build_generator(config.generator)
    if config.init:
        given = load_generator(Path(config.init))
        if can_be_narrowed(given.config, config.generator):
            net.load_state_dict(narrowed(given.state_dict(), given.config, config.ngf))
            return net
        if given.config != config.generator:
            raise CheckpointError(
                f"{config.init} is {given.config.describe()}, the run asks for {config.generator.describe()}: "
                "give a generator of the same architecture and looks to --init"
            )
        net.load_state_dict(given.state_dict())
    return net


def _generator_groups(nets: tuple[nn.Module, ...], look_lr: float) -> list[dict[str, Any]]:
    """Convolutions, and the looks' scales and shifts with their own learning rate."""
    named = [item for net in nets for item in net.named_parameters()]
    looks = [p for name, p in named if name.endswith((".gamma", ".beta"))]
    others = [p for name, p in named if not name.endswith((".gamma", ".beta"))]
    return [{"params": others, "factor": 1.0}, {"params": looks, "factor": look_lr}]


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
