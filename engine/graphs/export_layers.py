"""The operations of `engine.program.layers` as ONNX nodes; in float32 whatever the graph's precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from engine.conditions import MAP_STRIDE
from engine.graphs.emit import emit
from engine.graphs.graph_writer import EXACT, GraphWriter, Weights
from engine.looks.layout import TONES
from engine.program.layers import SKY_LUT
from engine.program.operations import Op
from engine.program.shader import EDGE, FLATTEST, LUMA, SUN_SLOPE, phase_kernels
from engine.spec import ModelSpec

__all__ = ["render_weights", "write_layers_probe", "write_layers_render"]


FIVE = 5
"""Planes that follow from the pixels: RGB and two tones."""


def write_layers_probe(g: GraphWriter, spec: ModelSpec) -> onnx.ModelProto:
    """``view -> layout``: sky and depth, float32 ``(N, 2, H/8, W/8)``."""
    ops = spec.program.probe_ops
    names = {"x": g.image_input("view")}
    for op in ops:
        names[op.output] = emit(g, op, names)
    last = names[ops[-1].output]
    g.node("Identity" if g.type == TensorProto.FLOAT else "Cast", [last], "layout", **_to_float(g))
    shape = ["N", 2, "GRID_H", "GRID_W"]
    g.outputs.append(helper.make_tensor_value_info("layout", TensorProto.FLOAT, shape))
    return g.model(f"{spec.name}-probe")


def _to_float(g: GraphWriter) -> dict[str, Any]:
    return {} if g.type == TensorProto.FLOAT else {"to": TensorProto.FLOAT}


def write_layers_render(g: GraphWriter, spec: ModelSpec) -> onnx.ModelProto:
    """``tiles, layout, tone, sky_lut, land_lut, controls -> output``; see `engine.program.layers`.

    The planes are never put together: five of them follow from the pixels by one convolution, and what lies
    behind an unshuffling of the layout's two is one convolution of its few cells.
    """
    for name, shape in spec.render_maps.items():
        dimensions = ["N", *shape, "GRID_H", "GRID_W"]
        g.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dimensions))
    for name, shape in spec.render_vectors.items():
        g.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *shape]))
    names: dict[str, str] = {}
    planes, cell = spec.program.ops[0], MAP_STRIDE
    for op in spec.program.ops:
        if op.kind == "planes":
            exact, cell = _five_planes(g, op), MAP_STRIDE // op.stride
            names[op.output] = g.cast(exact, g.type)
        elif op.kind == "unshuffle":
            names[op.output] = _joined(
                g, g.node("SpaceToDepth", [names[op.inputs[0]]], blocksize=op.stride), cell, op.stride
            )
        elif op.kind == "fields":
            names[op.output] = _fields(g, op, names[op.inputs[0]], exact, cell // op.stride)
        elif op.kind == "shader":
            _picture(g, op, _shader(g, op, names[op.inputs[0]]))
        elif op.inputs[0] == planes.output:  # a convolution of the planes as they are
            names[op.output] = emit(g, op, {op.inputs[0]: _joined(g, names[op.inputs[0]], cell, 1)})
        else:
            names[op.output] = emit(g, op, names)
    return g.model(f"{spec.name}-render")


def render_weights(spec: ModelSpec, weights: Weights) -> Weights:
    """Weights for channels in the order that the graph has them in.

    Behind SpaceToDepth those of the five planes are ordered by their place in a block, then by plane; the fields
    are sky, tone, cloud, depth.
    """
    result = dict(weights)
    unshuffled = {op.output: op.stride**2 for op in spec.program.ops if op.kind == "unshuffle"}
    for op in spec.program.ops:
        if op.kind == "conv" and op.inputs[0] in unshuffled:
            places, w = unshuffled[op.inputs[0]], weights[f"{op.weight}.weight"]
            five = w[:, : FIVE * places].reshape(op.cout, FIVE, places, op.kernel, op.kernel).swapaxes(1, 2)
            five = five.reshape(op.cout, FIVE * places, op.kernel, op.kernel)
            result[f"{op.weight}.weight"] = np.ascontiguousarray(np.concatenate([five, w[:, FIVE * places :]], 1))
        elif op.kind == "fields":
            last = next(conv.weight for conv in spec.program.ops if conv.output == op.inputs[0])
            for part in ("weight", "bias"):
                result[f"{last}.{part}"] = np.ascontiguousarray(weights[f"{last}.{part}"][[0, 2, 3, 1]])
    return result


def _picture(g: GraphWriter, op: Op, colours: str) -> None:
    """Colours with the places of a pixel of the fields in a row -> ``output``, uint8 NHWC."""
    x = g.node("Round", [g.node("Mul", [colours, g.number(255.0)])])
    x = _clip(g, x, 0.0, 255.0)
    sides = [g.constant(f"place_{i}", [i], np.int64) for i in (1, 3)]
    tiles = g.node("Slice", [g.node("Shape", ["tiles"]), *sides])
    small = g.node("Div", [tiles, g.constant(f"factor_{op.stride}", [op.stride] * 2, np.int64)])
    ends = [g.constant(f"ends_{i}", i, np.int64) for i in ([0, 3], [op.stride] * 2, [0], [3])]
    x = g.node("Reshape", [x, g.node("Concat", [ends[0], small, ends[1]], axis=0)])
    x = g.node("Transpose", [x], perm=[0, 2, 4, 3, 5, 1])
    x = g.node("Reshape", [x, g.node("Concat", [ends[2], tiles, ends[3]], axis=0)])
    g.node("Cast", [x], "output", to=TensorProto.UINT8)
    g.outputs.append(helper.make_tensor_value_info("output", TensorProto.UINT8, ["N", "H", "W", 3]))


def _scalar(g: GraphWriter, vector: str, places: list[int]) -> str:
    """Some elements of a vector ``(1, K)`` as ``(1, n, 1, 1)``."""
    index = g.constant("index_" + "_".join(map(str, places)), places, np.int64)
    shape = g.constant(f"shape_{len(places)}", [1, len(places), 1, 1], np.int64)
    return g.node("Reshape", [g.node("Gather", [vector, index], axis=1), shape])


def _clip(g: GraphWriter, x: str, low: float, high: float) -> str:
    return g.node("Clip", [x, g.number(low), g.number(high)])


def _channels(g: GraphWriter, x: str, start: int, stop: int) -> str:
    return g.node("Slice", [x, *(g.constant(f"place_{i}", [i], np.int64) for i in (start, stop, 1))])


def _exact_conv(
    g: GraphWriter, x: str, name: str, kernels: npt.NDArray[Any], bias: list[float] | None = None, stride: int = 1
) -> str:
    """A convolution in float32 with weights ``(cout, cin, k, k)`` that are none of the model's."""
    inputs = [x, g.constant(f"kernels_{name}", kernels)]
    if bias is not None:
        inputs.append(g.constant(f"bias_{name}", bias))
    return g.node("Conv", inputs, prefix=EXACT, kernel_shape=list(kernels.shape[2:]), strides=[stride] * 2)


def _apart(g: GraphWriter, x: str) -> str:
    """Every channel as a picture of its own, ``(N * C, 1, h, w)``."""
    return g.node("Reshape", [x, g.constant("shape_apart", [-1, 1, 0, 0], np.int64)])


def _five_planes(g: GraphWriter, op: Op) -> str:
    """RGB and the tones of land and sky, ``(N, 5, H, W)``, of ``tiles``; shrunk by the average."""
    g.inputs.append(helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["N", "H", "W", 3]))
    x = g.node("Mul", [g.node("Cast", ["tiles"], to=TensorProto.FLOAT), g.number(1 / 255)])
    x = g.node("Transpose", [x], perm=[0, 3, 1, 2])  # what is computed before it keeps it from being moved
    area = np.ones((1, 1, op.stride, op.stride)) / op.stride**2
    steps = np.diff(TONES)  # of the land's tone, each a clipped ramp from one knot to the next
    ramps = len(steps) + 1  # and the sky's
    colours = np.concatenate([2 * np.eye(3), np.tile(LUMA, (ramps, 1))])[:, :, None, None]
    x = _exact_conv(g, x, "planes", colours * area, [-1.0] * 3 + [0.0] * ramps, op.stride)
    ones, zeros = (g.constant(f"three_{i}", np.full((1, 3, 1, 1), i)) for i in (1.0, 0.0))
    lo, hi = _scalar(g, "tone", [0, 1, 2, 3, 5]), _scalar(g, "tone", [1, 2, 3, 4, 6])
    offset, scale = g.node("Concat", [zeros, lo], axis=1), g.node("Concat", [ones, g.node("Sub", [hi, lo])], axis=1)
    x = g.node("Div", [g.node("Sub", [x, offset]), scale])
    bounds = [
        g.constant(f"bounds_{i}", np.reshape([rgb] * 3 + [land] * len(steps) + [sky], (1, 3 + ramps, 1, 1)))
        for i, rgb, land, sky in ((0, -2, 0, -0.2), (1, 2, 1, 1.2))
    ]
    x = g.node("Min", [g.node("Max", [x, bounds[0]]), bounds[1]])
    mix = np.zeros((FIVE, 3 + ramps, 1, 1))
    mix[range(3), range(3)], mix[3, 3:-1, 0, 0], mix[4, -1] = 1, steps, 1
    return _exact_conv(g, x, "tones_of_ramps", mix)


def _near(g: GraphWriter, start: int, cell: int, stride: int = 1) -> str:
    """Two channels of the layout, each of its cells enlarged bilinearly to `cell` pixels, unshuffled by `stride`.

    Every pixel of a cell follows from the 3 x 3 cells around: together one convolution.  As torch's pixel_unshuffle
    orders them, ``(N, 2 * stride**2, h * cell / stride, ...)``.
    """
    blocks = cell // stride
    taps = np.zeros((cell, 3))
    for pixel in range(cell):
        shift = (pixel + 0.5) / cell - 0.5
        taps[pixel] = [max(-shift, 0), 1 - abs(shift), max(shift, 0)]
    kernels = np.einsum("yi,xj->yxij", taps, taps).reshape(blocks, stride, blocks, stride, 3, 3)
    kernels = kernels.transpose(1, 3, 0, 2, 4, 5).reshape(cell**2, 1, 3, 3)
    x = _exact_conv(g, _apart(g, _channels(g, "layout", start, start + 2)), f"cells_{cell}_{stride}", kernels)
    if blocks > 1:
        x = g.node("DepthToSpace", [x], blocksize=blocks, mode="CRD")
    return g.node("Reshape", [x, g.constant(f"shape_near_{stride}", [-1, 2 * stride**2, 0, 0], np.int64)])


def _joined(g: GraphWriter, five: str, cell: int, stride: int) -> str:
    """The five planes, unshuffled by a stride, with the layout's two."""
    return g.node("Concat", [five, g.cast(_near(g, 0, cell, stride), g.type)], axis=1)


def _fields(g: GraphWriter, op: Op, x: str, five: str, cell: int) -> str:
    """Sky, tone, cloud, depth: the residual ``x``, in the graph's precision, added to what it belongs to.

    The mean over 2 x 2 pixels of a layout enlarged to 8 is the layout enlarged to 4: bilinear pieces meet at even
    pixels.
    """
    area = np.ones((1, 1, op.stride, op.stride)) / op.stride**2
    tones = _exact_conv(g, five, "tones", np.eye(FIVE)[3:, :, None, None] * area, None, op.stride)
    layout = _near(g, 0, cell)
    kept = g.node("Concat", [_channels(g, layout, 0, 1), tones, _channels(g, layout, 1, 2)], axis=1)
    return g.node("Add", [g.cast(x, TensorProto.FLOAT), kept])


def _shader(g: GraphWriter, op: Op, fields: str) -> str:
    """Colours in 0..1 ``(N, 3, h, w * factor**2)``: the picture's pixels, those of a pixel of the fields in a row.

    Everything is computed place by place, because the places are the output channels of convolutions: no map
    of the picture's size is cut, shifted or rearranged before the last transposition.
    """
    place = _sky_place(g, _near(g, 2, MAP_STRIDE // op.stride), SKY_LUT[2])
    x = g.node("Concat", [fields, place], axis=1)
    x = g.node("Pad", [x, g.constant("pads_shader", [0, 0, 2, 2] * 2, np.int64)], mode="edge")
    values = phase_kernels(op.stride)[:, None]
    maps = [_apart(g, _channels(g, x, i, i + 1)) for i in range(5)]
    given = g.node(
        "Concat", [g.constant("one_level", np.ones((1, 1, 1, 1))), _scalar(g, "controls", [0, 1, 4])], axis=1
    )
    levels = g.node("Max", [given, g.number(1.0)])
    unstepped = g.node("Sub", [g.number(1.0), _clip(g, given, 0.0, 1.0)])
    sharpness = _sharpness(g, _channels(g, x, 0, 4), levels, unstepped, op.stride)
    flat = []
    for i in range(4):
        value = _exact_conv(g, maps[i], "values", values)
        flat.append(_stepped(g, value, _channels(g, sharpness, i, i + 1), _channels(g, levels, i, i + 1)))
    mask, tone, cloud, depth = flat
    place = _exact_conv(g, maps[4], "values", values)
    land, sky = _sampled(g, "land_lut", tone, depth), _sampled(g, "sky_lut", place, cloud)
    mask = g.node("Transpose", [_row(g, mask)], perm=[0, 3, 1, 2])
    return g.node("Add", [land, g.node("Mul", [mask, g.node("Sub", [sky, land])])])


def _row(g: GraphWriter, x: str) -> str:
    """``(N, places, h, w)`` with the places of a pixel in a row, ``(N, h, w * places, 1)``."""
    x = g.node("Transpose", [x], perm=[0, 2, 3, 1])
    return g.node("Reshape", [x, g.constant("shape_row", [0, 0, -1, 1], np.int64)])


def _sky_place(g: GraphWriter, near: str, columns: int) -> str:
    """`engine.program.shader.sky_place`, of sky coordinate and glow ``(N, 2, h, w)``."""
    v, glow = _channels(g, near, 0, 1), _channels(g, near, 1, 2)
    place = _clip(g, g.node("Add", [v, g.node("Mul", [glow, _scalar(g, "controls", [2])])]), 0.0, 1.0)
    place = g.node("Mul", [place, g.number((columns - 2) / (columns - 1))])
    disc = g.node("Mul", [g.node("Sub", [glow, _scalar(g, "controls", [3])]), g.number(SUN_SLOPE)])
    disc = _clip(g, disc, 0.0, 1.0)
    return g.node("Add", [place, g.node("Mul", [disc, g.node("Sub", [g.number(1.0), place])])])


def _sharpness(g: GraphWriter, padded: str, levels: str, unstepped: str, factor: int) -> str:
    """One over the width of a border, in levels, for every pixel of fields that are padded by two.

    Where `unstepped` is 1 a border is as wide as a level, and the field stays as it is.
    """

    def moved(row: int, column: int) -> str:
        starts, ends = [2 + row, 2 + column], [row - 2, column - 2]
        places = [g.constant("places_" + "_".join(map(str, i)), i, np.int64) for i in (starts, ends, [2, 3])]
        return g.node("Slice", [padded, *places])

    middle = moved(0, 0)
    squares = []
    for one, other in ((moved(0, 1), moved(0, -1)), (moved(1, 0), moved(-1, 0))):
        steepest = g.node("Max", [g.node("Abs", [g.node("Sub", [x, middle])]) for x in (one, other)])
        squares.append(g.node("Mul", [steepest, steepest]))
    slope = g.node("Mul", [g.node("Mul", [g.node("Sqrt", [g.node("Add", squares)]), levels]), g.number(EDGE / factor)])
    return g.node("Div", [g.number(1.0), g.node("Max", [_clip(g, slope, FLATTEST * EDGE, 1.0), unstepped])])


def _stepped(g: GraphWriter, value: str, sharpness: str, levels: str) -> str:
    """`engine.program.shader.stepped`."""
    s = g.node("Mul", [_clip(g, value, 0.0, 1.0), levels])
    k = g.node("Floor", [s])
    e = g.node("Mul", [g.node("Sub", [g.node("Sub", [s, k]), g.number(0.5)]), sharpness])
    e = _clip(g, g.node("Add", [e, g.number(0.5)]), 0.0, 1.0)
    return g.node("Div", [g.node("Add", [k, e]), levels])


def _sampled(g: GraphWriter, table: str, column: str, row: str) -> str:
    """A table at places in 0..1 ``(N, places, h, w)``, bilinear, ``(N, 3, h, w * places)``."""
    grid = []
    for x, axis in ((column, [1.0, 0.0]), (row, [0.0, 1.0])):
        x = g.node("Sub", [g.node("Mul", [x, g.number(2.0)]), g.number(1.0)])
        grid.append(g.node("Mul", [_row(g, x), g.constant(f"axis_{axis[1]:.0f}", axis)]))
    mode = "linear" if g.opset >= 20 else "bilinear"
    places = g.node("Add", grid)
    return g.node(
        "GridSample", [_repeated(g, table, places), places], mode=mode, padding_mode="border", align_corners=1
    )


def _repeated(g: GraphWriter, table: str, places: str) -> str:
    """The table ``(1, ...)`` once for every tile of the batch."""
    batch = g.node(
        "Slice", [g.node("Shape", [places]), g.constant("place_0", [0], np.int64), g.constant("place_1", [1], np.int64)]
    )
    shape = g.node("Concat", [batch, g.constant("three_ones", [1, 1, 1], np.int64)], axis=0)
    return g.node("Expand", [table, shape])
