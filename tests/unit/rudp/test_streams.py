"""The byte spaces: what is sent next, what is lost for good, and messages put together again."""

import struct

import pytest

from toolkit.errors import ProtocolError
from toolkit.rudp.streams import (
    MAX_MESSAGE_HOLES,
    MESSAGE_WINDOW_BYTES,
    MessageAssembler,
    MessageBuffer,
    SendSpace,
    segment_positions,
)

PAYLOAD = 100


def space_with(end: int, window: int = 1 << 40) -> SendSpace:
    space = SendSpace(window)
    space.end = end
    return space


class TestSendSpace:
    def test_sends_new_bytes_in_order_up_to_the_end(self) -> None:
        space = space_with(250)
        assert space.has_new
        assert space.take(2, PAYLOAD) == [(0, 200)]
        assert space.take(2, PAYLOAD) == [(200, 250)]
        assert not space.has_new
        assert space.take(2, PAYLOAD) == []

    def test_sends_nothing_beyond_the_peers_window(self) -> None:
        space = space_with(1000, window=150)
        assert space.take(9, PAYLOAD) == [(0, 150)]
        assert space.is_blocked
        assert not space.has_new
        space.window = 300
        assert not space.is_blocked
        assert space.take(9, PAYLOAD) == [(150, 300)]

    def test_is_not_blocked_by_the_window_when_there_is_nothing_new(self) -> None:
        space = space_with(150, window=150)
        space.take(9, PAYLOAD)
        assert not space.is_blocked

    def test_sends_lost_bytes_first_and_counts_them(self) -> None:
        space = space_with(1000)
        space.take(5, PAYLOAD)
        space.on_lost([(100, 200), (300, 400)])
        assert space.take(1, PAYLOAD) == [(100, 200)]
        assert space.take(3, PAYLOAD) == [(300, 400), (500, 700)]
        assert space.retransmitted_bytes == 200

    def test_joins_new_bytes_to_lost_ones_that_they_follow(self) -> None:
        space = space_with(1000)
        space.take(5, PAYLOAD)
        space.on_lost([(400, 500)])
        assert space.take(2, PAYLOAD) == [(400, 600)]

    def test_every_run_but_the_last_is_whole_payloads(self) -> None:
        space = space_with(1000)
        space.take(10, PAYLOAD)
        space.on_lost([(0, 130), (500, 600)])
        assert space.take(9, PAYLOAD) == [(0, 130)]
        assert space.take(9, PAYLOAD) == [(500, 600)]

    def test_takes_no_more_packets_than_asked_for(self) -> None:
        space = space_with(10_000)
        space.take(100, PAYLOAD)
        space.on_lost([(i, i + 100) for i in range(0, 2000, 200)])
        assert space.take(3, PAYLOAD) == [(0, 100), (200, 300), (400, 500)]

    def test_what_has_arrived_by_another_packet_is_not_lost(self) -> None:
        space = space_with(1000)
        space.take(10, PAYLOAD)
        space.on_acked([(0, 100), (250, 300), (500, 600)])
        space.on_lost([(0, 350), (450, 650)])
        assert list(space.lost) == [(100, 250), (300, 350), (450, 500), (600, 650)]

    def test_a_spurious_loss_is_not_sent_again(self) -> None:
        space = space_with(1000)
        space.take(10, PAYLOAD)
        space.on_lost([(0, 300)])
        space.on_acked([(100, 200)])
        assert list(space.lost) == [(0, 100), (200, 300)]

    def test_is_settled_when_everything_has_arrived(self) -> None:
        space = space_with(0)
        assert space.is_fully_acked
        space.end = 300
        space.take(3, PAYLOAD)
        space.on_acked([(100, 300)])
        assert not space.is_fully_acked
        space.on_acked([(0, 100)])
        assert space.is_fully_acked

    def test_knows_the_oldest_bytes_that_have_not_arrived(self) -> None:
        space = space_with(1000)
        assert space.oldest_unsettled(PAYLOAD) is None
        space.take(5, PAYLOAD)
        assert space.oldest_unsettled(PAYLOAD) == (0, 100)
        space.on_acked([(0, 200), (250, 300)])
        assert space.oldest_unsettled(PAYLOAD) == (200, 250)
        space.on_acked([(200, 250), (300, 460)])
        assert space.oldest_unsettled(PAYLOAD) == (460, 500)
        space.on_acked([(460, 500)])
        assert space.oldest_unsettled(PAYLOAD) is None

    def test_that_is_abandoned_sends_and_waits_for_nothing(self) -> None:
        space = space_with(1000)
        space.take(5, PAYLOAD)
        space.on_lost([(0, 100)])
        space.abandon()
        space.on_lost([(100, 200)])
        assert space.take(9, PAYLOAD) == []
        assert space.oldest_unsettled(PAYLOAD) is None
        assert space.is_fully_acked
        assert not space.is_blocked


def test_segment_positions() -> None:
    assert segment_positions([(0, 250)], 100).tolist() == [0, 100, 200]
    assert segment_positions([(500, 700), (900, 901)], 100).tolist() == [500, 600, 900]


class TestMessageBuffer:
    def test_reads_back_what_was_appended_until_it_is_released(self) -> None:
        buffer = MessageBuffer()
        assert buffer.append(b"first") == 9
        assert buffer.append(b"") == 13
        whole = bytearray(13)
        buffer.read_into(0, memoryview(whole))
        assert whole == b"\0\0\0\x05first\0\0\0\0"
        buffer.release(9)
        buffer.release(3)  # an older word: nothing changes
        assert buffer.append(b"x") == 18
        rest = bytearray(9)
        buffer.read_into(9, memoryview(rest))
        assert rest == b"\0\0\0\0\0\0\0\x01x"


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(m)) + m for m in messages)


def drained(assembler: MessageAssembler) -> list[bytes]:
    messages = []
    while (message := assembler.poll()) is not None:
        messages.append(message)
    return messages


class TestMessageAssembler:
    def test_a_message_is_delivered_when_all_of_it_is_there(self) -> None:
        assembler = MessageAssembler(1000)
        stream = framed(b"hello")
        for i in range(len(stream)):
            assert assembler.poll() is None
            assembler.receive_untrusted(i, memoryview(stream)[i : i + 1])
        assert drained(assembler) == [b"hello"]

    def test_later_messages_wait_for_earlier_ones(self) -> None:
        assembler = MessageAssembler(1000)
        stream = framed(b"one", b"two", b"")
        assembler.receive_untrusted(7, memoryview(stream)[7:])
        assert assembler.poll() is None
        assembler.receive_untrusted(0, memoryview(stream)[:7])
        assert drained(assembler) == [b"one", b"two", b""]

    def test_what_was_delivered_is_not_delivered_again(self) -> None:
        assembler = MessageAssembler(1000)
        stream = framed(b"one", b"two")
        for _ in range(3):
            assembler.receive_untrusted(0, memoryview(stream))
        assert drained(assembler) == [b"one", b"two"]

    def test_the_first_copy_of_a_byte_counts(self) -> None:
        assembler = MessageAssembler(1000)
        stream = framed(b"abcdef")
        assembler.receive_untrusted(4, memoryview(b"abc"))
        assembler.receive_untrusted(5, memoryview(b"XXXXX"))
        assembler.receive_untrusted(0, memoryview(stream)[:4])
        assert drained(assembler) == [b"abcXXX"]

    def test_a_piece_beyond_the_window_is_refused(self) -> None:
        assembler = MessageAssembler(1000)
        assembler.receive_untrusted(MESSAGE_WINDOW_BYTES - 1, memoryview(b"x"))
        with pytest.raises(ProtocolError, match="window"):
            assembler.receive_untrusted(MESSAGE_WINDOW_BYTES, memoryview(b"x"))
        with pytest.raises(ProtocolError, match="window"):
            assembler.receive_untrusted((1 << 64) - 1, memoryview(b"x"))

    def test_a_message_of_the_greatest_length_passes_and_a_longer_one_does_not(self) -> None:
        assembler = MessageAssembler(1000)
        assembler.receive_untrusted(0, memoryview(framed(bytes(1000))))
        assert drained(assembler) == [bytes(1000)]
        with pytest.raises(ProtocolError, match="1001 bytes"):
            assembler.receive_untrusted(1004, memoryview(struct.pack(">I", 1001)))

    def test_an_absurd_length_repeats_nothing_before_it(self) -> None:
        """A hostile sender repeats the packet; what it brought the first time is not brought again."""
        assembler = MessageAssembler(1000)
        stream = framed(b"good") + b"\xff\xff\xff\xff"
        for _ in range(5):
            with pytest.raises(ProtocolError):
                assembler.receive_untrusted(0, memoryview(stream))
        assert drained(assembler) == [b"good"]

    def test_the_window_opens_as_messages_are_taken_and_never_goes_back(self) -> None:
        assembler = MessageAssembler(1 << 19)
        assert assembler.window == assembler.announce() == MESSAGE_WINDOW_BYTES
        stream = framed(bytes(1 << 19), bytes(1 << 18))
        assembler.receive_untrusted(0, memoryview(stream))
        assert assembler.window == MESSAGE_WINDOW_BYTES
        assembler.poll()
        assert assembler.window == MESSAGE_WINDOW_BYTES + 4 + (1 << 19)
        assert assembler.wants_update
        assembler.announce()
        assert not assembler.wants_update
        assembler.poll()
        assert assembler.window == MESSAGE_WINDOW_BYTES + len(stream)
        assert not assembler.wants_update

    def test_keeps_no_more_than_the_window(self) -> None:
        assembler = MessageAssembler(1 << 18)
        message = framed(bytes((1 << 12) - 4))
        for position in range(0, MESSAGE_WINDOW_BYTES, len(message)):
            assembler.receive_untrusted(position, memoryview(message))  # an application that takes nothing
        with pytest.raises(ProtocolError, match="window"):
            assembler.receive_untrusted(MESSAGE_WINDOW_BYTES, memoryview(message))
        assert len(drained(assembler)) == MESSAGE_WINDOW_BYTES // len(message)

    def test_keeps_no_more_holes_than_a_window_has_packets_and_still_fills_them(self) -> None:
        assembler = MessageAssembler(1 << 18)
        byte = memoryview(b"\0")
        for i in range(MAX_MESSAGE_HOLES):
            assembler.receive_untrusted(2 * i + 1, byte)
        with pytest.raises(ProtocolError, match="holes"):
            assembler.receive_untrusted(2 * MAX_MESSAGE_HOLES + 1, byte)
        for i in range(MAX_MESSAGE_HOLES):
            assembler.receive_untrusted(2 * i, byte)
        assert drained(assembler) == [b""] * (MAX_MESSAGE_HOLES // 2)
