"""Every test that docs/security.md names exists, in the file that it names."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
NAMES = re.compile(r"`((?:unit|property|conformance|system|sim|fuzz)/[\w/]+\.py|test_\w+)`")


def test_every_named_test_exists() -> None:
    tests: set[str] = set()
    found = 0
    for name in NAMES.findall((ROOT / "docs" / "security.md").read_text("utf-8")):
        if name.endswith(".py"):
            tree = ast.parse((ROOT / "tests" / name).read_text("utf-8"))
            tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        else:
            found += 1
            assert name in tests, name
    assert found
