"""The handshake: one round trip, two, or a failure."""

import itertools

import pytest

from toolkit.errors import ProtocolError, RefusedError
from toolkit.rudp import wire
from toolkit.rudp.address_validation import AddressValidator
from toolkit.rudp.handshake import (
    FIRST_RETRANSMISSION_NS,
    MAX_RETRANSMISSION_NS,
    ClientHandshake,
    answer_initial_untrusted,
)

MS = 1_000_000
CLIENT = 0xAAAA
SERVER = 0xBBBB
ADDRESS = b"('192.0.2.1', 4711)"
VALIDATOR = AddressValidator(bytes(32))


def client() -> ClientHandshake:
    return ClientHandshake(CLIENT, 1472, now_ns=0)


def initial_of(handshake: ClientHandshake, now_ns: int) -> bytes:
    datagram = handshake.poll_transmit(now_ns)
    assert datagram is not None
    return datagram


def accept() -> bytes:
    return wire.AcceptPacket(CLIENT, SERVER, 1452, 1 << 20).encode()


class TestClient:
    def test_one_round_trip(self) -> None:
        handshake = client()
        assert wire.decode_initial_untrusted(initial_of(handshake, 0)) == wire.InitialPacket(CLIENT, 1472)
        assert handshake.poll_transmit(1) is None
        handshake.handle_datagram_untrusted(accept(), 30 * MS)
        assert handshake.accepted == wire.AcceptPacket(CLIENT, SERVER, 1452, 1 << 20)
        assert handshake.rtt_ns == 30 * MS
        assert handshake.poll_transmit(1 << 40) is None

    def test_repeats_the_initial_with_a_limited_back_off(self) -> None:
        handshake = client()
        times = []
        now_ns = 0
        for _ in range(6):
            now_ns = handshake.poll_timeout()
            times.append(now_ns)
            initial_of(handshake, now_ns)
        steps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert steps == [FIRST_RETRANSMISSION_NS, 200 * MS, 400 * MS, *[MAX_RETRANSMISSION_NS] * 2]

    def test_an_answer_to_one_of_several_initials_gives_no_rtt_sample(self) -> None:
        """Karn's algorithm, RFC 6298 section 3."""
        handshake = client()
        initial_of(handshake, 0)
        initial_of(handshake, handshake.poll_timeout())
        handshake.handle_datagram_untrusted(accept(), 210 * MS)
        assert handshake.accepted is not None
        assert handshake.rtt_ns is None

    def test_answers_a_retry_at_once_with_its_token(self) -> None:
        handshake = client()
        initial_of(handshake, 0)
        handshake.handle_datagram_untrusted(wire.encode_retry(CLIENT, b"token"), 30 * MS)
        assert handshake.poll_timeout() == 30 * MS
        assert wire.decode_initial_untrusted(initial_of(handshake, 30 * MS)).token == b"token"
        handshake.handle_datagram_untrusted(accept(), 70 * MS)
        assert handshake.rtt_ns == 40 * MS

    def test_a_retry_to_one_of_several_initials_gives_no_later_rtt_sample(self) -> None:
        """Both INITIALs cause a RETRY, or the second one an ACCEPT, if the server is no longer busy."""
        handshake = client()
        initial_of(handshake, 0)
        initial_of(handshake, 100 * MS)
        handshake.handle_datagram_untrusted(wire.encode_retry(CLIENT, b"token"), 150 * MS)
        assert wire.decode_initial_untrusted(initial_of(handshake, 150 * MS)).token == b"token"
        handshake.handle_datagram_untrusted(accept(), 250 * MS)
        assert handshake.accepted is not None
        assert handshake.rtt_ns is None

    def test_a_later_retry_renews_the_token_and_keeps_the_schedule(self) -> None:
        """A server that always retries must not cause an INITIAL per round trip (RFC 9000 section 17.2.5.2)."""
        handshake = client()
        initial_of(handshake, 0)
        handshake.handle_datagram_untrusted(wire.encode_retry(CLIENT, b"first"), 30 * MS)
        initial_of(handshake, 30 * MS)
        due_ns = handshake.poll_timeout()
        handshake.handle_datagram_untrusted(wire.encode_retry(CLIENT, b"second"), 31 * MS)
        assert handshake.poll_timeout() == due_ns > 31 * MS
        assert wire.decode_initial_untrusted(initial_of(handshake, due_ns)).token == b"second"
        handshake.handle_datagram_untrusted(accept(), due_ns + MS)
        assert handshake.rtt_ns is None

    def test_a_duplicate_retry_keeps_the_rtt_sample(self) -> None:
        handshake = client()
        initial_of(handshake, 0)
        for now_ns in (30 * MS, 40 * MS):
            handshake.handle_datagram_untrusted(wire.encode_retry(CLIENT, b"token"), now_ns)
            handshake.poll_transmit(now_ns)
        handshake.handle_datagram_untrusted(accept(), 70 * MS)
        assert handshake.rtt_ns == 40 * MS

    def test_another_version_is_refused_with_advice(self) -> None:
        datagram = wire.VERSION_ANSWER.pack(wire.PacketType.VERSION, 0, CLIENT, wire.VERSION + 1)
        with pytest.raises(RefusedError, match="install the same nettool at both ends"):
            client().handle_datagram_untrusted(datagram, 0)

    def test_a_version_packet_with_this_version_changes_nothing(self) -> None:
        handshake = client()
        handshake.handle_datagram_untrusted(wire.encode_version(CLIENT), 0)
        assert handshake.accepted is None

    @pytest.mark.parametrize(
        "datagram",
        [
            b"",
            bytes(9),
            bytes(1200),
            wire.InitialPacket(CLIENT, 1472).encode(),
            wire.AcceptPacket(CLIENT + 1, SERVER, 1472, 0).encode(),
            wire.encode_retry(CLIENT + 1, b"token"),
            wire.encode_retry(CLIENT, b""),
            wire.VERSION_ANSWER.pack(wire.PacketType.VERSION, 0, CLIENT + 1, 7),
            wire.DATA.pack(wire.PacketType.DATA, 0, CLIENT, 0, 0) + b"x",
            accept()[:-1],
        ],
    )
    def test_any_other_packet_is_a_protocol_error_and_changes_nothing(self, datagram: bytes) -> None:
        handshake = client()
        initial_of(handshake, 0)
        with pytest.raises(ProtocolError):
            handshake.handle_datagram_untrusted(datagram, 1)
        assert handshake.accepted is None
        handshake.handle_datagram_untrusted(accept(), 30 * MS)
        assert handshake.rtt_ns == 30 * MS


class TestListener:
    def test_accepts_an_initial_if_it_is_not_busy(self) -> None:
        answer = answer_initial_untrusted(wire.InitialPacket(CLIENT, 1472).encode(), ADDRESS, 0, VALIDATOR, False)
        assert answer.reply is None
        assert answer.initial == wire.InitialPacket(CLIENT, 1472)

    def test_if_busy_keeps_no_state_until_the_address_is_validated(self) -> None:
        handshake = client()
        answer = answer_initial_untrusted(initial_of(handshake, 0), ADDRESS, 0, VALIDATOR, True)
        assert answer.initial is None
        assert answer.reply is not None
        assert len(answer.reply) < wire.MIN_DATAGRAM_BYTES
        handshake.handle_datagram_untrusted(answer.reply, MS)
        second = initial_of(handshake, MS)
        elsewhere = answer_initial_untrusted(second, b"elsewhere", MS, VALIDATOR, True)
        assert elsewhere.initial is None
        answer = answer_initial_untrusted(second, ADDRESS, MS, VALIDATOR, True)
        assert answer.reply is None
        assert answer.initial is not None
        assert answer.initial.client_id == CLIENT

    def test_answers_another_version_with_its_own_and_keeps_no_state(self) -> None:
        for demand in (False, True):
            other = wire.InitialPacket(CLIENT, 1472, version=wire.VERSION ^ 0xFF).encode()
            answer = answer_initial_untrusted(other, ADDRESS, 0, VALIDATOR, demand)
            assert answer.initial is None
            assert answer.reply is not None
            assert wire.decode_version_untrusted(answer.reply) == wire.VERSION
            assert len(answer.reply) < len(other)

    @pytest.mark.parametrize(
        "datagram",
        [b"", bytes(1200), accept(), wire.InitialPacket(CLIENT, 1472).encode()[:1199], b"\x10" + bytes(1300)],
    )
    def test_any_other_packet_is_a_protocol_error(self, datagram: bytes) -> None:
        with pytest.raises(ProtocolError):
            answer_initial_untrusted(datagram, ADDRESS, 0, VALIDATOR, False)
