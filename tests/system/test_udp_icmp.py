"""Forged ICMP reports about the size of the path (CVE-2024-53259 of quic-go): they make no datagram smaller."""

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.background import PATIENCE_S
from tests.support.hosts import Host
from tests.support.udp_channels import connected, transfer
from toolkit.channel import Address, TransportOptions
from toolkit.transports.udp.connect import UdpTransport

pytestmark = pytest.mark.root
OPTIONS = TransportOptions(connect_timeout_s=PATIENCE_S, idle_timeout_s=PATIENCE_S)
FRAGMENTATION_NEEDED = (3, 4)  # type and code


@pytest.fixture
def host() -> Iterator[Host]:
    """A namespace: the kernel remembers such reports for ten minutes, for all sockets."""
    try:
        made = Host()
    except OSError as error:
        pytest.skip(f"network namespaces are unavailable: {error}")
    yield made
    made.end()


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def report(sender: Address, receiver: Address, mtu: int) -> bytes:
    """Return the ICMP report of a router that cannot forward a datagram from `sender` to `receiver`."""
    addresses = socket.inet_aton(sender.host) + socket.inet_aton(receiver.host)
    quoted = struct.pack("!BBHHHBBH", 0x45, 0, 1500, 1, 0x4000, 64, 17, 0) + addresses
    quoted += struct.pack("!HHHH", sender.port, receiver.port, 1480, 0)
    without = struct.pack("!BBHHH", *FRAGMENTATION_NEEDED, 0, 0, mtu) + quoted
    return without[:2] + struct.pack("!H", checksum(without)) + without[4:]


def check_transfer_under_reports() -> None:
    with (
        closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)) as listener,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as attacker,
    ):
        client, server = connected(listener, OPTIONS)
        with closing(client), closing(server):
            near, far = (Address(*channel.socket.getsockname()[:2]) for channel in (client, server))
            transfer(client, server, [random.Random(1).randbytes(200_000)], [b"before"])
            before = client.statistics()["datagram_bytes"]
            for mtu in (576, 68, 0, 1280):
                attacker.sendto(report(near, far, mtu), ("127.0.0.1", 0))
                attacker.sendto(report(far, near, mtu), ("127.0.0.1", 0))
            transfer(client, server, [random.Random(2).randbytes(200_000)], [b"after"])
            after = client.statistics()
    assert after["datagram_bytes"] == before
    assert isinstance(before, int)
    assert before >= 1200


def test_forged_reports_of_a_small_path_disturb_no_transfer(host: Host) -> None:
    host.call(check_transfer_under_reports)
