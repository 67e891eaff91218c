"""Settings for every test."""

import gc
import os
import signal
import tempfile
from contextlib import suppress
from importlib import import_module
from itertools import groupby
from typing import Any

import pytest
from hypothesis import settings

from tests.support.repetitions import examples

# A shell without job control starts background jobs with SIGINT ignored, and programs inherit that. Tests interrupt the
# programs that they start, so these programs must begin with the default action.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Clients keep the tokens of servers in the user's cache directory. Tests have one of their own.
_CACHE = tempfile.TemporaryDirectory(prefix="nettool-tests-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name
os.environ["NETTOOL_CONFIG"] = ""  # no defaults of the person who runs the tests


# Property tests draw the same examples on every run and machine, so running one again reproduces its failure, and none
# fails for being slow. To look for new counterexamples: `pytest tests/property --hypothesis-profile explore`.
settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True, max_examples=examples(100))
settings.register_profile("explore", deadline=None, print_blob=True, max_examples=2000)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _no_controlling_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs in this process asks nothing at the terminal at which the tests run."""
    monkeypatch.setattr("toolkit.cli.prompt.CONTROLLING_TERMINAL", "/nonexistent")


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """With several workers, import a share of the files first, so that each worker compiles others in a new checkout.

    All of them collect all tests in the same order, so each would compile nearly every module. An error is met again,
    and reported, where the file is collected.
    """
    config = session.config
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is None or config.args != config.getini("testpaths"):
        return
    files = sorted(config.rootpath.glob("tests/**/test_*.py"))
    number = int(worker["workerid"].removeprefix("gw"))
    for path in files[number :: worker["workercount"]]:
        with suppress(Exception, pytest.skip.Exception):
            import_module(".".join(path.relative_to(config.rootpath).with_suffix("").parts))


_WAITING = {"system": 7, "conformance": 10, "browser": 12}
_COMPUTING = {"sim": 7, "fuzz": 5, "property": 3, "unit": 1}
"""Folder of tests -> roughly how long one of its files takes, in seconds."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several workers, mix the files whose tests wait for timers and processes with those that only compute.

    One worker takes a file after another, so the workers need the processors most evenly if both kinds last as long as
    each other. Short files of the second kind come last, so that all workers end together.
    """
    if not hasattr(config, "workerinput"):
        return
    files = [list(tests) for _, tests in groupby(items, lambda item: item.path)]
    positions: dict[int, float] = {}
    for folders, end in ((_WAITING, 0.9), (_COMPUTING, 1.0)):
        these = [(number, folder) for number, tests in enumerate(files) if (folder := _folder(tests[0])) in folders]
        these.sort(key=lambda one: -folders[one[1]])
        total, passed = sum(folders[folder] for _, folder in these), 0
        for number, folder in these:
            positions[number] = end * passed / total
            passed += folders[folder]
    items[:] = [item for number in sorted(positions, key=positions.__getitem__) for item in files[number]]


def _folder(item: pytest.Item) -> str:
    parts = item.path.relative_to(item.config.rootpath).parts
    return next((part for part in parts if part in _WAITING or part in _COMPUTING), "unit")


def pytest_collection_finish() -> None:
    """Exempt what exists before the first test from garbage collection, which would visit it again and again.

    Thousands of collected tests are most of all objects. Whatever a test creates is collected as usual.
    """
    gc.collect()
    gc.freeze()
