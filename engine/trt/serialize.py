"""From an ONNX graph to the bytes of a plan: the part of a build that is TensorRT's own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from engine.conditions import grid_shape
from engine.errors import BuildCancelled, OutOfMemoryError, PlanError
from engine.files import new_file
from engine.graphs.graph_writer import EXACT
from engine.trt import api as tensorrt_api
from engine.trt import rtx
from engine.trt.cuda import CudaDevice
from engine.trt.plan import PlanConfig, ShapeProfile

__all__ = ["Progress", "Serializer"]

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with the name of a phase, the steps done and the steps there are; may come from any thread."""


class Serializer:
    """Builds plans of one configuration.

    Args:
        config: what to build.
        device: an entered GPU; None, with TensorRT-RTX: none is needed.
        timings: file with kernel timings of earlier builds.
        progress: told how far a build is.
        cancelled: set it to stop at the next step.
    """

    def __init__(
        self,
        config: PlanConfig,
        device: CudaDevice | None,
        timings: Path,
        progress: Progress = lambda phase, done, steps: None,
        cancelled: threading.Event | None = None,
    ) -> None:
        self.config, self.device, self.timings, self.progress = config, device, timings, progress
        self.cancelled = cancelled or threading.Event()

    def plan(
        self, graph: str, model: bytes, profile: ShapeProfile, maps: Mapping[str, tuple[int, ...]] | None = None
    ) -> bytes:  # fmt: skip
        """The plan of a serialized ONNX model.

        Args:
            graph: `probe` or `render`.
            model: what to build.
            profile: shapes of its pictures.
            maps: `ModelSpec.render_maps`: inputs whose shape follows from that of the pictures.

        Raises PlanError where TensorRT cannot build it, OutOfMemoryError, or BuildCancelled.
        """
        runtime = self.config.runtime
        trt, trt_log = tensorrt_api.load(runtime), tensorrt_api.logger(runtime)
        with self._current():
            trt_builder = tensorrt_api.started(trt.Builder, trt_log)
            # In 11.x every network is strongly typed and the flag is ignored.
            network = trt_builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
            parser = tensorrt_api.started(trt.OnnxParser, network, trt_log)
            if not parser.parse(model):
                raise PlanError(f"TensorRT does not take the {graph} graph: {_parser_errors(parser)}")
            _assert_types(trt, network, self.config.precision)
            settings = self._builder_config(trt, trt_builder)
            allowed = trt_builder.create_optimization_profile()
            image = "view" if graph == "probe" else "tiles"
            allowed.set_shape(image, (*profile.min, 3), (*profile.opt, 3), (*profile.max, 3))
            for name, channels in (maps or {}).items():
                low, usual, high = ((n, *channels, *grid_shape(h, w)) for n, h, w in profile.shapes)
                allowed.set_shape(name, low, usual, high)
            settings.add_optimization_profile(allowed)
            settings.progress_monitor = _monitor(trt, graph, self.progress, self.cancelled)
            timings = None if runtime == "rtx" else self._read_timings(settings)  # must live until the plan is built

        def work() -> Any:
            with self._current():  # of the thread that builds
                return trt_builder.build_serialized_network(network, settings)

        plan = _in_thread(work, self.cancelled)
        if self.cancelled.is_set():
            raise BuildCancelled("the build was stopped; nothing was changed")
        if plan is None:
            self._refused(graph)
        if timings is not None:
            self._write_timings(timings)
        return bytes(plan)

    def _current(self) -> Any:
        return nullcontext() if self.device is None else self.device.current()

    def _refused(self, graph: str) -> None:
        reason = tensorrt_api.recent_errors()
        if tensorrt_api.lacks_memory(reason):
            raise OutOfMemoryError(
                f"too little GPU memory for the build ({reason}): choose a smaller --tile, --batch or --workspace"
            )
        raise PlanError(f"TensorRT cannot build the {graph} plan: {reason}")

    def _builder_config(self, trt: Any, trt_builder: Any) -> Any:
        settings = trt_builder.create_builder_config()
        settings.builder_optimization_level = self.config.optimization_level
        settings.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for build-engine inspect
        if self.config.precision == "fp32":
            settings.clear_flag(trt.BuilderFlag.TF32)
        if self.config.runtime == "rtx":
            rtx.set_targets(settings, rtx.capabilities(self.config.precision))
            return settings
        assert self.device is not None, "TensorRT times its kernels on a GPU"
        free, _ = self.device.memory()
        if self.config.workspace > free:
            log.warning("only %.1f GiB of GPU memory are free: the workspace is limited to that", free / 2**30)
        settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, min(self.config.workspace, free))
        if self.config.hardware_compatible:
            settings.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        if self.config.version_compatible:
            settings.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        return settings

    def _read_timings(self, settings: Any) -> Any:
        """The timings of earlier builds, handed to the builder's settings."""
        path = self.timings
        timings = settings.create_timing_cache(path.read_bytes() if path.is_file() else b"")
        if timings is None or not settings.set_timing_cache(timings, False):
            log.warning("%s was made by another GPU or TensorRT: it is written anew", path)
            timings = settings.create_timing_cache(b"")
            settings.set_timing_cache(timings, False)
        return timings

    def _write_timings(self, timings: Any) -> None:
        path = self.timings
        try:
            with new_file(path, overwrite=True, several=True) as part:
                part.write_bytes(bytes(timings.serialize()))
        except OSError as error:
            log.warning("%s cannot be written (%s): the next build times its kernels again", path, error.strerror)


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


def _in_thread(work: Callable[[], Any], cancelled: threading.Event) -> Any:
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
            cancelled.set()
            log.warning("stopping at the next step of the build")
    if failure:
        raise failure[0]
    return outcome[0]
