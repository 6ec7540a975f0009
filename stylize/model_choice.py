"""Which model `auto` means."""

from __future__ import annotations

import logging

from engine.backends.base import choose_backend
from stylize.settings import StyleSettings

__all__ = ["AUTO", "choose_model"]

log = logging.getLogger(__name__)

AUTO = "auto"


def choose_model(settings: StyleSettings, *, video: bool) -> str:
    """The name or path of the model to open.

    `auto` is `light` for video on a CPU, where `full` would take seconds a frame, and `full` otherwise.
    """
    if settings.model != AUTO:
        return settings.model
    backend = settings.backend if settings.backend != "auto" else choose_backend()[0]
    on_cpu = backend == "openvino" or settings.device == "cpu"
    name = "light" if video and on_cpu else "full"
    log.info("model %s: %s on %s", name, "video" if video else "photos", "a CPU" if on_cpu else backend)
    return name
