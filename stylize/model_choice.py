"""Which model `auto` means."""

from __future__ import annotations

import logging

from engine.choice import CPU_BACKENDS, choose_backend
from stylize.settings import StyleSettings

__all__ = ["AUTO", "choose_model", "usual_backend"]

log = logging.getLogger(__name__)

AUTO = "auto"


def usual_backend(settings: StyleSettings) -> str:
    """The backend that the settings ask for: a plan is one of TensorRT, unless its runtime was named."""
    return "tensorrt" if settings.plan is not None and settings.backend == "auto" else settings.backend


def choose_model(settings: StyleSettings, *, video: bool) -> str:
    """The name or path of the model to open.

    `auto` is `light` for video on a CPU, where `full` would take seconds a frame, and `full` otherwise.
    """
    if settings.model != AUTO:
        return settings.model
    backend = usual_backend(settings)
    if backend == "auto":
        backend = choose_backend("cuda" if settings.gpus else settings.device)[0]
    on_cpu = backend in CPU_BACKENDS or settings.device == "cpu"
    name = "light" if video and on_cpu else "full"
    log.info("model %s: %s on %s", name, "video" if video else "photos", "a CPU" if on_cpu else backend)
    return name
