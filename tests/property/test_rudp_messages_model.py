"""Messages survive any order, overlap and repetition of their bytes; a send stream loses nothing."""

import itertools
import struct

from hypothesis import given
from hypothesis import strategies as st

from toolkit.rudp.assembler import MessageAssembler
from toolkit.rudp.streams import SendStream, segment_offsets

messages = st.lists(st.binary(max_size=60), max_size=12)


def framed(sent: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(m)) + m for m in sent)


@given(messages, st.data())
def test_messages_survive_any_order_overlap_and_repetition(sent: list[bytes], data: st.DataObject) -> None:
    stream = framed(sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    edges = sorted({0, len(stream), *cuts})
    pieces = list(itertools.pairwise(edges))
    bounds = st.integers(0, len(stream))
    extra = data.draw(st.lists(st.tuples(bounds, bounds), max_size=10))
    pieces += [(min(p), max(p)) for p in extra]
    assembler = MessageAssembler(100)
    received = []
    for start, stop in data.draw(st.permutations(pieces)):
        assembler.receive_untrusted(start, memoryview(stream)[start:stop])
        while data.draw(st.booleans()) and (message := assembler.poll()) is not None:
            received.append(message)
    while (message := assembler.poll()) is not None:
        received.append(message)
    assert received == sent
    assert assembler.window.limit == len(stream) + (1 << 20)


class Model:
    """A send stream by the byte: each is unsent, in flight, lost or acknowledged."""

    def __init__(self, length: int, payload_bytes: int) -> None:
        self.stream = SendStream(1 << 40)
        self.stream.end = length
        self.payload_bytes = payload_bytes
        self.in_flight: list[tuple[int, int]] = []
        self.acked: set[int] = set()
        self.lost: set[int] = set()

    def take(self, max_packets: int) -> None:
        runs = self.stream.take(max_packets, self.payload_bytes)
        offsets = segment_offsets(runs, self.payload_bytes).tolist() if runs else []
        assert len(offsets) <= max_packets
        sent: list[int] = []
        for start, end in runs:
            assert start < end
            sent += range(start, end)
        assert len(set(sent)) == len(sent)
        assert not self.acked & set(sent)
        # The bytes of a packet are consecutive, and only the last packet may be short.
        for i, offset in enumerate(offsets):
            piece = sent[i * self.payload_bytes : (i + 1) * self.payload_bytes]
            assert piece == list(range(offset, offset + len(piece)))
            self.in_flight.append((offset, offset + len(piece)))
        self.lost -= set(sent)
        if self.lost and len(offsets) < max_packets and offsets:
            assert len(sent) % self.payload_bytes  # a short packet ends a batch

    def ack(self, index: int) -> None:
        if self.in_flight:
            run = self.in_flight.pop(index % len(self.in_flight))
            self.stream.on_acked([run])
            self.acked |= set(range(*run))
            self.lost -= self.acked

    def lose(self, index: int) -> None:
        if self.in_flight:
            run = self.in_flight.pop(index % len(self.in_flight))
            self.stream.on_lost([run])
            self.lost |= set(range(*run)) - self.acked

    def check(self) -> None:
        stream = self.stream
        assert {v for start, end in stream.lost for v in range(start, end)} == self.lost
        assert {v for start, end in stream.acked for v in range(start, end)} == self.acked
        assert stream.is_fully_acked == (len(self.acked) == stream.end)
        oldest = stream.oldest_unacked(self.payload_bytes)
        unacked = sorted(set(range(stream.next_offset)) - self.acked)
        assert (oldest is None) == (not unacked)
        if oldest is not None:
            assert oldest[0] == unacked[0]
            assert not self.acked & set(range(*oldest))


steps = st.lists(
    st.tuples(st.sampled_from(["take", "take", "ack", "lose"]), st.integers(1, 8)), min_size=1, max_size=60
)


@given(st.integers(0, 200), st.integers(1, 30), steps)
def test_a_send_stream_loses_nothing_and_retransmits_only_what_was_lost(
    length: int, payload_bytes: int, plan: list[tuple[str, int]]
) -> None:
    model = Model(length, payload_bytes)
    for name, argument in plan:
        getattr(model, name)(argument)
        model.check()
    for _ in range(10_000):
        if model.stream.is_fully_acked:
            break
        model.take(50)
        while model.in_flight:
            model.ack(0)
    model.check()
    assert model.stream.is_fully_acked
