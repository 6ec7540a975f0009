"""Run by `test_bindings.py` in a process of its own: what a bindings wheel offers, as JSON.

    python bindings_report.py UNPACKED_WHEEL MAJOR_VERSION WORK_FOLDER CLASS...

TensorRT's libraries are replaced by stubs, which is enough to import the bindings and read their
names, enums and signatures.  With ``installed`` for the wheel: those of TensorRT-RTX in this environment.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

STUBBED = ("Infer", "Onnx", "Plugin")
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


def load_stubs(binding: Path, major: str, place: Path) -> None:
    listing = subprocess.run(["nm", "-D", "--undefined-only", str(binding)], capture_output=True, text=True, check=True)
    names = [line.split()[-1] for line in listing.stdout.splitlines()]
    names = [name for name in names if not name.startswith("_") and any(part in name for part in STUBBED)]
    for library in LIBRARIES:
        path, source = place / f"lib{library}.so.{major}", place / f"{library}.c"
        body = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in names) if library == "nvinfer" else ""
        source.write_text(body)
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{path.name}", "-o", str(path), str(source)]
        subprocess.run(command, check=True)
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)


def member(owner: Any, name: str) -> dict[str, Any]:
    value = owner.__dict__.get(name, getattr(owner, name, None))
    if isinstance(value, property):
        return {"kind": "property", "writable": value.fset is not None}
    if isinstance(value, type):
        return {"kind": "class"}
    if callable(value):
        return {"kind": "method", "doc": getattr(owner, name).__doc__ or ""}
    return {"kind": "value"}


def report(trt: Any, classes: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {"version": trt.__version__, "names": sorted(dir(trt)), "classes": {}}
    for path in classes:
        owner = trt
        for part in path.split("."):
            owner = getattr(owner, part, None)
        if owner is not None:
            members = {
                name: member(owner, name) for name in dir(owner) if not name.startswith("__") or name == "__init__"
            }
            result["classes"][path] = members
            members |= {"__buffer__": {"kind": "method", "doc": ""}} if hasattr(owner, "__buffer__") else {}
    try:
        trt.Runtime(trt.Logger())
        result["refusal"] = "started"
    except Exception as error:
        result["refusal"] = f"{type(error).__name__}: {error}"
    return result


def main() -> None:
    folder, major, place, *classes = sys.argv[1:]
    if folder == "installed":
        importlib.import_module("tensorrt_rtx_libs")
        print(json.dumps(report(importlib.import_module("tensorrt_rtx_bindings"), classes)))
        return
    (binding,) = Path(folder).glob("tensorrt_bindings/tensorrt.so")
    load_stubs(binding, major, Path(place))
    sys.path.insert(0, folder)
    print(json.dumps(report(importlib.import_module("tensorrt_bindings"), classes)))


if __name__ == "__main__":
    main()
