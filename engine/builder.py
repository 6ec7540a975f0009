"""From a model folder to a TensorRT plan: strongly typed, checked on the GPU before it is trusted."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.backends.base import BackendOptions
from engine.errors import BackendError, PlanError
from engine.metrics import psnr
from engine.probing import usual_conditions
from engine.spec import ModelSpec, sha256
from engine.trt import api as tensorrt_api
from engine.trt import rtx
from engine.trt.api import Machine
from engine.trt.cuda import CudaDevice
from engine.trt.graphs import graph_hashes, onnx_graphs
from engine.trt.plan import BARS, GRAPHS, PlanCache, PlanConfig, PlanRecord, ShapeProfile
from engine.trt.serialize import Progress, Serializer

__all__ = ["Builder", "Progress", "build_plan", "reference_picture"]

log = logging.getLogger(__name__)


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

    def machine(self, device: CudaDevice | None) -> Machine:
        """What is built for: an entered GPU, or, with TensorRT-RTX, all of them."""
        if self.config.runtime == "rtx":
            return rtx.every_machine(self.config.precision)
        assert device is not None, "a plan of TensorRT belongs to a GPU"
        return tensorrt_api.machine(device)

    @contextmanager
    def device(self) -> Iterator[CudaDevice | None]:
        """The GPU, entered; None where there is none and none is needed."""
        tensorrt_api.load(self.config.runtime)
        with ExitStack() as stack:
            try:
                gpu = stack.enter_context(CudaDevice(self.gpu))
                if self.config.runtime == "rtx":
                    rtx.check_supported(gpu)
                device: CudaDevice | None = gpu
            except BackendError as error:
                if self.config.runtime != "rtx":
                    raise
                log.warning("the plan is built for all GPUs and checked on none: %s", error)
                device = None
            yield device

    def build(self, *, force: bool = False, output: Path | None = None) -> tuple[Path, PlanRecord]:
        """The plan's folder and sidecar; built if it is not there yet, or if `force` is set.

        Raises:
            PlanError: the plan cannot be built, or is not accurate enough to be used.
            BackendError: TensorRT, its driver or the GPU are missing.
            BuildCancelled: `cancel` was called.
        """
        with self.device() as device:
            record = self.record(self.machine(device))
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
                    record = dataclasses.replace(record, files=files)
                    if device is not None:
                        record = self._measured(place, record)
                    record.save(place)
                    self.cache.install(place, target)
        return target, record

    def cancel(self) -> None:
        """Stop the build at its next step."""
        self._cancelled.set()

    def _build_into(self, place: Path, device: CudaDevice | None) -> None:
        profiles = {"probe": ShapeProfile.of_probe(self.spec), "render": self.config.profile}
        serializer = Serializer(self.config, device, self._timings(device), self.progress, self._cancelled)
        for graph in GRAPHS:
            maps = self.spec.render_maps if graph == "render" else {}
            plan = serializer.plan(graph, self.graphs[graph], profiles[graph], maps)
            (place / f"{graph}.plan").write_bytes(plan)

    def _timings(self, device: CudaDevice | None) -> Path:
        version = tensorrt_api.load(self.config.runtime).__version__
        name = "".join(c if c.isalnum() else "-" for c in f"{device.name if device else 'any'}-{version}")
        return self.timing_cache or self.cache.root / "timings" / f"{name}.bin"

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
        with TensorRtBackend(self.folder, self.spec, options, runtime=self.config.runtime) as backend:
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
