"""Repetitions of a test with other seeds, conditions or examples: `make test` runs some, `make test-long` the rest."""

import os
from collections.abc import Iterable
from typing import Any

import pytest


def long(*values: Any) -> Any:
    """A set of parameters that only `make test-long` runs."""
    return pytest.param(*values, marks=pytest.mark.long)


def first_then_long(values: Iterable[Any]) -> list[Any]:
    """The first value as it is, for `make test`; the others for `make test-long`."""
    first, *others = values
    return [first, *map(long, others)]


def examples(count: int) -> int:
    """How many examples a property test draws: `count`, but a quarter in `make test`."""
    return count // 4 if "NETTOOL_QUICK" in os.environ else count
