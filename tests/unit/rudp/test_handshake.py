"""The client's side of the handshake: one round trip, two, three, or a failure."""

import contextlib
import itertools

import pytest

from tests.support.udp_handshakes import (
    CLIENT,
    MS,
    SERVER,
    CodeClientSecurity,
    client,
    exchange,
    initial_of,
    make_server,
)
from toolkit.channel import DEFAULT_CONNECT_TIMEOUT_S
from toolkit.errors import ProtocolError, RefusedError
from toolkit.rudp import handshake_packets as packets
from toolkit.rudp import wire
from toolkit.rudp.handshake import FIRST_RETRANSMISSION_NS, MAX_REJECTIONS, MAX_RETRANSMISSION_NS
from toolkit.rudp.handshake_packets import Parameter
from toolkit.simulator.security import PlainServerSecurity


def retry(token: bytes) -> bytes:
    return packets.encode_retry(CLIENT, Parameter.TOKEN, token)


def token_of(initial: bytes) -> bytes:
    return packets.decode_initial_untrusted(initial).token


def accept() -> list[bytes]:
    """The ACCEPT of a server for the client of `client()`."""
    initial = packets.decode_initial_untrusted(initial_of(client(), 0))
    opened = PlainServerSecurity().open_untrusted(initial.security, b"", b"", 0)
    return packets.encode_accept(CLIENT, opened.accept(packets.ServerParameters(SERVER, 1452, 1 << 20).encode()))


class TestRoundTrips:
    def test_two_for_a_new_client(self) -> None:
        handshake, server = client(), make_server()
        assert exchange(handshake, server, 30 * MS) == 60 * MS
        assert handshake.accepted is not None
        assert handshake.accepted.server.server_id == SERVER
        assert handshake.accepted.rtt_ns == 30 * MS

    def test_one_for_a_client_that_returns(self) -> None:
        first, server = client(), make_server()
        exchange(first, server, 30 * MS)
        assert first.accepted is not None
        again = client(client_id=CLIENT + 1, token=first.accepted.server.return_token, now_ns=100 * MS)
        assert exchange(again, server, 30 * MS) == 130 * MS

    def test_one_more_for_a_client_with_a_code(self) -> None:
        handshake, server = client(security=CodeClientSecurity), make_server(asks_for_code=True)
        assert exchange(handshake, server, 30 * MS) == 90 * MS
        assert handshake.accepted is not None
        assert handshake.accepted.rtt_ns == 30 * MS

    def test_a_stale_token_costs_one(self) -> None:
        handshake = client(token=b"of a listener before a restart")
        assert exchange(handshake, make_server(), 30 * MS) == 60 * MS


class TestRepetition:
    def test_of_the_initial_with_a_limited_back_off(self) -> None:
        handshake = client()
        times = []
        for _ in range(6):
            times.append(handshake.poll_timeout())
            assert handshake.poll_transmit(times[-1] - 1) is None
            initial_of(handshake, times[-1])
        steps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert steps == [FIRST_RETRANSMISSION_NS, 200 * MS, *[MAX_RETRANSMISSION_NS] * 3]

    def test_ends_with_the_accept(self) -> None:
        handshake = client()
        initial_of(handshake, 0)
        for piece in accept():
            handshake.handle_datagram_untrusted(piece, 30 * MS)
        assert handshake.poll_transmit(1 << 40) is None

    def test_does_not_make_the_rtt_ambiguous(self) -> None:
        """The answer names the INITIAL."""
        for number, expected_ns in ((1, 210 * MS), (2, 110 * MS)):
            handshake = client()
            initial_of(handshake, 0)
            initial_of(handshake, handshake.poll_timeout())
            for piece in accept():
                handshake.handle_datagram_untrusted(packets.with_initial_number(piece, number), 210 * MS)
            assert handshake.accepted is not None
            assert handshake.accepted.rtt_ns == expected_ns

    def test_gives_no_rtt_sample_if_the_answer_names_no_initial(self) -> None:
        handshake = client()
        initial_of(handshake, 0)
        for piece in accept():
            handshake.handle_datagram_untrusted(piece, 30 * MS)
        assert handshake.accepted is not None
        assert handshake.accepted.rtt_ns is None

    @pytest.mark.parametrize("rtt_ms", [150, 600, 6000])
    def test_on_a_long_path_costs_no_second_key_exchange(self, rtt_ms: int) -> None:
        """The first RETRY gives the RTT. With a code, a receiver permits few tries."""
        handshake, server = client(security=CodeClientSecurity), make_server(asks_for_code=True)
        numbers = itertools.count(1)
        begun: list[int] = []

        def count_key_exchanges(datagram: bytes) -> bool:
            if datagram[0] == wire.PacketType.INITIAL:
                assert packets.initial_number_untrusted(datagram) == next(numbers)
                if packets.has_token_untrusted(datagram):
                    begun.append(packets.initial_number_untrusted(datagram))
            return False

        assert exchange(handshake, server, rtt_ms * MS, count_key_exchanges) == 3 * rtt_ms * MS
        assert len(begun) == 2
        assert handshake.accepted is not None
        assert handshake.accepted.rtt_ns == rtt_ms * MS
        assert 3 * rtt_ms <= DEFAULT_CONNECT_TIMEOUT_S * 1000


class TestRetry:
    def test_is_answered_at_once_with_its_token(self) -> None:
        handshake = client()
        initial_of(handshake, 0)
        handshake.handle_datagram_untrusted(retry(b"token"), 30 * MS)
        assert handshake.poll_timeout() == 30 * MS
        assert token_of(initial_of(handshake, 30 * MS)) == b"token"

    def test_a_later_one_renews_the_token_and_keeps_the_schedule(self) -> None:
        """A server that always retries must not cause an INITIAL per round trip (RFC 9000 section 17.2.5.2)."""
        handshake = client()
        initial_of(handshake, 0)
        handshake.handle_datagram_untrusted(retry(b"first"), 30 * MS)
        initial_of(handshake, 30 * MS)
        due_ns = handshake.poll_timeout()
        handshake.handle_datagram_untrusted(retry(b"second"), 31 * MS)
        assert handshake.poll_timeout() == due_ns > 31 * MS
        assert token_of(initial_of(handshake, due_ns)) == b"second"

    def test_a_late_duplicate_does_not_change_the_rtt_sample(self) -> None:
        handshake = client()
        initial_of(handshake, 0)
        for now_ns in (30 * MS, 40 * MS):
            handshake.handle_datagram_untrusted(packets.with_initial_number(retry(b"token"), 1), now_ns)
            handshake.poll_transmit(now_ns)
        for piece in accept():
            handshake.handle_datagram_untrusted(packets.with_initial_number(piece, 2), 70 * MS)
        assert handshake.accepted is not None
        assert handshake.accepted.rtt_ns == 30 * MS

    def test_a_key_exchange_that_takes_the_server_long_does_not_count_as_round_trip(self) -> None:
        handshake = client()
        initial_of(handshake, 0)
        handshake.handle_datagram_untrusted(packets.with_initial_number(retry(b"token"), 1), 1 * MS)
        initial_of(handshake, 1 * MS)
        for piece in accept():
            handshake.handle_datagram_untrusted(packets.with_initial_number(piece, 2), 9 * MS)
        assert handshake.accepted is not None
        assert handshake.accepted.rtt_ns == 1 * MS


class TestAccept:
    def test_arrives_in_any_order_and_repeatedly(self) -> None:
        pieces = accept()
        assert len(pieces) == 2
        for order in ([1, 0], [0, 0, 1], [1, 1, 0, 0, 1]):
            handshake = client()
            initial_of(handshake, 0)
            for index in order:
                handshake.handle_datagram_untrusted(pieces[index], MS)
            assert handshake.accepted is not None
            assert handshake.accepted.server == packets.ServerParameters(SERVER, 1452, 1 << 20)

    def test_a_forged_piece_costs_one_repetition(self) -> None:
        handshake, pieces = client(), accept()
        handshake.handle_datagram_untrusted(pieces[0][:40] + b"\xff" + pieces[0][41:], 0)
        with pytest.raises(ProtocolError):
            handshake.handle_datagram_untrusted(pieces[1], 0)
        for piece in pieces:
            handshake.handle_datagram_untrusted(piece, 0)
        assert handshake.accepted is not None

    def test_that_is_never_authentic_ends_the_handshake(self) -> None:
        handshake = client()
        forged = packets.encode_accept(CLIENT, b"not from the server")[0]
        for _ in range(MAX_REJECTIONS - 1):
            with pytest.raises(ProtocolError):
                handshake.handle_datagram_untrusted(forged, 0)
        with pytest.raises(RefusedError):
            handshake.handle_datagram_untrusted(forged, 0)


class TestRefusal:
    @pytest.mark.parametrize("version", [0x4E54_0001, 0x4E54_0003])
    def test_another_version_is_named_with_advice(self, version: int) -> None:
        datagram = packets.VERSION_ANSWER.pack(wire.PacketType.VERSION, 0, CLIENT, version)
        expected = (
            rf"the receiver speaks protocol version {version & 0xFF}, this side 2: install the same nettool at both"
        )
        handshake = client()
        initial_of(handshake, 0)
        handshake.handle_datagram_untrusted(datagram, 0)
        initial_of(handshake, 0)
        with pytest.raises(RefusedError, match=expected):
            handshake.handle_datagram_untrusted(datagram, 0)

    def test_a_version_packet_with_this_version_changes_nothing(self) -> None:
        handshake = client()
        handshake.handle_datagram_untrusted(packets.encode_version(CLIENT), 0)
        assert handshake.accepted is None

    def test_the_security_layer_says_why(self) -> None:
        with pytest.raises(RefusedError, match="asks for a code"):
            exchange(client(), make_server(asks_for_code=True), MS)

    def test_that_nothing_follows_is_believed(self) -> None:
        handshake = client()
        initial_of(handshake, 0)
        handshake.handle_datagram_untrusted(packets.encode_refuse(CLIENT, b"no"), 0)
        for _ in range(4):
            initial_of(handshake, handshake.poll_timeout())
        with pytest.raises(RefusedError, match="asks for a code"):
            handshake.poll_transmit(handshake.poll_timeout())
        assert handshake.poll_timeout() < 4000 * MS

    @pytest.mark.parametrize(
        "forged",
        [
            packets.encode_refuse(CLIENT, b"no"),
            packets.VERSION_ANSWER.pack(wire.PacketType.VERSION, 0, CLIENT, 0x4E54_0001),
        ],
    )
    def test_that_is_forged_once_costs_one_more_initial(self, forged: bytes) -> None:
        handshake = client()
        initial_of(handshake, 0)
        for _ in range(3):
            handshake.handle_datagram_untrusted(forged, 0)
        assert isinstance(handshake.refusal, RefusedError)
        assert handshake.poll_timeout() == 0
        assert exchange(handshake, make_server(), 30 * MS) == 60 * MS
        assert handshake.accepted is not None


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        bytes(9),
        bytes(1200),
        packets.InitialPacket(CLIENT, packets.make_offer(), b"m").encode(),
        packets.encode_accept(CLIENT + 1, b"m")[0],
        packets.encode_accept(CLIENT, b"m")[0],
        packets.encode_retry(CLIENT + 1, Parameter.TOKEN, b"token"),
        packets.encode_retry(CLIENT, Parameter.TOKEN, b""),
        packets.encode_refuse(CLIENT + 1, b"m"),
        packets.VERSION_ANSWER.pack(wire.PacketType.VERSION, 0, CLIENT + 1, 7),
        wire.DATA.pack(wire.PacketType.DATA, 0, CLIENT, 0, 0) + b"x",
        accept()[0][:-1],
    ],
)
def test_any_other_packet_changes_nothing(datagram: bytes) -> None:
    handshake = client()
    with contextlib.suppress(ProtocolError):  # some may belong to a handshake that goes on
        handshake.handle_datagram_untrusted(datagram, 0)
    assert handshake.accepted is None
    assert exchange(handshake, make_server(), 30 * MS) == 60 * MS
