"""The UDP listener over real sockets: which connections it accepts, what unconfirmed ones cost, and its end."""

import errno
import os
import random
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from unittest.mock import ANY

import pytest

from tests.support.background import PATIENCE_S, Background, running, wait_until
from tests.support.bare_client import BareClient
from tests.support.content import BytesSink
from tests.support.udp_channels import connected, transfer
from toolkit.channel import Address, TransportOptions
from toolkit.errors import ExitCode, PeerClosedError, RefusedError, UnreachableError
from toolkit.rudp import handshake_packets as packets
from toolkit.rudp import wire
from toolkit.rudp.address_validation import TOKEN_BYTES
from toolkit.rudp.aead_protection import AeadProtection
from toolkit.security.admission import KeyAdmission
from toolkit.security.code_admission import CodeAdmission
from toolkit.security.credentials import Credential, KeyCredential, NoCredential
from toolkit.security.handshake import Responder
from toolkit.security.opened_handshake import OpenedHandshake
from toolkit.transports.udp.channel import UdpChannel
from toolkit.transports.udp.connect import UdpTransport
from toolkit.transports.udp.listener import UdpListener
from toolkit.transports.udp.mmsg import Arrival, SingleExchange
from toolkit.transports.udp.qlog_files import ConnectionLog
from toolkit.transports.udp.socket import DatagramSocket

OPTIONS = TransportOptions(connect_timeout_s=PATIENCE_S)


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def listener() -> Iterator[UdpListener]:
    with closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)) as made:
        yield made


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class TestHandshake:
    def test_a_connection_exists_once_the_client_has_finished(self, listener: UdpListener, cleanup: ExitStack) -> None:
        client, witness = BareClient(cleanup, listener.address), BareClient(cleanup, listener.address)
        before = descriptors()
        accepted = client.get_accepted()
        witness.settle()
        assert listener.accept(timeout_s=0) is None
        assert descriptors() == before
        client.send(accepted.finish)
        channel = listener.accept(timeout_s=PATIENCE_S)
        assert channel is not None
        channel.abort()

    def test_packets_that_overtake_the_connection_of_their_socket_keep_their_ecn_field(
        self, listener: UdpListener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_socket, is_made = listener._connected_socket, threading.Event()

        def make_and_wait(arrival: Arrival) -> socket.socket:
            made = make_socket(arrival)
            is_made.set()
            assert select.select([made], [], [], PATIENCE_S)[0]  # the client's first message is there
            return made

        monkeypatch.setattr(listener, "_connected_socket", make_and_wait)
        with closing(UdpTransport().connect(listener.address, OPTIONS)) as client:
            assert is_made.wait(PATIENCE_S)
            client.send_message(b"early")
            channel = listener.accept(timeout_s=PATIENCE_S)
            assert channel is not None
            with closing(channel):
                assert channel.receive(timeout_s=PATIENCE_S) == b"early"
                draining = Background(lambda: [channel.receive(timeout_s=PATIENCE_S) for _ in range(30)])
                for _ in range(30):
                    client.send_message(b"late")
                    client.flush()
                draining.outcome()
                assert client.statistics()["ecn"] == 1

    def test_packets_behind_finish_are_not_lost(self, listener: UdpListener, cleanup: ExitStack) -> None:
        client = BareClient(cleanup, listener.address)
        accepted = client.get_accepted()
        client.send(accepted.finish)
        client.send(client.sealed_ping(accepted))
        channel = listener.accept(timeout_s=PATIENCE_S)
        assert channel is not None
        while not channel.statistics()["packets_received"]:
            channel.receive(BytesSink(), timeout_s=PATIENCE_S, wake=client.sock.fileno())  # until the ACK
        client.answer(wire.PacketType.ACK)
        # Each is counted once, whether it has arrived at the listening socket or at the channel's own.
        assert channel.statistics()["datagrams_received"] == client.sent == 4  # two INITIALs, one with a token; FINISH
        channel.abort()

    def test_packets_before_finish_are_counted(self, listener: UdpListener, cleanup: ExitStack) -> None:
        """FINISH was late or lost: they are lost for the connection too, but the path has carried them."""
        client = BareClient(cleanup, listener.address)
        accepted = client.get_accepted()
        for _ in range(3):
            client.send(client.sealed_ping(accepted))
        client.send(accepted.finish)
        channel = listener.accept(timeout_s=PATIENCE_S)
        assert channel is not None
        statistics = channel.statistics()
        assert (statistics["datagrams_received"], statistics["packets_received"]) == (client.sent, 0)
        channel.abort()

    def test_a_repeated_handshake_is_counted(self, listener: UdpListener, cleanup: ExitStack) -> None:
        client = BareClient(cleanup, listener.address)
        accepted = client.get_accepted()
        for _ in range(3):
            client.send(accepted.finish)
        channel = listener.accept(timeout_s=PATIENCE_S)
        assert channel is not None

        def has_counted_all() -> bool:
            channel.receive(BytesSink(), timeout_s=0.001)
            return channel.statistics()["datagrams_received"] == client.sent == 5

        assert channel.statistics()["datagrams_sent"] >= 2  # RETRY and ACCEPT

        wait_until(has_counted_all, "all datagrams")
        channel.abort()

    def test_the_second_of_two_clients_with_one_code_learns_that_it_has_ended(self, cleanup: ExitStack) -> None:
        """Both hold an answer when the first one finishes. The CLOSE is sealed, and repeated for a lost one."""
        admission = CodeAdmission(lambda _code, _reason: None, lambda _code: None)
        assert admission.code is not None
        options = TransportOptions(admission=admission)
        listener = cleanup.enter_context(closing(UdpTransport().listen(Address("127.0.0.1", 0), options)))
        credential = admission.code.credential
        clients = [BareClient(cleanup, listener.address, credential=credential) for _ in range(2)]
        for client in clients:
            client.validate()
            client.send_initial()
            client.answer(wire.PacketType.RETRY)
            client.send_initial()
            while client.handshake.accepted is None:
                client.answer(wire.PacketType.ACCEPT)
        first, second = clients
        assert first.handshake.accepted is not None
        assert second.handshake.accepted is not None
        first.send(first.handshake.accepted.finish)
        channel = listener.accept(timeout_s=PATIENCE_S)
        assert channel is not None
        keys = second.handshake.accepted.keys
        assert keys is not None
        second.send(second.handshake.accepted.finish)
        for _ in range(2):
            close = AeadProtection(keys.client, keys.server).open_untrusted(
                memoryview(second.answer(wire.PacketType.CLOSE))
            )
            code, reason = wire.decode_close_untrusted(close)
            assert code == ExitCode.UNREACHABLE
            assert "take the code that the receiver shows now" in reason
            second.send(second.sealed_ping(second.handshake.accepted))
        assert listener.accept(timeout_s=0) is None
        channel.abort()

    def test_finish_again_is_harmless(self, listener: UdpListener, cleanup: ExitStack) -> None:
        client, witness = BareClient(cleanup, listener.address), BareClient(cleanup, listener.address)
        accepted = client.get_accepted()
        for _ in range(3):
            client.send(accepted.finish)
        channel = listener.accept(timeout_s=PATIENCE_S)
        assert channel is not None
        client.send(accepted.finish)
        witness.settle()
        assert listener.accept(timeout_s=0) is None
        channel.abort()
        client.answer(wire.PacketType.CLOSE)

    def test_a_repeated_initial_gets_the_same_answer_and_no_second_connection(
        self, listener: UdpListener, cleanup: ExitStack
    ) -> None:
        client = BareClient(cleanup, listener.address)
        client.validate()
        initial = client.send_initial()
        first = [client.answer(wire.PacketType.ACCEPT) for _ in range(2)]
        client.send(initial)
        assert [client.answer(wire.PacketType.ACCEPT) for _ in range(2)] == first[::-1]

    def test_a_recorded_handshake_opens_nothing_when_it_is_played_back(
        self, listener: UdpListener, cleanup: ExitStack
    ) -> None:
        client = BareClient(cleanup, listener.address)
        client.validate()
        recorded = [client.send_initial()]
        while client.handshake.accepted is None:
            client.answer(wire.PacketType.ACCEPT)
        recorded.append(client.handshake.accepted.finish)
        recorded.append(client.sealed_ping(client.handshake.accepted))
        for datagram in recorded[1:]:
            client.send(datagram)
        channel = listener.accept(timeout_s=PATIENCE_S)
        assert channel is not None
        channel.abort()
        client.answer(wire.PacketType.CLOSE)
        with closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)) as other:
            for server in (listener, other):
                client.server = server.address
                for datagram in recorded:
                    client.send(datagram)
                BareClient(cleanup, server.address).settle()
                assert server.accept(timeout_s=0) is None

    def test_a_flipped_bit_in_any_packet_opens_nothing(self, listener: UdpListener, cleanup: ExitStack) -> None:
        client, witness = BareClient(cleanup, listener.address), BareClient(cleanup, listener.address)
        client.validate()
        dice = random.Random(7)
        initial = client.initial()
        for _ in range(200):
            client.send(flip_bit(initial, dice))
        witness.settle()
        assert listener.accept(timeout_s=0) is None
        client.waiting()
        client.send(initial)
        while client.handshake.accepted is None:
            client.answer(wire.PacketType.ACCEPT)
        finish = client.handshake.accepted.finish
        for _ in range(200):
            forged = flip_bit(finish, dice)
            if forged[1:2] == finish[1:2]:  # the flags of a FINISH are ignored
                client.send(forged)
        witness.settle()
        assert listener.accept(timeout_s=0) is None
        client.send(finish)
        channel = listener.accept(timeout_s=PATIENCE_S)
        assert channel is not None
        channel.abort()

    def test_another_version_is_answered_with_this_one(self, listener: UdpListener, cleanup: ExitStack) -> None:
        client = BareClient(cleanup, listener.address)
        client.send(client.unknown_version)
        answer = client.answer(wire.PacketType.VERSION)
        assert packets.decode_version_untrusted(answer) == packets.SUPPORTED_VERSIONS
        assert wire.connection_id_untrusted(answer)[1] == client.client_id

    def test_garbage_is_not_answered(self, listener: UdpListener, cleanup: ExitStack) -> None:
        client, witness = BareClient(cleanup, listener.address), BareClient(cleanup, listener.address)
        for datagram in (b"", b"\x01", bytes(1200), os.urandom(1400), client.initial()[:1199]):
            client.send(datagram)
        for packet_type in wire.PacketType:
            if packet_type != wire.PacketType.INITIAL:
                client.send(wire.COMMON.pack(packet_type, 0, secrets.randbits(64), 0).ljust(1200, b"\0"))
        witness.settle()
        assert client.waiting() == []
        near, far = connected(listener, OPTIONS)
        near.abort()
        far.abort()

    def test_short_datagrams_in_a_full_round_do_no_harm(
        self, listener: UdpListener, cleanup: ExitStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("toolkit.transports.udp.listener.MAX_DATAGRAMS", ANY)  # every round counts as full
        client = BareClient(cleanup, listener.address)
        for size in range(12):
            client.send(bytes((wire.PacketType.INITIAL,)) * size)
        client.settle()

    def test_what_is_not_finished_is_given_up(self, cleanup: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("toolkit.rudp.handshake_server.PENDING_LIFETIME_NS", 1_000_000)
        listener = cleanup.enter_context(closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)))
        client = BareClient(cleanup, listener.address)
        accepted = client.get_accepted()
        deadline_ns = time.monotonic_ns() + 2_000_000
        while time.monotonic_ns() < deadline_ns:
            BareClient(cleanup, listener.address).settle()
        client.send(accepted.finish)
        BareClient(cleanup, listener.address).settle()
        assert listener.accept(timeout_s=0) is None


class TestAdmission:
    KEY = bytes(range(32))

    @pytest.fixture
    def with_key(self) -> Iterator[UdpListener]:
        options = TransportOptions(connect_timeout_s=PATIENCE_S, admission=KeyAdmission(self.KEY))
        with closing(UdpTransport().listen(Address("127.0.0.1", 0), options)) as made:
            yield made

    def test_the_right_key_lets_in(self, with_key: UdpListener) -> None:
        options = TransportOptions(connect_timeout_s=PATIENCE_S, credential=KeyCredential(self.KEY))
        near, far = connected(with_key, options)
        with closing(near), closing(far):
            assert near.statistics()["authentication"] == far.statistics()["authentication"] == "key"
            near.send_message(b"inside")
            assert far.receive(BytesSink(), timeout_s=PATIENCE_S) == b"inside"

    @pytest.mark.parametrize(
        ("credential", "advice"),
        [(NoCredential(), "asks for a key"), (KeyCredential(bytes(32)), "has a different key")],
    )
    def test_anything_else_is_refused_with_advice(
        self, with_key: UdpListener, credential: Credential, advice: str
    ) -> None:
        """And at once, not as a host that does not answer."""
        before = descriptors()
        with pytest.raises(RefusedError, match=advice):
            UdpTransport().connect(with_key.address, TransportOptions(connect_timeout_s=1e6, credential=credential))
        assert with_key.accept(timeout_s=0) is None
        assert descriptors() == before

    def test_plaintext_is_refused_unless_both_ends_want_it(self, listener: UdpListener) -> None:
        plaintext = TransportOptions(connect_timeout_s=PATIENCE_S, plaintext=True)
        with pytest.raises(RefusedError, match="does not allow plaintext"):
            UdpTransport().connect(listener.address, plaintext)
        with closing(UdpTransport().listen(Address("127.0.0.1", 0), plaintext)) as lenient:
            for options, encryption in ((plaintext, {"none"}), (OPTIONS, {"aes-256-gcm", "chacha20-poly1305"})):
                near, far = connected(lenient, options)
                with closing(near), closing(far):
                    assert near.statistics()["encryption"] == far.statistics()["encryption"]
                    assert near.statistics()["encryption"] in encryption
                    near.send_message(b"inside")
                    assert far.receive(BytesSink(), timeout_s=PATIENCE_S) == b"inside"


class TestLocalAddress:
    """A socket that is connected to one address of the server takes no answer from another."""

    @pytest.fixture
    def client(self, cleanup: ExitStack) -> BareClient:
        options = TransportOptions(connect_timeout_s=PATIENCE_S, admission=KeyAdmission(bytes(32)))
        listener = cleanup.enter_context(closing(UdpTransport().listen(Address("0.0.0.0", 0), options)))
        return self.connected_to(cleanup, listener, KeyCredential(bytes(32)))

    def connected_to(self, cleanup: ExitStack, listener: UdpListener, credential: Credential) -> BareClient:
        client = BareClient(
            cleanup, Address("127.0.0.2", listener.address.port), host="127.0.0.1", credential=credential
        )
        client.sock.connect(client.server)
        return client

    def test_of_version(self, client: BareClient) -> None:
        client.settle()

    def test_of_retry_and_accept(self, client: BareClient) -> None:
        client.get_accepted()

    def test_of_refuse(self, cleanup: ExitStack, client: BareClient) -> None:
        stranger = BareClient(cleanup, client.server)
        stranger.sock.connect(client.server)
        stranger.validate()
        stranger.send_initial()
        stranger.answer(wire.PacketType.REFUSE)
        assert stranger.handshake.refusal is not None

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
    def test_of_everything_after_it(self, host: str) -> None:
        with closing(UdpTransport().listen(Address("", 0), OPTIONS)) as listener:
            near, far = connected(listener, OPTIONS, Address(host, listener.address.port))
            with closing(near), closing(far):
                near.send_message(b"through")
                assert far.receive(BytesSink(), timeout_s=PATIENCE_S) == b"through"

    def test_of_a_late_close(self, cleanup: ExitStack) -> None:
        listener = cleanup.enter_context(closing(UdpTransport().listen(Address("0.0.0.0", 0), OPTIONS)))
        client = self.connected_to(cleanup, listener, NoCredential())
        accepted = client.get_accepted()
        client.send(accepted.finish)
        channel = listener.accept(timeout_s=PATIENCE_S)
        assert channel is not None
        channel.abort()
        client.answer(wire.PacketType.CLOSE)
        client.send(client.sealed_ping(accepted))
        client.answer(wire.PacketType.CLOSE)


def flip_bit(datagram: bytes, dice: random.Random) -> bytes:
    changed = bytearray(datagram)
    used = len(datagram.rstrip(b"\0"))  # not the padding
    bit = dice.randrange(8 * used)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_an_ipv4_client_of_an_ipv6_socket_has_an_ipv4_address() -> None:
    with closing(UdpTransport().listen(Address("", 0), OPTIONS)) as listener:
        near, far = connected(listener, OPTIONS, Address("127.0.0.1", listener.address.port))
        with closing(near), closing(far):
            assert far.peer == Address(*near.socket.getsockname())


def test_a_late_close_is_not_sent_to_who_sends_much_less(listener: UdpListener, cleanup: ExitStack) -> None:
    """Whoever was a client could otherwise have it sent to others, many times as large as its own packets."""
    client = BareClient(cleanup, listener.address)
    accepted = client.get_accepted()
    client.send(accepted.finish)
    channel = listener.accept(timeout_s=PATIENCE_S)
    assert channel is not None
    channel.abort()
    close = client.answer(wire.PacketType.CLOSE)
    client.send(wire.PREFIX.pack(wire.PacketType.PING, 0, accepted.server.server_id))
    client.send(client.sealed_ping(accepted))
    assert client.answer(wire.PacketType.CLOSE) == close
    BareClient(cleanup, listener.address).settle()
    assert client.waiting() == []


class TestPort:
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", ""])
    def test_has_one_listener(self, host: str) -> None:
        with closing(UdpTransport().listen(Address(host, 0), OPTIONS)) as first:
            port = first.address.port
            near, far = connected(first, OPTIONS, Address(host or "127.0.0.1", port))
            for other in {host, "", "127.0.0.1" if ":" not in host else "::1"}:
                with pytest.raises(UnreachableError, match=f"{port} is in use"):
                    UdpTransport().listen(Address(other, port), OPTIONS)
            near.abort()
            far.abort()

    def test_is_free_after_everything_is_closed(self) -> None:
        with closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)) as first:
            port = first.address.port
            near, far = connected(first, OPTIONS)
            near.close()
            far.close()
        with closing(UdpTransport().listen(Address("127.0.0.1", port), OPTIONS)) as second:
            assert second.address == Address("127.0.0.1", port)

    def test_of_a_foreign_address_is_refused(self) -> None:
        with pytest.raises(UnreachableError, match="is not an address of this machine"):
            UdpTransport().listen(Address("192.0.2.1", 0), OPTIONS)


class TestClosing:
    @pytest.mark.parametrize("waiting", [1, 3])
    def test_from_another_thread_wakes_accept(self, listener: UdpListener, waiting: int) -> None:
        accepting = [Background(lambda: listener.accept(timeout_s=4 * PATIENCE_S)) for _ in range(waiting)]
        time.sleep(0.05)  # most threads are in `accept` by then; one that is late gets the same error
        listener.close()
        for call in accepting:
            with pytest.raises(PeerClosedError, match="stopped listening"):
                call.outcome()
        with pytest.raises(PeerClosedError):
            listener.accept()
        listener.close()

    def test_is_no_error_if_the_thread_wakes_up_meanwhile(self) -> None:
        """A datagram may wake the listener's thread, which frees its sockets, before `close` wakes it."""
        for _ in range(50):
            listener = UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)
            with ExitStack() as stack:
                client = BareClient(stack, listener.address)
                is_over = threading.Event()

                def disturb(client: BareClient = client, is_over: threading.Event = is_over) -> None:
                    while not is_over.is_set():
                        client.send(b"x")

                disturbing = Background(disturb)
                listener.close()
                is_over.set()
                disturbing.outcome()

    def test_leaves_accepted_channels_open(self, listener: UdpListener) -> None:
        near, far = connected(listener, OPTIONS)
        listener.close()
        with closing(near), closing(far):
            near.send_message(b"still here")
            assert far.receive(BytesSink(), timeout_s=PATIENCE_S) == b"still here"
            far.send_message(b"me too")
            assert near.receive(BytesSink(), timeout_s=PATIENCE_S) == b"me too"

    def test_closes_channels_that_were_not_accepted(self, listener: UdpListener) -> None:
        near = UdpTransport().connect(listener.address, OPTIONS)
        with closing(near):
            near.send_message(b"hello?")
            listener.close()
            with pytest.raises(PeerClosedError):
                near.receive(BytesSink(), timeout_s=PATIENCE_S)

    def test_frees_everything(self) -> None:
        before = set(os.listdir("/proc/self/fd"))
        listener = UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)
        with ExitStack() as clients:
            for _ in range(3):
                BareClient(clients, listener.address).get_accepted()
            near = UdpTransport().connect(listener.address, OPTIONS)
            listener.close()
            near.abort()
        assert set(os.listdir("/proc/self/fd")) == before


def test_a_shortage_of_descriptors_leaks_no_socket(
    listener: UdpListener, cleanup: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[DatagramSocket] = []

    def make(sock: socket.socket, offload: str) -> DatagramSocket:
        made.append(DatagramSocket(sock, offload))
        return made[-1]

    def fail() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("toolkit.transports.udp.listener.DatagramSocket", make)
    with monkeypatch.context() as shortage:
        shortage.setattr(socket, "socketpair", fail)
        client = BareClient(cleanup, listener.address)
        finish = client.get_accepted().finish
        client.send(finish)
        wait_until(lambda: bool(made) and made[0].fileno() == -1, "the end of the socket")
    accepted: list[UdpChannel] = []

    def connects() -> bool:
        client.send(finish)  # a repetition may still get into the queue of the socket that is being closed
        channel = listener.accept(timeout_s=0.1)
        accepted.extend([channel] if channel is not None else [])
        return bool(accepted)

    wait_until(connects, "the connection")
    accepted[0].abort()


def test_a_log_that_cannot_be_made_leaks_no_socket(
    tmp_path: Path, cleanup: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    def fail(*_: object) -> None:
        failed.set()
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    options = replace(OPTIONS, qlog=str(tmp_path / "server.sqlog"))
    with closing(UdpTransport().listen(Address("127.0.0.1", 0), options)) as listener:
        client = BareClient(cleanup, listener.address)
        finish = client.get_accepted().finish
        before = descriptors()
        with monkeypatch.context() as failing:
            failing.setattr("toolkit.transports.udp.listener.ConnectionLog", fail)
            client.send(finish)
            assert failed.wait(PATIENCE_S)
            wait_until(lambda: descriptors() == before, "the end of the socket and of its wake pair")
        client.send(finish)
        channel = listener.accept(timeout_s=PATIENCE_S)
        assert channel is not None
        channel.abort()


def test_a_client_whose_log_cannot_be_written_leaks_no_socket(
    listener: UdpListener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("surprise")

    monkeypatch.setattr(ConnectionLog, "begin", fail)
    before = descriptors()
    with pytest.raises(RuntimeError, match="surprise"):
        UdpTransport().connect(listener.address, replace(OPTIONS, qlog=str(tmp_path / "client.sqlog")))
    server = listener.accept(timeout_s=PATIENCE_S)  # FINISH was sent before
    assert server is not None
    server.abort()
    assert descriptors() == before


def fail_twice(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """Let the first two calls of a method raise an error that only a bug explains."""
    original, calls = getattr(owner, name), count()

    def fail_or_call(*arguments: object) -> object:
        if next(calls) < 2:
            raise RuntimeError("surprise")
        return original(*arguments)

    monkeypatch.setattr(owner, name, fail_or_call)


@pytest.mark.parametrize("place", [(Responder, "open_untrusted"), (OpenedHandshake, "finish_untrusted")])
def test_a_bug_costs_one_datagram_and_no_session(
    place: tuple[type, str],
    listener: UdpListener,
    cleanup: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client sends its packet again, which then meets with no bug."""
    client, server = connected(listener, OPTIONS)
    fail_twice(monkeypatch, *place)
    if place[0] is Responder:
        other, accepted = connected(listener, OPTIONS)
        other.abort()
    else:
        bare = BareClient(cleanup, listener.address)
        finish = bare.get_accepted().finish
        for _ in range(3):
            bare.send(finish)
        made = listener.accept(timeout_s=PATIENCE_S)
        assert made is not None
        accepted = made
    transfer(client, server, [b"content"], [b"still there"])
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [
        "a datagram was dropped: unexpected RuntimeError: surprise"
    ]
    for channel in (client, server, accepted):
        channel.abort()


def test_a_system_without_batches_of_datagrams_connects_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.transports.udp.listener.make_exchange", SingleExchange)
    with closing(UdpTransport().listen(Address("127.0.0.1", 0), OPTIONS)) as listener:
        client, server = connected(listener, OPTIONS)
        client.abort()
        server.abort()


def test_accept_without_a_timeout_does_not_wait(listener: UdpListener) -> None:
    assert listener.accept(timeout_s=0) is None


FLOOD = """
import socket, sys, time
from toolkit.rudp.handshake_packets import InitialPacket, make_offer

socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(100)]
for sock in socks:
    sock.connect(("127.0.0.1", int(sys.argv[1])))
initials = [InitialPacket(n, make_offer(), bytes(100), bytes(int(sys.argv[2]))).encode() for n in range(100)]
print("flooding", flush=True)
while True:
    for sock, initial in zip(socks, initials):
        try:
            sock.send(initial)
        except OSError:
            pass
    time.sleep(0.002)
"""


@pytest.mark.parametrize("token_bytes", [0, TOKEN_BYTES])
def test_a_flood_of_first_packets_disturbs_neither_a_session_nor_a_new_client_nor_close(
    listener: UdpListener, token_bytes: int
) -> None:
    """Another process sends up to 50,000 a second, more than are answered, without tokens or with made-up ones."""
    near, far = connected(listener, OPTIONS)
    command = [sys.executable, "-c", FLOOD, str(listener.address.port), str(token_bytes)]
    with closing(near), closing(far), running(command, stdout=subprocess.PIPE) as flood:
        assert flood.stdout is not None
        flood.stdout.readline()
        transfer(near, far, [os.urandom(1_000_000)], [b"end"])
        with closing(UdpTransport().connect(listener.address, OPTIONS)) as client:
            deadline_s = time.monotonic() + PATIENCE_S
            while (accepted := listener.accept(timeout_s=0)) is None:
                assert time.monotonic() < deadline_s, "the new client does not get in"
                client.receive(BytesSink(), timeout_s=0.05)  # repeats FINISH if it is lost
            accepted.abort()
        Background(listener.close).outcome()
