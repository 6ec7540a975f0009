"""The receptive field, followed through the operations themselves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from engine_models import CONFIGS, LOOKS, config, landscape

from engine.backends.torch import apply_op
from engine.errors import ModelError
from engine.program.architecture import Program
from engine.spec import ModelSpec


def touched(program: Program, image: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which pixels ``(H, W)`` of the result depend on the pixels of ``(3, H, W)`` that are one.

    Every weight is one and every positive value is set to one again, so nothing fades or cancels.
    """
    weights = {name: torch.ones(shape) for name, shape in program.parameters(1).items() if not name.endswith("bias")}
    tensors = {"x": torch.from_numpy(image)[None]}
    for op in program.ops:
        inputs = [tensors[name] for name in op.inputs]
        result = inputs[0] if op.kind == "norm" else apply_op(op, inputs, weights)
        tensors[op.output] = (result > 0).float()
    found: npt.NDArray[np.bool_] = tensors[program.ops[-1].output][0].bool().any(dim=0).numpy()
    return found


@pytest.mark.parametrize("kind", CONFIGS)
def test_radius(kind: str) -> None:
    values = {**config(kind), "ngf": 1}
    program = Program.of(values)
    spec = ModelSpec(name=kind, config=values, looks=tuple(LOOKS))
    middle = spec.radius + 2 * spec.multiple
    reaches = []
    for place in range(middle, middle + spec.multiple):
        image = np.zeros((3, 2 * middle, 2 * middle), np.float32)
        image[:, place, place] = 1.0
        rows, columns = np.nonzero(touched(program, image))
        reaches.append(max(np.abs(rows - place).max(), np.abs(columns - place).max()))
    assert max(reaches) <= program.radius, "a pixel reaches further than the radius says"
    assert max(reaches) > program.radius - 2 * spec.multiple, "the radius promises far too much"
    assert spec.radius >= program.radius and spec.radius % spec.multiple == spec.halo % spec.multiple == 0


def test_unknown_architecture() -> None:
    with pytest.raises(ModelError, match="knows resnet9"):
        Program.of({"architecture": "unet"})


def test_landscape_is_structured() -> None:
    """The pictures of these tests have edges, flat parts and grain."""
    picture = landscape(64, 96).astype(int)
    steps = np.abs(np.diff(picture, axis=1)).max(axis=-1)
    assert (steps > 60).any() and np.median(steps) < 30 and picture.std() > 30
