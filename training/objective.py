"""What the networks are trained for: the warm-up, then the CycleGAN (Zhu et al. 2017, arXiv 1703.10593).

Names are the field's: netG_A maps photos (A) to art (B), netG_B maps back, netD_A judges art,
netD_B judges photos.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config import TrainConfig
from training.data.dataset import Batch
from training.losses import blur, diff_augment, lsgan, pair_loss, structure_loss, total_variation

__all__ = ["Losses", "Objective", "StepDraws"]

Losses = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class StepDraws:
    """The random choices of one step, the same however many processes share its batch."""

    seed: int
    step: int
    batch: int
    """Images over all processes."""
    rows: slice
    """Those of this process."""

    def generator(self, salt: int) -> torch.Generator:
        """A generator for one purpose of this step."""
        return torch.Generator().manual_seed((self.seed * 1_000_003 + self.step) * 16 + salt)

    def windows(self, salt: int) -> Tensor:
        """Four integers per image, ``(N, 4)``, for `diff_augment`."""
        return torch.randint(0, 1 << 20, (self.batch, 4), generator=self.generator(salt))[self.rows]

    def shift(self) -> tuple[int, int]:
        """A move by up to four pixels in y and x."""
        dy, dx = torch.randint(0, 9, (2,), generator=self.generator(6)).tolist()
        return dy - 4, dx - 4

    def noise(self, shape: torch.Size) -> Tensor:
        """Standard normal noise for this process's images."""
        return torch.randn((self.batch, *shape[1:]), generator=self.generator(7))[self.rows]


class Objective:
    """The losses of one step, each already weighted.

    Args:
        config: weights and intervals.
        nets: netG_A, netG_B, netD_A, netD_B as they are.
        synced: the same, with their gradients averaged over the processes.
        dtype: what autocast computes in; float32 switches it off.
    """

    def __init__(
        self, config: TrainConfig, nets: Mapping[str, nn.Module], synced: Mapping[str, nn.Module], dtype: torch.dtype
    ) -> None:
        self.config, self.dtype = config, dtype
        self.netG_A, self.netG_B = synced["netG_A"], synced["netG_B"]
        self.netD_A, self.netD_B = synced["netD_A"], synced["netD_B"]
        # While the generators learn, the judges stand still: no gradients, nothing to average.
        self.judge_A, self.judge_B = nets["netD_A"], nets["netD_B"]

    def warmup(self, batch: Batch, draws: StepDraws) -> Losses:
        """Both generators learn from pairs: photo -> flat art and back, or photo -> photo (`content`)."""
        config = self.config
        pair_A = batch.pair_A if config.warmup == "pairs" else batch.real_A
        with self._autocast(batch.real_A.device):
            fake_B = self.netG_A(batch.real_A, batch.look_A)
            losses = {"pair_A": pair_loss(fake_B.float(), pair_A, config.lambda_edge)}
            if config.lambda_cycle > 0 and draws.step % config.warmup_back_every == 0:
                fake_A = self.netG_B(pair_A)
                losses["pair_B"] = pair_loss(fake_A.float(), batch.real_A, config.lambda_edge)
            losses |= self._regularisers(batch, fake_B, draws)
        return losses

    def generators(self, batch: Batch, draws: StepDraws) -> tuple[Losses, dict[str, Tensor]]:
        """GAN, cycle, identity and pseudo-pair terms of netG_A and netG_B; and the fakes."""
        config, cycle = self.config, self.config.lambda_cycle
        with self._still(), self._autocast(batch.real_A.device):
            fake_B = self.netG_A(batch.real_A, batch.look_A)
            fakes = {"fake_B": self._crops(fake_B).detach().float()}
            losses = {"G_A": lsgan(self.judge_A(self._augment(self._crops(fake_B), draws, 0)), 1.0)}
            if cycle > 0:
                fake_A = self.netG_B(batch.real_B)
                fakes["fake_A"] = self._crops(fake_A).detach().float()
                losses["G_B"] = lsgan(self.judge_B(self._augment(self._crops(fake_A), draws, 1)), 1.0)
                rec_A, rec_B = self.netG_B(fake_B), self.netG_A(fake_A, batch.look_B)
                losses["cycle_A"] = cycle * F.l1_loss(rec_A.float(), batch.real_A)
                losses["cycle_B"] = cycle * F.l1_loss(rec_B.float(), batch.real_B)
            if config.lambda_identity > 0 and draws.step % config.identity_every == 0:
                weight = config.lambda_identity * (cycle or 10.0)
                idt_A = self.netG_A(batch.real_B, batch.look_B)
                losses["idt_A"] = weight * F.l1_loss(idt_A.float(), batch.real_B)
                if cycle > 0:
                    losses["idt_B"] = weight * F.l1_loss(self.netG_B(batch.real_A).float(), batch.real_A)
            if config.lambda_pair > 0:
                losses["pair_A"] = config.lambda_pair * F.l1_loss(blur(fake_B.float()), blur(batch.pair_A))
            if config.lambda_detail > 0:
                detail = pair_loss(fake_B.float(), batch.pair_A, config.lambda_edge)
                losses["detail_A"] = config.lambda_detail * detail
            losses |= self._regularisers(batch, fake_B, draws)
        return losses, fakes

    def discriminators(self, batch: Batch, fake_B: Tensor, fake_A: Tensor | None, draws: StepDraws) -> Losses:
        """Real crops against pooled fake ones, halved as in the paper."""
        with self._autocast(fake_B.device):
            losses = {"D_A": self._judge(self.netD_A, self._crops(batch.real_B), fake_B, draws, 2)}
            if fake_A is not None:
                losses["D_B"] = self._judge(self.netD_B, self._crops(batch.real_A), fake_A, draws, 4)
        return losses

    def _crops(self, images: Tensor) -> Tensor:
        """What the discriminators look at: the crops without the views of whole pictures."""
        return images[len(images) // 2 :] if self.config.views else images

    def _judge(self, net: nn.Module, real: Tensor, fake: Tensor, draws: StepDraws, salt: int) -> Tensor:
        on_real = lsgan(net(self._augment(real, draws, salt)), 1.0 - self.config.label_smoothing)
        return 0.5 * (on_real + lsgan(net(self._augment(fake, draws, salt + 1)), 0.0))

    def _regularisers(self, batch: Batch, fake_B: Tensor, draws: StepDraws) -> Losses:
        config = self.config
        losses: Losses = {}
        if config.lambda_flat > 0:
            losses["flat"] = config.lambda_flat * total_variation(fake_B.float())
        if config.lambda_structure > 0:
            # Views are too small for it: what is an edge there is a whole object in use.
            kept = structure_loss(self._crops(fake_B).float(), self._crops(batch.real_A))
            losses["structure"] = config.lambda_structure * kept
        if config.lambda_frame > 0 and draws.step % config.frame_every == 0:
            losses["frame"] = config.lambda_frame * self._frame_difference(batch, fake_B.float(), draws)
        return losses

    def _frame_difference(self, batch: Batch, fake_B: Tensor, draws: StepDraws) -> Tensor:
        """A copy moved by whole pixels and given sensor noise must map to the moved result.

        After Wang et al. 2021 (arXiv 2102.05822); only the part that both copies see is compared.
        """
        shift, noise = draws.shift(), draws.noise(batch.real_A.shape).to(fake_B.device) * 0.02
        moved = torch.roll(batch.real_A, shift, (2, 3)) + noise.repeat(len(fake_B) // len(noise), 1, 1, 1)
        result = self.netG_A(moved.clamp(-1, 1), batch.look_A).float()
        inner = (..., slice(8, -8), slice(8, -8))
        return F.l1_loss(result[inner], torch.roll(fake_B, shift, (2, 3))[inner])

    def _augment(self, image: Tensor, draws: StepDraws, salt: int) -> Tensor:
        return diff_augment(image, draws.windows(salt)) if self.config.augment else image

    @contextlib.contextmanager
    def _still(self) -> Iterator[None]:
        judges = (self.judge_A, self.judge_B)
        for net in judges:
            net.requires_grad_(False)
        try:
            yield
        finally:
            for net in judges:
                net.requires_grad_(True)

    @contextlib.contextmanager
    def _autocast(self, device: torch.device) -> Iterator[None]:
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            yield
