"""Super-packets cut into runs and single packets give what a device would have put on the wire.

The reference is independent of the code under test: it builds each wire packet from the fields of the original, with
complete checksums. The checksums of the cut packets are completed before the comparison.
"""

import struct
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.repetitions import examples
from toolkit.emulator.offload import SuperPacket

VNET = "=BBHHHH"
NEEDS_CSUM = 1
TCPV4, TCPV6, UDP_L4 = 1, 4, 5
TCP, UDP = 6, 17
FIN, PSH, ACK, CWR = 0x01, 0x08, 0x10, 0x80
ENDS_V4 = bytes([198, 18, 0, 1, 198, 18, 0, 2])
ENDS_V6 = bytes.fromhex("20010002000000000000000000000001200100020000000000000000000000fe")


def checksum(data: bytes) -> int:
    """RFC 1071, word by word."""
    total = 0
    for (word,) in struct.iter_unpack("!H", data + b"\0" * (len(data) % 2)):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


@dataclass(frozen=True)
class Original:
    """A TCP or UDP super-packet as its sender made it."""

    is_ipv6: bool
    protocol: int
    segment: int
    payload: bytes
    identification: int = 0
    sequence: int = 0
    flags: int = ACK
    ecn: int = 0
    options: bytes = b""

    def packet(self, index: int, count: int, *, is_marked: bool = False) -> bytes:
        """Packets [index, index + count) as one IP packet with a complete checksum."""
        payload = self.payload[index * self.segment : (index + count) * self.segment]
        is_last = (index + count) * self.segment >= len(self.payload)
        flags = self.flags if is_last else self.flags & ~(FIN | PSH)
        flags = flags & ~CWR if index else flags
        return self._packet(
            payload, self.identification + index, self.sequence + index * self.segment, flags, is_marked
        )

    def _packet(self, payload: bytes, identification: int, sequence: int, flags: int, is_marked: bool) -> bytes:
        if self.protocol == TCP:
            words = 5 + len(self.options) // 4
            header = struct.pack("!HHIIBBHHH", 40000, 5201, sequence % 2**32, 99, words << 4, flags, 500, 0, 0)
            header += self.options
            at = 16
        else:
            header = struct.pack("!HHHH", 40000, 9000, 8 + len(payload), 0)
            at = 6
        segment = header + payload
        ends = ENDS_V6 if self.is_ipv6 else ENDS_V4
        pseudo = ends + struct.pack("!II", len(segment), self.protocol)
        value = 0xFFFF - checksum(pseudo + segment)
        segment = segment[:at] + struct.pack("!H", value or 0xFFFF) + segment[at + 2 :]
        return self._ip(len(segment), identification, 3 if is_marked else self.ecn) + segment

    def _ip(self, length: int, identification: int, ecn: int) -> bytes:
        if self.is_ipv6:
            return struct.pack("!IHBB", 6 << 28 | ecn << 20, length, self.protocol, 64) + ENDS_V6
        header = struct.pack("!BBHHHBBH", 0x45, ecn, 20 + length, identification % 2**16, 0x4000, 64, self.protocol, 0)
        value = 0xFFFF - checksum(header + ENDS_V4)
        return header[:10] + struct.pack("!H", value) + ENDS_V4

    def super_packet(self) -> bytes:
        """As TUN yields it: one IP header, and the sum of the pseudo-header in place of the checksum."""
        ip = 40 if self.is_ipv6 else 20
        whole = bytearray(self._packet(self.payload, self.identification, self.sequence, self.flags, False))
        at = ip + (16 if self.protocol == TCP else 6)
        ends = ENDS_V6 if self.is_ipv6 else ENDS_V4
        pseudo = checksum(ends + struct.pack("!II", len(whole) - ip, self.protocol))
        struct.pack_into("!H", whole, at, pseudo)
        kind = UDP_L4 if self.protocol == UDP else TCPV6 if self.is_ipv6 else TCPV4
        header_bytes = ip + (8 if self.protocol == UDP else 20 + len(self.options))
        return struct.pack(VNET, NEEDS_CSUM, kind, header_bytes, self.segment, ip, at - ip) + whole


def completed(written: bytes) -> tuple[bytes, int, int]:
    """A write with its checksum completed as a device does, its gso_type and its gso_size."""
    flags, kind, _, size, start, offset = struct.unpack_from(VNET, written)
    packet = bytearray(written[10:])
    assert flags == NEEDS_CSUM
    value = 0xFFFF - checksum(bytes(packet[start:]))
    struct.pack_into("!H", packet, start + offset, value or 0xFFFF)
    return bytes(packet), kind, size


ORIGINALS = st.builds(
    Original,
    is_ipv6=st.booleans(),
    protocol=st.sampled_from([TCP, UDP]),
    segment=st.integers(1, 60),
    payload=st.binary(min_size=61, max_size=400),
    identification=st.sampled_from([0, 7, 0xFFFE]),
    sequence=st.sampled_from([0, 2**32 - 100]),
    flags=st.sampled_from([ACK, ACK | PSH, ACK | PSH | FIN, ACK | CWR]),
    ecn=st.sampled_from([0, 1, 2, 3]),
    options=st.sampled_from([b"", bytes(12)]),
)


@given(ORIGINALS)
@settings(max_examples=examples(100))
def test_a_super_packet_has_the_sizes_of_its_packets(original: Original) -> None:
    seen = SuperPacket(original.super_packet())
    singles = -(-len(original.payload) // original.segment)
    assert seen.packets == singles
    assert seen.packet_bytes == len(original.packet(0, 1))
    assert seen.last_bytes == len(original.packet(singles - 1, 1))
    assert seen.is_ecn == (original.ecn in (1, 2))


@given(ORIGINALS, st.data(), st.booleans())
@settings(max_examples=examples(200))
def test_a_cut_equals_what_the_wire_would_carry(original: Original, data: st.DataObject, is_marked: bool) -> None:
    seen = SuperPacket(original.super_packet())
    cuts = data.draw(st.sets(st.integers(1, seen.packets), max_size=4)) | {0, seen.packets}
    for first, end in pairwise(sorted(cuts)):
        written = b"".join(seen.cut(first, end - first, is_marked))
        packet, kind, size = completed(written)
        assert packet == original.packet(first, end - first, is_marked=is_marked)
        if end - first == 1:
            assert (kind, size) == (0, 0)
        else:
            assert (kind & 0x7F, size) == (struct.unpack_from(VNET, original.super_packet())[1], original.segment)


@given(ORIGINALS, st.data())
@settings(max_examples=examples(200))
def test_corruption_flips_one_bit_of_a_packet_with_a_complete_checksum(original: Original, data: st.DataObject) -> None:
    seen = SuperPacket(original.super_packet())
    index = data.draw(st.integers(0, seen.packets - 1))
    place = data.draw(st.floats(0, 1, exclude_max=True))
    written = bytes(seen.corrupted(index, place))
    assert written[:10] == bytes(10)  # the receiving kernel has to verify the checksum
    whole = original.packet(index, 1)
    differences = [a ^ b for a, b in zip(written[10:], whole, strict=True)]
    assert sum(d.bit_count() for d in differences) == 1
    ip = 40 if original.is_ipv6 else 20
    assert not any(differences[:ip])


def test_a_packet_without_offload_passes_unchanged() -> None:
    packet = bytes(10) + Original(False, UDP, 1000, bytes(300)).packet(0, 1)
    seen = SuperPacket(packet)
    assert (seen.packets, seen.packet_bytes, seen.last_bytes) == (1, 328, 328)
    assert seen.cut(0, 1) == [packet]
    marked = b"".join(seen.cut(0, 1, is_marked=True))
    assert marked[10:] == Original(False, UDP, 1000, bytes(300)).packet(0, 1, is_marked=True)
    damaged = bytes(seen.corrupted(0, 0.5))
    assert sum((a ^ b).bit_count() for a, b in zip(damaged, packet, strict=True)) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(10),
        bytes(29),
        bytes(60),
        struct.pack(VNET, 1, TCPV4, 40, 0, 20, 16) + b"\x45" + bytes(80),
        struct.pack(VNET, 1, TCPV4, 40, 1448, 200, 16) + b"\x45" + bytes(80),
    ],
)
def test_data_that_is_not_an_ip_packet_is_rejected(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        SuperPacket(data)
