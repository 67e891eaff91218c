"""The server's side of the handshake: what it answers, what it keeps, and for how long."""

from dataclasses import replace

import pytest

from tests.support.udp_handshakes import CLIENT, HOST, MS, PEER, client, complete, exchange, initial_of, make_server
from toolkit.errors import ProtocolError
from toolkit.rudp import handshake_packets as packets
from toolkit.rudp import wire
from toolkit.rudp.address_validation import RETRY_TOKEN_LIFETIME_NS, TOKEN_BYTES, AddressValidator
from toolkit.rudp.handshake_packets import Parameter
from toolkit.rudp.handshake_server import (
    MAX_PENDING,
    MAX_PENDING_PER_HOST,
    PENDING_LIFETIME_NS,
    ServerHandshakes,
)
from toolkit.security.host_rates import KEY_EXCHANGE_BURST

VALIDATOR = AddressValidator(bytes(32))  # as in `make_server`


def initial(client_id: int = CLIENT, peer: tuple[str, int] = PEER, now_ns: int = 0) -> bytes:
    """An INITIAL with a valid token."""
    return initial_of(client(client_id, VALIDATOR.retry_token(peer[0].encode(), peer[1], client_id, now_ns)), 0)


def begin(server: ServerHandshakes[None], client_id: int, host: str = "192.0.2.1", now_ns: int = 0) -> list[bytes]:
    peer = (host, 4711)
    return server.handle_initial_untrusted(initial(client_id, peer, now_ns), peer, host.encode(), now_ns)


def types(datagrams: list[bytes]) -> list[int]:
    return [datagram[0] for datagram in datagrams]


class TestState:
    def test_none_before_the_address_is_validated(self) -> None:
        server = make_server()
        answer = server.handle_initial_untrusted(initial_of(client(), 0), PEER, HOST, 0)
        assert types(answer) == [wire.PacketType.RETRY]
        assert server.pending == 0

    @pytest.mark.parametrize(
        ("token", "now_ns"),
        [
            (b"x", 0),
            (VALIDATOR.retry_token(b"192.0.2.2", 4711, CLIENT, 0), 0),
            (VALIDATOR.retry_token(HOST, PEER[1], CLIENT + 1, 0), 0),
            (VALIDATOR.retry_token(HOST, PEER[1], CLIENT, 0), RETRY_TOKEN_LIFETIME_NS + 1),
        ],
    )
    def test_none_for_a_wrong_token(self, token: bytes, now_ns: int) -> None:
        server = make_server()
        answer = server.handle_initial_untrusted(initial_of(client(token=token), 0), PEER, HOST, now_ns)
        assert types(answer) == [wire.PacketType.RETRY]
        assert server.pending == 0

    def test_none_for_a_token_that_the_flags_do_not_announce(self) -> None:
        server, datagram = make_server(), bytearray(initial())
        datagram[1] = 0
        assert types(server.handle_initial_untrusted(bytes(datagram), PEER, HOST, 0)) == [wire.PacketType.RETRY]
        assert server.pending == 0

    def test_none_for_a_first_message_that_does_not_open(self) -> None:
        server = make_server()
        token = VALIDATOR.retry_token(HOST, PEER[1], CLIENT, 0)
        forged = packets.InitialPacket(CLIENT, packets.make_offer(), b"\xff" * 100, token).encode()
        with pytest.raises(ProtocolError):
            server.handle_initial_untrusted(forged, PEER, HOST, 0)
        assert server.pending == 0

    def test_none_for_a_client_that_is_refused(self) -> None:
        server = make_server(asks_for_code=True)
        assert types(begin(server, CLIENT)) == [wire.PacketType.REFUSE]
        assert server.pending == 0

    def test_none_after_the_lifetime(self) -> None:
        server = make_server()
        begin(server, CLIENT)
        assert server.poll_timeout() == PENDING_LIFETIME_NS
        server.expire(PENDING_LIFETIME_NS - 1)
        assert server.pending == 1
        server.expire(PENDING_LIFETIME_NS)
        assert server.pending == 0
        assert server.poll_timeout() is None


class TestAnswers:
    def test_a_repeated_initial_gets_the_same_accept_with_its_pieces_in_another_order(self) -> None:
        """A queue with room for one packet would otherwise drop the same piece every time."""
        server = make_server()
        first = begin(server, CLIENT)
        assert types(first) == [wire.PacketType.ACCEPT] * 2
        assert begin(server, CLIENT, now_ns=MS) == first[::-1]
        assert begin(server, CLIENT, now_ns=2 * MS) == first
        assert server.pending == 1

    @pytest.mark.parametrize("asks_for_code", [False, True])
    def test_amplify_at_most_threefold(self, asks_for_code: bool) -> None:
        """RFC 9000 section 8.1."""
        server = make_server(asks_for_code)
        for datagram in (initial_of(client(), 0), initial()):
            answers = server.handle_initial_untrusted(datagram, PEER, HOST, 0)
            assert sum(map(len, answers)) <= 3 * len(datagram)
            assert all(len(answer) <= wire.MIN_DATAGRAM_BYTES for answer in answers)

    def test_another_version_is_told_the_versions_of_this_side(self) -> None:
        """A client of version 1 reads 14 bytes: type, flags, its id, and a version that is not its own."""
        old = wire.PREFIX.pack(wire.PacketType.INITIAL, 0, 7) + (0x4E540001).to_bytes(4, "big")
        (answer,) = make_server().handle_initial_untrusted(old.ljust(1200, b"\0"), PEER, HOST, 0)
        assert packets.VERSION_ANSWER.unpack_untrusted(answer) == (wire.PacketType.VERSION, 0, 7, packets.VERSION)
        assert packets.decode_version_untrusted(answer) == packets.SUPPORTED_VERSIONS

    @pytest.mark.parametrize("versions", [b"", (0x4E540001).to_bytes(4, "big"), b"\0" * 3])
    def test_an_offer_without_this_version_gets_none(self, versions: bytes) -> None:
        token = VALIDATOR.retry_token(HOST, PEER[1], CLIENT, 0)
        offer = {int(Parameter.VERSIONS): versions}
        with pytest.raises(ProtocolError):
            make_server().handle_initial_untrusted(
                packets.InitialPacket(CLIENT, offer, b"m", token).encode(), PEER, HOST, 0
            )

    @pytest.mark.parametrize(
        "datagram", [b"", bytes(1200), packets.encode_version(7), b"\x10" + bytes(1300), initial()[:1199]]
    )
    def test_anything_else_gets_none(self, datagram: bytes) -> None:
        with pytest.raises(ProtocolError):
            make_server().handle_initial_untrusted(datagram, PEER, HOST, 0)


class TestFinish:
    def test_completes_the_handshake_once(self) -> None:
        handshake, server = client(), make_server()
        exchange(handshake, server, MS)
        assert complete(server, handshake) == CLIENT
        assert server.pending == 0
        with pytest.raises(ProtocolError, match="without a handshake"):
            complete(server, handshake)

    def test_a_late_initial_of_a_completed_handshake_gets_no_answer(self) -> None:
        handshake, server = client(), make_server()
        exchange(handshake, server, MS)
        complete(server, handshake)
        assert begin(server, CLIENT) == []
        assert server.pending == 0

    def test_from_another_address_changes_nothing(self) -> None:
        handshake, server = client(), make_server()
        exchange(handshake, server, MS)
        assert handshake.accepted is not None
        with pytest.raises(ProtocolError):
            server.handle_finish_untrusted(handshake.accepted.finish, (PEER[0], PEER[1] + 1), MS)
        assert complete(server, handshake) == CLIENT

    def test_a_forged_one_changes_nothing(self) -> None:
        handshake, server = client(), make_server()
        exchange(handshake, server, MS)
        assert handshake.accepted is not None
        forged = packets.encode_finish(handshake.accepted.server.server_id, b"\xff" * 1000)
        with pytest.raises(ProtocolError):
            server.handle_finish_untrusted(forged, PEER, MS)
        assert complete(server, handshake) == CLIENT

    def test_may_be_repeated_until_the_connection_exists(self) -> None:
        """Without a descriptor for it, the client's next FINISH may succeed."""
        handshake, server = client(), make_server()
        exchange(handshake, server, MS)
        assert handshake.accepted is not None
        first = server.handle_finish_untrusted(handshake.accepted.finish, PEER, MS)
        assert server.handle_finish_untrusted(handshake.accepted.finish, PEER, MS) is first
        assert server.pending == 1

    def test_gives_an_rtt_sample(self) -> None:
        handshake, server = client(), make_server()
        now_ns = exchange(handshake, server, 40 * MS)
        assert handshake.accepted is not None
        assert server.handle_finish_untrusted(handshake.accepted.finish, PEER, now_ns + 20 * MS).rtt_ns == 40 * MS

    def test_gives_an_rtt_sample_after_a_repeated_accept(self) -> None:
        """It names the INITIAL, and so the ACCEPT."""
        handshake, server = client(), make_server()
        lost: list[bytes] = []

        def is_first_accept(datagram: bytes) -> bool:
            if lost or datagram[0] != wire.PacketType.ACCEPT:
                return False
            lost.append(datagram)
            return True

        now_ns = exchange(handshake, server, 40 * MS, is_first_accept)
        assert handshake.accepted is not None
        assert server.handle_finish_untrusted(handshake.accepted.finish, PEER, now_ns + 20 * MS).rtt_ns == 40 * MS

    def test_that_names_no_initial_gives_no_rtt_sample(self) -> None:
        handshake, server = client(), make_server()
        now_ns = exchange(handshake, server, 40 * MS)
        assert handshake.accepted is not None
        finish = packets.with_initial_number(handshake.accepted.finish, 0)
        assert server.handle_finish_untrusted(finish, PEER, now_ns + 20 * MS).rtt_ns is None

    def test_of_another_server_run_completes_nothing(self) -> None:
        handshake = client()
        exchange(handshake, make_server(), MS)
        with pytest.raises(ProtocolError):
            complete(make_server(), handshake)


class TestLimits:
    def test_a_host_with_too_many_loses_its_own_oldest(self) -> None:
        server = make_server()
        other = begin(server, 1, "192.0.2.99")
        first = begin(server, 1)
        for client_id in range(2, MAX_PENDING_PER_HOST + 2):
            begin(server, client_id)
        assert server.pending == MAX_PENDING_PER_HOST + 1
        assert set(begin(server, 1, "192.0.2.99")) == set(other)
        assert set(begin(server, 1)) != set(first)  # it was given up, and begins again

    def test_a_crowd_of_hosts_keeps_nobody_out(self) -> None:
        server = make_server()
        for host in range(MAX_PENDING // MAX_PENDING_PER_HOST):
            for client_id in range(MAX_PENDING_PER_HOST):
                begin(server, client_id, f"198.51.100.{host}")
        assert server.pending == MAX_PENDING
        first = begin(server, CLIENT, "192.0.2.1")
        second = begin(server, CLIENT, "192.0.2.2")
        assert types(first) == types(second) == [wire.PacketType.ACCEPT] * 2
        assert set(begin(server, CLIENT, "192.0.2.1")) == set(first)
        assert server.pending == MAX_PENDING

    def test_a_host_begins_only_so_many_key_exchanges(self) -> None:
        server = make_server()
        answered = sum(bool(begin(server, client_id)) for client_id in range(2 * KEY_EXCHANGE_BURST))
        assert answered == KEY_EXCHANGE_BURST
        assert begin(server, 0, "192.0.2.2")
        assert begin(server, 0, now_ns=1000 * MS)


class TestRetry:
    """The answer to most packets of a flood, without the work that others need."""

    OFFER = packets.make_offer()

    def initial(self, token: bytes = b"", number: int = 5) -> bytes:
        return packets.with_initial_number(packets.InitialPacket(CLIENT, self.OFFER, b"M1", token).encode(), number)

    @pytest.mark.parametrize("token", [b"", bytes(TOKEN_BYTES), b"x" * 256, VALIDATOR.return_token(b"192.0.2.9", MS)])
    def test_is_the_same_as_with_all_of_the_work(self, token: bytes) -> None:
        server = make_server()
        fast = server.retry_untrusted(self.initial(token), HOST, PEER[1], MS)
        assert [fast] == server.handle_initial_untrusted(self.initial(token), PEER, HOST, MS)
        assert fast is not None
        assert packets.initial_number_untrusted(fast) == 5

    @pytest.mark.parametrize(
        "datagram",
        [
            packets.InitialPacket(CLIENT, OFFER, b"M1", VALIDATOR.retry_token(HOST, PEER[1], CLIENT, MS)).encode(),
            packets.InitialPacket(CLIENT, OFFER, b"M1", VALIDATOR.return_token(HOST, MS)).encode(),
            packets.InitialPacket(CLIENT, OFFER, b"M1", b"short").encode()[:1199],
            packets.InitialPacket(CLIENT, OFFER, b"M1", version=0x4E540001).encode(),
            packets.encode_finish(7, b"M3").ljust(1200, b"\0"),
            b"\x01",
            b"",
        ],
    )
    def test_is_nothing_for_what_deserves_more_or_less(self, datagram: bytes) -> None:
        assert make_server().retry_untrusted(datagram, HOST, PEER[1], MS) is None


def test_sealed_parameters_reach_the_other_side() -> None:
    handshake, server = client(), make_server()
    exchange(handshake, server, MS)
    assert handshake.accepted is not None
    established = server.handle_finish_untrusted(handshake.accepted.finish, PEER, MS)
    assert established.client == packets.ClientParameters(1472)
    expected = packets.ServerParameters(established.server_id, 1472, 1 << 20)
    assert replace(handshake.accepted.server, return_token=b"") == expected
