"""The two graphs as MNN computes them fastest: pictures by blocks, and norms as depthwise convolutions.

MNN keeps feature maps in packs of channels.  Of what the ONNX graphs hold, three things make it unpack them,
at a cost in time of 40 % (docs/performance.md); here each is written another way, to the same picture:

* space-to-depth and depth-to-space at the two ends.  The caller cuts pictures into blocks instead, which moves
  three bytes a pixel and not twelve; see `to_blocks` and `from_blocks`.
* ``x * scale + shift`` with one number a channel: here a depthwise 1x1 convolution whose weights are inputs,
  which takes the ReLU behind it along.
* a last 7x7 convolution to three channels, of which most of a pack would be empty: here the four pixels of a
  block of 2x2 are twelve channels of one 8x8 convolution of stride 2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from engine.graphs.export import GraphWriter, Weights, block_first, write_probe, write_render
from engine.program.fold import fold_upsampling
from engine.program.operations import Op
from engine.spec import ModelSpec

__all__ = ["BlockGraphs", "block_graphs", "from_blocks", "to_blocks"]

Image = npt.NDArray[np.uint8]

EXAMPLE = 64
"""Side of the picture that the graphs are written for; a session is given its own afterwards."""


@dataclass(frozen=True, kw_only=True)
class BlockGraphs:
    """What `block_graphs` returns."""

    probe: onnx.ModelProto
    """``view`` uint8 ``(N, H / b, W / b, 3 b^2)``, b = `first`, and ``look`` -> ``scale`` and ``shift``."""
    render: onnx.ModelProto
    """``tiles`` like ``view``, ``scale`` and ``shift`` -> ``output`` uint8, b = `last`."""
    first: int
    """Side of the blocks that both take, in pixels."""
    last: int
    """Side of the blocks that `render` returns."""


def block_graphs(spec: ModelSpec, weights: Weights) -> BlockGraphs:
    """The graphs of a model in float32; `engine.spec` says what they compute."""
    ops, weights = fold_upsampling(spec.program.ops, weights)
    weights = block_first(ops, weights)
    first = last = 1
    if ops[0].kind == "unshuffle" and ops[0].inputs == ("x",):
        first = ops[0].stride
        ops = tuple(_reading(op, ops[0].output, "x") for op in ops[1:])
    probe = write_probe(_BlockWriter(weights, "fp32", first=first), spec, ops)
    if ops[-2].kind == "shuffle" and ops[-3].kind == "conv":
        last = ops[-2].stride
        ops, weights = _without_shuffle(ops, weights)
    elif _is_wide_head(ops[-2]):
        last = 2
        ops, weights = _head_by_blocks(ops, weights)
    render = write_render(_BlockWriter(weights, "fp32", first=first, last=last), spec, ops)
    return BlockGraphs(probe=probe, render=render, first=first, last=last)


def to_blocks(images: Image, side: int) -> Image:
    """Pictures ``(N, H, W, c)`` as ``(N, H / side, W / side, side * side * c)``: rows of a block, columns, channels."""
    n, height, width, channels = images.shape
    # A row of a block is one item, so that numpy moves it at once.
    rows = np.ascontiguousarray(images).reshape(n, height // side, side, width // side, -1)
    items = rows.view(f"V{side * channels}")[..., 0]
    moved = np.ascontiguousarray(items.swapaxes(2, 3))
    return moved.view(np.uint8).reshape(n, height // side, width // side, side * side * channels)


def from_blocks(blocks: Image, side: int) -> Image:
    """What `to_blocks` was given."""
    n, height, width, size = blocks.shape
    items = np.ascontiguousarray(blocks).reshape(n, height, width, side, -1).view(f"V{size // side}")[..., 0]
    moved = np.ascontiguousarray(items.swapaxes(2, 3))
    return moved.view(np.uint8).reshape(n, height * side, width * side, size // side**2)


@dataclass
class _BlockWriter(GraphWriter):
    """Writes the ends for blocks, and norms as depthwise convolutions."""

    first: int = 1
    last: int = 1

    def image_input(self, name: str) -> str:
        # MNN's converter wants to know the shape of every convolution's weights, and learns it from an example.
        shape = [1, EXAMPLE // self.first, EXAMPLE // self.first, 3 * self.first**2]
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
        x = self.node("Transpose", [self.node("Cast", [name], to=TensorProto.FLOAT)], perm=[0, 3, 1, 2])
        return self.node("Sub", [self.node("Mul", [x, self.number(1 / 127.5)]), self.number(1.0)])

    def image_output(self, name: str, x: str) -> None:
        # The cast cuts off what lies behind the point, and tanh keeps within the range: half a level rounds.
        x = self.node("Add", [self.node("Mul", [x, self.number(127.5)]), self.number(128.0)])
        x = self.node("Transpose", [x], perm=[0, 2, 3, 1])
        self.node("Cast", [x], name, to=TensorProto.UINT8)
        shape = [1, EXAMPLE // self.last, EXAMPLE // self.last, 3 * self.last**2]
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))

    def affine(self, op: Op, x: str, scale: str, shift: str) -> str:
        kernel = self.node("Reshape", [scale, self.constant(f"kernel_{op.cout}", [op.cout, 1, 1, 1], np.int64)])
        bias = self.node("Reshape", [shift, self.constant(f"bias_{op.cout}", [op.cout], np.int64)])
        return self.node("Conv", [x, kernel, bias], group=op.cout, kernel_shape=[1, 1])


def _reading(op: Op, old: str, new: str) -> Op:
    return dataclasses.replace(op, inputs=tuple(new if name == old else name for name in op.inputs))


def _without_shuffle(ops: Sequence[Op], weights: Weights) -> tuple[tuple[Op, ...], Weights]:
    """Depth-to-space at the end left to the caller: torch counts channel, place; blocks count place, channel."""
    head, shuffle = ops[-3], ops[-2]
    changed = {}
    for part in ("weight", "bias"):
        name = f"{head.weight}.{part}"
        if name in weights:
            split = weights[name].reshape(-1, shuffle.stride**2, *weights[name].shape[1:])
            changed[name] = np.ascontiguousarray(split.swapaxes(0, 1)).reshape(weights[name].shape)
    return (*ops[:-2], _reading(ops[-1], shuffle.output, head.output)), {**weights, **changed}


def _is_wide_head(op: Op) -> bool:
    """Whether a block of its results can be the channels of one convolution of stride 2."""
    return (op.kind, op.cout, op.stride) == ("conv", 3, 1) and op.kernel >= 5 and op.pads == (op.kernel // 2,) * 2


def _head_by_blocks(ops: Sequence[Op], weights: Weights) -> tuple[tuple[Op, ...], Weights]:
    """The last convolution with the 2x2 pixels of a block as channels: its kernel moved to each of the places."""
    head = ops[-2]
    kernel = weights[f"{head.weight}.weight"]
    wide = np.zeros((4, *kernel.shape[:2], head.kernel + 1, head.kernel + 1), kernel.dtype)
    for place, values in enumerate(wide):
        y, x = divmod(place, 2)
        values[:, :, y : y + head.kernel, x : x + head.kernel] = kernel
    changed = {f"{head.weight}.weight": wide.reshape(-1, *wide.shape[2:])}
    if head.bias:
        changed[f"{head.weight}.bias"] = np.tile(weights[f"{head.weight}.bias"], 4)
    blocks = dataclasses.replace(head, kernel=head.kernel + 1, stride=2, cout=4 * head.cout)
    return (*ops[:-2], blocks, ops[-1]), {**weights, **changed}
