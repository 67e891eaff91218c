"""SentPackets against a dictionary, over long runs of sending, acknowledging and losing that make it compact."""

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from toolkit.rudp import wire
from toolkit.rudp.range_set import RangeSet
from toolkit.rudp.sent_packets import SendState, SentPackets

SIZE = 100 + wire.HEADER_BYTES


class Model:
    """Packet numbers by what has become of them; `told` is what the receiver has and goes on repeating."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.sent = SentPackets()
        self.in_flight: set[int] = set()
        self.lost: set[int] = set()
        self.told = RangeSet()
        self.largest = -1

    def record(self, count: int) -> None:
        positions = 100 * np.arange(count)
        state = SendState(self.sent.next_packet_number, 0, 0, 0, 0, 0, False)
        numbers = self.sent.record(wire.PacketType.DATA, positions, np.full(count, SIZE, np.int32), state)
        self.in_flight.update(numbers.tolist())

    def skip(self) -> None:
        number = self.sent.skip()
        self.told.add(number, number + 1)

    def acknowledge(self, share: float, limit: int) -> None:
        """A share of what is in flight or was given up arrives; at most `limit` ranges are told, newest first."""
        for number in sorted(self.in_flight | self.lost):
            if self.random.random() < share:
                self.told.add(number, number + 1)
        ranges = self.told.newest_first(0, limit)
        if not ranges:
            return
        view = self.sent._base
        settled = self.sent.acknowledge_untrusted(ranges)
        named = {n for start, end in ranges for n in range(max(start, view), end)}
        expected = sorted((self.in_flight | self.lost) & named)
        assert ([] if settled is None else settled.packet_numbers.tolist()) == expected
        if settled is not None:
            late = sorted(self.lost & set(expected))
            assert settled.spurious.tolist() == late
            assert settled.spurious_bytes == len(late) * SIZE
            assert settled.bytes == len(expected) * SIZE
            assert settled.newest == expected[-1]
            first_of_batch = settled.newest_state.sent_time_ns
            assert first_of_batch <= settled.newest
            self.largest = max(self.largest, settled.newest)
        self.in_flight -= named
        self.lost -= named

    def lose(self, threshold: int) -> None:
        settled, _ = self.sent.detect_lost(self.largest, 0, 1 << 60, threshold)
        expected = sorted(n for n in self.in_flight if n <= self.largest - threshold)
        assert ([] if settled is None else settled.packet_numbers.tolist()) == expected
        self.in_flight.difference_update(expected)
        self.lost.update(expected)

    def check(self) -> None:
        assert self.sent.least_unacked == min(self.in_flight, default=self.sent.next_packet_number)
        self.lost = {n for n in self.lost if n >= self.sent._base}


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


# Shrinking would take minutes here, and a counterexample is as readable without.
@settings(max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.integers(0, 2**32), rounds)
def test_it_agrees_with_a_model(seed: int, steps: list[dict[str, float]]) -> None:
    model = Model(seed)
    for step in steps:
        model.record(int(step["count"]))
        for _ in range(int(step["skips"])):
            model.skip()
        model.check()
        model.acknowledge(step["share"], int(step["limit"]))
        model.check()
        model.lose(int(step["threshold"]))
        model.check()
