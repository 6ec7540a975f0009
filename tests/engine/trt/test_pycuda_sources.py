"""Every call of pycuda that the engine makes, against pycuda's own sources.

pycuda is built from source on the user's machine; here its sdist is fetched (skipped without a
network) and the names and arguments that its wrapper registers are read from it.
"""

from __future__ import annotations

import ast
import inspect
import re
import tarfile
from pathlib import Path

import double_cuda
import pytest
from real_packages import CACHE, fetch

ENGINE = Path(__file__).parents[3] / "engine"
MODULE = ENGINE / "trt" / "cuda.py"


@pytest.fixture(scope="session")
def wrapper() -> str:
    """The C++ source that registers pycuda._driver."""
    folder = CACHE / "pycuda-source"
    fetch("pycuda>=2024.1", folder)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        (member,) = [m for m in tar.getmembers() if m.name.endswith("src/wrapper/wrap_cudadrv.cpp")]
        source = tar.extractfile(member)
        assert source is not None
        return source.read().decode()


def class_block(wrapper: str, name: str) -> str:
    match = re.search(rf'py::class_<[^;]*?"{name}".*?;', wrapper, re.DOTALL)
    assert match is not None, f"pycuda has no class {name}"
    return match[0]


def has_member(block: str, name: str) -> bool:
    patterns = (
        rf"DEF_SIMPLE_METHOD\({name}\)",
        rf"DEF_SIMPLE_METHOD_WITH_ARGS\({name},",
        rf'\.def\("{name}"',
        rf'\.add_property\("{name}"',
        rf"DEF_SIMPLE_R[OW]_MEMBER\({name}\)",
        rf'\.def_readwrite\("{name}"',
    )
    return any(re.search(pattern, block) for pattern in patterns)


def arguments(wrapper: str, function: str) -> list[str] | None:
    """Names of the arguments of a registered function; None where it has no named ones."""
    match = re.search(rf'py::def\("{function}",[^;]*;', wrapper, re.DOTALL)
    assert match is not None or f"DEF_SIMPLE_FUNCTION({function})" in wrapper, f"pycuda has no {function}"
    if match is None:
        return None
    groups = re.findall(r"py::args?\(([^)]*)\)", match[0])
    return re.findall(r'"(\w+)"', " ".join(groups)) or None


def used_below_driver() -> set[str]:
    """Names that the module takes from pycuda.driver."""
    tree = ast.parse(MODULE.read_text(encoding="utf-8"))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and ast.unparse(node.value) in ("cuda", "self._cuda", "stream._cuda", "_driver()")
    }


def test_only_one_module_knows_pycuda() -> None:
    for path in ENGINE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert path == MODULE or not any(name.startswith("pycuda") for name in names), path


def test_the_double_has_all_that_is_used() -> None:
    used = used_below_driver()
    assert {"Device", "mem_alloc", "Memcpy2D"} <= used
    assert used <= {item.__name__ for item in double_cuda.PUBLIC}


def test_functions(wrapper: str) -> None:
    for item in double_cuda.PUBLIC:
        if inspect.isfunction(item):
            names = arguments(wrapper, item.__name__)
            ours = list(inspect.signature(item).parameters)
            if names is not None and ours:
                assert names[: len(ours)] == ours, item.__name__


@pytest.mark.parametrize("cls", [c for c in double_cuda.PUBLIC if inspect.isclass(c) and not issubclass(c, Exception)])
def test_classes(wrapper: str, cls: type) -> None:
    block = class_block(wrapper, cls.__name__)
    names = [n for n in vars(cls) if not n.startswith("__") and n != "enqueue"]
    if cls is double_cuda.Memcpy2D:
        names += [n for n in vars(cls()) if not n.startswith("_")]
        assert "execute_async" in block, "copies take a stream"
    if cls is double_cuda.Stream:
        names.append("handle")
    if cls is double_cuda.DeviceAllocation:
        names.append("__int__")
    shared = wrapper if cls is double_cuda.Memcpy2D else block  # its members are registered by macros
    missing = [n for n in names if not has_member(block, n) and not re.search(rf"\b{n}\b", shared)]
    assert not missing


def test_errors(wrapper: str) -> None:
    """Error is the base of the others, so that catching it is enough."""
    for name in ("MemoryError", "LogicError"):
        assert f"DECLARE_EXC({name}, CudaError.get())" in wrapper, name
    assert issubclass(double_cuda.MemoryError, double_cuda.Error)
