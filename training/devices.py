"""Which device and which number format a run uses."""

from __future__ import annotations

import sys

import psutil
import torch

from training.errors import TrainingError

__all__ = ["autocast_dtype", "pick_device", "used_memory_mib"]


def pick_device(name: str, index: int = 0) -> torch.device:
    """`name` as a device; `auto` is CUDA (the card `index`), MPS or the CPU. TrainingError if it is missing."""
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(f"cuda:{index}" if name == "cuda" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise TrainingError(f"device {name!r} cannot be used here ({error}): try --device auto") from error
    return device


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The format of the convolutions; `auto` is what the device does fast."""
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    # A CPU without bf16 instructions emulates them, several times slower than fp32.
    has_bf16 = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if has_bf16 else torch.float32


def used_memory_mib(device: torch.device) -> float:
    """Peak memory so far: of the card, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    # Linux counts in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
