"""Fixtures that the tests of comparisons share."""

import mmap

import pytest


@pytest.fixture(autouse=True)
def _little_memory_is_warmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody judges the speed of trials whose endpoints are no processes."""
    monkeypatch.setattr("toolkit.comparison.workspace.WARM_BYTES", mmap.PAGESIZE)
