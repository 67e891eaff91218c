"""Packet layouts: sizes, fields and limits. Round trips and hostile bytes are property tests."""

import numpy as np
import pytest

from toolkit.errors import ProtocolError
from toolkit.rudp import wire

IPV4_AND_UDP_BYTES = 20 + 8
ETHERNET_MTU_BYTES = 1500


def test_a_data_header_is_26_bytes() -> None:
    assert wire.HEADER_BYTES == wire.DATA.size == wire.DATA.dtype.itemsize == 26


def test_payload_is_95_percent_of_an_ethernet_packet_with_room_for_a_tag() -> None:
    payload_bytes = ETHERNET_MTU_BYTES - IPV4_AND_UDP_BYTES - wire.HEADER_BYTES - wire.TAG_BYTES
    assert payload_bytes == 1430
    assert payload_bytes / ETHERNET_MTU_BYTES >= 0.95


@pytest.mark.parametrize("kind", list(wire.LAYOUTS))
def test_struct_and_numpy_read_every_layout_alike(kind: wire.PacketType) -> None:
    layout = wire.LAYOUTS[kind]
    values = tuple(range(1, len(layout.fields) + 1))
    row = np.frombuffer(layout.pack(*values), layout.dtype)[0]
    assert tuple(int(v) for v in row) == values == layout.unpack_untrusted(layout.pack(*values))
    assert layout.dtype.names == tuple(f.name for f in layout.fields)
    assert all(f.meaning for f in layout.fields)


@pytest.mark.parametrize("kind", list(wire.LAYOUTS))
def test_every_packet_begins_with_type_flags_and_connection_id(kind: wire.PacketType) -> None:
    assert [f.name for f in wire.LAYOUTS[kind].fields[:3]] == ["type", "flags", "connection_id"]


@pytest.mark.parametrize("kind", list(wire.LAYOUTS))
def test_every_packet_after_the_handshake_continues_with_its_number(kind: wire.PacketType) -> None:
    assert wire.LAYOUTS[kind].fields[3].name == "packet_number"


def test_integers_are_in_network_byte_order() -> None:
    packed = wire.DATA.pack(wire.PacketType.DATA, 0, 0x0102030405060708, 1, 2)
    assert packed.hex() == "1000010203040506070800000000000000010000000000000002"


@pytest.mark.parametrize("missing", [1, 10, 26])
def test_a_layout_refuses_short_data(missing: int) -> None:
    with pytest.raises(ProtocolError, match="too short"):
        wire.DATA.unpack_untrusted(bytes(26 - missing))
    with pytest.raises(ProtocolError, match="too short"):
        wire.DATA.unpack_untrusted(bytes(40), 40 - 26 + missing)


def ack_packet(largest: int, ranges: list[tuple[int, int]], count: int | None = None) -> bytes:
    head = wire.ACK.pack(
        wire.PacketType.ACK, 0, 1, 0, largest, 0, 0, 0, 0, 0, 0, len(ranges) if count is None else count
    )
    return head + b"".join(wire.ACK_RANGE.pack(*r) for r in ranges)


class TestAck:
    def test_ranges_descend_from_the_largest(self) -> None:
        ack = wire.decode_ack_untrusted(ack_packet(100, [(0, 1), (10, 20), (1, 5)]))
        assert ack.ranges == [(100, 101), (70, 90), (64, 69)]

    @pytest.mark.parametrize(
        ("largest", "ranges"),
        [
            (100, []),
            (100, [(0, 0)]),  # nothing received
            (100, [(1, 1)]),  # a gap above the largest
            (100, [(0, 1), (0, 1)]),  # adjacent: must be one range
            (100, [(0, 102)]),  # below zero
            (100, [(0, 50), (50, 2)]),
            (wire.MAX_OFFSET, [(0, 1)]),
        ],
    )
    def test_invalid_ranges_are_refused(self, largest: int, ranges: list[tuple[int, int]]) -> None:
        with pytest.raises(ProtocolError):
            wire.decode_ack_untrusted(ack_packet(largest, ranges))

    def test_fewer_ranges_than_announced_are_refused(self) -> None:
        with pytest.raises(ProtocolError, match="incomplete ranges"):
            wire.decode_ack_untrusted(ack_packet(100, [(0, 1)], count=0xFFFF))

    @pytest.mark.parametrize("windows", [(wire.MAX_OFFSET + 1, 0), (0, wire.MAX_OFFSET + 1)])
    def test_windows_out_of_range_are_refused(self, windows: tuple[int, int]) -> None:
        ack = wire.AckPacket([(0, 1)], 0, *windows, 0, 0, 0)
        with pytest.raises(ProtocolError, match="out of range"):
            wire.decode_ack_untrusted(wire.encode_ack(1, 0, ack))

    @pytest.mark.parametrize("datagram_bytes", [1200, 1472, 65_507])
    def test_the_maximum_number_of_ranges_fits_with_a_tag(self, datagram_bytes: int) -> None:
        count = wire.max_ack_ranges(datagram_bytes - wire.TAG_BYTES)
        ranges = [(2 * i, 2 * i + 1) for i in reversed(range(count))]
        packet = wire.encode_ack(1, 0, wire.AckPacket(ranges, 0, 0, 0, 0, 0, 0))
        assert len(packet) + wire.TAG_BYTES <= datagram_bytes < len(packet) + wire.TAG_BYTES + wire.ACK_RANGE.size

    def test_more_ranges_than_the_peer_can_build_are_refused(self) -> None:
        """They would cost this side more than any correct peer does."""
        ranges = [(2 * i, 2 * i + 1) for i in reversed(range(100))]
        packet = wire.encode_ack(1, 0, wire.AckPacket(ranges, 0, 0, 0, 0, 0, 0))
        assert len(wire.decode_ack_untrusted(packet, 100).ranges) == 100
        with pytest.raises(ProtocolError, match="more ranges"):
            wire.decode_ack_untrusted(packet, 99)

    def test_counters_wrap_and_delays_saturate(self) -> None:
        ack = wire.AckPacket([(0, 1)], 1 << 40, 0, 0, (1 << 32) + 1, (1 << 32) + 2, (1 << 32) + 3)
        decoded = wire.decode_ack_untrusted(wire.encode_ack(1, 0, ack))
        assert decoded.delay_us == wire.UNKNOWN_DELAY_US
        assert (decoded.ect_count, decoded.ce_count, decoded.drop_count) == (1, 2, 3)


class TestClose:
    def test_a_long_reason_is_cut(self) -> None:
        _, reason = wire.decode_close_untrusted(wire.encode_close(1, 0, 4, "ü" * 1000))
        assert reason == "ü" * (wire.MAX_REASON_BYTES // 2)

    def test_invalid_utf_8_becomes_replacement_characters(self) -> None:
        packet = wire.CLOSE.pack(wire.PacketType.CLOSE, 0, 1, 0, 4, 2) + b"\xff\xfe"
        assert wire.decode_close_untrusted(packet) == (4, "\ufffd\ufffd")

    @pytest.mark.parametrize("reason_bytes", [3, 513, 0xFFFF])
    def test_an_incomplete_reason_is_refused(self, reason_bytes: int) -> None:
        packet = wire.CLOSE.pack(wire.PacketType.CLOSE, 0, 1, 0, 4, reason_bytes) + b"ab"
        with pytest.raises(ProtocolError, match="reason"):
            wire.decode_close_untrusted(packet)
