"""Backend `mnn`: CPUs without 16-bit arithmetic, by Winograd's convolutions."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from engine.backends.base import Backend, BackendOptions, Tiles, check_conditions, check_tiles
from engine.backends.mnn_graph import from_blocks, to_blocks
from engine.backends.shape_cache import ShapeCache
from engine.conditions import Conditions
from engine.errors import BackendError
from engine.spec import F32, ModelSpec

__all__ = ["MnnBackend"]

INPUTS = {"probe": ("view", "look"), "render": ("tiles", "scale", "shift")}
"""Inputs of the graphs, the picture first."""

RESIZE_LATER = 7
"""`Session_Resize_Defer` of MNN's `Interpreter::SessionMode`, which its Python has no name for.

Convolutions choose their algorithm when they are first given a shape: let that be the real one."""

_stdout = threading.Lock()


class MnnBackend:
    """Runs the model through Alibaba's MNN, which computes 3x3 convolutions by Winograd's minimal filtering.

    That takes up to five times fewer multiplications (Lavin and Gray 2016, arXiv 1509.09308) for results that
    differ by 3e-4 of their size.  The graphs are made from the weights when the backend is entered; see
    `engine.backends.mnn_graph`.

    Args:
        folder: model folder with generator.safetensors.
        spec: its descriptor.
        options: threads.  The arithmetic is float32, the device the CPU.
    """

    name = "mnn"

    def __init__(self, folder: Path, spec: ModelSpec, options: BackendOptions) -> None:
        self.folder, self.spec, self.options = folder, spec, options
        self._models: dict[str, bytes] = {}
        self._blocks = (1, 1)
        self._sessions: ShapeCache[_Session] = ShapeCache()

    def __enter__(self) -> Backend:
        if self.spec.has_layout:
            raise BackendError(f"the backend mnn has no shader for {self.spec.name}: take --backend openvino")
        if self.options.precision not in ("auto", "fp32"):
            raise BackendError(
                f"the backend mnn computes in fp32, not {self.options.precision}: take --backend openvino for that"
            )
        if (self.options.device or "cpu").lower() != "cpu":
            raise BackendError(f"the backend mnn runs on the CPU: leave out --device {self.options.device}")
        try:
            with _quiet_stdout():
                import MNN  # noqa: F401
        except ImportError as error:
            raise BackendError("MNN is not installed: pip install MNN") from error
        self._convert()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sessions.clear()
        self._models.clear()

    @property
    def description(self) -> str:
        """Device and arithmetic."""
        return f"MNN on {platform.processor() or platform.machine()}, {self._threads} threads, fp32"

    def probe(self, view: Tiles, look: F32) -> Conditions:
        """See `Backend.probe`."""
        view = check_tiles(self.spec, view)
        scale, shift = self._run("probe", view, {"look": look}, ("scale", "shift"))
        return Conditions.of_norm(scale=scale.reshape(-1).copy(), shift=shift.reshape(-1).copy())

    def render(self, tiles: Tiles, conditions: Conditions) -> Tiles:
        """See `Backend.render`."""
        tiles = check_tiles(self.spec, tiles)
        check_conditions(self.spec, conditions, tiles.shape[1:3])
        (blocks,) = self._run("render", tiles, dict(conditions.vectors), ("output",))
        return from_blocks(blocks, self._blocks[1]) if self._blocks[1] > 1 else blocks.copy()

    @property
    def _threads(self) -> int:
        if self.options.threads:
            return self.options.threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def _convert(self) -> None:
        """Write both graphs in MNN's format."""
        from engine.backends.mnn_graph import block_graphs
        from engine.graphs.export import model_weights

        weights = model_weights(self.folder, "the backend mnn builds its graphs")
        graphs = block_graphs(self.spec, weights)
        self._blocks = graphs.first, graphs.last
        with _work_folder() as work:
            for name, graph in (("probe", graphs.probe), ("render", graphs.render)):
                source, target = work / f"{name}.onnx", work / f"{name}.mnn"
                source.write_bytes(graph.SerializeToString())
                arguments = ["mnnconvert", "-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(target)]
                with _quiet_stdout():
                    # MNN.tools.mnnconvert is a wrapper around this one that reports its use over the network.
                    import _tools

                    _tools.mnnconvert([*arguments, "--bizCode", "firewatch"])
                if not target.is_file() or not target.stat().st_size:
                    raise BackendError(f"MNN cannot convert the {name} graph of {self.spec.name}: --backend openvino")
                self._models[name] = target.read_bytes()

    def _run(self, graph: str, images: Tiles, vectors: dict[str, Any], wanted: tuple[str, ...]) -> list[Any]:
        """Outputs of a graph: views of MNN's own memory, good until the next call."""
        session = self._session(graph, images.shape)
        for name, values in {INPUTS[graph][0]: to_blocks(images, self._blocks[0]), **vectors}.items():
            session.inputs[name][...] = values
        session.run()
        return [session.output(name) for name in wanted]

    def _session(self, graph: str, shape: tuple[int, ...]) -> _Session:
        n, height, width, channels = shape
        side = self._blocks[0]
        blocks = (n, height // side, width // side, channels * side**2)
        return self._sessions.get_or_make(
            (graph, *shape), lambda: _Session(self._models[graph], self._threads, INPUTS[graph], blocks)
        )


class _Session:
    """One graph prepared for one shape."""

    def __init__(self, model: bytes, threads: int, names: tuple[str, ...], shape: tuple[int, ...]) -> None:
        import MNN

        with _work_folder() as work:
            (work / "graph.mnn").write_bytes(model)
            # MNN's Python never frees a session but with its interpreter: so each has its own.
            self._interpreter: Any = MNN.Interpreter(str(work / "graph.mnn"))
        self._interpreter.setSessionMode(RESIZE_LATER)
        # Any precision but the usual one is announced on standard output; on a CPU like these it is float32.
        self._session: Any = self._interpreter.createSession({"numThread": threads})
        self._interpreter.resizeTensor(self._interpreter.getSessionInput(self._session, names[0]), shape)
        self._interpreter.resizeSession(self._session)
        self._tensors = {name: self._interpreter.getSessionInput(self._session, name) for name in names}
        self.inputs = {name: tensor.getNumpyData() for name, tensor in self._tensors.items()}
        """Where each input is written."""

    def run(self) -> None:
        """Compute the outputs from what lies in `inputs`; other threads go on meanwhile."""
        code = self._interpreter.runSession(self._session)
        if code:
            raise BackendError(f"MNN failed with its error {code}: use --backend openvino")

    def output(self, name: str) -> Any:
        """An output, in MNN's memory."""
        return self._interpreter.getSessionOutput(self._session, name).getNumpyData()


@contextmanager
def _work_folder() -> Iterator[Path]:
    """A folder for the moment: MNN reads and writes files alone."""
    with tempfile.TemporaryDirectory(prefix="firewatch-mnn-") as folder:
        yield Path(folder)


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Without what MNN prints to standard output, which belongs to the user's results (``--json``).

    For the start only: what other threads print meanwhile is lost with it.
    """
    with _stdout:
        try:
            kept = os.dup(1)
        except OSError:  # standard output is closed
            yield
            return
        sys.stdout.flush()
        try:
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), 1)
            yield
        finally:
            ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None).fflush(None)
            os.dup2(kept, 1)
            os.close(kept)
