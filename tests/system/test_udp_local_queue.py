"""A device of the sender's own host that is slower than the sender, with a queue that is too short for its bursts."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.support.background import PATIENCE_S, Background
from tests.support.hosts import Host, make_hosts
from tests.support.udp_channels import transfer
from toolkit.channel import Address, TransportOptions
from toolkit.transports.udp.channel import UdpChannel
from toolkit.transports.udp.connect import UdpTransport

pytestmark = pytest.mark.root
OPTIONS = TransportOptions(connect_timeout_s=PATIENCE_S)


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def hosts(cleanup: ExitStack) -> tuple[Host, Host]:
    near, far, _ = make_hosts(cleanup)
    near.run(f"ip link add wire type veth peer name wire netns {far.thread_id}")
    for number, host in enumerate((near, far), start=1):
        host.run(f"ip address add 10.9.1.{number}/24 dev wire")
        host.run("ip link set wire up")
    return near, far


def connected(near: Host, far: Host, cleanup: ExitStack) -> tuple[UdpChannel, UdpChannel]:
    listener = cleanup.enter_context(closing(far.call(lambda: UdpTransport().listen(Address("10.9.1.2", 0), OPTIONS))))
    accepting = Background(lambda: listener.accept(timeout_s=PATIENCE_S))
    client = near.call(lambda: UdpTransport().connect(Address("10.9.1.2", listener.address.port), OPTIONS))
    server = accepting.outcome()
    assert server is not None
    cleanup.callback(client.abort)
    cleanup.callback(server.abort)
    return client, server


@pytest.mark.parametrize("queue_bytes", [12_000, 90_000, 400_000])
def test_its_drops_are_taken_back_and_are_no_losses(
    queue_bytes: int, hosts: tuple[Host, Host], cleanup: ExitStack
) -> None:
    """The first burst is longer than the shortest queue. A bucket of 70 kB keeps tbf from cutting bursts."""
    near, far = hosts
    near.run(f"tc qdisc add dev wire root tbf rate 200mbit burst 70000 limit {queue_bytes}")
    client, server = connected(near, far, cleanup)
    content = random.Random(1).randbytes(2 << 20)
    transfer(client, server, [content], [])
    statistics = client.statistics()
    assert int(statistics["local_drops"]) > 0 or queue_bytes > 12_000
    assert int(statistics["packets_retransmitted"]) <= 0.005 * int(statistics["packets_sent"])
