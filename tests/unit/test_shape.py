"""The shape of the package: short functions, modules of a readable size, and one class for each name."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAX_FUNCTION_LINES = 60
MAX_MODULE_LINES = 400


@cache
def modules() -> dict[str, ast.Module]:
    paths = sorted((ROOT / "toolkit").rglob("*.py"))
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text("utf-8")) for path in paths}


def test_functions_are_short() -> None:
    long = [
        f"{name}: {node.name} has {length} lines"
        for name, module in modules().items()
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_modules_are_of_a_readable_size() -> None:
    lengths = {name: len((ROOT / name).read_text("utf-8").splitlines()) for name in modules()}
    long = {name: n for name, n in lengths.items() if n > MAX_MODULE_LINES}
    assert long == {}


def test_class_names_are_unique() -> None:
    names = Counter(
        node.name for module in modules().values() for node in ast.walk(module) if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []
