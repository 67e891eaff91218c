"""One suite for every transport: the contract of a channel, and complete sessions over it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.conformance_network import CASES, QUICK, Case, Network
from tests.support.repetitions import long


@pytest.fixture(params=[name if name in QUICK else long(name) for name in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def network(case: Case) -> Iterator[Network]:
    made = Network(case)
    yield made
    made.close()


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[Path]:
    """An empty directory to receive into."""
    path = tmp_path / "received"
    path.mkdir()
    yield path
    shutil.rmtree(tmp_path)  # pytest would keep it for three runs, for every transport
