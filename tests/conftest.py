"""How `make test` distributes the tests over its workers (pytest-xdist, `--dist loadgroup`)."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent
SPREAD = ("unit", "property", "sim")  # these tests share nothing, so each may run in any worker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the other tests of a file together: they share fixtures, and some look for leftover processes.

    xdist starts with the largest groups, and fills the workers with single tests at the end.
    """
    for item in items:
        if item.path.relative_to(ROOT).parts[0] not in SPREAD:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
