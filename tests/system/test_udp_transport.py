"""The UDP transport over real sockets on loopback: transfers, and everything that may be wrong with the peer."""

import errno
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial

import pytest

from tests.support.background import PATIENCE_S, Background, running
from tests.support.content import BytesSink, BytesSource, receive_until
from tests.support.udp_channels import connected, send_all, transfer, wait_for_close
from toolkit.channel import Address, Extent, TransportOptions
from toolkit.errors import PeerAbortedError, PeerClosedError, RefusedError, UnreachableError, UsageError
from toolkit.rudp import handshake_packets as packets
from toolkit.rudp import wire
from toolkit.transports.udp.channel import UdpChannel
from toolkit.transports.udp.connect import UdpTransport
from toolkit.transports.udp.listener import UdpListener

OPTIONS = TransportOptions(connect_timeout_s=PATIENCE_S)
UDP_SEGMENT = 103
SILENCE_S = 1.5
"""Longer than a side lingers by default, on a path as short as loopback."""


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def listener() -> Iterator[UdpListener]:
    with closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)) as made:
        yield made


def transfer_through(
    listener: UdpListener, options: TransportOptions, contents: list[bytes], host: str | None = None
) -> None:
    """Send contents and messages over a new connection, and check what arrives and what the channel reports."""
    address = Address(host, listener.address.port) if host else None
    client, server = connected(listener, options, address)
    with closing(client), closing(server):
        sources, _ = transfer(client, server, contents, [b"", b"one", bytes(100_000)])
        for source in sources:
            assert sum(extent.length for extent in source.released) == len(source.content)
        statistics = client.statistics()
        assert float(statistics["packets_sent"]) >= sum(map(len, contents)) / 65_507
        assert statistics["packets_invalid"] == 0


class TestTransfer:
    @pytest.mark.parametrize("offload", ["auto", "off"])
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    def test_arrives_unchanged(self, host: str, offload: str) -> None:
        options = TransportOptions(connect_timeout_s=PATIENCE_S, offload=offload)
        contents = [random.Random(n).randbytes(size) for n, size in enumerate((0, 1, 1446, 3_000_000))]
        with closing(UdpTransport().listen(Address(host, 0), options)) as listener:
            transfer_through(listener, options, contents)

    def test_peers_with_and_without_offload_understand_each_other(self) -> None:
        for near, far in (("auto", "off"), ("off", "auto")):
            with closing(
                UdpTransport().listen(
                    Address("127.0.0.1", 0), TransportOptions(connect_timeout_s=PATIENCE_S, offload=far)
                )
            ) as listener:
                transfer_through(
                    listener,
                    TransportOptions(connect_timeout_s=PATIENCE_S, offload=near),
                    [random.Random(7).randbytes(2_000_000)],
                )

    @pytest.mark.parametrize("control", ["bbr", "cubic", "newreno"])
    def test_with_each_congestion_control(self, listener: UdpListener, control: str) -> None:
        transfer_through(
            listener,
            TransportOptions(connect_timeout_s=PATIENCE_S, congestion_control=control),
            [random.Random(1).randbytes(1_000_000)],
        )

    def test_to_a_listener_on_every_address(self) -> None:
        with closing(UdpTransport().listen(Address("", 0), OPTIONS)) as listener:
            for host in ("127.0.0.1", "::1", "localhost"):
                transfer_through(listener, OPTIONS, [random.Random(2).randbytes(300_000)], host)

    def test_from_several_clients_at_once(self, listener: UdpListener) -> None:
        contents = [random.Random(n).randbytes(800_000) for n in range(6)]

        def send(content: bytes) -> None:
            with closing(UdpTransport().connect(listener.address, OPTIONS)) as client:
                send_all(client, [content], [content[:10]])

        def serve() -> tuple[bytes, bytes]:
            server = listener.accept(timeout_s=PATIENCE_S)
            assert server is not None
            with closing(server):
                sink = BytesSink()
                messages = receive_until(server, sink, 800_000, 1)
                with suppress(PeerClosedError):
                    while True:
                        server.receive(sink, timeout_s=PATIENCE_S)
                return messages[0], sink.content(0)

        clients = [Background(partial(send, content)) for content in contents]
        servers = [Background(serve) for _ in contents]
        received = dict(server.outcome() for server in servers)
        for client in clients:
            client.outcome()
        assert received == {content[:10]: content for content in contents}

    def test_both_ways_at_once(self, listener: UdpListener) -> None:
        client, server = connected(listener, OPTIONS)
        contents = random.Random(3).randbytes(1_500_000), random.Random(4).randbytes(1_500_000)
        sinks = BytesSink(), BytesSink()

        def exchange(channel: UdpChannel, content: bytes, sink: BytesSink) -> None:
            source = BytesSource(content)
            for offset in range(0, len(content), 500_000):
                channel.send_extent(Extent(0, offset, 500_000), source)
            while any(s.written_bytes < len(content) for s in sinks):  # the peer needs acknowledgements
                channel.receive(sink, timeout_s=0.05)

        with closing(client), closing(server):
            calls = [
                Background(partial(exchange, *side)) for side in zip((client, server), contents, sinks, strict=True)
            ]
            for call in calls:
                call.outcome()
            assert (sinks[1].content(0), sinks[0].content(0)) == contents
            assert [sink.written_bytes for sink in sinks] == [len(content) for content in contents]

    def test_is_not_disturbed_by_garbage(self, listener: UdpListener, cleanup: ExitStack) -> None:
        stop = threading.Event()
        noise = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        rng = random.Random(5)

        def send_garbage() -> int:
            count = 0
            while not stop.is_set():
                kind = rng.choice([*wire.PacketType, 0, 99])
                datagram = rng.choice(
                    [
                        rng.randbytes(rng.randrange(1500)),
                        wire.COMMON.pack(kind, 0, rng.getrandbits(64), 0) + rng.randbytes(rng.randrange(1300)),
                        packets.InitialPacket(rng.getrandbits(64), {}, b"m", version=rng.getrandbits(32)).encode(),
                        b"",
                    ]
                )
                noise.sendto(datagram, listener.address)
                count += 1
                time.sleep(0.0001)
            return count

        sending = Background(send_garbage)
        try:
            for seed in range(3):
                transfer_through(listener, OPTIONS, [random.Random(seed).randbytes(1_000_000)])
        finally:
            stop.set()
        assert sending.outcome() > 20


class RefusingSocket(socket.socket):
    """A socket whose route leads to a device that cannot segment."""

    refused = 0

    def send(self, data: memoryview, flags: int = 0) -> int:  # type: ignore[override]
        if self.type == socket.SOCK_DGRAM and 0 < self.getsockopt(17, UDP_SEGMENT) < len(data):
            RefusingSocket.refused += 1
            raise OSError(errno.EIO, "Input/output error")
        return super().send(data, flags)


def test_refused_segmentation_is_replaced_by_single_datagrams(
    listener: UdpListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", RefusingSocket)
    RefusingSocket.refused = 0
    transfer_through(listener, OPTIONS, [random.Random(6).randbytes(2_000_000)])
    assert RefusingSocket.refused in (0, 1)  # 0 where the kernel has no segmentation


class TestLinger:
    def test_a_patient_side_waits_for_a_peer_that_is_silent_for_longer_than_an_impatient_one(
        self, listener: UdpListener
    ) -> None:
        client, server = connected(listener, OPTIONS)
        with closing(client):
            server.send_message(b"the outcome")
            closer = Background(lambda: server.close(linger_s=PATIENCE_S))
            closer.join(SILENCE_S)
            assert closer.is_alive()
            assert client.receive(timeout_s=PATIENCE_S) == b"the outcome"
            client.flush()
            client.close()
            closer.outcome()


class TestUnreachable:
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    def test_a_closed_port_is_reported_before_the_timeout(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((host, 0))
            port = sock.getsockname()[1]
        with pytest.raises(UnreachableError, match=rf"nothing listens at .*{port} for UDP"):
            UdpTransport().connect(Address(host, port), TransportOptions(connect_timeout_s=2 * PATIENCE_S))

    def test_silence_is_reported_at_the_timeout(self, cleanup: ExitStack) -> None:
        silent = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        silent.bind(("127.0.0.1", 0))
        begin_s = time.monotonic()
        with pytest.raises(UnreachableError, match="does not answer over UDP"):
            UdpTransport().connect(
                Address("127.0.0.1", silent.getsockname()[1]), TransportOptions(connect_timeout_s=0.7)
            )
        assert time.monotonic() - begin_s > 0.6
        silent.setblocking(False)
        initials = []
        with suppress(BlockingIOError):
            while True:
                initials.append(silent.recv(2000))
        assert 1 <= len(initials) <= 4  # the interval between them doubles; a busy machine sends fewer
        assert len({packets.decode_initial_untrusted(i).client_id for i in initials}) == 1

    def test_a_garbage_answer_is_ignored(self, cleanup: ExitStack) -> None:
        liar = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        liar.bind(("127.0.0.1", 0))
        liar.settimeout(PATIENCE_S)

        def lie() -> None:
            _, client = liar.recvfrom(2000)
            for datagram in (b"", bytes(5), bytes(2000), packets.encode_accept(1, b"m")[0]):
                liar.sendto(datagram, client)

        lying = Background(lie)
        with pytest.raises(UnreachableError):
            UdpTransport().connect(Address("127.0.0.1", liar.getsockname()[1]), TransportOptions(connect_timeout_s=0.5))
        lying.outcome()

    def test_answers_that_are_not_authentic_are_named(self, listener: UdpListener, cleanup: ExitStack) -> None:
        """Something on the path changes every ACCEPT."""
        middle = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        middle.bind(("127.0.0.1", 0))
        is_over = threading.Event()

        def relay() -> None:
            middle.settimeout(0.01)
            client: tuple[str, int] | None = None
            while not is_over.is_set():
                with suppress(TimeoutError):
                    datagram, origin = middle.recvfrom(2000)
                    if origin != tuple(listener.address):
                        client = origin
                        middle.sendto(datagram, listener.address)
                    elif client is not None:
                        is_accept = datagram[0] == wire.PacketType.ACCEPT
                        middle.sendto(datagram[:-1] + b"!" if is_accept else datagram, client)

        relaying = Background(relay)
        with pytest.raises(RefusedError, match="the receiver's answer is not authentic"):
            UdpTransport().connect(Address(*middle.getsockname()), OPTIONS)
        is_over.set()
        relaying.outcome()

    def test_another_version_is_refused_with_advice(self, cleanup: ExitStack) -> None:
        other = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        other.bind(("127.0.0.1", 0))
        other.settimeout(PATIENCE_S)

        def answer() -> None:
            for _ in range(2):  # one alone might be forged
                datagram, client = other.recvfrom(2000)
                client_id = packets.decode_initial_untrusted(datagram).client_id
                other.sendto(packets.VERSION_ANSWER.pack(wire.PacketType.VERSION, 0, client_id, 0x4E540001), client)

        answering = Background(answer)
        with pytest.raises(RefusedError, match="protocol version 1, this side 2: install the same nettool"):
            UdpTransport().connect(Address("127.0.0.1", other.getsockname()[1]), OPTIONS)
        answering.outcome()

    @pytest.mark.parametrize(
        "options",
        [
            TransportOptions(streams=2),
            TransportOptions(congestion_control="nonsense"),
            TransportOptions(congestion_control="rate"),
        ],
    )
    def test_impossible_options_are_a_usage_error(self, options: TransportOptions) -> None:
        with pytest.raises(UsageError):
            UdpTransport().connect(Address("127.0.0.1", 9), options)
        with pytest.raises(UsageError):
            UdpTransport().listen(Address("127.0.0.1", 0), options)


SERVER = """
import sys
from toolkit.channel import Address, TransportOptions
from toolkit.transports.udp.connect import UdpTransport
from toolkit.transports.udp.channel import UdpChannel

class Sink:
    def write(self, file_id, offset, data):
        pass

listener = UdpTransport().listen(Address("127.0.0.1", 0), TransportOptions())
print(listener.address.port, flush=True)
channel = listener.accept()
while True:
    channel.receive(Sink())
"""


class TestClosing:
    def test_a_killed_peer_is_noticed_before_the_idle_timeout(self) -> None:
        with running([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            options = TransportOptions(connect_timeout_s=PATIENCE_S, idle_timeout_s=10 * PATIENCE_S)
            with closing(UdpTransport().connect(Address("127.0.0.1", port), options)) as client:
                send_all(client, [bytes(1 << 20)], [])
                process.kill()
                process.wait()
                sending = Background(lambda: send_all(client, [bytes(100 << 20)], []))
                with pytest.raises(PeerClosedError):
                    sending.outcome()

    def test_a_close_ends_the_peers_channel(self, listener: UdpListener) -> None:
        client, server = connected(listener, TransportOptions(idle_timeout_s=10 * PATIENCE_S))
        with closing(client):
            server.close()
            wait_for_close(client)
            with pytest.raises(PeerClosedError):
                client.send_message(b"x")

    def test_a_close_loses_nothing(self, listener: UdpListener) -> None:
        client, server = connected(listener, OPTIONS)
        content = random.Random(8).randbytes(3_000_000)

        def send() -> None:
            source = BytesSource(content)
            for offset in range(0, len(content), 1_000_000):
                client.send_extent(Extent(0, offset, 1_000_000), source)
            client.send_message(b"bye")
            client.close()

        with closing(server):
            sending = Background(send)
            sink = BytesSink()
            assert receive_until(server, sink, len(content), 1) == [b"bye"]
            assert sink.content(0) == content
            wait_for_close(server)
            sending.outcome()

    def test_an_abort_is_reported_to_the_peer(self, listener: UdpListener) -> None:
        client, server = connected(listener, OPTIONS)
        with closing(client):
            server.abort()
            server.abort()
            with pytest.raises(PeerAbortedError, match="aborted the session"):
                client.receive(timeout_s=PATIENCE_S)

    def test_silence_ends_the_channel_after_the_idle_timeout(self, listener: UdpListener) -> None:
        begin_s = time.monotonic()
        client, server = connected(listener, TransportOptions(idle_timeout_s=0.5))
        with closing(client), closing(server):
            reason = wait_for_close(client)  # nothing drives the server's channel
            assert "was silent for" in reason
            assert time.monotonic() - begin_s > 0.4

    @pytest.mark.long
    def test_two_hundred_sessions_leave_no_descriptors(self) -> None:
        before = set(os.listdir("/proc/self/fd"))
        with closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)) as listener:
            for n in range(200):
                client, server = connected(listener, OPTIONS)
                client.send_message(b"%d" % n)
                assert server.receive(BytesSink(), timeout_s=PATIENCE_S) == b"%d" % n
                if n % 3 == 0:
                    client.abort()
                    server.close()
                else:
                    server.abort()
                    client.close()
        assert set(os.listdir("/proc/self/fd")) == before
