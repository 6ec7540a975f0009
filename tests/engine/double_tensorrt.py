"""A stand-in for tensorrt whose engines run in onnxruntime, on the streams of `double_cuda`.

It has what the program uses and nothing else, so a new call fails here until it is added, and what is
added is compared with the real bindings (`test_bindings.py`).
"""

from __future__ import annotations

import ctypes
import enum
import json
import pickle
import types
import weakref
from typing import Any

import double_cuda as cuda
import numpy as np
import onnx
import onnxruntime as ort

__version__ = "10.9.0.34"


class State:
    """What tests turn to make things go wrong."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.start = True
        self.build_fails = ""
        self.parser_fails = False
        self.wrong_type = False
        self.damage = 0
        self.builds = 0
        self.scratch_per_pixel = 64
        self.cancel_seen = False
        self.enqueue_room = 1 << 40
        """Pixels of a batch beyond which `execute_async_v3` runs out of memory."""
        self.strategies: list[CudaGraphStrategy] = []
        """Of the execution contexts of TensorRT-RTX."""


state = State()


class DataType(enum.Enum):
    FLOAT, HALF, BF16, UINT8, INT64 = range(5)


class LayerType(enum.Enum):
    CONVOLUTION, DECONVOLUTION, CAST = range(3)


class TensorIOMode(enum.Enum):
    INPUT, OUTPUT = range(2)


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class ProfilingVerbosity(enum.Enum):
    DETAILED = 0


class BuilderFlag(enum.Enum):
    TF32, VERSION_COMPATIBLE = range(2)


class HardwareCompatibilityLevel(enum.Enum):
    NONE, AMPERE_PLUS = range(2)


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class ExecutionContextAllocationStrategy(enum.Enum):
    USER_MANAGED = 0


class LayerInformationFormat(enum.Enum):
    JSON = 0


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self) -> None:
        self.ready = True

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


def _started(logger: ILogger) -> None:
    assert logger.ready
    if not state.start:
        logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")


KINDS = {1: DataType.FLOAT, 10: DataType.HALF, 16: DataType.BF16, 2: DataType.UINT8, 7: DataType.INT64}


class ITensor:
    def __init__(self, name: str, dtype: DataType) -> None:
        self.name, self.dtype = name, dtype


class ILayer:
    def __init__(self, name: str, type: LayerType, output: ITensor) -> None:
        self.name, self.type, self._output = name, type, output

    def get_output(self, index: int) -> ITensor:
        return self._output


class INetworkDefinition:
    def __init__(self) -> None:
        self._model: onnx.ModelProto | None = None
        self._layers: list[ILayer] = []
        self._inputs: list[ITensor] = []

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_layer(self, index: int) -> ILayer:
        return self._layers[index]

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]


class ParserError:
    def node_operator(self) -> str:
        return "Resize"

    def node_name(self) -> str:
        return "resize_7"

    def desc(self) -> str:
        return "this mode is not supported"


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network

    @property
    def num_errors(self) -> int:
        return int(state.parser_fails)

    def get_error(self, index: int) -> ParserError:
        return ParserError()

    def parse(self, model: bytes, path: str | None = None) -> bool:
        if state.parser_fails:
            return False
        net = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
        kinds = {v.name: v.type.tensor_type.elem_type for v in [*net.graph.value_info, *net.graph.output]}
        self._network._model = net
        self._network._inputs = [ITensor(v.name, KINDS[v.type.tensor_type.elem_type]) for v in net.graph.input]
        types = {"Conv": LayerType.CONVOLUTION, "ConvTranspose": LayerType.DECONVOLUTION}
        for node in net.graph.node:
            kind = DataType.FLOAT if state.wrong_type else KINDS.get(kinds.get(node.output[0], 1), DataType.FLOAT)
            self._network._layers.append(
                ILayer(node.name, types.get(node.op_type, LayerType.CAST), ITensor(node.output[0], kind))
            )
        return True


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        self._shapes[input] = [min, opt, max]


class IHostMemory:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bytes__(self) -> bytes:
        return self._data


class ITimingCache:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._data + b"t")


class IProgressMonitor:
    def __init__(self) -> None:
        self.ready = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...

    def step_complete(self, phase_name: str, step: int) -> bool: ...

    def phase_finish(self, phase_name: str) -> None: ...


class IBuilderConfig:
    def __init__(self) -> None:
        self.builder_optimization_level = 3
        self.profiling_verbosity: ProfilingVerbosity | None = None
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.progress_monitor: IProgressMonitor | None = None
        self._profiles: list[IOptimizationProfile] = []
        self._flags = {BuilderFlag.TF32}
        self._timings: weakref.ref[ITimingCache] | None = None  # TensorRT does not keep it alive

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        assert pool_size > 0

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return 0

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache._data == b"foreign":
            return False
        self._timings = weakref.ref(cache)
        return True


class Builder:
    def __init__(self, logger: ILogger) -> None:
        _started(logger)
        self._logger = logger

    def _check(self, config: IBuilderConfig) -> None:
        cuda._current()
        assert config._timings is not None and config._timings() is not None, "the timing cache is gone"

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        assert flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        self._check(config)
        state.builds += 1
        if state.build_fails:
            self._logger.log(ILogger.Severity.ERROR, state.build_fails)
            return None
        monitor = config.progress_monitor
        if monitor is not None:
            assert monitor.ready
            monitor.phase_start("Building Engine", None, 3)
            for step in range(3):
                monitor.phase_start("Tactics", "Building Engine", 1)
                monitor.step_complete("Tactics", 0)
                monitor.phase_finish("Tactics")
                if not monitor.step_complete("Building Engine", step):
                    state.cancel_seen = True
                    return None
            monitor.phase_finish("Building Engine")
        assert network._model is not None
        (profile,) = config._profiles
        plan = {"model": network._model.SerializeToString(), "shapes": profile._shapes, "version": __version__}
        return IHostMemory(b"plan" + pickle.dumps(plan))


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, logger: ILogger) -> None:
        _started(logger)
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        cuda._current()
        try:
            assert serialized_engine.startswith(b"plan")
            plan = pickle.loads(serialized_engine[4:])
            assert plan["version"] == __version__
        except Exception:
            self._logger.log(ILogger.Severity.ERROR, "Serialization assertion failed: version tag does not match")
            return None
        return ICudaEngine(plan, self._logger)


class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        layers = [
            {
                "Name": "conv_0 + relu_1",
                "LayerType": "CaskConvolution",
                "Inputs": [{"Name": "a", "Format/Datatype": "Channel major FP16 format"}],
                "Outputs": [{"Name": "b", "Format/Datatype": "Channel major FP16 format"}],
                "Metadata": "[ONNX Layer: conv_0]\x1e[ONNX Layer: relu_1]",
            }
        ]
        return json.dumps({"Layers": layers})


class ICudaEngine:
    def __init__(self, plan: dict[str, Any], logger: ILogger) -> None:
        self._plan, self._logger = plan, logger
        self._model = onnx.load_from_string(plan["model"])
        graph = self._model.graph
        self._inputs = {v.name: v for v in graph.input}
        self._outputs = {v.name: v for v in graph.output}
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(plan["model"], options, providers=["CPUExecutionProvider"])

    @property
    def num_io_tensors(self) -> int:
        return len(self._inputs) + len(self._outputs)

    def get_tensor_name(self, index: int) -> str:
        return [*self._inputs, *self._outputs][index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return KINDS[(self._inputs | self._outputs)[name].type.tensor_type.elem_type]

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> IExecutionContext | None:
        cuda._current()
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return IExecutionContext(self)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        for name, value in engine._inputs.items():
            dims = value.type.tensor_type.shape.dim
            if all(dim.HasField("dim_value") for dim in dims):
                self._shapes[name] = tuple(dim.dim_value for dim in dims)
        self._addresses: dict[str, int] = {}
        self._memory = (0, 0)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low_high = self._engine._plan["shapes"].get(name)
        if low_high is None:
            return self._shapes.get(name) == shape
        low, _, high = low_high
        self._shapes[name] = shape
        return len(shape) == len(low) and all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        shape = next(self._shapes[name] for name in self._engine._plan["shapes"])
        return int(np.prod(shape)) * state.scratch_per_pixel

    def set_device_memory(self, memory: int, size: int) -> None:
        self._memory = (memory, size)

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine, shapes, addresses = self._engine, dict(self._shapes), dict(self._addresses)
        if set(addresses) != {*engine._inputs, *engine._outputs}:
            return False
        memory, size = self._memory
        assert size >= self.update_device_memory_size_for_shapes(), "too little activation memory"
        for place, address in (*addresses.items(), ("activation memory", memory)):
            assert address % cuda.ALIGNMENT == 0, f"{place} is misaligned"
        if int(np.prod(shapes[next(iter(engine._plan["shapes"]))][:3])) > state.enqueue_room:
            engine._logger.log(ILogger.Severity.ERROR, "IExecutionContext::enqueueV3: Error Code 2: OutOfMemory")
            return False

        def run() -> None:
            cuda.state.check_range(memory, size)
            ctypes.memset(memory, 0x77, size)  # whoever shares it finds rubbish
            feeds = {name: _read(addresses[name], shapes[name], _numpy(engine, name)) for name in engine._inputs}
            for name, result in zip(engine._outputs, engine._session.run(None, feeds), strict=True):
                if state.damage and result.dtype == np.uint8:
                    result = result ^ state.damage
                cuda.state.check_range(addresses[name], result.nbytes)
                ctypes.memmove(addresses[name], np.ascontiguousarray(result).ctypes.data, result.nbytes)

        cuda.state.streams[stream_handle].enqueue(run)
        cuda.state.executed.append(cuda._current())
        return True


def _numpy(engine: ICudaEngine, name: str) -> Any:
    return np.uint8 if engine.get_tensor_dtype(name) == DataType.UINT8 else np.float32


def _read(address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    cuda.state.check_range(address, size)
    return np.frombuffer(ctypes.string_at(address, size), dtype).reshape(shape)


PUBLIC = (
    DataType, LayerType, TensorIOMode, MemoryPoolType, ProfilingVerbosity, BuilderFlag, HardwareCompatibilityLevel,
    NetworkDefinitionCreationFlag, ExecutionContextAllocationStrategy, LayerInformationFormat, ILogger, ITensor,
    ILayer, INetworkDefinition, ParserError, OnnxParser, IOptimizationProfile, IHostMemory, ITimingCache,
    IProgressMonitor, IBuilderConfig, Builder, Runtime, EngineInspector, ICudaEngine, IExecutionContext,
)  # fmt: skip


class ComputeCapability(enum.Enum):
    SM75, SM80, SM86, SM89, SM120 = range(5)


class CudaGraphStrategy(enum.Enum):
    DISABLED, WHOLE_GRAPH_CAPTURE = range(2)


class IRuntimeCache:
    """The kernels that a run compiled: their number is what is kept."""

    def __init__(self) -> None:
        self._data = b""

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._data or b"kernels")

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(b"kernels"):
            return False
        self._data = blob
        return True


class IRuntimeConfig:
    def __init__(self) -> None:
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self._strategy: ExecutionContextAllocationStrategy | None = None
        self._cache: IRuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
        self._strategy = strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True


class RtxBuilderConfig(IBuilderConfig):
    def __init__(self) -> None:
        super().__init__()
        self.num_compute_capabilities = 0
        self._targets: dict[int, ComputeCapability] = {}

    def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> bool:
        assert index < self.num_compute_capabilities
        self._targets[index] = compute_capability
        return True


class RtxBuilder(Builder):
    """Needs no GPU, times no kernels, builds for the GPUs that it is told."""

    def _check(self, config: IBuilderConfig) -> None:
        assert isinstance(config, RtxBuilderConfig)
        assert len(config._targets) == config.num_compute_capabilities > 0

    def create_builder_config(self) -> IBuilderConfig:
        return RtxBuilderConfig()


class RtxRuntime(Runtime):
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        engine = super().deserialize_cuda_engine(serialized_engine)
        return None if engine is None else RtxEngine(engine._plan, engine._logger)


class RtxEngine(ICudaEngine):
    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config: IRuntimeConfig) -> IExecutionContext | None:  # type: ignore[override]
        assert runtime_config._cache is not None
        state.strategies.append(runtime_config.cuda_graph_strategy)
        assert runtime_config._strategy is not None
        return super().create_execution_context(runtime_config._strategy)


RTX = {
    "ComputeCapability": ComputeCapability, "CudaGraphStrategy": CudaGraphStrategy, "IRuntimeCache": IRuntimeCache,
    "IRuntimeConfig": IRuntimeConfig, "IBuilderConfig": RtxBuilderConfig, "Builder": RtxBuilder, "Runtime": RtxRuntime,
    "ICudaEngine": RtxEngine,
}  # fmt: skip
"""What TensorRT-RTX has beside, or instead of, TensorRT's classes."""


def rtx_module(version: str = "1.7.1.116") -> types.ModuleType:
    """The double as the module tensorrt_rtx_bindings."""
    result = module(version)
    result.__name__ = "tensorrt_rtx_bindings"
    for name, item in RTX.items():
        setattr(result, name, item)
    return result


def module(version: str = __version__) -> types.ModuleType:
    """The double as the module tensorrt."""
    result = types.ModuleType("tensorrt")
    for item in PUBLIC:
        setattr(result, item.__name__, item)
    result.__version__ = version  # type: ignore[attr-defined]
    return result
