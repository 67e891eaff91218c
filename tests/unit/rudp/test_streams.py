"""The send streams: what is sent next, what is retransmitted, and the buffer of messages."""

from toolkit.rudp.streams import MessageBuffer, SendStream, segment_offsets

PAYLOAD = 100


def stream_with(end: int, limit: int = 1 << 40) -> SendStream:
    stream = SendStream(limit)
    stream.end = end
    return stream


class TestSendStream:
    def test_sends_new_bytes_in_order_up_to_the_end(self) -> None:
        stream = stream_with(250)
        assert stream.has_new
        assert stream.take(2, PAYLOAD) == [(0, 200)]
        assert stream.take(2, PAYLOAD) == [(200, 250)]
        assert not stream.has_new
        assert stream.take(2, PAYLOAD) == []

    def test_sends_nothing_beyond_the_peers_limit(self) -> None:
        stream = stream_with(1000, limit=150)
        assert stream.take(9, PAYLOAD) == [(0, 150)]
        assert stream.is_blocked
        assert not stream.has_new
        stream.limit = 300
        assert not stream.is_blocked
        assert stream.take(9, PAYLOAD) == [(150, 300)]

    def test_is_not_blocked_when_there_is_nothing_new(self) -> None:
        stream = stream_with(150, limit=150)
        stream.take(9, PAYLOAD)
        assert not stream.is_blocked

    def test_sends_lost_bytes_first_and_counts_them(self) -> None:
        stream = stream_with(1000)
        stream.take(5, PAYLOAD)
        stream.on_lost([(100, 200), (300, 400)])
        assert stream.take(1, PAYLOAD) == [(100, 200)]
        assert stream.take(3, PAYLOAD) == [(300, 400), (500, 700)]
        assert stream.retransmitted_bytes == 200

    def test_joins_new_bytes_to_lost_bytes_before_them(self) -> None:
        stream = stream_with(1000)
        stream.take(5, PAYLOAD)
        stream.on_lost([(400, 500)])
        assert stream.take(2, PAYLOAD) == [(400, 600)]

    def test_every_range_but_the_last_fills_whole_packets(self) -> None:
        stream = stream_with(1000)
        stream.take(10, PAYLOAD)
        stream.on_lost([(0, 130), (500, 600)])
        assert stream.take(9, PAYLOAD) == [(0, 130)]
        assert stream.take(9, PAYLOAD) == [(500, 600)]

    def test_takes_no_more_packets_than_allowed(self) -> None:
        stream = stream_with(10_000)
        stream.take(100, PAYLOAD)
        stream.on_lost([(i, i + 100) for i in range(0, 2000, 200)])
        assert stream.take(3, PAYLOAD) == [(0, 100), (200, 300), (400, 500)]

    def test_bytes_that_arrived_in_another_packet_are_not_lost(self) -> None:
        stream = stream_with(1000)
        stream.take(10, PAYLOAD)
        stream.on_acked([(0, 100), (250, 300), (500, 600)])
        stream.on_lost([(0, 350), (450, 650)])
        assert list(stream.lost) == [(100, 250), (300, 350), (450, 500), (600, 650)]

    def test_a_spurious_loss_is_not_sent_again(self) -> None:
        stream = stream_with(1000)
        stream.take(10, PAYLOAD)
        stream.on_lost([(0, 300)])
        stream.on_acked([(100, 200)])
        assert list(stream.lost) == [(0, 100), (200, 300)]

    def test_is_fully_acked_when_everything_has_arrived(self) -> None:
        stream = stream_with(0)
        assert stream.is_fully_acked
        stream.end = 300
        stream.take(3, PAYLOAD)
        stream.on_acked([(100, 300)])
        assert not stream.is_fully_acked
        stream.on_acked([(0, 100)])
        assert stream.is_fully_acked

    def test_finds_the_oldest_unacknowledged_bytes(self) -> None:
        stream = stream_with(1000)
        assert stream.oldest_unacked(PAYLOAD) is None
        stream.take(5, PAYLOAD)
        assert stream.oldest_unacked(PAYLOAD) == (0, 100)
        stream.on_acked([(0, 200), (250, 300)])
        assert stream.oldest_unacked(PAYLOAD) == (200, 250)
        stream.on_acked([(200, 250), (300, 460)])
        assert stream.oldest_unacked(PAYLOAD) == (460, 500)
        stream.on_acked([(460, 500)])
        assert stream.oldest_unacked(PAYLOAD) is None

    def test_an_abandoned_stream_sends_nothing_and_waits_for_nothing(self) -> None:
        stream = stream_with(1000)
        stream.take(5, PAYLOAD)
        stream.on_lost([(0, 100)])
        stream.abandon()
        stream.on_lost([(100, 200)])
        assert stream.take(9, PAYLOAD) == []
        assert stream.oldest_unacked(PAYLOAD) is None
        assert stream.is_fully_acked
        assert not stream.is_blocked


def test_segment_offsets() -> None:
    assert segment_offsets([(0, 250)], 100).tolist() == [0, 100, 200]
    assert segment_offsets([(500, 700), (900, 901)], 100).tolist() == [500, 600, 900]


class TestMessageBuffer:
    def test_reads_back_what_was_appended_until_it_is_released(self) -> None:
        buffer = MessageBuffer()
        assert buffer.append(b"first") == 9
        assert buffer.append(b"") == 13
        whole = bytearray(13)
        buffer.read_into(0, memoryview(whole))
        assert whole == b"\0\0\0\x05first\0\0\0\0"
        buffer.release(9)
        buffer.release(3)  # below what was released: no effect
        assert buffer.append(b"x") == 18
        rest = bytearray(9)
        buffer.read_into(9, memoryview(rest))
        assert rest == b"\0\0\0\0\0\0\0\x01x"
