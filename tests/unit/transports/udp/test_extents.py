"""Extents in the data stream of a connection: announcements, the stash, and what is delivered when."""

import pytest

from tests.support.content import BytesSink, BytesSource
from toolkit.channel import Extent
from toolkit.errors import ProtocolError
from toolkit.transports.udp.extents import (
    ANNOUNCEMENTS_PER_MESSAGE,
    MAX_EXTENTS,
    STASH_BYTES,
    IncomingExtents,
    OutgoingExtents,
    decode_announcements_untrusted,
    encode_announcements,
)


class TestAnnouncements:
    def test_are_decoded_as_encoded(self) -> None:
        extents = [Extent(0, 0, 0), Extent(2**32 - 1, 1 << 43, 5)]
        assert decode_announcements_untrusted(encode_announcements(extents)) == extents

    @pytest.mark.parametrize("data", [b"x", encode_announcements([Extent(0, 0, 1)])[:-1], b"\xff" * 24])
    def test_invalid_bytes_are_a_protocol_error(self, data: bytes) -> None:
        with pytest.raises(ProtocolError):
            decode_announcements_untrusted(data)


class TestOutgoingExtents:
    def test_announces_each_extent_once_in_parts(self) -> None:
        outgoing = OutgoingExtents()
        extents = [Extent(number, 0, 1) for number in range(ANNOUNCEMENTS_PER_MESSAGE + 1)]
        for number, extent in enumerate(extents):
            outgoing.add(number, extent, BytesSource(b"x"))
        assert outgoing.unannounced == len(extents)
        parts = [decode_announcements_untrusted(part) for part in outgoing.take_announcements()]
        assert [len(part) for part in parts] == [ANNOUNCEMENTS_PER_MESSAGE, 1]
        assert [extent for part in parts for extent in part] == extents
        assert outgoing.unannounced == 0

    def test_reads_across_extents_and_skips_empty_ones(self) -> None:
        outgoing = OutgoingExtents()
        outgoing.add(0, Extent(0, 1, 3), BytesSource(b"abcd"))
        outgoing.add(3, Extent(1, 0, 0), BytesSource(b""))
        outgoing.add(3, Extent(2, 0, 2), BytesSource(b"ef"))
        buffer = bytearray(4)
        outgoing.read_into(1, memoryview(buffer))
        assert buffer == b"cdef"

    def test_releases_what_has_arrived_completely(self) -> None:
        outgoing = OutgoingExtents()
        source = BytesSource(b"abcd")
        extents = [Extent(0, 0, 2), Extent(0, 2, 2)]
        outgoing.add(0, extents[0], source)
        outgoing.add(2, extents[1], source)
        outgoing.release(3)
        assert source.released == extents[:1]
        outgoing.release_all()
        outgoing.release_all()
        assert source.released == extents


class TestIncomingExtents:
    def test_small_pieces_count_with_their_overhead(self) -> None:
        incoming = IncomingExtents()
        pieces = 0
        while incoming.accept_limit(has_sink=False):
            incoming.stash(2 * pieces, memoryview(b"x"))
            pieces += 1
        assert pieces < 1 << 18

    def test_a_full_stash_still_accepts_data_that_has_a_place(self) -> None:
        incoming = IncomingExtents()
        incoming.announce([Extent(0, 0, 5000)])
        assert incoming.accept_limit(has_sink=True) == 5000 + STASH_BYTES
        incoming.stash(5000, memoryview(bytes(STASH_BYTES)))
        assert incoming.accept_limit(has_sink=True) == 5000
        assert incoming.accept_limit(has_sink=False) == 0
        incoming.announce([Extent(1, 0, STASH_BYTES)])
        assert incoming.deliver_stash(BytesSink())
        assert incoming.accept_limit(has_sink=False) == 5000 + 2 * STASH_BYTES

    def test_the_stash_delivers_what_has_a_place(self) -> None:
        incoming = IncomingExtents()
        sink = BytesSink()
        for data_offset in range(20_000, 0, -2):
            incoming.stash(data_offset, memoryview(b"x"))
        assert not incoming.deliver_stash(sink)
        incoming.announce([Extent(0, 0, 5)])
        assert incoming.deliver_stash(sink)
        assert sink.pieces == {0: {2: b"x", 4: b"x"}}
        assert not incoming.deliver_stash(sink)

    def test_announced_data_that_came_without_a_sink_is_delivered(self) -> None:
        incoming = IncomingExtents()
        sink = BytesSink()
        incoming.announce([Extent(0, 0, 5)])
        incoming.stash(1, memoryview(b"yz"))
        assert incoming.deliver_stash(sink)
        assert sink.pieces == {0: {1: b"yz"}}

    def test_a_piece_beyond_the_announced_data_is_delivered_in_parts(self) -> None:
        incoming = IncomingExtents()
        sink = BytesSink()
        incoming.stash(0, memoryview(b"abcdef"))
        for file_id in range(2):
            incoming.announce([Extent(file_id, 0, 4)])
            assert incoming.deliver_stash(sink)
            assert not incoming.deliver_stash(sink)
        assert (sink.content(0), sink.content(1)) == (b"abcd", b"ef")
        assert incoming.stash_bytes == 0

    def test_the_number_of_announcements_is_limited(self) -> None:
        incoming = IncomingExtents()
        assert incoming.has_room
        incoming.announce([Extent(file_id, 0, 1) for file_id in range(MAX_EXTENTS)])
        assert not incoming.has_room
        incoming.forget(MAX_EXTENTS // 2)
        assert incoming.has_room

    def test_extents_are_forgotten_while_later_data_waits_for_its_announcement(self) -> None:
        """It would wait forever: without room, no announcement is taken."""
        incoming = IncomingExtents()
        incoming.announce([Extent(file_id, 0, 1) for file_id in range(MAX_EXTENTS)])
        incoming.stash(MAX_EXTENTS, memoryview(b"x"))
        incoming.forget(MAX_EXTENTS + 1)
        assert incoming.has_room
        sink = BytesSink()
        incoming.announce([Extent(MAX_EXTENTS, 0, 1)])
        assert incoming.deliver_stash(sink)
        assert sink.content(MAX_EXTENTS) == b"x"

    def test_an_extent_is_kept_while_its_data_waits_for_a_sink(self) -> None:
        incoming = IncomingExtents()
        incoming.announce([Extent(file_id, 0, 1) for file_id in range(8000)])
        incoming.stash(4000, memoryview(b"x"))
        incoming.forget(8000)
        sink = BytesSink()
        assert incoming.deliver_stash(sink)
        assert sink.content(4000) == b"x"

    def test_empty_extents_take_no_room(self) -> None:
        """No data arrives for them, so that nothing would wake a receiver that has left a message where it was."""
        incoming = IncomingExtents()
        incoming.announce([Extent(0, 0, 4)])
        incoming.announce([Extent(file_id, 0, 0) for file_id in range(1, MAX_EXTENTS + 1)])
        assert incoming.has_room
        incoming.announce([Extent(MAX_EXTENTS + 1, 0, 4)])
        sink = BytesSink()
        assert incoming.deliver(2, memoryview(b"cdef"), sink)
        assert sink.pieces == {0: {2: b"cd"}, MAX_EXTENTS + 1: {0: b"ef"}}
