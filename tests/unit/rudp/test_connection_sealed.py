"""What a connection makes of packets that are damaged, repeated, old, or sealed by somebody else: nothing."""

import pytest

from tests.support.engine_pair import FixedKeys, sealed_pair
from toolkit.rudp import wire
from toolkit.rudp.aead_protection import AeadProtection
from toolkit.rudp.batch import Batch
from toolkit.rudp.config import Config
from toolkit.rudp.connection import Connection
from toolkit.rudp.protection import PacketProtection
from toolkit.rudp.state import ConnectionState
from toolkit.rudp.streams import MessageBuffer
from toolkit.rudp.wire import PacketType

MS = 1_000_000
SECOND = 1000 * MS
START = 7 * SECOND
LOCAL, PEER = 0x1111, 0x2222
CONFIG = Config(idle_timeout_ns=30 * SECOND)
TAG = bytes(wire.TAG_BYTES)
OLD, NEW = ("192.0.2.1", 4444), ("192.0.2.7", 5555)
ECT_0 = 0b10


def data(number: int, offset: int = 0, payload: bytes = b"some content", flags: int = 0) -> bytes:
    return wire.DATA.pack(PacketType.DATA, flags, LOCAL, number, offset) + payload


def ping(number: int, least_unacked: int = 0, every_bytes: int = 5000) -> bytes:
    return wire.PING.pack(PacketType.PING, 0, LOCAL, number, least_unacked, every_bytes, 1000)


def message(number: int) -> bytes:
    return wire.DATA.pack(PacketType.MESSAGE, wire.Flags.ACK_NOW, LOCAL, number, 0) + b"\0\0\0\x02hi"


def ack(number: int, *ranges: tuple[int, int]) -> bytes:
    return wire.encode_ack(LOCAL, number, wire.AckPacket(list(ranges), 0, 1 << 30, 1 << 20, 0, 0, 0))


def challenge(number: int, size_bytes: int = 1184) -> bytes:
    return wire.PATH.pack(PacketType.PATH_CHALLENGE, 0, LOCAL, number, 0xFACE).ljust(size_bytes, b"\0")


PACKETS = {
    "data": data(20, flags=wire.Flags.ACK_NOW),
    "message": message(20),
    "ack": ack(20, (0, 1)),
    "ping": ping(20, 5, 100_000),
    "probe": wire.COMMON.pack(PacketType.PROBE, 0, LOCAL, 20) + bytes(50),
    "challenge": challenge(20, 50),
    "response": wire.PATH.pack(PacketType.PATH_RESPONSE, 0, LOCAL, 20, 0xC0DE),
    "close": wire.encode_close(LOCAL, 20, 4, "over"),
}


class Peer:
    """A server's connection, and the protection of its client, for which the test speaks."""

    def __init__(self) -> None:
        self.protection: PacketProtection
        self.protection, protection = sealed_pair()
        self.connection = Connection(CONFIG, MessageBuffer(), LOCAL, PEER, 1472, START, protection, peer_address=OLD)

    def seal(self, packet: bytes) -> bytes:
        return self.protection.seal(packet + TAG)

    def receive(self, *packets: bytes, now_ns: int = START, ecn: int = ECT_0) -> None:
        """Let sealed packets arrive."""
        for packet in packets:
            self.connection.handle_batch(Batch(memoryview(packet), len(packet), ecn), now_ns)

    def receive_from(self, address: tuple[str, int], packet: bytes) -> None:
        self.connection.handle_off_path_batch(Batch(memoryview(packet), len(packet)), address, 0xC0DE, START)

    def sent(self, now_ns: int = START) -> list[bytes]:
        """Everything that is sent now, in the clear."""
        packets = []
        while (transmit := self.connection.poll_transmit(now_ns)) is not None:
            for i in range(0, len(transmit.data), transmit.segment_bytes):
                datagram = transmit.data[i : i + transmit.segment_bytes]
                packets.append(bytes(self.protection.open_untrusted(datagram)))
        return packets

    def acked(self, now_ns: int) -> wire.AckPacket:
        """The acknowledgement that is due by `now_ns`."""
        (packet,) = [p for p in self.sent(now_ns) if p[0] == PacketType.ACK]
        return wire.decode_ack_untrusted(packet)

    def observed(self) -> tuple[object, ...]:
        """Everything that a packet may change, but the counters of invalid and repeated packets."""
        connection = self.connection
        stats = connection.stats()
        return (
            {name: getattr(stats, name) for name in stats.__slots__ if name not in COUNTERS},
            connection.state,
            connection.poll_timeout(),
            connection.received_offset,
            connection.received_data(),
            connection.poll_message(START),
            connection.peer_address,
            connection.acks.bytes_until_ack,
            self.sent(START),
        )


COUNTERS = ("packets_invalid", "packets_received", "packets_duplicate")


@pytest.mark.parametrize("name", sorted(PACKETS))
def test_a_packet_with_any_bit_flipped_changes_nothing(name: str) -> None:
    peer = Peer()
    peer.receive_from(NEW, peer.seal(ping(0)))  # so that there is a challenge to respond to
    peer.connection.send_message(b"hello")  # and something to acknowledge
    peer.sent()
    sealed = peer.seal(PACKETS[name])
    later = START + 20 * SECOND
    before = peer.observed()
    for bit in range(8 * len(sealed)):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        invalid = peer.connection.stats().packets_invalid
        peer.receive(bytes(damaged), now_ns=later)
        is_of_handshake = PacketType.INITIAL <= damaged[0] < PacketType.DATA  # ignored, and not counted
        assert peer.connection.stats().packets_invalid - invalid == (not is_of_handshake)
        assert peer.observed() == before, f"bit {bit}"
    peer.connection.handle_timeout(START + CONFIG.idle_timeout_ns)
    assert peer.connection.state is ConnectionState.CLOSED


@pytest.mark.parametrize("name", sorted(PACKETS))
def test_the_packets_of_that_test_do_change_something(name: str) -> None:
    peer = Peer()
    peer.receive_from(NEW, peer.seal(ping(0)))
    peer.connection.send_message(b"hello")
    peer.sent()
    before = peer.observed()
    peer.receive(peer.seal(PACKETS[name]), now_ns=START + 20 * SECOND)
    assert peer.connection.stats().packets_invalid == 0
    assert peer.observed() != before


@pytest.mark.parametrize("name", sorted(PACKETS))
def test_a_repeated_packet_changes_nothing(name: str) -> None:
    """It neither keeps the connection alive nor causes an answer nor counts as received with ECN."""
    peer = Peer()
    peer.receive_from(NEW, peer.seal(ping(0)))
    peer.connection.send_message(b"hello")
    peer.sent()
    sealed = peer.seal(PACKETS[name])
    peer.receive(sealed, b"")
    peer.observed()  # takes what has arrived
    before = peer.observed()
    for _ in range(3):
        peer.receive(sealed, now_ns=START + 20 * SECOND)
        peer.receive_from(("192.0.2.99", 1), sealed)
        assert peer.observed() == before
    assert peer.connection.stats().packets_invalid == 0
    if name != "close":
        peer.receive(peer.seal(data(30, 12)), now_ns=START + 1)
        assert peer.acked(START + SECOND).ect_count == 2


def test_a_reflected_packet_changes_nothing() -> None:
    """Each direction has its own keys, so a packet of this side does not open here."""
    peer = Peer()
    _, own = sealed_pair()
    peer.receive(own.seal(ping(0) + TAG))
    assert peer.connection.stats().packets_invalid == 1


class TestForgedInABatch:
    @pytest.mark.parametrize("forged", [{0}, {5}, {9}, {0, 9}, {1, 3, 5, 7}, set(range(10))])
    @pytest.mark.parametrize("in_order", [True, False])
    def test_it_costs_only_itself(self, forged: set[int], in_order: bool) -> None:
        peer = Peer()
        order = list(range(10)) if in_order else [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
        packets = []
        for position, n in enumerate(order):
            sealed = bytearray(peer.seal(data(n, 12 * n, b"%12d" % n)))
            sealed[-1] ^= position in forged
            packets.append(bytes(sealed))
        joined = b"".join(packets)
        peer.connection.handle_batch(Batch(memoryview(joined), len(packets[0]), ECT_0), START)
        content = {}
        for offset, view in peer.connection.received_data():
            for i in range(0, len(view), 12):
                content[(offset + i) // 12] = bytes(view[i : i + 12])
        assert content == {n: b"%12d" % n for position, n in enumerate(order) if position not in forged}
        assert peer.connection.stats().packets_invalid == len(forged)
        assert peer.connection.stats().packets_received == 10 - len(forged)
        if len(forged) < 10:
            assert peer.acked(START + SECOND).ect_count == 10 - len(forged)

    def test_of_the_next_key_phase_leaves_the_keys(self) -> None:
        peer = Peer()
        packets = [bytearray(peer.seal(data(n, 12 * n))) for n in range(6)]
        packets[2][1] ^= wire.Flags.KEY_PHASE
        joined = b"".join(packets)
        peer.connection.handle_batch(Batch(memoryview(joined), len(packets[0])), START)
        assert peer.connection.stats().packets_invalid == 1
        assert peer.connection.stats().packets_received == 5
        peer.receive(peer.seal(data(6, 72)))
        assert peer.connection.stats().packets_received == 6


class TestOldPacketNumbers:
    def test_below_those_that_are_kept_are_duplicates(self) -> None:
        """RFC 9000 section 12.3: a packet must be dropped if it is unknown whether it has arrived before."""
        peer = Peer()
        for number in (0, 1, 5, 6, 7):
            peer.receive(peer.seal(ping(number)))
        peer.receive(peer.seal(ping(8, least_unacked=8)))
        peer.sent(START + SECOND)
        peer.connection.send_message(b"hello")
        peer.sent()
        before = peer.observed()
        for number in (0, 1, 3, 6):  # 3 has never arrived
            peer.receive(peer.seal(data(number)), peer.seal(challenge(number, 50)), now_ns=START + SECOND)
            peer.receive_from(NEW, peer.seal(ping(number)))
        assert peer.observed() == before

    def test_lower_than_the_highest_do_not_move_the_path(self) -> None:
        """RFC 9000 section 9.3: packets that were reordered may come from where the peer was before."""
        peer = Peer()
        peer.receive(peer.seal(ping(10)))
        peer.sent()
        peer.receive_from(NEW, peer.seal(ping(9)))
        assert PacketType.PATH_CHALLENGE not in [p[0] for p in peer.sent(START + 5 * SECOND)]
        peer.receive_from(NEW, peer.seal(ping(11)))
        assert PacketType.PATH_CHALLENGE in [p[0] for p in peer.sent(START + 5 * SECOND)]

    def test_the_current_address_is_not_validated_again(self) -> None:
        """Packets may reach the listening socket while the connection's own socket is being made."""
        peer = Peer()
        peer.receive_from(OLD, peer.seal(ping(10)))
        assert PacketType.PATH_CHALLENGE not in [p[0] for p in peer.sent(START + 5 * SECOND)]

    def test_an_overtaken_ping_does_not_change_the_acknowledgement_frequency(self) -> None:
        peer = Peer()
        peer.receive(peer.seal(ping(1, every_bytes=1 << 20)))
        peer.sent(START + SECOND)
        peer.receive(peer.seal(data(2)))
        expected = peer.connection.acks.bytes_until_ack
        assert expected > 1 << 19
        peer.receive(peer.seal(ping(0, every_bytes=3000)))
        peer.sent(START)
        peer.receive(peer.seal(data(3, 12)))
        assert peer.connection.acks.bytes_until_ack == expected + len(peer.seal(data(2))) - len(peer.seal(data(3, 12)))


class TestSizes:
    def test_a_challenge_and_its_response_fill_the_smallest_datagram(self) -> None:
        """RFC 9000 sections 8.2.1 and 8.2.2: so the path is known to carry it."""
        peer = Peer()
        peer.receive_from(NEW, peer.seal(data(0, payload=bytes(400))))
        (packet,) = [p for p in peer.sent() if p[0] == PacketType.PATH_CHALLENGE]
        assert len(packet) + wire.TAG_BYTES == 1200
        peer.receive(peer.seal(challenge(1)))
        (packet,) = [p for p in peer.sent() if p[0] == PacketType.PATH_RESPONSE]
        assert len(packet) + wire.TAG_BYTES == 1200

    def test_are_at_most_three_times_what_has_come(self) -> None:
        peer = Peer()
        sealed = peer.seal(ping(0))
        peer.receive_from(NEW, sealed)
        (packet,) = [p for p in peer.sent() if p[0] == PacketType.PATH_CHALLENGE]
        assert len(packet) + wire.TAG_BYTES == 3 * len(sealed)
        sealed = peer.seal(challenge(1, 60))
        peer.receive(sealed)
        (packet,) = [p for p in peer.sent() if p[0] == PacketType.PATH_RESPONSE]
        assert len(packet) + wire.TAG_BYTES == 3 * len(sealed)

    def test_an_ack_with_more_ranges_than_a_peer_can_build_is_invalid(self) -> None:
        peer = Peer()
        peer.connection.send_message(bytes(2000 * 1200))
        while peer.connection.poll_transmit(START) is not None:
            pass
        most = wire.max_ack_ranges(1472 - wire.TAG_BYTES)
        ranges = [(2 * n, 2 * n + 1) for n in reversed(range(most + 1))]
        peer.receive(peer.seal(ack(0, *ranges)))
        assert peer.connection.stats().packets_invalid == 1


def test_a_connection_whose_keys_cannot_be_updated_ends() -> None:
    """A peer that acknowledges nothing must not make this side exceed the limit of its keys (RFC 9001 section 6.6)."""
    near, _ = sealed_pair()
    far = AeadProtection(FixedKeys(2000), FixedKeys(1000), update_after=20, key_limit=40)
    connection = Connection(CONFIG, MessageBuffer(), LOCAL, PEER, 1472, START, far)
    pings = 0
    number = 0
    while connection.state is ConnectionState.ESTABLISHED:
        packet = near.seal(data(number, 12 * number, flags=wire.Flags.ACK_NOW) + TAG)
        connection.handle_batch(Batch(memoryview(packet), len(packet)), START)
        while (transmit := connection.poll_transmit(START)) is not None:
            pings += transmit.data[0] == PacketType.PING
        number += 1
        assert number < 100
    assert number == pytest.approx(40, abs=2)
    assert pings == 1
    assert "keys cannot be updated" in connection.close_reason


@pytest.mark.parametrize("kind", ["data", "message", "ping"])
def test_a_connection_with_too_many_forged_packets_ends(kind: str) -> None:
    """Each is a guess at a tag (RFC 9001 section 6.6). A packet that opens is none, and neither is a stranger's."""
    near, _ = sealed_pair()
    limit = 5
    far = AeadProtection(FixedKeys(2000), FixedKeys(1000), forgery_limit=limit)
    connection = Connection(CONFIG, MessageBuffer(), LOCAL, PEER, 1472, START, far)

    def arrive(*packets: bytes) -> None:
        joined = b"".join(packets)
        connection.handle_batch(Batch(memoryview(joined), len(packets[0])), START)

    good = near.seal(PACKETS[kind] + TAG)
    bad = good[:-1] + bytes([good[-1] ^ 1])
    stranger = bad[:2] + bytes(8) + bad[10:]
    for number in range(1, limit):
        arrive(bad)
        arrive(stranger)
        next_one = near.seal(data(100 + number, 12 * number) + TAG)
        damaged = next_one[:-1] + bytes([next_one[-1] ^ 1])
        arrive(next_one)
        assert connection.stats().packets_invalid == 2 * number
    assert connection.received_data()
    arrive(near.seal(data(90, 1200) + TAG), damaged)  # the second one is tried with the first, and again alone
    assert connection.state is ConnectionState.ESTABLISHED
    arrive(good)
    assert connection.state is ConnectionState.CLOSING
    assert "forged or damaged packets" in connection.close_reason
    close = connection.poll_transmit(START)
    assert close is not None
    assert wire.decode_close_untrusted(near.open_untrusted(close.data)) == (4, connection.close_reason)
    arrive(near.seal(wire.encode_close(LOCAL, 200, 4, "over") + TAG))
    assert connection.state is ConnectionState.CLOSING  # nothing is opened any more
