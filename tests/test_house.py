"""The walls of the house: how long a function, how wide a constructor and how full a folder may be."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("stylize", "engine", "training")
LONGEST, WIDEST, FULLEST = 60, 7, 16


def functions():
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_no_function_is_long():
    long = [f"{name}: {size}" for name, node in functions() if (size := node.end_lineno - node.lineno + 1) > LONGEST]
    assert not long


def test_no_constructor_takes_much():
    wide = []
    for name, node in functions():
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if node.name == "__init__" and len(arguments) - 1 > WIDEST:
            wide.append(name)
    assert not wide


def test_no_folder_is_crowded():
    folders = [ROOT / package for package in PACKAGES]
    folders += [place for folder in folders for place in folder.rglob("*") if place.is_dir()]
    crowded = {
        str(folder.relative_to(ROOT)): count
        for folder in folders
        if (count := len(list(folder.glob("*.py")))) > FULLEST
    }
    assert not crowded
