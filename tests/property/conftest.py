"""Property tests draw the same examples on every run and machine, so running a test again reproduces its failure.

To look for new counterexamples: `pytest tests/property --hypothesis-profile explore`.
"""

from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.repetitions import examples

settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True, max_examples=examples(100))
settings.register_profile("explore", deadline=None, print_blob=True, max_examples=2000)
settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, so that `make test-long` can run them with all of their examples."""
    folder = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(folder):
            item.add_marker(pytest.mark.property)
