"""TCP paths that need hosts of their own: a black hole for full segments, and addresses that need an interface."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from tests.support.background import PATIENCE_S, Background
from tests.support.content import BytesSink, BytesSource, receive_until
from tests.support.hosts import Host
from toolkit.channel import Address, Extent, TransportOptions
from toolkit.errors import PeerClosedError
from toolkit.transports.tcp.channel import TcpChannel
from toolkit.transports.tcp.connect import TcpTransport

OPTIONS = TransportOptions(connect_timeout_s=PATIENCE_S, idle_timeout_s=PATIENCE_S)


@contextmanager
def connected(
    near: Host, far: Host, bind: str, target: str, client_options: TransportOptions, server_options: TransportOptions
) -> Iterator[tuple[TcpChannel, TcpChannel]]:
    with ExitStack() as cleanup:
        listener = far.call(lambda: TcpTransport().listen(Address(bind, 0), server_options))
        cleanup.enter_context(closing(listener))
        accepting = Background(lambda: listener.accept(timeout_s=PATIENCE_S))
        address = Address(target, listener.address.port)
        client = near.call(lambda: TcpTransport().connect(address, client_options))
        cleanup.callback(client.abort)
        server = accepting.outcome()
        assert server is not None
        cleanup.callback(server.abort)
        yield client, server


def send_and_await_answer(client: TcpChannel) -> None:
    client.send_extent(Extent(0, 0, 1 << 20), BytesSource(os.urandom(1 << 20)))
    client.flush()
    client.receive(timeout_s=PATIENCE_S)


@pytest.mark.root
@pytest.mark.parametrize("plaintext", [False, True])
@pytest.mark.parametrize("first_to_give_up", ["sender", "receiver"])
def test_a_path_that_drops_full_segments_is_named(
    first_to_give_up: str, plaintext: bool, three_hosts: tuple[Host, Host, Host]
) -> None:
    near, _, far = three_hosts
    far.run("ip link set wire mtu 1300")  # it drops longer packets on arrival, and reports nothing
    far.run("ip route change default via 10.9.2.2 advmss 1460")  # as if a router had dropped them
    near.run("ip link set wire gso_max_segs 1")  # the kernel would pass on several segments as one packet, unchecked
    for host in (near, far):
        host.run("sysctl -q -w net.ipv4.tcp_mtu_probing=0")
    impatient = TransportOptions(connect_timeout_s=PATIENCE_S, idle_timeout_s=2, plaintext=plaintext)
    patient = TransportOptions(connect_timeout_s=PATIENCE_S, idle_timeout_s=PATIENCE_S, plaintext=plaintext)
    ends = (impatient, patient) if first_to_give_up == "sender" else (patient, impatient)
    with connected(near, far, "10.9.2.1", "10.9.2.1", *ends) as (client, server):
        client.send_message(b"small")
        assert server.receive(timeout_s=PATIENCE_S) == b"small"

        def give_up() -> None:
            with pytest.raises(PeerClosedError, match=r"was silent for 2 s"):
                server.receive(BytesSink())
            server.abort()

        receiving = Background(give_up) if first_to_give_up == "receiver" else None
        with pytest.raises(PeerClosedError, match=r"^no full packet gets through to 10\.9\.2\.1:\d+: .* MTU "):
            send_and_await_answer(client)
        if receiving is not None:
            receiving.outcome()


@pytest.mark.root
def test_several_connections_to_a_link_local_address(three_hosts: tuple[Host, Host, Host]) -> None:
    """fe80:: is on every interface: without its scope, the further connections have no route (RFC 4007 section 6)."""
    near, router, _ = three_hosts
    for number, host, device in ((1, near, "wire"), (2, router, "down1")):
        host.run(f"ip -6 address add fe80::{number}/64 dev {device} nodad")
    scope = near.call(lambda: socket.if_nametoindex("wire"))
    options = TransportOptions(connect_timeout_s=PATIENCE_S, idle_timeout_s=PATIENCE_S, streams=3)
    with connected(near, router, "::", f"fe80::2%{scope}", options, OPTIONS) as (client, server):
        assert len(client.sockets) == 3
        content = os.urandom(1 << 20)
        sending = Background(lambda: (client.send_extent(Extent(0, 0, 1 << 20), BytesSource(content)), client.flush()))
        sink = BytesSink()
        receive_until(server, sink, 1 << 20, 0)
        sending.outcome()
        assert sink.content(0) == content
