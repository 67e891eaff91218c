"""One suite for every transport: the contract of a channel, and complete sessions over it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.conformance_network import CASES, Case, Network


@pytest.fixture(params=CASES)
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
