"""Settings for every test."""

import gc
import os
import signal
import tempfile

import pytest

# A shell without job control starts background jobs with SIGINT ignored, and programs inherit that. Tests interrupt the
# programs that they start, so these programs must begin with the default action.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Clients keep the tokens of servers in the user's cache directory. Tests have one of their own.
_CACHE = tempfile.TemporaryDirectory(prefix="nettool-tests-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name


@pytest.fixture(autouse=True)
def _no_controlling_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs in this process asks nothing at the terminal at which the tests run."""
    monkeypatch.setattr("toolkit.cli.prompt.CONTROLLING_TERMINAL", "/nonexistent")


def pytest_collection_finish() -> None:
    """Exempt what exists before the first test from garbage collection, which would visit it again and again.

    Three thousand collected tests are most of all objects. Whatever a test creates is collected as usual.
    """
    gc.collect()
    gc.freeze()
