"""Sealing and opening of packets, and the update of keys."""

import numpy as np
import pytest

from tests.support.engine_pair import FixedKeys, sealed_pair
from toolkit.errors import ProtocolError
from toolkit.rudp import wire
from toolkit.rudp.aead_protection import AeadProtection
from toolkit.rudp.batch import PacketBuffer
from toolkit.rudp.protection import PacketProtection, Unprotected
from toolkit.rudp.wire import PacketType

ID = 0xABCDEF
PAYLOAD = 100
TAG = bytes(wire.TAG_BYTES)
PACKETS = {
    "message": wire.DATA.pack(PacketType.MESSAGE, 0, ID, 7, 0) + b"hello",
    "ack": wire.encode_ack(ID, 8, wire.AckPacket([(4, 9), (0, 2)], 1, 2, 3, 4, 5, 6)),
    "ping": wire.PING.pack(PacketType.PING, wire.Flags.ACK_NOW, ID, 9, 1, 5000, 1000),
    "probe": wire.COMMON.pack(PacketType.PROBE, 0, ID, 10) + bytes(1182),
    "empty probe": wire.COMMON.pack(PacketType.PROBE, 0, ID, 11),
    "challenge": wire.PATH.pack(PacketType.PATH_CHALLENGE, 0, ID, 12, 77),
    "close": wire.encode_close(ID, (1 << 63) - 2, 4, "over"),
}


def stream_packets(
    protection: PacketProtection, numbers: list[int], last_bytes: int = PAYLOAD
) -> tuple[list[bytes], bytes]:
    """Sealed DATA packets with these numbers, and their payload. The last one carries `last_bytes`."""
    total = (len(numbers) - 1) * PAYLOAD + last_bytes
    payload = np.random.default_rng(numbers[0]).bytes(total)
    buffer = PacketBuffer(1 << 16, protection)
    buffer.scratch(total)[:] = payload
    columns = np.array(numbers, np.int64)
    sent = buffer.fill(PacketType.DATA, ID, columns, columns * PAYLOAD, PAYLOAD, total, ack_now=True)
    size = sent.segment_bytes
    return [bytes(sent.data[i : i + size]) for i in range(0, len(sent.data), size)], payload


def open_all(protection: PacketProtection, packets: list[bytes], numbers: list[int]) -> list[bytes]:
    """Open packets of equal size; return the payload of those that open, from the first on."""
    rows = np.frombuffer(b"".join(packets), np.uint8).reshape(len(packets), -1)
    payload_bytes = len(packets[0]) - protection.stream_overhead_bytes
    buffer = np.zeros(len(packets) * payload_bytes, np.uint8)
    opened = protection.open_stream(rows, np.array(numbers, np.int64), buffer, 0)
    return [buffer[i * payload_bytes : (i + 1) * payload_bytes].tobytes() for i in range(opened)]


class TestOnePacket:
    @pytest.mark.parametrize("name", sorted(PACKETS))
    def test_is_opened_as_it_was(self, name: str) -> None:
        here, there = sealed_pair()
        packet = PACKETS[name]
        sealed = here.seal(packet + TAG)
        assert len(sealed) == len(packet) + here.tag_bytes
        assert bytes(there.open_untrusted(memoryview(sealed))) == packet

    @pytest.mark.parametrize("name", sorted(PACKETS))
    def test_shows_its_header_and_nothing_else(self, name: str) -> None:
        packet = PACKETS[name]
        sealed = sealed_pair()[0].seal(packet + TAG)
        header_bytes = wire.DATA.size if name == "message" else wire.COMMON.size
        assert sealed[:header_bytes] == packet[:header_bytes]
        rest = packet[header_bytes:]
        assert not rest or sealed[header_bytes : len(packet)] != rest

    @pytest.mark.parametrize("name", sorted(PACKETS))
    def test_with_any_bit_flipped_does_not_open(self, name: str) -> None:
        here, there = sealed_pair()
        sealed = here.seal(PACKETS[name] + TAG)
        for bit in range(8 * len(sealed)):
            damaged = bytearray(sealed)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(ProtocolError):
                there.open_untrusted(memoryview(damaged))
        assert bytes(there.open_untrusted(memoryview(sealed))) == PACKETS[name]

    @pytest.mark.parametrize("name", sorted(PACKETS))
    def test_of_any_other_length_does_not_open(self, name: str) -> None:
        here, there = sealed_pair()
        sealed = here.seal(PACKETS[name] + TAG)
        for length in range(wire.COMMON.size, len(sealed)):
            with pytest.raises(ProtocolError):
                there.open_untrusted(memoryview(sealed[:length]))
        with pytest.raises(ProtocolError):
            there.open_untrusted(memoryview(sealed + b"\0"))

    def test_of_this_side_does_not_open(self) -> None:
        """Reflected packets: each direction has its own keys."""
        here, _ = sealed_pair()
        with pytest.raises(ProtocolError):
            here.open_untrusted(memoryview(here.seal(PACKETS["ping"] + TAG)))

    def test_the_nonce_is_the_iv_xor_the_packet_number(self) -> None:
        """RFC 9001 section 5.3. The associated data is the header."""
        here, _ = sealed_pair()
        keys = FixedKeys(1000)  # those of `here`
        number = 0x0102030405060708
        packet = wire.PATH.pack(PacketType.PATH_RESPONSE, 0, ID, number, 77)
        sealed = here.seal(packet + TAG)
        nonce = bytes(a ^ b for a, b in zip(keys.iv, bytes(4) + number.to_bytes(8, "big"), strict=True))
        assert keys.aead.decrypt(nonce, sealed[18:], sealed[:18]) == packet[18:]


class TestBatch:
    @pytest.mark.parametrize("numbers", [[0], [5, 6, 7, 8], list(range(400, 440)), [(1 << 62) + i for i in range(5)]])
    @pytest.mark.parametrize("last_bytes", [PAYLOAD, 1])
    def test_is_opened_into_one_piece(self, numbers: list[int], last_bytes: int) -> None:
        here, there = sealed_pair()
        packets, payload = stream_packets(here, numbers, last_bytes)
        assert [wire.COMMON.unpack_untrusted(p)[3] for p in packets] == numbers
        assert all(len(p) == PAYLOAD + here.stream_overhead_bytes for p in packets[:-1])
        full = len(numbers) - (last_bytes < PAYLOAD)
        pieces = open_all(there, packets[:full], numbers[:full]) if full else []
        if full < len(numbers):
            pieces += open_all(there, packets[full:], numbers[full:])
        assert b"".join(pieces) == payload

    def test_is_the_same_as_packet_by_packet(self) -> None:
        here, there = sealed_pair()
        numbers = list(range(20))
        packets, payload = stream_packets(here, numbers)
        alone = [bytes(there.open_untrusted(memoryview(p)))[wire.HEADER_BYTES :] for p in packets]
        assert b"".join(alone) == payload
        assert open_all(there, packets, numbers) == alone
        plain = wire.DATA.pack(PacketType.DATA, 0, ID, 3, 3 * PAYLOAD) + alone[3]
        assert here.seal(plain + TAG) == packets[3]

    def test_the_memory_may_be_used_again_with_other_sizes(self) -> None:
        here, there = sealed_pair()
        buffer = PacketBuffer(1 << 16, here)
        out = np.zeros(1 << 16, np.uint8)
        number = 0
        for payload_bytes in (1000, 30, 1000, 1001):
            numbers = np.arange(number, number + 10)
            number += 10
            content = np.random.default_rng(number).bytes(10 * payload_bytes)
            buffer.scratch(len(content))[:] = content
            sent = buffer.fill(PacketType.DATA, ID, numbers, numbers, payload_bytes, len(content), ack_now=False)
            rows = np.frombuffer(bytes(sent.data), np.uint8).reshape(10, -1)
            for start in (0, 77):
                assert there.open_stream(rows, numbers, out, start) == 10
                assert out[start : start + len(content)].tobytes() == content

    @pytest.mark.parametrize("at", [0, 1, 9])
    def test_ends_before_the_first_packet_that_does_not_open(self, at: int) -> None:
        here, there = sealed_pair()
        numbers = list(range(10))
        packets, payload = stream_packets(here, numbers)
        packets[at] = packets[at][:-1] + bytes([packets[at][-1] ^ 1])
        assert b"".join(open_all(there, packets, numbers)) == payload[: at * PAYLOAD]

    def test_in_the_clear_is_a_copy(self) -> None:
        packets, payload = stream_packets(Unprotected(), [1, 2, 3], 50)
        assert b"".join(p[wire.HEADER_BYTES :] for p in packets) == payload
        assert open_all(Unprotected(), packets[:2], [1, 2]) == [payload[:PAYLOAD], payload[PAYLOAD : 2 * PAYLOAD]]


class TestKeyUpdate:
    UPDATE_AFTER = 100

    def sealed_ping(self, protection: AeadProtection, number: int) -> memoryview:
        packet = wire.PING.pack(PacketType.PING, 0, ID, number, 0, 5000, 1000)
        return memoryview(protection.seal(packet + TAG))

    def opens(self, protection: AeadProtection, packet: memoryview | bytes) -> bool:
        try:
            protection.open_untrusted(memoryview(packet))
        except ProtocolError:
            return False
        return True

    def test_waits_until_a_packet_with_the_current_keys_is_acknowledged(self) -> None:
        here, _ = sealed_pair(self.UPDATE_AFTER)
        assert not here.update_keys(99, -1)
        assert here.phase_flags == 0
        assert here.update_keys(100, -1)  # an acknowledgement is missing
        assert here.phase_flags == 0
        assert not here.update_keys(103, 0)
        assert here.phase_flags == wire.Flags.KEY_PHASE
        assert not here.update_keys(202, 0)
        assert here.update_keys(203, 102)  # all of those were sealed with the keys before
        assert not here.update_keys(203, 103)
        assert here.phase_flags == 0

    def test_one_key_seals_a_limited_number_of_packets(self) -> None:
        here = AeadProtection(FixedKeys(1), FixedKeys(2), self.UPDATE_AFTER, key_limit=150)
        assert not here.is_exhausted(149)
        assert here.is_exhausted(150)
        here.update_keys(120, 5)
        assert not here.is_exhausted(150)
        assert here.is_exhausted(270)

    def test_older_packets_open_with_the_keys_before(self) -> None:
        here, there = sealed_pair(self.UPDATE_AFTER)
        late = [self.sealed_ping(here, number) for number in range(90, 100)]
        here.update_keys(100, 0)
        new = [self.sealed_ping(here, number) for number in range(100, 110)]
        assert self.opens(there, new[5])
        assert all(self.opens(there, packet) for packet in (late[9], new[0], late[0], new[9]))

    def test_two_generations_back_the_keys_are_gone(self) -> None:
        here, there = sealed_pair(self.UPDATE_AFTER)
        late = self.sealed_ping(here, 99)
        for first in (100, 200):
            here.update_keys(first, first - 1)
            assert self.opens(there, self.sealed_ping(here, first))
        assert not self.opens(there, late)

    def test_a_forged_packet_of_the_next_key_phase_installs_nothing(self) -> None:
        here, there = sealed_pair(self.UPDATE_AFTER)
        packets = [self.sealed_ping(here, number) for number in range(5)]
        for packet in packets[:3]:
            forged = bytearray(packet)
            forged[1] ^= wire.Flags.KEY_PHASE
            assert not self.opens(there, bytes(forged))
        assert all(self.opens(there, packet) for packet in packets)
        here.update_keys(100, 0)
        assert self.opens(there, self.sealed_ping(here, 100))

    @pytest.mark.parametrize("lost", [0, 1, 7])
    def test_a_batch_may_begin_a_key_phase(self, lost: int) -> None:
        """The first packet that arrives with the next keys installs them; the rest of the batch follows."""
        here, there = sealed_pair(self.UPDATE_AFTER)
        here.update_keys(100, 0)
        numbers = list(range(100 + lost, 110))
        packets, payload = stream_packets(here, numbers)
        (first,) = open_all(there, packets, numbers)
        rest = open_all(there, packets[1:], numbers[1:])
        assert first + b"".join(rest) == payload

    def test_each_direction_updates_on_its_own(self) -> None:
        here, there = sealed_pair(self.UPDATE_AFTER)
        here.update_keys(100, 0)
        assert self.opens(there, self.sealed_ping(here, 100))
        assert there.phase_flags == 0
        assert self.opens(here, self.sealed_ping(there, 0))
