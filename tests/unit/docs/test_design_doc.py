"""The map and the index of docs/design.md match the code."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]
DESIGN = (ROOT / "docs" / "design.md").read_text("utf-8")


def section(title: str) -> str:
    """The text under a heading of the second level."""
    _, _, rest = DESIGN.partition(f"\n## {title}\n")
    assert rest, f"docs/design.md has no section {title!r}"
    return rest.partition("\n## ")[0]


def files_on_the_map() -> list[str]:
    """The files of the tree in the section "The map", by their indentation."""
    tree = re.search(r"```\n(toolkit/.*?)```", section("The map"), re.DOTALL)
    assert tree is not None
    folders: list[str] = []
    files = []
    for line in tree[1].splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        else:
            files.append("".join([*folders, name]))
    return files


@cache
def defined_in(path: Path) -> frozenset[str]:
    """Functions, classes and constants of a module, and `Class.member` for methods, fields and enum members."""
    names: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
                collect(node.body if isinstance(node, ast.ClassDef) else [], f"{prefix}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else []
            if isinstance(node, ast.AnnAssign):
                targets = [node.target]
            names.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    collect(ast.parse(path.read_text("utf-8")).body, "")
    return frozenset(names)


def test_the_map_names_every_module_exactly_once() -> None:
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "toolkit").rglob("*.py") if path.name != "__init__.py"}
    on_the_map = files_on_the_map()
    assert sorted(modules.difference(on_the_map)) == []
    assert [name for name in on_the_map if on_the_map.count(name) > 1] == []


def test_every_file_on_the_map_exists() -> None:
    assert [name for name in files_on_the_map() if not (ROOT / name).exists()] == []


def test_the_index_names_files_and_definitions_that_exist() -> None:
    """In each row, names follow the file that defines them: `path.py`, `function`, `Class.method`."""
    rows = [line for line in section("Where to find things").splitlines() if line.startswith("| ")]
    assert len(rows) > 20
    wrong = []
    for row in rows[1:]:
        path = None
        for token in re.findall(r"`([^`]+)`", row.split("|")[2]):
            if "/" in token or token.endswith(".py"):
                path = next((p for p in (ROOT / "toolkit" / token, ROOT / token) if p.exists()), None)
                if path is None:
                    wrong.append(f"no file {token}")
            elif path is not None and token not in defined_in(path):
                wrong.append(f"no {token} in {path.relative_to(ROOT)}")
    assert wrong == []


def test_other_paths_in_the_document_exist() -> None:
    named = re.findall(r"`((?:toolkit|tests|docs|bench)/[\w/.-]+)`", DESIGN)
    assert [path for path in named if not (ROOT / path).exists()] == []
