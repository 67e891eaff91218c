"""Messages come out as they went in, however their bytes were cut, ordered, overlapped and repeated; spaces add up."""

import itertools
import struct

from hypothesis import given
from hypothesis import strategies as st

from toolkit.rudp.streams import MessageAssembler, SendSpace, segment_positions

messages = st.lists(st.binary(max_size=60), max_size=12)


def framed(sent: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(m)) + m for m in sent)


@given(messages, st.data())
def test_messages_survive_any_cutting_order_overlap_and_repetition(sent: list[bytes], data: st.DataObject) -> None:
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
    assert assembler.window == len(stream) + (1 << 20)


class Model:
    """A send space by the byte: each is unsent, in flight, lost or settled."""

    def __init__(self, length: int, payload_bytes: int) -> None:
        self.space = SendSpace(1 << 40)
        self.space.end = length
        self.payload_bytes = payload_bytes
        self.in_flight: list[tuple[int, int]] = []
        self.settled: set[int] = set()
        self.lost: set[int] = set()

    def take(self, max_packets: int) -> None:
        runs = self.space.take(max_packets, self.payload_bytes)
        positions = segment_positions(runs, self.payload_bytes).tolist() if runs else []
        assert len(positions) <= max_packets
        sent: list[int] = []
        for start, end in runs:
            assert start < end
            sent += range(start, end)
        assert len(set(sent)) == len(sent)
        assert not self.settled & set(sent)
        # The bytes of a packet run on from its position, and only the last packet may be short.
        for i, position in enumerate(positions):
            piece = sent[i * self.payload_bytes : (i + 1) * self.payload_bytes]
            assert piece == list(range(position, position + len(piece)))
            self.in_flight.append((position, position + len(piece)))
        self.lost -= set(sent)
        if self.lost and len(positions) < max_packets and positions:
            assert len(sent) % self.payload_bytes  # why it stopped: a short packet ends a batch

    def settle(self, index: int) -> None:
        if self.in_flight:
            run = self.in_flight.pop(index % len(self.in_flight))
            self.space.on_acked([run])
            self.settled |= set(range(*run))
            self.lost -= self.settled

    def lose(self, index: int) -> None:
        if self.in_flight:
            run = self.in_flight.pop(index % len(self.in_flight))
            self.space.on_lost([run])
            self.lost |= set(range(*run)) - self.settled

    def check(self) -> None:
        space = self.space
        assert {v for start, end in space.lost for v in range(start, end)} == self.lost
        assert {v for start, end in space.acked for v in range(start, end)} == self.settled
        assert space.is_fully_acked == (len(self.settled) == space.end)
        oldest = space.oldest_unsettled(self.payload_bytes)
        unsettled = sorted(set(range(space.next_position)) - self.settled)
        assert (oldest is None) == (not unsettled)
        if oldest is not None:
            assert oldest[0] == unsettled[0]
            assert not self.settled & set(range(*oldest))


steps = st.lists(
    st.tuples(st.sampled_from(["take", "take", "settle", "lose"]), st.integers(1, 8)), min_size=1, max_size=60
)


@given(st.integers(0, 200), st.integers(1, 30), steps)
def test_a_send_space_loses_nothing_and_sends_nothing_for_naught(
    length: int, payload_bytes: int, plan: list[tuple[str, int]]
) -> None:
    model = Model(length, payload_bytes)
    for name, argument in plan:
        getattr(model, name)(argument)
        model.check()
    for _ in range(10_000):
        if model.space.is_fully_acked:
            break
        model.take(50)
        while model.in_flight:
            model.settle(0)
    model.check()
    assert model.space.is_fully_acked
