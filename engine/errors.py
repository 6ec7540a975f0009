"""What can go wrong between a model and the machine it should run on.

EngineError
├── PaletteError        a file with the colours of a look, or a picture that has none to give
├── ModelError          a model folder, checkpoint or ONNX file that cannot be used
├── BackendError        a backend that is missing or fails on this machine
│   └── OutOfMemoryError    a tile too large for the device; smaller ones may do
└── PlanError           a TensorRT plan that cannot be built or does not fit this machine
    └── BuildCancelled      the user stopped the build
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "BuildCancelled",
    "EngineError",
    "ModelError",
    "OutOfMemoryError",
    "PaletteError",
    "PlanError",
]


class EngineError(Exception):
    """Base of all engine errors; the message says what to do next."""


class ModelError(EngineError):
    """A model folder, checkpoint or ONNX file cannot be used."""


class PaletteError(EngineError):
    """A file with colours is wrong, or a picture has no colours to make a look of."""


class BackendError(EngineError):
    """A backend is missing or fails on this machine."""


class OutOfMemoryError(BackendError):
    """A tile is too large for the device; smaller ones may do."""


class PlanError(EngineError):
    """A TensorRT plan cannot be built, or does not fit this machine."""


class BuildCancelled(PlanError):
    """The user stopped the build of a plan."""
