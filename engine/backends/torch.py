"""Backend `torch`: the reference on a CPU, and the second path to CUDA, ROCm and Apple GPUs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.backends.base import Backend, BackendOptions, Tiles, check_conditions, check_tiles, check_view
from engine.conditions import MAP_STRIDE, Conditions, grid_shape
from engine.errors import BackendError, OutOfMemoryError
from engine.graphs.export import read_checkpoint
from engine.program.operations import SLOPE, Op
from engine.program.scaling import weight_powers
from engine.spec import F32, ModelSpec
from engine.tiling import Region, Tile, batches

if TYPE_CHECKING:
    from torch import Tensor

    from engine.backends.torch_graph import GraphCache

__all__ = ["TorchBackend", "apply_op", "reflected"]

Image = npt.NDArray[np.uint8]


class TorchBackend:
    """Interprets the operations of `ModelSpec.program` with torch's functions.

    Args:
        folder: model folder with generator.safetensors.
        spec: its descriptor.
        options: device (`cpu`, `cuda`, `cuda:1`, `mps`), precision, threads.
    """

    name = "torch"

    def __init__(self, folder: Path, spec: ModelSpec, options: BackendOptions) -> None:
        self.folder, self.spec, self.options = folder, spec, options
        self._weights: dict[str, Tensor] = {}
        self._powers: dict[str, int] = {}
        self._under_way: deque[tuple[Tensor, Any]] = deque()
        self._graphs: GraphCache | None = None
        self._copies: tuple[Any, Any] | None = None
        """On CUDA: streams for what goes to the GPU and for what comes back, so that neither waits for the network."""
        self._device: Any = None
        self._dtype: Any = None

    def __enter__(self) -> Backend:
        try:
            import torch
        except ImportError as error:
            raise BackendError("torch is not installed: pip install torch") from error
        if self.options.threads:
            torch.set_num_threads(self.options.threads)
        weights, _ = read_checkpoint(self.folder / "generator.safetensors")
        name = self.options.device or (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
        self._device = self._usable(name)
        self._dtype = self._arithmetic()
        if self._dtype == torch.float16:
            self._powers = weight_powers(self.spec.program.ops, weights)
        for key, value in weights.items():
            self._weights[key] = self._placed(key, value)
        if self._device.type == "cuda":
            from engine.backends.torch_graph import GraphCache

            torch.backends.cudnn.benchmark = True  # shapes are few, and come again for every frame
            self._copies = torch.cuda.Stream(self._device), torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            if self.options.graph:
                self._graphs = GraphCache(self._compute)
        return self

    def _usable(self, name: str) -> Any:
        """The device of a name, tried; BackendError for one that is not there."""
        import torch

        try:
            device = torch.device(name)
            if device.type == "cuda" and torch.cuda.is_available() and (device.index or 0) >= torch.cuda.device_count():
                raise BackendError(
                    f"there is no GPU {device.index}: this machine has {torch.cuda.device_count()}; see nvidia-smi"
                )
            torch.zeros(1).to(device)
        except (RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BackendError(f"torch cannot use device {name!r} ({reason}): try --device cpu") from error
        return device

    def _placed(self, key: str, value: npt.NDArray[Any]) -> Tensor:
        """A parameter on the device, in the type that it is used in."""
        import torch

        prefix, _, part = key.rpartition(".")
        if part in ("gamma", "beta"):  # the affine of the norm stays in float32, like the statistics
            return torch.from_numpy(value.astype(np.float32)).to(self._device)
        scaled = torch.from_numpy(np.ldexp(value.astype(np.float32), -self._powers.get(prefix, 0)))
        placed = scaled.to(self._dtype).to(self._device)
        return placed.contiguous(memory_format=torch.channels_last) if placed.ndim == 4 else placed

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._graphs is not None:
            self._graphs.clear()
        self._graphs = self._copies = None
        self._under_way.clear()
        self._weights.clear()
        self._powers = {}

    @property
    def description(self) -> str:
        """Device name and arithmetic."""
        import torch

        name = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else str(self._device)
        return f"torch {torch.__version__} on {name}, {str(self._dtype).removeprefix('torch.')}"

    def probe(self, view: Tiles, look: F32) -> Conditions:
        """See `Backend.probe`."""
        import torch

        view = _writable(check_view(self.spec, view))
        if self.spec.has_layout:
            return self._layout(view)
        scales: list[Tensor] = []
        shifts: list[Tensor] = []
        weights = torch.from_numpy(_writable(np.ascontiguousarray(look, np.float32))).to(self._device)

        def norm(op: Op, x: Tensor) -> tuple[Tensor, Tensor]:
            scale, shift = weights @ self._weights[f"{op.weight}.gamma"], weights @ self._weights[f"{op.weight}.beta"]
            if op.instance:
                variance, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
                power = 2.0 ** self._powers.get(op.weight, 0)
                variance, mean = variance * power**2, mean * power
                scale = scale / (torch.sqrt(variance + op.eps) + op.eps_outside)
                shift = shift - mean * scale
            scales.append(scale)
            shifts.append(shift)
            return scale, shift

        with self._memory(view), torch.inference_mode():
            x = self._scaled(torch.from_numpy(view).to(self._device)).to(self._dtype)
            self._run(self.spec.program.ops, {"x": x}, norm)
            return Conditions.of_norm(scale=torch.cat(scales).cpu().numpy(), shift=torch.cat(shifts).cpu().numpy())

    def _layout(self, view: Tiles) -> Conditions:
        """What the probe of a model of `layers` returns."""
        import torch

        with self._memory(view), torch.inference_mode():
            x = self._scaled(torch.from_numpy(view).to(self._device)).to(self._dtype)
            layout = self._run(self.spec.program.probe_ops, {"x": x})
            return Conditions(vectors={}, maps={"layout": layout[0].float().cpu().numpy()})

    def render(self, tiles: Tiles, conditions: Conditions) -> Tiles:
        """See `Backend.render`."""
        import torch

        tiles = _writable(check_tiles(self.spec, tiles))
        check_conditions(self.spec, conditions, tiles.shape[1:3])
        with self._memory(tiles), torch.inference_mode():
            maps, vectors = self._placed_conditions(conditions, len(tiles))
            result = self._picture(torch.from_numpy(tiles).to(self._device), *maps, *vectors)
            return np.array(result.cpu().numpy())  # on a CPU the tensor's own memory, else a copy of it

    @property
    def depth(self) -> int:
        """Frames that may be under way at once: on CUDA the host goes on while the GPU works."""
        return 2 if self._device.type == "cuda" else 1

    def submit(self, frame: Image, conditions: Conditions, windows: Sequence[Tile]) -> None:
        """Queue one frame ``(H, W, 3)``; `collect` returns them in order.

        The frame is uploaded once; its tiles are cut and put together on the device.

        Raises:
            OutOfMemoryError: for these windows; nothing was queued, smaller ones may do.
            ValueError: the frame or a window is not what the network takes, or `depth` frames are under way.
        """
        import torch

        if len(self._under_way) >= self.depth:
            raise ValueError(f"at most {self.depth} frames at a time: collect one first")
        whole = _writable(check_tiles(self.spec, frame[None]))
        check_conditions(self.spec, conditions, whole.shape[1:3])
        with self._memory(whole), torch.inference_mode():
            maps, vectors = self._placed_conditions(conditions, 1)
            images = self._uploaded(torch.from_numpy(whole))
            result = torch.empty_like(images)
            for (window,) in batches(windows, 1):
                tile, kept = window.padded, window.region
                top, left = kept.top - tile.top, kept.left - tile.left
                cells = [_cells(values, tile) for values in maps]
                picture = self._picture(_part(images, tile).contiguous(), *cells, *vectors)
                _part(result, kept).copy_(picture[:, top : top + kept.height, left : left + kept.width])
            self._under_way.append(self._downloading(result))

    def collect(self) -> Image:
        """The oldest frame that was submitted, stylized."""
        result, event = self._under_way.popleft()
        if event is not None:
            event.synchronize()
        return np.array(result.numpy()[0])

    def _uploaded(self, array: Tensor) -> Tensor:
        """A copy on the device; by way of page-locked memory and its own stream, so that the host need not wait."""
        import torch

        if self._copies is None:
            return array.clone() if self._device.type == "cpu" else array.to(self._device)
        stream, current = self._copies[0], torch.cuda.current_stream(self._device)
        with torch.cuda.stream(stream):
            result = array.pin_memory().to(self._device, non_blocking=True)
        current.wait_stream(stream)
        result.record_stream(current)  # its memory is the other stream's
        return result

    def _downloading(self, result: Tensor) -> tuple[Tensor, Any]:
        """The place on the host, and an event that tells when it is filled (None: it is)."""
        import torch

        if self._copies is None:
            return result.cpu(), None
        stream = self._copies[1]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        with torch.cuda.stream(stream):
            host.copy_(result, non_blocking=True)
        result.record_stream(stream)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(stream)
        return host, event

    def _placed_conditions(self, conditions: Conditions, count: int) -> tuple[list[Tensor], list[Tensor]]:
        """Maps ``(count, C, h, w)`` and vectors ``(1, ...)`` on the device, in the order of the spec."""
        import torch

        placed = {name: self._uploaded(torch.from_numpy(_writable(v))) for name, v in conditions.feeds(count).items()}
        return [placed[name] for name in self.spec.render_maps], [placed[name] for name in self.spec.render_vectors]

    def _picture(self, images: Tensor, *conditions: Tensor) -> Tensor:
        """Stylized images; on CUDA the next call with the same shape may overwrite them."""
        return (self._graphs or self._compute)(images, *conditions)

    def _compute(self, images: Tensor, *conditions: Tensor) -> Tensor:
        """Stylize uint8 NHWC images on the device, by maps and vectors; the same kernels for the same shape."""
        import torch

        given = dict(zip((*self.spec.render_maps, *self.spec.render_vectors), conditions, strict=True))
        x = self._scaled(images)
        if self.spec.has_layout:
            y = self._run(self.spec.program.ops, {"x": x, **given})
        else:

            def norm(op: Op, x: Tensor) -> tuple[Tensor, Tensor]:
                part = slice(op.offset, op.offset + op.cout)
                return given["scale"][0, part], given["shift"][0, part]

            y = self._run(self.spec.program.ops, {"x": x.to(self._dtype)}, norm).float()
        y = torch.round(y * 127.5 + 127.5).clamp_(0, 255).to(torch.uint8)
        return y.permute(0, 2, 3, 1).contiguous()

    def _scaled(self, images: Tensor) -> Tensor:
        """uint8 NHWC images as float32 NCHW in -1..1.

        Both ends are float32: 16-bit types cannot hold all 256 levels on a scale from -1 to 1.
        """
        return images.permute(0, 3, 1, 2).float().mul(1 / 127.5).sub_(1.0)

    def _run(self, ops: Sequence[Op], given: Mapping[str, Tensor], norm: Any = None) -> Tensor:
        """The last operation's result of a program on what is given by name."""
        from engine.looks.torch_shader import layers_op

        tensors = dict(given)
        for i, op in enumerate(ops):
            inputs = [tensors[name] for name in op.inputs]
            if op.kind in ("planes", "fields", "shader"):
                tensors[op.output] = layers_op(op.kind, [value.float() for value in inputs], op.stride)
            elif op.kind == "norm":
                scale, shift = norm(op, inputs[0])
                scale = scale * 2.0 ** self._powers.get(op.weight, 0)
                scale, shift = (v.view(1, -1, 1, 1).to(self._dtype) for v in (scale, shift))
                tensors[op.output] = inputs[0] * scale + shift
            elif op.kind == "tanh":
                tensors[op.output] = inputs[0].float().tanh()
            else:
                inputs = [value.to(self._dtype) for value in inputs]
                tensors[op.output] = apply_op(op, inputs, self._weights)
            for name in set(op.inputs):
                if not any(name in later.inputs for later in ops[i + 1 :]):
                    del tensors[name]
        return tensors[ops[-1].output]

    @contextmanager
    def _memory(self, images: Tiles) -> Iterator[None]:
        """torch's lack of memory becomes ours; what was kept for other shapes is given back."""
        import torch

        try:
            yield
        except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator has no class of its own
            if not any(text in str(error) for text in ("out of memory", "you tried to allocate")):
                if "CUDA" not in str(error):
                    raise
                reason = " ".join(str(error).split())[:200]
                raise BackendError(
                    f"CUDA failed on {self._device} ({reason}): see nvidia-smi, then try again"
                ) from error
            if self._graphs is not None:
                self._graphs.clear()
            torch.cuda.empty_cache()
            shape = "x".join(map(str, images.shape[:3]))
            raise OutOfMemoryError(f"no memory for a tile of {shape}: choose a smaller --tile") from error

    def _arithmetic(self) -> Any:
        import torch

        precision = self.options.precision
        if precision == "auto":
            precision = "fp16" if self._device.type in ("cuda", "mps") else "fp32"
        return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


def apply_op(op: Op, inputs: Sequence[Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    """Any operation but `norm`, on NCHW tensors of the weights' type."""
    import torch
    import torch.nn.functional as F

    x = inputs[0]
    if op.kind == "conv_transpose":
        weight, bias = weights[f"{op.weight}.weight"], weights.get(f"{op.weight}.bias")
        before, after = op.pads
        rest = op.stride - op.kernel + before + after
        if before == after:
            return F.conv_transpose2d(x, weight, bias, op.stride, before, output_padding=rest)
        whole = F.conv_transpose2d(x, weight, bias, op.stride)
        height, width = (before + side * op.stride for side in x.shape[2:])
        return whole[:, :, before:height, before:width]
    if op.kind == "conv":
        before, after = op.pads
        padded = x
        if x.is_cuda and op.pad_mode == "reflect" and before == after != 0:
            padded = reflected(x, before)
        elif before or after:
            mode = "replicate" if op.pad_mode == "edge" else op.pad_mode
            padded = F.pad(x, (before, after, before, after), mode=mode)
        weight, bias = weights[f"{op.weight}.weight"], weights.get(f"{op.weight}.bias")
        return F.conv2d(padded, weight, bias, op.stride, dilation=op.dilation, groups=op.groups)
    simple: dict[str, Callable[[], Tensor]] = {
        "upsample": lambda: F.interpolate(x, scale_factor=op.stride, mode="nearest"),
        "add": lambda: x + inputs[1],
        "relu": lambda: F.relu(x),
        "leaky": lambda: F.leaky_relu(x, SLOPE),
        "tanh": lambda: torch.tanh(x),
        "relu6": lambda: F.relu6(x),
        "sigmoid": lambda: torch.sigmoid(x),
        "clip": lambda: x.clamp(0, 1),
        "concat": lambda: torch.cat(list(inputs), 1),
        "slice": lambda: x[:, op.offset : op.offset + op.cout],
        "avg_pool": lambda: F.avg_pool2d(x, op.stride),
        "resize": lambda: F.interpolate(x, scale_factor=op.stride, mode="bilinear", align_corners=False),
        "unshuffle": lambda: F.pixel_unshuffle(x, op.stride),
        "shuffle": lambda: F.pixel_shuffle(x, op.stride),
    }
    return simple[op.kind]()


def reflected(x: Tensor, pad: int) -> Tensor:
    """Reflection padding ``(N, C, H, W)`` that keeps the channels last in memory.

    On CUDA torch's own brings them first, and the convolution brings them back: two copies of the feature map.
    """
    import torch

    n, channels, height, width = x.shape
    shape = (n, channels, height + 2 * pad, width + 2 * pad)
    result = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    result[:, :, pad : pad + height, pad : pad + width] = x
    middle = result[:, :, pad : pad + height]
    middle[..., :pad] = x[..., 1 : pad + 1].flip(3)
    middle[..., pad + width :] = x[..., width - 1 - pad : width - 1].flip(3)
    result[:, :, :pad] = result[:, :, pad + 1 : 2 * pad + 1].flip(2)
    result[:, :, pad + height :] = result[:, :, height - 1 : height + pad - 1].flip(2)
    return result


def _part(images: Tensor, place: Region) -> Tensor:
    """A rectangle of images ``(N, H, W, 3)``, as a view."""
    return images[:, place.top : place.top + place.height, place.left : place.left + place.width]


def _cells(values: Tensor, place: Region) -> Tensor:
    """The part of a map on the grid ``(1, C, h, w)`` that a tile needs."""
    top, left = place.top // MAP_STRIDE, place.left // MAP_STRIDE
    height, width = grid_shape(place.height, place.width)
    return values[:, :, top : top + height, left : left + width].contiguous()


def _writable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array, or a copy where torch would warn that it cannot write to it."""
    return array if array.flags.writeable else array.copy()
