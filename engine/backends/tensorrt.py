"""Backends `tensorrt` and `tensorrt-rtx`: NVIDIA GPUs, by plans that `build-engine` made.

A frame is uploaded once; its tiles are cut, rendered and put together on the device.  Two lanes take
turns, each with its own stream, execution context and buffers, so that one frame is copied while
another is computed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.backends.base import BackendOptions, Tiles, check_conditions, check_tiles, check_view
from engine.conditions import Conditions, grid_shape, window
from engine.errors import BackendError, OutOfMemoryError, PlanError
from engine.memory import gpu_tile
from engine.spec import F32, ModelSpec
from engine.tiling import Tile, batches, usual_tile
from engine.trt import api as tensorrt_api
from engine.trt import rtx
from engine.trt.cuda import CudaDevice, Stream, aligned, copy_rectangle, gpu_number
from engine.trt.cuda_graph import Replay
from engine.trt.plan import GRAPHS, PlanCache, PlanConfig, PlanRecord, Shape, ShapeProfile

__all__ = ["TensorRtBackend"]

log = logging.getLogger(__name__)

Image = npt.NDArray[np.uint8]

BuildPlan = Callable[[Path, PlanConfig, PlanCache, int], tuple[Path, PlanRecord]]
"""Model folder, what to build, cache and number of the GPU; returns the plan's folder and sidecar."""

Shapes = Mapping[str, tuple[int, ...]]
"""Of the inputs that have no fixed one, by name; the picture's first."""

LANES = 2


class TensorRtBackend:
    """Runs the two plans of a model on one GPU.

    For a video (`BackendOptions.frame`) that is a plan of the frames' own shape alone.  It gives way to one that takes
    tiles of many shapes as soon as others come: frames of another size, or tiles because memory has run out.

    Args:
        folder: model folder.
        spec: its descriptor.
        options: device (`cuda:1`), precision, cache folder, plan folder, the video's frame.
        build: makes a plan where the cache has none that fits; None: that is a PlanError.
        runtime: `tensorrt`, or `rtx` for TensorRT-RTX.
    """

    depth = LANES

    def __init__(
        self,
        folder: Path,
        spec: ModelSpec,
        options: BackendOptions,
        *,
        build: BuildPlan | None = None,
        runtime: str = "tensorrt",
    ) -> None:
        self.folder, self.spec, self.options, self._build, self.runtime = folder, spec, options, build, runtime
        self.name = "tensorrt-rtx" if runtime == "rtx" else "tensorrt"
        self._stack = ExitStack()
        self._lanes: list[_Lane] = []
        self._busy: deque[tuple[_Lane, tuple[int, ...]]] = deque()
        self._done: deque[Image] = deque()
        self._kernels: list[rtx.RuntimeCache] = []
        self._turn = 0

    def __enter__(self) -> TensorRtBackend:
        with ExitStack() as stack:
            tensorrt_api.load(self.runtime)
            self._device = stack.enter_context(CudaDevice(gpu_number(self.options.device)))
            if self.runtime == "rtx":
                rtx.check_supported(self._device)
            stack.callback(self._free)
            # Kernels of TensorRT-RTX are specialised for the shapes at hand in any case.
            self._open(self.options.frame if self.runtime == "tensorrt" else None)
            self._stack = stack.pop_all()
        return self

    def _open(self, frame: tuple[int, int] | None) -> None:
        """Find, or build, the plan for frames of one shape (None: tiles of many) and make it ready to run."""
        self.plan, self.record = self._find_plan(frame)
        self._profile = self.record.config.profile
        trt = tensorrt_api.load(self.runtime)
        with self._device.current():
            self._runtime = tensorrt_api.started(trt.Runtime, tensorrt_api.logger(self.runtime))
            if self.runtime == "tensorrt":
                self._runtime.engine_host_code_allowed = self.record.config.version_compatible
            self._engines = {graph: self._deserialized(graph) for graph in GRAPHS}
            self._probe = self._lane("probe", 1)[0]
            self._lanes = self._lane("render", LANES)

    def _lane(self, graph: str, count: int) -> list[_Lane]:
        """Lanes of one graph."""
        engine, device = self._engines[graph], self._device
        if self.runtime == "rtx":
            key = "".join(c if c.isalnum() else "-" for c in f"{self.record.key}-{graph}-{device.name}")
            kernels = rtx.RuntimeCache(PlanCache(self.options.cache).root / "kernels" / f"{key}.bin")
            self._kernels.append(kernels)
            contexts = [rtx.execution_context(engine, kernels, graph=self.options.graph) for _ in range(count)]
            return [_Lane(device, context, graph=False) for context in contexts]
        strategy = tensorrt_api.load().ExecutionContextAllocationStrategy.USER_MANAGED
        contexts = [engine.create_execution_context(strategy) for _ in range(count)]
        return [_Lane(device, context, graph=self.options.graph) for context in contexts]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _free(self) -> None:
        """Contexts before engines before the runtime, all within the CUDA context."""
        with self._device.current():
            for kernels in self._kernels:
                kernels.save()
            self._kernels = []
            for lane in [*self._lanes, *([self._probe] if hasattr(self, "_probe") else [])]:
                lane.free()
            self._busy.clear()
            self._lanes = []
            self.__dict__.pop("_probe", None)
            self._engines = {}
            self._runtime = None

    @property
    def description(self) -> str:
        """GPU, TensorRT's version and arithmetic."""
        machine = self.record.machine
        name = tensorrt_api.title(self.runtime)
        return f"{name} {machine.tensorrt} on {self._device.name}, {self.record.config.precision}"

    @property
    def largest_tile(self) -> tuple[int, int]:
        """Height and width of the largest tile that the plan takes."""
        return self._profile.max[1:]

    def probe(self, view: Tiles, look: F32) -> Conditions:
        """See `Backend.probe`."""
        view = check_view(self.spec, view)
        self._check_shape(ShapeProfile.of_probe(self.spec), view.shape)
        if self.spec.has_layout:
            _, height, width, _ = view.shape
            (layout,) = self._probed(view, {}, {"layout": (1, 2, height // 8, width // 8)})
            return Conditions(vectors={}, maps={"layout": layout[0]})
        shape = (1, self.spec.norm_channels)
        scale, shift = self._probed(view, {"look": look.reshape(1, -1)}, {"scale": shape, "shift": shape})
        return Conditions.of_norm(scale=scale[0], shift=shift[0])

    def _probed(self, view: Tiles, vectors: dict[str, F32], results: dict[str, tuple[int, ...]]) -> list[F32]:
        """Outputs of the probe engine, in order."""
        lane, size = self._probe, 0
        with self._device.current():
            shapes = {"view": view.shape, **{name: values.shape for name, values in vectors.items()}}
            lane.prepare(shapes)
            places = {}
            for name, shape in results.items():
                places[name], size = size, aligned(size + 4 * int(np.prod(shape)))
            addresses = {"view": lane.input.reserve(view.nbytes)}
            result = lane.output.reserve(size)
            with lane.settled():
                lane.upload(addresses["view"], view.reshape(-1))
                addresses |= lane.upload_arrays(vectors) if vectors else {}
                lane.execute({**addresses, **{name: result + place for name, place in places.items()}}, shapes)
                found = lane.download(result, size)
        parts = [found[places[name] :][: 4 * int(np.prod(shape))] for name, shape in results.items()]
        return [p.view(np.float32).reshape(s).copy() for p, s in zip(parts, results.values(), strict=True)]

    def render(self, tiles: Tiles, conditions: Conditions) -> Tiles:
        """See `Backend.render`."""
        tiles = check_tiles(self.spec, tiles)
        check_conditions(self.spec, conditions, tiles.shape[1:3])
        self._take_shape((1, *tiles.shape[1:]))
        step = self._profile.max[0]
        parts = [self._render_batch(tiles[i : i + step], conditions) for i in range(0, len(tiles), step)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _render_batch(self, tiles: Tiles, conditions: Conditions) -> Tiles:
        lane = self._free_lane()
        with self._device.current():
            lane.reserve_frame(tiles.nbytes)
            lane.prepare(self._shapes(tiles.shape))
            with lane.settled():
                lane.upload(lane.frame.reserve(0), tiles.reshape(-1))
                given = lane.upload_arrays(conditions.feeds(len(tiles)))
                lane.render(lane.frame.reserve(0), lane.result.reserve(0), self._shapes(tiles.shape), given)
                return lane.download(lane.result.reserve(0), tiles.nbytes).reshape(tiles.shape).copy()

    def _shapes(self, tiles: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs that follow those of the tiles ``(N, H, W, 3)``."""
        shapes = {"tiles": tiles}
        for name, channels in self.spec.render_maps.items():
            shapes[name] = (tiles[0], *channels, *grid_shape(*tiles[1:3]))
        return shapes

    def submit(self, frame: Image, conditions: Conditions, windows: Sequence[Tile]) -> None:
        """Queue one frame ``(H, W, 3)``; `collect` returns them in order.  At most `depth` at a time.

        Raises:
            OutOfMemoryError: for these windows; nothing was queued, smaller ones may do.
            ValueError: the frame or a window is not what the network takes.
        """
        if len(self._busy) + len(self._done) >= LANES:
            raise ValueError(f"at most {LANES} frames at a time: collect one first")
        frame = check_tiles(self.spec, frame[None])[0]
        check_conditions(self.spec, conditions, frame.shape[:2])
        for part in windows:
            self._take_shape((1, part.padded.height, part.padded.width, 3))
        lane = self._free_lane()
        try:
            groups = self._reserved(lane, frame, windows, self._profile.max[0])
        except OutOfMemoryError:
            if self._profile.max[0] == 1 or len(windows) == 1:
                raise
            groups = self._reserved(lane, frame, windows, 1)
        with self._device.current(), lane.settled():
            lane.upload(lane.frame.reserve(0), frame.reshape(-1))
            given = lane.upload_arrays(_by_group(conditions, groups))
            for number, group in enumerate(groups):
                shapes = self._shapes((len(group), group[0].padded.height, group[0].padded.width, 3))
                maps = {name: given[f"{name} {number}"] for name in conditions.maps}
                vectors = {name: given[name] for name in conditions.vectors}
                lane.render_windows(group, frame.shape, shapes, {**vectors, **maps})
            lane.start_download(lane.result.reserve(0), frame.nbytes)
        self._busy.append((lane, frame.shape))

    def _reserved(self, lane: _Lane, frame: Image, windows: Sequence[Tile], batch: int) -> list[list[Tile]]:
        """Windows in batches that there is memory for."""
        groups = list(batches(windows, batch))
        with self._device.current():
            lane.reserve_frame(frame.nbytes)
            for group in groups:
                shape = (len(group), group[0].padded.height, group[0].padded.width, 3)
                lane.reserve_tiles(self._shapes(shape), frame.shape)
        return groups

    def collect(self) -> Image:
        """The oldest frame that was submitted, stylized."""
        return self._done.popleft() if self._done else self._finished()

    def _finished(self) -> Image:
        """Wait for the oldest frame on the GPU."""
        lane, shape = self._busy.popleft()
        with self._device.current():
            return lane.finish_download().reshape(shape).copy()

    def throughput(self, shape: Shape, repetitions: int = 20) -> float:
        """Tiles of ``(N, H, W)`` that the engine alone renders in a second."""
        lane = self._free_lane()
        pixels = (*shape, 3)
        with self._device.current():
            lane.reserve_frame(int(np.prod(pixels)))
            shapes = self._shapes(pixels)
            lane.prepare(shapes)
            inputs = {**{n: (1, *s) for n, s in self.spec.render_vectors.items()}, **shapes}
            zeros = {name: np.zeros(size, np.float32) for name, size in inputs.items() if name != "tiles"}
            given = lane.upload_arrays(zeros)
            times = []
            for _ in range(repetitions + 3):
                times.append(lane.stream.time())
                lane.render(lane.frame.reserve(0), lane.result.reserve(0), shapes, given)
            end = lane.stream.time()
            seconds = Stream.elapsed(times[3], end) / repetitions
            lane.synchronize()
        return shape[0] / seconds

    def _free_lane(self) -> _Lane:
        busy = [lane for lane, _ in self._busy]
        lane = next((lane for lane in self._lanes[self._turn :] + self._lanes if lane not in busy), None)
        if lane is None:
            raise ValueError(f"{len(busy)} frames are under way: collect one first")
        self._turn = (self._lanes.index(lane) + 1) % LANES
        return lane

    def _take_shape(self, shape: tuple[int, ...]) -> None:
        """Change to a plan of many shapes where the video's own does not take one; else `_check_shape`."""
        whole = (shape[0], shape[1], shape[2])
        if self._profile.is_fixed and not self._profile.holds(whole) and self._chosen_for_frame:
            log.warning("the plan for %dx%d does not take tiles of %dx%d: changing", *self._profile.max[1:], *whole[1:])
            self._done += [self._finished() for _ in range(len(self._busy))]
            self._free()
            self._open(None)
        self._check_shape(self._profile, shape)

    @property
    def _chosen_for_frame(self) -> bool:
        return self.options.frame is not None and self.options.plan is None

    def _check_shape(self, profile: ShapeProfile, shape: tuple[int, ...]) -> None:
        if any(n < low for n, low in zip(shape, profile.min, strict=False)):
            least = "x".join(map(str, profile.min[1:]))
            raise PlanError(
                f"the plan takes tiles from {least} up, got {shape[1]}x{shape[2]}: build one for smaller pictures, "
                f"build-engine --tile {profile.max[1]}x{profile.max[2]}"
            )
        if not profile.holds((shape[0], shape[1], shape[2])):
            largest = "x".join(map(str, profile.max[1:]))
            raise OutOfMemoryError(
                f"the plan takes tiles of up to {largest} and batches of up to {profile.max[0]}, "
                f"got {shape[1]}x{shape[2]} in a batch of {shape[0]}: choose a smaller --tile, "
                f"or build-engine --tile {shape[1]}x{shape[2]} --batch {shape[0]}"
            )

    def _find_plan(self, frame: tuple[int, int] | None) -> tuple[Path, PlanRecord]:
        from engine.trt.graphs import graph_hashes, onnx_graphs

        machine = tensorrt_api.machine(self._device, self.runtime)
        precision = "fp16" if self.options.precision == "auto" else self.options.precision
        if self.options.plan is not None:
            record = PlanRecord.load(self.options.plan)
            reason = record.mismatch(machine, self.runtime)
            if reason is None and dict(record.graphs) != graph_hashes(
                onnx_graphs(self.folder, self.spec, record.config.precision)
            ):
                reason = f"was built from another model or version than {self.spec.name}"
            if reason is not None:
                raise PlanError(f"{self.options.plan} {reason}: {record.rebuild()}")
            record.verify(self.options.plan)
            return self.options.plan, record
        cache, graphs = PlanCache(self.options.cache), graph_hashes(onnx_graphs(self.folder, self.spec, precision))
        profile = self._profile_for(frame, precision)
        shape = profile.opt if profile.is_fixed else None
        found = self._carried(graphs, machine) or cache.find(graphs, machine, self.runtime, shape)
        if found is not None:
            found[1].verify(found[0])
            return found
        name = tensorrt_api.title(self.runtime)
        if self._build is None:
            raise PlanError(f"no {name} plan of {self.spec.name} for {machine} yet: build-engine makes one")
        time = "several seconds" if self.runtime == "rtx" else "several minutes"
        log.warning(
            "no %s plan of %s for %dx%d on %s yet: building one, once, which may take %s; it is kept in %s. "
            "To have it beforehand: build-engine --model %s --gpu %d%s%s; to do without: --backend torch or openvino",
            *(name, self.spec.name, *profile.max[1:], machine, time, cache.plans, self.spec.name, self._device.index),
            " --runtime rtx" if self.runtime == "rtx" else "",
            f" --tile {profile.max[1]}x{profile.max[2]} --fixed" if profile.is_fixed else "",
        )
        config = PlanConfig(profile=profile, precision=precision, runtime=self.runtime)
        return self._build(self.folder, config, cache, self._device.index)

    def _profile_for(self, frame: tuple[int, int] | None, precision: str) -> ShapeProfile:
        """What a plan that is built here takes: tiles of many shapes, or for a video those of its frames alone."""
        if frame is None:
            return ShapeProfile.of_tile(self.spec, *usual_tile(self.spec.halo, self.spec.multiple), 1)
        with self._device.current():
            total = self._device.memory()[1]
        try:
            return ShapeProfile.fixed(*gpu_tile(self.spec, frame, total, precision=precision, at_once=LANES))
        except ValueError as error:
            raise OutOfMemoryError(f"GPU {self._device.index} is too small for {self.spec.name}: {error}") from error

    def _carried(self, graphs: Mapping[str, str], machine: tensorrt_api.Machine) -> tuple[Path, PlanRecord] | None:
        """The portable plan that the model folder brings with it, if it fits."""
        folder = self.folder / "rtx"
        if self.runtime != "rtx" or not (folder / "plan.json").is_file():
            return None
        record = PlanRecord.load(folder)
        reason = record.mismatch(machine, self.runtime)
        if reason is None and dict(record.graphs) == dict(graphs):
            return folder, record
        log.info("the plan in %s is not used: it %s", folder, reason or "was built from another precision or version")
        return None

    def _deserialized(self, graph: str) -> Any:
        trt = tensorrt_api.load(self.runtime)
        path = self.plan / f"{graph}.plan"
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            reason = tensorrt_api.recent_errors()
            if tensorrt_api.lacks_memory(reason):
                raise OutOfMemoryError(f"no memory for {path} ({reason}): close other programs, or use a smaller model")
            raise PlanError(f"{path} cannot be loaded ({reason}): {self.record.rebuild()} --force")
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        if graph == "render":
            inputs, outputs = ["tiles", *self.spec.render_vectors, *self.spec.render_maps], ["output"]
        elif self.spec.has_layout:
            inputs, outputs = ["view"], ["layout"]
        else:
            inputs, outputs = ["view", "look"], ["scale", "shift"]
        expected = {**dict.fromkeys(inputs, "INPUT"), **dict.fromkeys(outputs, "OUTPUT")}
        modes = {name: engine.get_tensor_mode(name) for name in names}
        if modes != {name: getattr(trt.TensorIOMode, mode) for name, mode in expected.items()}:
            raise PlanError(f"{path} has other inputs than {', '.join(expected)}: {self.record.rebuild()} --force")
        for name in names:
            image = name in ("view", "tiles", "output")
            if engine.get_tensor_dtype(name) != (trt.DataType.UINT8 if image else trt.DataType.FLOAT):
                raise PlanError(f"{path} has an input of another type ({name}): {self.record.rebuild()} --force")
        return engine


@dataclass(eq=False)
class _Download:
    """A copy to the host that is under way."""

    pinned: Any
    size: int


class _Lane:
    """A stream with an execution context and the buffers of one frame.

    Activation memory follows the shapes at hand, so that smaller tiles need less of it.
    """

    def __init__(self, device: CudaDevice, context: Any, *, graph: bool) -> None:
        if context is None:
            raise OutOfMemoryError(f"no memory for an execution context: {tensorrt_api.recent_errors()}")
        self.context = context
        self.stream = device.stream()
        self._replay = Replay(self.stream.handle) if graph else None
        self.frame, self.result, self.input, self.output, self.vectors, self.scratch = (
            device.buffer() for _ in range(6)
        )
        self._staging = [device.pinned() for _ in range(3)]  # two uploads and a download
        self._uploads = 0
        self._download: _Download | None = None

    def free(self) -> None:
        """Wait for queued work, then give everything back."""
        with suppress(Exception):  # what failed on the way has been told
            self.stream.synchronize()
        if self._replay is not None:
            self._replay.clear()
        self.context = None
        for buffer in (self.frame, self.result, self.input, self.output, self.vectors, self.scratch):
            buffer.free()
        for array in self._staging:
            array.free()

    def synchronize(self) -> None:
        """Wait until all that was queued is done; the page-locked arrays are free again."""
        self.stream.synchronize()
        self._uploads = 0

    @contextmanager
    def settled(self) -> Iterator[None]:
        """After a failure nothing of what was queued inside is under way any more."""
        try:
            yield
        except BaseException:
            with suppress(Exception):  # the first failure is the one to tell
                self.synchronize()
            raise

    def prepare(self, shapes: Shapes) -> None:
        """Room for what lies between the layers; before anything is queued, so that it may fail."""
        self._set_shapes(shapes)
        self._reserve_scratch()

    def upload(self, target: int, data: npt.NDArray[np.uint8]) -> None:
        """Queue a copy by way of page-locked memory; at most two between synchronizations."""
        pinned = self._staging[self._uploads].reserve(data.nbytes)
        self._uploads += 1
        np.copyto(pinned, data)
        self.stream.upload(target, pinned)

    def upload_arrays(self, arrays: Mapping[str, F32]) -> dict[str, int]:
        """Queue a copy of float32 arrays to `vectors`; their addresses, each of them aligned."""
        places, size = {}, 0
        for name, values in arrays.items():
            places[name], size = size, aligned(size + values.nbytes)
        joined = np.zeros(size, np.uint8)
        for name, values in arrays.items():
            flat = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint8)
            joined[places[name] : places[name] + flat.size] = flat
        start = self.vectors.reserve(size)
        self.upload(start, joined)
        return {name: start + place for name, place in places.items()}

    def start_download(self, source: int, size: int) -> None:
        """Queue a copy to page-locked memory."""
        self._download = _Download(self._staging[2].reserve(size), size)
        self.stream.download(self._download.pinned, source)

    def finish_download(self) -> npt.NDArray[np.uint8]:
        """Wait for it; the array is overwritten by the next one."""
        assert self._download is not None
        self.synchronize()
        pinned, self._download = self._download.pinned, None
        result: npt.NDArray[np.uint8] = pinned
        return result

    def download(self, source: int, size: int) -> npt.NDArray[np.uint8]:
        """Copy to page-locked memory and wait; the array is overwritten by the next one."""
        self.start_download(source, size)
        return self.finish_download()

    def reserve_frame(self, size: int) -> None:
        """Room for a frame and its result."""
        if self._uploads:  # left over from a frame that failed on the way
            self.synchronize()
        for buffer in (self.frame, self.result):
            buffer.reserve(size)

    def reserve_tiles(self, shapes: Shapes, frame: tuple[int, ...]) -> None:
        """Room for tiles of a shape, and for what lies between the layers."""
        shape = shapes["tiles"]
        if shape[1:] != frame:
            self.input.reserve(int(np.prod(shape)))
            self.output.reserve(int(np.prod(shape)))
        self.prepare(shapes)

    def render_windows(
        self, group: Sequence[Tile], frame: tuple[int, ...], shapes: Shapes, given: dict[str, int]
    ) -> None:
        """Cut the tiles out of `frame`, render them, put what is kept into `result`."""
        tile = group[0].padded
        if shapes["tiles"][1:] == frame:
            return self.render(self.frame.reserve(0), self.result.reserve(0), shapes, given)
        row, size = tile.width * 3, tile.width * tile.height * 3
        images, pictures = self.input.reserve(0), self.output.reserve(0)
        whole, result, pitch = self.frame.reserve(0), self.result.reserve(0), frame[1] * 3
        for i, part in enumerate(group):
            cut = whole + part.padded.top * pitch + part.padded.left * 3
            copy_rectangle(self.stream, cut, pitch, images + i * size, row, width=row, height=tile.height)
        self.render(images, pictures, shapes, given)
        for i, part in enumerate(group):
            kept, padded = part.region, part.padded
            inner = pictures + i * size + (kept.top - padded.top) * row + (kept.left - padded.left) * 3
            place = result + kept.top * pitch + kept.left * 3
            copy_rectangle(self.stream, inner, row, place, pitch, width=kept.width * 3, height=kept.height)
        return None

    def render(self, images: int, result: int, shapes: Shapes, given: dict[str, int]) -> None:
        """Queue the render engine on tiles at a device address, with conditions at theirs."""
        self.execute({"tiles": images, "output": result, **given}, shapes)

    def execute(self, addresses: dict[str, int], shapes: Shapes) -> None:
        """Queue the engine, by a CUDA graph where the same comes again."""
        self._set_shapes(shapes)
        self._reserve_scratch()
        for name, address in addresses.items():
            _check(self.context.set_tensor_address(name, address), f"the address of {name}")
        if self._replay is None:
            return self._enqueue()
        places = (*addresses.items(), *shapes.items(), self.scratch.reserve(0), self.scratch.size)
        return self._replay(places, self._enqueue)

    def _enqueue(self) -> None:
        _check(self.context.execute_async_v3(self.stream.handle), "the network")

    def _set_shapes(self, shapes: Shapes) -> None:
        for name, shape in shapes.items():
            _check(self.context.set_input_shape(name, tuple(shape)), f"the shape {shape} of {name}")

    def _reserve_scratch(self) -> None:
        size = max(int(self.context.update_device_memory_size_for_shapes()), 1)
        self.context.set_device_memory(self.scratch.reserve(size), self.scratch.size)


def _by_group(conditions: Conditions, groups: Sequence[Sequence[Tile]]) -> dict[str, F32]:
    """Vectors by name; maps, cut for the tiles of every group, by name and number of the group."""
    arrays = {name: values[None] for name, values in conditions.vectors.items()}
    for number, group in enumerate(groups):
        cut = [window(conditions, part.padded) for part in group]
        for name in conditions.maps:
            arrays[f"{name} {number}"] = np.stack([part.maps[name] for part in cut])
    return arrays


def _check(accepted: bool, what: str) -> None:
    if accepted:
        return
    reason = tensorrt_api.recent_errors()
    if tensorrt_api.lacks_memory(reason):
        raise OutOfMemoryError(f"no GPU memory left for {what} ({reason}): choose a smaller --tile")
    raise BackendError(f"TensorRT does not take {what}: {reason}")
