"""Every call of TensorRT and pycuda that the engine makes, against the real bindings.

The bindings wheels are fetched when the tests run, into $FIREWATCH_TEST_CACHE or the user's cache
folder; without a network the tests are skipped.
"""

from __future__ import annotations

import enum
import inspect
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import double_tensorrt
import numpy as np
import pytest
from api_usage import MODULES, RTX_MODULES, Use, module_paths, object_uses
from engine_models import landscape
from real_packages import CACHE, fetch

from engine.backends.base import BackendOptions
from engine.backends.tensorrt import TensorRtBackend
from engine.builder import Builder
from engine.spec import ModelSpec, look_weights
from engine.tiling import TilePlan
from engine.trt.inspect import layers_of
from engine.trt.plan import PlanCache, PlanConfig, ShapeProfile

WHEELS = {
    "10.3": "tensorrt-cu12-bindings==10.3.*",  # JetPack 6.2
    "10.9": "tensorrt-cu12-bindings==10.9.*",
    "10.16": "tensorrt-cu12-bindings==10.16.*",
    "11.4": "tensorrt-cu13-bindings==11.4.*",
}
RTX = "1.7"
"""Of TensorRT-RTX, which is installed with the tests' packages: its bindings have TensorRT's interface."""
NESTED = ("ILogger.Severity",)
OURS = {"__init__", "ready"}

Signature = dict[str, tuple[str, bool]]
"""Name of a parameter -> its type and whether it may be left out."""


def report(arguments: list[str], extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """What `bindings_report` says of a wheel."""
    classes = [*(item.__name__ for item in double_tensorrt.PUBLIC), *NESTED, *extra]
    command = [sys.executable, "-W", "error", str(Path(__file__).parents[1] / "bindings_report.py")]
    result = subprocess.run(
        [*command, *arguments, *classes], capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="session", params=[*WHEELS, RTX])
def bindings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of one version; see `bindings_report`."""
    version = request.param
    if version == RTX:
        pytest.importorskip("tensorrt_rtx_libs")
        found = report(["installed", "", ""], tuple(double_tensorrt.RTX))
    else:
        folder = CACHE / f"bindings-{version}-cp{sys.version_info.major}{sys.version_info.minor}"
        fetch(WHEELS[version], folder)
        place = tmp_path_factory.mktemp(f"bindings-{version}")
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extractall(place / "wheel")
        found = report([str(place / "wheel"), version.partition(".")[0], str(place)])
    assert found["version"].startswith(version)
    return found


def of_runtime(bindings: dict[str, Any]) -> tuple[list[type], tuple[str, ...]]:
    """Classes of the double, and modules of the engine, that belong to the bindings at hand."""
    if not bindings["version"].startswith(RTX):
        return list(double_tensorrt.PUBLIC), MODULES
    return [*double_tensorrt.PUBLIC, *double_tensorrt.RTX.values()], (*MODULES, *RTX_MODULES)


def signatures(member: dict[str, Any], name: str) -> list[Signature]:
    """Overloads of a pybind11 method, from its docstring; self is left out."""
    found = []
    for line in member["doc"].splitlines():
        match = re.match(rf"\s*(?:\d+\. )?{re.escape(name)}\((.*)\) -> ", line)
        if match is None or match[1] == "*args, **kwargs":
            continue
        parameters: Signature = {}
        for part in re.split(r", (?=\w+: )", match[1]):
            key, _, rest = part.partition(": ")
            kind, _, default = rest.partition(" = ")
            parameters[key] = (
                re.sub(r"tensorrt(_rtx)?_bindings\.tensorrt(_rtx)?\.|nvinfer1::", "", kind),
                bool(default),
            )
        parameters.pop("self", None)
        found.append(parameters)
    return found


def public_members(cls: type) -> dict[str, Any]:
    return {k: v for k, v in vars(cls).items() if not k.startswith("_") and k not in OURS}


def test_the_double_is_a_part_of_the_bindings(bindings: dict[str, Any]) -> None:
    """Every class, member and enum value of the double exists, with the same parameters in the same order."""
    faults = []
    names = {item: name for name, item in double_tensorrt.RTX.items()}
    for cls in of_runtime(bindings)[0]:
        real = bindings["classes"].get(names.get(cls, cls.__name__))
        if real is None:
            faults.append(cls.__name__)
            continue
        for name, value in public_members(cls).items():
            place = f"{cls.__name__}.{name}"
            if name not in real:
                faults.append(place)
            elif inspect.isfunction(value):
                wanted = [p for p in inspect.signature(value).parameters if p != "self"]
                fits = [
                    s
                    for s in signatures(real[name], name)
                    if list(s)[: len(wanted)] == wanted and all(v[1] for v in list(s.values())[len(wanted) :])
                ]
                faults += [] if fits else [f"{place}({', '.join(wanted)}): {real[name]['doc'][:200]}"]
            elif not issubclass(cls, enum.Enum) and isinstance(value, property):
                faults += [] if real[name]["kind"] == "property" else [place]
    assert not faults


def test_the_module_has_every_name(bindings: dict[str, Any]) -> None:
    used = module_paths(of_runtime(bindings)[1])
    assert {"Builder", "Runtime", "OnnxParser", "MemoryPoolType.WORKSPACE"} <= {path for path, _ in used}
    faults = []
    for path, place in used:
        *owner, name = path.split(".")
        names = bindings["classes"].get(".".join(owner), {}) if owner else bindings["names"]
        faults += [] if name in names or name == "__version__" else [f"{path} at {place}"]
    assert not faults


def test_every_call_fits(bindings: dict[str, Any]) -> None:
    faults = []
    uses = list(tensorrt_uses(of_runtime(bindings)[1]))
    assert len(uses) > 40
    for use in uses:
        real = bindings["classes"].get(use.owner, {}).get(use.name)
        if real is None:
            faults.append(f"{use.place}: {use.owner} has no {use.name}")
        elif use.stored:
            faults += [] if real.get("writable") else [f"{use.place} cannot be set"]
        elif use.called:
            fits = any(takes(s, use) for s in signatures(real, use.name))
            faults += [] if fits else [f"{use.place}: {real['doc'][:300]}"]
        else:
            faults += [] if real["kind"] != "method" else [f"{use.place} is a method that is not called"]
    assert not faults


def takes(signature: Signature, use: Use) -> bool:
    names = list(signature)
    rest = names[use.positional :]
    needed = [name for name in rest if not signature[name][1]]
    return use.positional <= len(names) and set(use.keywords) <= set(rest) and set(needed) <= set(use.keywords)


def tensorrt_uses(modules: tuple[str, ...]) -> Iterator[Use]:
    classes = (*double_tensorrt.PUBLIC, *double_tensorrt.RTX.values())
    api = {name for cls in classes for name in public_members(cls) if not issubclass(cls, enum.Enum)}
    # What other objects have too: names of files, sizes of arrays.
    shared = {"name", "type", "dtype", "log", "parse"}
    for use in object_uses(api, modules):
        if use.owner != "?":
            yield use
        else:
            assert use.name in shared, f"{use.place}: tell api_usage.RECEIVERS what this is"


def test_overridden_methods(bindings: dict[str, Any]) -> None:
    """What TensorRT calls in us: the names and order of the arguments."""
    from engine.trt import api as tensorrt_api
    from engine.trt import serialize

    sources = inspect.getsource(serialize) + inspect.getsource(tensorrt_api)
    for owner, names in {
        "IProgressMonitor": ("phase_start", "step_complete", "phase_finish"),
        "ILogger": ("log",),
    }.items():
        for name in names:
            (signature,) = signatures(bindings["classes"][owner][name], name)
            match = re.search(rf"def {name}\(self, (.*?)\) ->", sources)
            assert match is not None, name
            assert [part.split(":")[0] for part in match[1].split(", ")] == list(signature)


KINDS = {
    int: ("int", "typing.SupportsInt", "SupportsInt"),
    bool: ("bool",),
    str: ("str",),
    tuple: ("tuple", "Dims"),
    bytes: ("buffer", "typing_extensions.Buffer", "Buffer"),
}


def test_types_of_arguments(bindings: dict[str, Any], calls: list[tuple[str, str, tuple[type, ...]]]) -> None:
    """What was really passed in a build, a render and an inspection fits the types of the bindings."""
    assert len({(owner, name) for owner, name, _ in calls}) > 30
    faults = set()
    for owner, name, types in calls:
        overloads = [list(s.values()) for s in signatures(bindings["classes"][owner][name], name)]
        fits = any(
            len(types) <= len(overload)
            and all(
                wanted.split(" | ")[0] in KINDS.get(given, (given.__name__,))
                for given, (wanted, _) in zip(types, overload, strict=False)
            )
            for overload in overloads
        )
        if not fits:
            faults.add(f"{owner}.{name}({', '.join(t.__name__ for t in types)}): {overloads}")
    assert not faults


@pytest.fixture
def calls(
    doubles: Any, models: dict[str, Path], tmp_path: Path, monkeypatch: Any
) -> list[tuple[str, str, tuple[type, ...]]]:
    """Every call of the double in a build, a render and an inspection: class, method, types of the arguments."""
    seen: list[tuple[str, str, tuple[type, ...]]] = []
    for cls in double_tensorrt.PUBLIC:
        for name, function in list(public_members(cls).items()):
            if inspect.isfunction(function) and cls not in (double_tensorrt.IProgressMonitor, double_tensorrt.ILogger):
                monkeypatch.setattr(cls, name, recorder(cls.__name__, name, function, seen))
    folder = models["light"]
    spec = ModelSpec.load(folder)
    profile = ShapeProfile.of_tile(spec, 64, 64, 2)
    config = PlanConfig(profile=profile, version_compatible=True, hardware_compatible=True, precision="fp32")
    plan, _ = Builder(folder, config, cache=PlanCache(tmp_path)).build()
    with TensorRtBackend(folder, spec, BackendOptions(plan=plan)) as backend:
        frame = landscape(64, 96)
        statistics = backend.probe(frame[None], look_weights(spec, "auto"))
        tiles = TilePlan(height=64, width=96, tile_height=64, tile_width=64, halo=8, multiple=4).tiles
        backend.submit(frame, statistics, tiles)
        assert backend.collect().shape == frame.shape
    assert layers_of(plan, 0)["render"][0]["nodes"] == ["conv_0", "relu_1"]
    doubles.trt.parser_fails = True
    with pytest.raises(Exception, match="Resize"):
        Builder(folder, config, cache=PlanCache(tmp_path)).build(force=True)
    return seen


def recorder(owner: str, name: str, function: Any, seen: list[Any]) -> Any:
    def record(self: Any, *arguments: Any) -> Any:
        assert not any(isinstance(argument, np.generic) for argument in arguments), f"{owner}.{name}: numpy scalar"
        seen.append((owner, name, tuple(type(argument) for argument in arguments)))
        return function(self, *arguments)

    return record


def test_refusal_to_start_looks_as_we_expect(bindings: dict[str, Any]) -> None:
    """`tensorrt_api.started` catches just this."""
    if bindings["version"].startswith(RTX):
        return  # it starts without a driver
    assert bindings["refusal"].startswith("TypeError")
    assert "nullptr" in bindings["refusal"]
