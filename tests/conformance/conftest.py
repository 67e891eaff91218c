"""One suite for every transport: the contract of a channel, and complete sessions over it."""

from collections.abc import Iterator

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
