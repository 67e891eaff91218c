"""Repetitions of a test with other seeds or conditions: `make test` runs one of them, `make test-long` the others."""

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
