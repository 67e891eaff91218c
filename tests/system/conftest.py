"""Fixtures that the system tests share."""

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.hosts import Host, make_hosts
from tests.support.warm_starts import warm_starts


@pytest.fixture(scope="module")
def warm() -> Iterator[None]:
    """The processes that nettool starts are forked instead of starting Python anew."""
    with warm_starts():
        yield


@pytest.fixture(params=["tcp", "udp"])
def transport(request: pytest.FixtureRequest) -> str:
    """The transport that both ends use."""
    return str(request.param)


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    """An empty directory to receive into."""
    path = tmp_path / "incoming"
    path.mkdir()
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file to send."""
    path = tmp_path / "file"
    path.write_bytes(random.Random(1).randbytes(200_000))
    return path


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    """What a test enters here ends with it."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def three_hosts(cleanup: ExitStack) -> tuple[Host, Host, Host]:
    """near (10.9.1.1) - a router - far (10.9.2.1), by links of 1,500 bytes."""
    near, router, far = hosts = make_hosts(cleanup)
    for n, host in ((1, near), (2, far)):
        host.run(f"ip link add wire type veth peer name down{n} netns {router.thread_id}")
        host.run(f"ip address add 10.9.{n}.1/24 dev wire")
        host.run("ip link set wire up")
        router.run(f"ip address add 10.9.{n}.2/24 dev down{n}")
        router.run(f"ip link set down{n} up")
        host.run(f"ip route add default via 10.9.{n}.2")
    return hosts
