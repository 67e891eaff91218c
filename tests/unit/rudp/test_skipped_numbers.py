"""Which packet numbers are skipped, and that an acknowledgement of one is recognised."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.rudp import wire
from toolkit.rudp.sent_packets import SendState, SentPackets
from toolkit.rudp.skipped_numbers import INITIAL_PERIOD_PACKETS, MAX_PERIOD_PACKETS, SkippedNumbers, SkippedPacketError


def skipped(seed: int, count: int) -> tuple[SkippedNumbers, list[int]]:
    """The numbers that are skipped if each of them is reached."""
    numbers = SkippedNumbers(seed)
    found = []
    for _ in range(count):
        found.append(numbers.next_number)
        numbers.skip(numbers.next_number)
    return numbers, found


def test_they_depend_on_the_seed_alone() -> None:
    assert skipped(1, 20)[1] == skipped(1, 20)[1]
    assert skipped(1, 20)[1] != skipped(2, 20)[1]


@pytest.mark.parametrize("seed", range(20))
def test_they_become_rare(seed: int) -> None:
    _, found = skipped(seed, 40)
    assert 0 < found[0] <= 2 * INITIAL_PERIOD_PACKETS
    gaps = [later - earlier for earlier, later in pairwise(found)]
    assert all(0 < gap <= 2 * MAX_PERIOD_PACKETS for gap in gaps)
    assert sum(gaps[-20:]) / 20 > MAX_PERIOD_PACKETS / 3


@given(st.data())
def test_an_acknowledgement_is_refused_if_it_contains_one_of_the_last(data: st.DataObject) -> None:
    numbers, found = skipped(data.draw(st.integers(0, 100)), 6)
    cuts = data.draw(st.sets(st.integers(0, found[-1] + 10), min_size=2, max_size=30))
    edges = sorted(cuts)[: len(cuts) // 2 * 2]
    ranges = [(edges[i], edges[i + 1]) for i in range(0, len(edges), 2)][::-1]
    if any(start <= number < end for start, end in ranges for number in found):
        with pytest.raises(SkippedPacketError):
            numbers.check_untrusted(ranges)
    else:
        numbers.check_untrusted(ranges)


def test_a_sender_skips_them_between_batches_and_knows_them_when_they_are_acknowledged() -> None:
    sent = SentPackets(wire.HEADER_BYTES, skip_seed=3)
    used: set[int] = set()
    state = SendState(0, 0, 0, 0, 0, 0, False)
    while len(used) < 5000:
        used |= set(sent.record(wire.PacketType.DATA, np.arange(10) * 100, 126, state).tolist())
    missing = sorted(set(range(sent.next_packet_number)) - used)
    assert 3 <= len(missing) <= 7
    edges = [-1, *missing, sent.next_packet_number]
    honest = [(a + 1, b) for a, b in pairwise(edges) if a + 1 < b][::-1]
    for number in missing:
        optimistic = SentPackets(wire.HEADER_BYTES, skip_seed=3)
        while optimistic.next_packet_number < sent.next_packet_number:
            optimistic.record(wire.PacketType.DATA, np.arange(10) * 100, 126, state)
        with pytest.raises(SkippedPacketError, match=f"packet {number}"):
            optimistic.acknowledge_untrusted([(number, number + 1)])
    acked = sent.acknowledge_untrusted(honest)
    assert acked is not None
    assert acked.packets == len(used)
