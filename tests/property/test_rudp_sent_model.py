"""SentPackets agrees with a model of sets over long runs of sending, acknowledging and losing, with compaction."""

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.support.repetitions import examples
from toolkit.rudp import wire
from toolkit.rudp.range_set import RangeSet
from toolkit.rudp.sent_packets import SendState, SentPackets

SIZE = 100 + wire.HEADER_BYTES


class Model:
    """Packet numbers by their state; `received` is what the receiver acknowledges again and again."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.sent = SentPackets(wire.HEADER_BYTES)
        self.in_flight: set[int] = set()
        self.lost: set[int] = set()
        self.received = RangeSet()
        self.largest = -1

    def record(self, count: int) -> None:
        offsets = 100 * np.arange(count)
        state = SendState(self.sent.next_packet_number, 0, 0, 0, 0, 0, False)
        numbers = self.sent.record(wire.PacketType.DATA, offsets, np.full(count, SIZE, np.int32), state)
        self.in_flight.update(numbers.tolist())

    def send_non_eliciting(self) -> None:
        number = self.sent.number_non_eliciting()
        self.received.add(number, number + 1)

    def acknowledge(self, share: float, limit: int) -> None:
        """A share of what is in flight or lost arrives; at most `limit` ranges are acknowledged, newest first."""
        for number in sorted(self.in_flight | self.lost):
            if self.random.random() < share:
                self.received.add(number, number + 1)
        ranges = self.received.newest_first(0, limit)
        if not ranges:
            return
        base = self.sent.base
        group = self.sent.acknowledge_untrusted(ranges)
        named = {n for start, end in ranges for n in range(max(start, base), end)}
        expected = sorted((self.in_flight | self.lost) & named)
        assert ([] if group is None else group.packet_numbers.tolist()) == expected
        if group is not None:
            spurious = sorted(self.lost & set(expected))
            assert group.spurious.tolist() == spurious
            assert group.spurious_bytes == len(spurious) * SIZE
            assert group.bytes == len(expected) * SIZE
            assert group.newest == expected[-1]
            first_of_batch = group.newest_state.sent_time_ns
            assert first_of_batch <= group.newest
            self.largest = max(self.largest, group.newest)
        self.in_flight -= named
        self.lost -= named

    def lose(self, threshold: int) -> None:
        group, _ = self.sent.detect_lost(self.largest, 0, 1 << 60, threshold)
        expected = sorted(n for n in self.in_flight if n <= self.largest - threshold)
        assert ([] if group is None else group.packet_numbers.tolist()) == expected
        self.in_flight.difference_update(expected)
        self.lost.update(expected)

    def check(self) -> None:
        assert self.sent.least_unacked == min(self.in_flight, default=self.sent.next_packet_number)
        self.lost = {n for n in self.lost if n >= self.sent.base}


rounds = st.lists(
    st.fixed_dictionaries(
        {
            "count": st.integers(1, 6000),
            "skips": st.integers(0, 2),
            "share": st.sampled_from([0.5, 0.97, 0.999, 1.0]),
            "limit": st.sampled_from([1, 5, 5000]),
            "threshold": st.sampled_from([1, 3, 100]),
        }
    ),
    min_size=1,
    max_size=20,
)


# Shrinking would take minutes, and a counterexample is readable without it.
@settings(max_examples=examples(60), phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.integers(0, 2**32), rounds)
def test_agrees_with_a_model(seed: int, steps: list[dict[str, float]]) -> None:
    model = Model(seed)
    for step in steps:
        model.record(int(step["count"]))
        for _ in range(int(step["skips"])):
            model.send_non_eliciting()
        model.check()
        model.acknowledge(step["share"], int(step["limit"]))
        model.check()
        model.lose(int(step["threshold"]))
        model.check()
