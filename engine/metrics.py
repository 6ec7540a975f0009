"""How far two pictures are apart."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["psnr"]


def psnr(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two uint8 arrays of one shape, in dB; inf when they are equal."""
    if a.shape != b.shape:
        raise ValueError(f"pictures of one shape are compared, got {a.shape} and {b.shape}")
    error = np.mean(np.square(a.astype(np.float32) - b.astype(np.float32)), dtype=np.float64)
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / float(error))
