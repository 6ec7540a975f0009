"""One process or many: what torchrun starts, seen from the trainer.

Every process draws the random choices of the whole batch and works on its own rows of it, so that
N processes compute what one process computes on the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.errors import TrainingError

__all__ = ["Parallel", "parallel_processes"]


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """This process among those of the run."""

    rank: int = 0
    """Number of this process; 0 writes the files."""
    local_rank: int = 0
    """Number of this process on its machine: the card it uses."""
    world: int = 1
    """How many processes there are."""

    @property
    def leads(self) -> bool:
        """True in the one process that prints and writes."""
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """This process's part of a batch; TrainingError where it cannot be shared out evenly."""
        if batch % self.world:
            raise TrainingError(f"a batch of {batch} cannot be shared by {self.world} processes: choose a multiple")
        share = batch // self.world
        return slice(self.rank * share, (self.rank + 1) * share)

    def wrap(self, net: nn.Module, device: torch.device) -> nn.Module:
        """`net`, its gradients averaged over the processes in the backward pass."""
        if self.world == 1:
            return net
        ids = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(net, device_ids=ids, broadcast_buffers=False)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in order."""
        if self.world == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.world)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def mean(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Each value averaged over the processes, as a number."""
        if not values:
            return {}
        stacked = torch.stack([v.float() for v in values.values()])
        if self.world > 1:
            dist.all_reduce(stacked)
            stacked /= self.world
        return dict(zip(values, stacked.tolist(), strict=True))

    def any(self, flag: bool, device: torch.device) -> bool:
        """True everywhere if it is true in any process."""
        if self.world == 1:
            return flag
        total = torch.tensor(float(flag), device=device)
        dist.all_reduce(total)
        return bool(total > 0)

    def share(self, text: str) -> str:
        """The text of process 0."""
        if self.world == 1:
            return text
        box = [text]
        dist.broadcast_object_list(box, src=0)
        return box[0]


@contextmanager
def parallel_processes(device: str = "auto") -> Iterator[Parallel]:
    """Join the group that torchrun describes in the environment; a single process without it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Parallel()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available() and device in ("auto", "cuda")
    if cuda:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Parallel(rank=dist.get_rank(), local_rank=local, world=world)
    finally:
        dist.destroy_process_group()
