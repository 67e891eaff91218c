"""Every packet type survives encoding and decoding; hostile bytes give ProtocolError or a value at every decoder."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hostile_bytes import damaged
from toolkit.channel import Extent
from toolkit.errors import ProtocolError
from toolkit.rudp import wire
from toolkit.transports.udp.extents import decode_announcements_untrusted, encode_announcements

connection_ids = st.integers(0, (1 << 64) - 1)
packet_numbers = st.integers(0, wire.MAX_OFFSET - 1)
windows = st.integers(0, wire.MAX_OFFSET)
counters = st.integers(0, 0xFFFF_FFFF)


@st.composite
def ack_ranges(draw: st.DrawFn) -> list[tuple[int, int]]:
    steps = draw(st.lists(st.tuples(st.integers(1, 1 << 30), st.integers(1, 1 << 30)), min_size=1, max_size=50))
    end = draw(st.integers(sum(map(sum, steps)), wire.MAX_OFFSET - 1))
    ranges = []
    for gap, length in steps:
        ranges.append((end - length, end))
        end -= length + gap
    return ranges


acks = st.builds(wire.AckPacket, ack_ranges(), counters, windows, windows, counters, counters, counters)
closes = st.tuples(st.integers(0, 0xFFFF), st.text(max_size=100))
extents = st.builds(Extent, st.integers(0, (1 << 32) - 1), st.integers(0, 1 << 62), st.integers(0, (1 << 62) - 1))


@given(connection_ids, packet_numbers, acks)
def test_ack(connection_id: int, number: int, ack: wire.AckPacket) -> None:
    datagram = wire.encode_ack(connection_id, number, ack)
    assert wire.decode_ack_untrusted(datagram) == ack
    assert wire.COMMON.unpack_untrusted(datagram) == (wire.PacketType.ACK, 0, connection_id, number)


@given(connection_ids, packet_numbers, closes)
def test_close(connection_id: int, number: int, close: tuple[int, str]) -> None:
    datagram = wire.encode_close(connection_id, number, *close)
    assert wire.decode_close_untrusted(datagram) == close
    assert wire.COMMON.unpack_untrusted(datagram) == (wire.PacketType.CLOSE, 0, connection_id, number)


@pytest.mark.parametrize("kind", list(wire.LAYOUTS))
@given(data=st.data())
def test_fixed_fields_of_every_type(kind: wire.PacketType, data: st.DataObject) -> None:
    layout = wire.LAYOUTS[kind]
    width = {"B": 8, "H": 16, "I": 32, "Q": 64}
    values = tuple(data.draw(st.integers(0, (1 << width[f.code]) - 1), label=f.name) for f in layout.fields)
    assert layout.unpack_untrusted(layout.pack(*values)) == values
    assert layout.unpack_untrusted(b"ab" + layout.pack(*values) + b"c", 2) == values


@given(st.lists(extents, max_size=20))
def test_announcements(listed: list[Extent]) -> None:
    assert decode_announcements_untrusted(encode_announcements(listed)) == listed


DECODERS: list[tuple[Callable[..., object], st.SearchStrategy[bytes]]] = [
    (wire.connection_id_untrusted, closes.map(lambda close: wire.encode_close(7, 8, *close))),
    (wire.decode_ack_untrusted, acks.map(lambda ack: wire.encode_ack(7, 8, ack))),
    (wire.decode_close_untrusted, closes.map(lambda close: wire.encode_close(7, 8, *close))),
    (decode_announcements_untrusted, st.lists(extents, max_size=5).map(encode_announcements)),
]


@pytest.mark.parametrize(("decode", "valid"), DECODERS, ids=lambda d: getattr(d, "__name__", ""))
@given(data=st.data())
def test_hostile_bytes_raise_protocol_error_and_nothing_else(
    decode: Callable[..., object], valid: st.SearchStrategy[bytes], data: st.DataObject
) -> None:
    packet = data.draw(damaged(valid))
    for given_as in (packet, memoryview(packet)):
        with contextlib.suppress(ProtocolError):
            decode(given_as)


@given(damaged(acks.map(lambda ack: wire.encode_ack(7, 8, ack))))
def test_a_decoded_ack_has_valid_ranges(packet: bytes) -> None:
    try:
        ack = wire.decode_ack_untrusted(packet)
    except ProtocolError:
        return
    previous_start = None
    for start, end in ack.ranges:
        assert 0 <= start < end <= wire.MAX_OFFSET
        assert previous_start is None or end < previous_start
        previous_start = start
