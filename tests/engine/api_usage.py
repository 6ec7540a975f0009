"""Which calls of TensorRT and pycuda the engine makes, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ENGINE = Path(__file__).parents[2] / "engine"
MODULES = ("trt/api.py", "builder.py", "trt/serialize.py", "trt/inspect.py", "backends/tensorrt.py")
"""What both runtimes go through."""
RTX_MODULES = ("trt/rtx.py",)
"""What is of TensorRT-RTX alone."""

RECEIVERS = {
    "trt_builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "complaint": "ParserError",
    "settings": "IBuilderConfig",
    "allowed": "IOptimizationProfile",
    "timings": "ITimingCache",
    "runtime": "Runtime",
    "_runtime": "Runtime",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "context": "IExecutionContext",
    "raw": "IRuntimeCache",
    "_raw": "IRuntimeCache",
    "tensor": "ITensor",
    "x": "ILayer",
}
"""Names of variables, and of attributes of self, that hold an object of TensorRT in those modules."""


RUNTIME_CONFIG = (
    "create_runtime_cache", "set_runtime_cache", "set_execution_context_allocation_strategy", "cuda_graph_strategy"
)  # fmt: skip
"""Members of IRuntimeConfig, which is called settings as IBuilderConfig is."""


@dataclass(frozen=True)
class Use:
    """One attribute that is read, written or called."""

    owner: str
    """Class, or "" for the module itself."""
    name: str
    place: str
    stored: bool = False
    called: bool = False
    positional: int = 0
    keywords: tuple[str, ...] = ()


def module_paths(modules: Iterable[str] = MODULES) -> list[tuple[str, str]]:
    """Dotted paths below the module tensorrt, such as ``BuilderFlag.TF32``, and where they stand."""
    found = []
    for path in modules:
        for node in ast.walk(ast.parse((ENGINE / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and (dotted := _below_module(node)) is not None:
                found.append((dotted, f"{path}:{node.lineno}"))
    return found


def _below_module(node: ast.Attribute) -> str | None:
    parts = []
    current: ast.expr = node
    while isinstance(current, ast.Attribute):
        parts.append(current.attr)
        current = current.value
    root = isinstance(current, ast.Name) and current.id == "trt"
    if isinstance(current, ast.Call):  # load().x and tensorrt_api.load().x
        root = ast.unparse(current.func) in ("load", "tensorrt_api.load")
    return ".".join(reversed(parts)) if root else None


def object_uses(api: set[str], modules: Iterable[str] = MODULES) -> Iterator[Use]:
    """Every attribute of an object of TensorRT.

    `api` are all member names of the double: one of them on a variable that `RECEIVERS` does not know
    comes back with the owner "?", so that no call slips by under a new name.
    """
    for path in modules:
        tree = ast.parse((ENGINE / path).read_text(encoding="utf-8"))
        calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or _below_module(node) is not None:
                continue
            receiver = ast.unparse(node.value)
            known = RECEIVERS.get(receiver.removeprefix("self.").removeprefix("lane."))
            if path in RTX_MODULES and receiver == "settings" and node.attr in RUNTIME_CONFIG:
                known = "IRuntimeConfig"
            if known is None and node.attr not in api:
                continue
            call = calls.get(id(node))
            yield Use(
                owner=known or "?",
                name=node.attr,
                place=f"{path}:{node.lineno} {receiver}.{node.attr}",
                stored=isinstance(node.ctx, ast.Store),
                called=call is not None,
                positional=len(call.args) if call else 0,
                keywords=tuple(k.arg or "**" for k in call.keywords) if call else (),
            )
