"""From a model folder to a TensorRT plan: strongly typed, checked on the GPU before it is trusted."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.backends.base import BackendOptions
from engine.conditions import grid_shape
from engine.errors import BuildCancelled, OutOfMemoryError, PlanError
from engine.graph_writer import EXACT
from engine.metrics import psnr
from engine.probing import usual_conditions
from engine.spec import ModelSpec, sha256
from engine.trt import api as tensorrt_api
from engine.trt.api import Machine
from engine.trt.cuda import CudaDevice
from engine.trt.graphs import graph_hashes, onnx_graphs
from engine.trt.plan import BARS, GRAPHS, PlanCache, PlanConfig, PlanRecord, ShapeProfile

__all__ = ["Builder", "Progress", "build_plan", "reference_picture"]

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with the name of a phase, the steps done and the steps there are; may come from any thread."""


def reference_picture(height: int, width: int) -> npt.NDArray[np.uint8]:
    """A picture ``(1, H, W, 3)`` with gradients, edges and grain, the same on every machine."""
    y, x = np.mgrid[0:height, 0:width]
    ridge = y > height * (0.45 + 0.2 * np.sin(x * 6.0 / width))
    grain = (x * 7919 + y * 104729) % 17 - 8
    sky = np.stack([230 - 90 * y / height, 140 + 60 * x / width, 120 + 90 * y / height], -1)
    land = np.stack([60 + 80 * x / width, 70 + 40 * (x // 8 % 2), 40 + 60 * (y // 5 % 2)], -1)
    picture = np.where(ridge[..., None], land, sky) + grain[..., None]
    return np.ascontiguousarray(np.clip(picture, 0, 255).astype(np.uint8)[None])


class Builder:
    """Builds the plans of one model on one GPU.

    Args:
        folder: model folder.
        config: what to build.
        cache: where plans go.
        gpu: number of the GPU.
        timing_cache: file with kernel timings of earlier builds; None: beside the plans.
        progress: told how far the build is.
    """

    def __init__(
        self,
        folder: Path,
        config: PlanConfig,
        *,
        cache: PlanCache | None = None,
        gpu: int = 0,
        timing_cache: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.folder, self.config, self.gpu = folder, config, gpu
        self.spec = ModelSpec.load(folder)
        config.profile.check(self.spec)
        self.cache = cache or PlanCache()
        self.timing_cache = timing_cache
        self.progress = progress or (lambda phase, done, steps: None)
        self.graphs = onnx_graphs(folder, self.spec, config.precision)
        self._cancelled = threading.Event()

    def record(self, machine: Machine) -> PlanRecord:
        """The sidecar of a plan for a machine, before it is built."""
        return PlanRecord(
            model=self.spec.name, graphs=graph_hashes(self.graphs), config=self.config, machine=machine
        )  # fmt: skip

    def build(self, *, force: bool = False, output: Path | None = None) -> tuple[Path, PlanRecord]:
        """The plan's folder and sidecar; built if it is not there yet, or if `force` is set.

        Raises:
            PlanError: the plan cannot be built, or is not accurate enough to be used.
            BackendError: TensorRT, its driver or the GPU are missing.
            BuildCancelled: `cancel` was called.
        """
        tensorrt_api.load()
        with CudaDevice(self.gpu) as device:
            record = self.record(tensorrt_api.machine(device))
            target = output or self.cache.folder(record)
            with self.cache.lock(record.key):
                if not force and (target / "plan.json").is_file():
                    found = PlanRecord.load(target)
                    if output is None or (found.key == record.key):
                        found.verify(target)
                        return target, found
                    raise PlanError(f"{target} holds another plan: choose another --output, or --force")
                with self.cache.workplace(target) as place:
                    self._build_into(place, device)
                    files = {graph: sha256(place / f"{graph}.plan") for graph in GRAPHS}
                    record = self._measured(place, dataclasses.replace(record, files=files))
                    record.save(place)
                    self.cache.install(place, target)
        return target, record

    def cancel(self) -> None:
        """Stop the build at its next step."""
        self._cancelled.set()

    def _build_into(self, place: Path, device: CudaDevice) -> None:
        profiles = {"probe": ShapeProfile.of_probe(self.spec), "render": self.config.profile}
        for graph in GRAPHS:
            with device.current():
                plan = self._serialized(graph, profiles[graph], device)
            (place / f"{graph}.plan").write_bytes(plan)

    def _serialized(self, graph: str, profile: ShapeProfile, device: CudaDevice) -> bytes:
        trt = tensorrt_api.load()
        trt_builder = tensorrt_api.started(trt.Builder, tensorrt_api.logger())
        # In 11.x every network is strongly typed and the flag is ignored.
        network = trt_builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = tensorrt_api.started(trt.OnnxParser, network, tensorrt_api.logger())
        if not parser.parse(self.graphs[graph]):
            raise PlanError(f"TensorRT does not take the {graph} graph: {_parser_errors(parser)}")
        _assert_types(trt, network, self.config.precision)
        settings = self._builder_config(trt, trt_builder, device)
        allowed = trt_builder.create_optimization_profile()
        image = "view" if graph == "probe" else "tiles"
        allowed.set_shape(image, (*profile.min, 3), (*profile.opt, 3), (*profile.max, 3))
        for name, channels in self.spec.render_maps.items() if graph == "render" else ():
            low, usual, high = ((n, *channels, *grid_shape(h, w)) for n, h, w in profile.shapes)
            allowed.set_shape(name, low, usual, high)
        settings.add_optimization_profile(allowed)
        monitor = _monitor(trt, graph, self.progress, self._cancelled)
        settings.progress_monitor = monitor
        timings = self._read_timings(settings, device)  # must live until the plan is built

        def work() -> Any:
            with device.current():  # of the thread that builds
                return trt_builder.build_serialized_network(network, settings)

        plan = _in_thread(work, self.cancel)
        if self._cancelled.is_set():
            raise BuildCancelled("the build was stopped; nothing was changed")
        if plan is None:
            reason = tensorrt_api.recent_errors()
            if "memory" in reason.lower():
                raise OutOfMemoryError(
                    f"too little GPU memory for the build ({reason}): choose a smaller --tile, --batch or --workspace"
                )
            raise PlanError(f"TensorRT cannot build the {graph} plan: {reason}")
        self._write_timings(timings, self._timings_path(device))
        return bytes(plan)

    def _builder_config(self, trt: Any, trt_builder: Any, device: CudaDevice) -> Any:
        settings = trt_builder.create_builder_config()
        free, _ = device.memory()
        if self.config.workspace > free:
            log.warning("only %.1f GiB of GPU memory are free: the workspace is limited to that", free / 2**30)
        settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, min(self.config.workspace, free))
        settings.builder_optimization_level = self.config.optimization_level
        settings.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for build-engine inspect
        if self.config.precision == "fp32":
            settings.clear_flag(trt.BuilderFlag.TF32)
        if self.config.hardware_compatible:
            settings.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        if self.config.version_compatible:
            settings.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        return settings

    def _timings_path(self, device: CudaDevice) -> Path:
        version = tensorrt_api.load().__version__
        name = "".join(c if c.isalnum() else "-" for c in f"{device.name}-{version}")
        return self.timing_cache or self.cache.root / "timings" / f"{name}.bin"

    def _read_timings(self, settings: Any, device: CudaDevice) -> Any:
        """The timings of earlier builds, handed to the builder's settings."""
        path = self._timings_path(device)
        timings = settings.create_timing_cache(path.read_bytes() if path.is_file() else b"")
        if timings is None or not settings.set_timing_cache(timings, False):
            log.warning("%s was made by another GPU or TensorRT: it is written anew", path)
            timings = settings.create_timing_cache(b"")
            settings.set_timing_cache(timings, False)
        return timings

    def _write_timings(self, timings: Any, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f"{path.name}.part")
            part.write_bytes(bytes(timings.serialize()))
            part.replace(path)
        except OSError as error:
            log.warning("%s cannot be written (%s): the next build times its kernels again", path, error.strerror)

    def _measured(self, place: Path, record: PlanRecord) -> PlanRecord:
        """Run the plan on a reference tile; PlanError below the bar of its precision."""
        from engine.backends.openvino import OpenVinoBackend
        from engine.backends.tensorrt import TensorRtBackend

        low, high = self.config.profile.min, self.config.profile.max
        multiple = self.spec.multiple
        height, width = (min(max(256, low[i]), high[i]) // multiple * multiple for i in (1, 2))
        picture = reference_picture(height, width)
        options = BackendOptions(precision="fp32", threads=0)
        with OpenVinoBackend(self.folder, self.spec, options) as reference:
            conditions = usual_conditions(reference, picture)
            expected = reference.render(picture, conditions)
        record.save(place)
        options = BackendOptions(device=f"cuda:{self.gpu}", plan=place)
        with TensorRtBackend(self.folder, self.spec, options) as backend:
            own = usual_conditions(backend, picture)
            found = min(psnr(backend.render(picture, c), expected) for c in (conditions, own))
            speed = backend.throughput(self.config.profile.opt)
        bar = BARS[self.config.precision]
        log.info("reference tile: %.1f dB (bar %.0f dB), %.1f tiles a second", found, bar, speed)
        if not found >= bar:
            raise PlanError(
                f"the plan is not accurate: {found:.1f} dB to the float32 reference, {bar:.0f} dB are needed; "
                "it was not installed. Try --precision fp32 or another TensorRT version"
            )
        return dataclasses.replace(record, psnr=round(min(found, 200.0), 2), frames_per_second=round(speed, 2))


def build_plan(folder: Path, config: PlanConfig, cache: PlanCache, gpu: int) -> tuple[Path, PlanRecord]:
    """The plan of a model in the cache, built if it is not there: what `tensorrt` does when none fits.

    Raises as `Builder.build` does.
    """
    return Builder(folder, config, cache=cache, gpu=gpu).build()


def _parser_errors(parser: Any) -> str:
    """The parser's complaints with the nodes that they are about."""
    lines = []
    for i in range(parser.num_errors):
        complaint = parser.get_error(i)
        lines.append(f"{complaint.node_operator()} {complaint.node_name()!r}: {complaint.desc()}")
    return "; ".join(lines) or tensorrt_api.recent_errors()


def _assert_types(trt: Any, network: Any, precision: str) -> None:
    """PlanError unless the network's ends and convolutions have the types that were exported."""
    wanted = {"fp32": trt.DataType.FLOAT, "fp16": trt.DataType.HALF, "bf16": trt.DataType.BF16}[precision]
    kinds = (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    typed = [(x, trt.DataType.FLOAT if x.name.startswith(EXACT) else wanted) for x in layers if x.type in kinds]
    wrong = [x.name for x, kind in typed if x.get_output(0).dtype != kind]
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        image = tensor.name in ("tiles", "view")
        if tensor.dtype != (trt.DataType.UINT8 if image else trt.DataType.FLOAT):
            wrong.append(tensor.name)
    if wrong:
        raise PlanError(f"the network is not {precision} as exported ({', '.join(wrong[:3])}): use another TensorRT")


def _monitor(trt: Any, graph: str, progress: Progress, cancelled: threading.Event) -> Any:
    """An IProgressMonitor that reports the outermost phase; TensorRT calls it from its own threads."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self.steps[phase_name] = num_steps
                progress(f"{graph}: {phase_name}", 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.steps:
                progress(f"{graph}: {phase_name}", step + 1, self.steps[phase_name])
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            if phase_name in self.steps:
                steps = self.steps.pop(phase_name)
                progress(f"{graph}: {phase_name}", steps, steps)

    return Monitor()


def _in_thread(work: Callable[[], Any], cancel: Callable[[], None]) -> Any:
    """Run `work` in a thread of its own, so that Ctrl-C is seen while TensorRT is busy."""
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="tensorrt-build")
    thread.start()
    while thread.is_alive():
        try:
            thread.join(0.1)
        except KeyboardInterrupt:
            cancel()
            log.warning("stopping at the next step of the build")
    if failure:
        raise failure[0]
    return outcome[0]
