"""Backend `openvino`: Intel, AMD and ARM CPUs, Intel GPUs; the default without an NVIDIA GPU."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.backends.base import Backend, BackendOptions, Tiles, check_conditions, check_tiles, check_view
from engine.backends.shape_cache import ShapeCache
from engine.conditions import Conditions
from engine.errors import BackendError, ModelError, OutOfMemoryError
from engine.openvino_module import import_openvino
from engine.spec import F32, ModelSpec

if TYPE_CHECKING:
    import openvino as ov

__all__ = ["OpenVinoBackend"]


class OpenVinoBackend:
    """Runs the ONNX pair through OpenVINO, compiled once for every tile shape that comes by.

    Static shapes let OpenVINO choose its convolution kernels and buffers once; the few shapes of a
    video are compiled at its first frame.

    Args:
        folder: model folder with probe.onnx and render.onnx.
        spec: its descriptor.
        options: device (`CPU`, `GPU`, `AUTO`), precision, threads, cache folder.
    """

    name = "openvino"

    def __init__(self, folder: Path, spec: ModelSpec, options: BackendOptions) -> None:
        self.folder, self.spec, self.options = folder, spec, options
        self.device = (options.device or "CPU").upper()
        self._core: Any = None
        self._models: dict[str, ov.Model] = {}
        self._requests: ShapeCache[Any] = ShapeCache()

    def __enter__(self) -> Backend:
        try:
            ov = import_openvino()
        except ImportError as error:
            raise BackendError("OpenVINO is not installed: pip install openvino") from error
        self._core = ov.Core()
        try:
            self._core.get_property(self.device, "FULL_DEVICE_NAME")
        except RuntimeError as error:
            known = ", ".join(self._core.available_devices)
            raise BackendError(f"OpenVINO has no device {self.options.device!r} here: choose {known}") from error
        if self.options.cache is not None:
            self._core.set_property({"CACHE_DIR": str(self.options.cache)})
        if self.spec.has_layout and self._precision() != "fp32":
            raise BackendError(
                f"openvino computes {self.spec.name} in fp32, not {self._precision()}, in which borders between layers "
                "would fray: leave out --precision"
            )
        for graph in ("probe", "render"):
            path = self.folder / f"{graph}.onnx"
            try:
                self._models[graph] = self._core.read_model(str(path))
            except RuntimeError as error:
                raise ModelError(f"{path} cannot be read by OpenVINO: install the model again") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._requests.clear()
        self._models.clear()
        self._core = None

    @property
    def description(self) -> str:
        """Device name and arithmetic."""
        name = str(self._core.get_property(self.device, "FULL_DEVICE_NAME")).strip()
        return f"OpenVINO on {name}, {self._precision()}"

    def probe(self, view: Tiles, look: F32) -> Conditions:
        """See `Backend.probe`."""
        view = check_view(self.spec, view)
        if self.spec.has_layout:
            (layout,) = self._infer("probe", view, {"view": view})
            return Conditions(vectors={}, maps={"layout": layout[0].copy()})
        scale, shift = self._infer("probe", view, {"view": view, "look": look.reshape(1, -1)})
        return Conditions.of_norm(scale=scale.reshape(-1).copy(), shift=shift.reshape(-1).copy())

    def render(self, tiles: Tiles, conditions: Conditions) -> Tiles:
        """See `Backend.render`."""
        tiles = check_tiles(self.spec, tiles)
        check_conditions(self.spec, conditions, tiles.shape[1:3])
        return np.asarray(self._infer("render", tiles, {"tiles": tiles, **conditions.feeds(len(tiles))})[0]).copy()

    def _infer(self, graph: str, images: Tiles, inputs: dict[str, Any]) -> list[Any]:
        try:
            request = self._request(graph, {name: values.shape for name, values in inputs.items()})
            results = request.infer(inputs, share_inputs=True, share_outputs=True)
        except (RuntimeError, MemoryError) as error:
            if "alloc" in str(error).lower() or "memory" in str(error).lower():
                shape = "x".join(map(str, images.shape[:3]))
                raise OutOfMemoryError(f"no memory for a tile of {shape}: choose a smaller --tile") from error
            raise BackendError(f"OpenVINO failed on {self.device}: {error}") from error
        return list(results.values())

    def _request(self, graph: str, shapes: dict[str, tuple[int, ...]]) -> Any:
        return self._requests.get_or_make((graph, *shapes.items()), lambda: self._compiled(graph, shapes))

    def _compiled(self, graph: str, shapes: dict[str, tuple[int, ...]]) -> Any:
        model = self._models[graph].clone()
        model.reshape({name: list(shape) for name, shape in shapes.items()})
        return self._core.compile_model(model, self.device, self._properties()).create_infer_request()

    def _properties(self) -> dict[str, Any]:
        # One frame at a time over all cores: tiles are large enough to keep them busy.
        properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if self.device.startswith("CPU"):
            properties["INFERENCE_NUM_THREADS"] = self.options.threads
        properties["INFERENCE_PRECISION_HINT"] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}[self._precision()]
        return properties

    def _precision(self) -> str:
        if self.options.precision != "auto":
            return self.options.precision
        if self.spec.has_layout:  # OpenVINO would compute the shader in 16 bits as well
            return "fp32"
        abilities = self._core.get_property(self.device, "OPTIMIZATION_CAPABILITIES")
        if self.device.startswith("GPU"):
            return "fp16" if "FP16" in abilities else "fp32"
        return "bf16" if "BF16" in abilities else "fp32"
