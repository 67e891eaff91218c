"""Sealed connections on hostile networks, in virtual time: key updates, and an attacker on the path."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from tests.support.engine_pair import MS, SECOND, Hazards, Pair, sealed_pair
from tests.support.repetitions import first_then_long
from toolkit.rudp import wire
from toolkit.rudp.wire import PacketType

HAZARDS = {
    "clean": Hazards(),
    "loss": Hazards(loss=0.1),
    "reordering": Hazards(reorder=0.3, reorder_ns=20 * MS),
    "everything": Hazards(loss=0.05, reorder=0.2, duplicate=0.1, corrupt=0.05, reorder_ns=20 * MS),
}


@pytest.mark.parametrize("hazards", sorted(HAZARDS))
@pytest.mark.parametrize("seed", first_then_long(range(3)))
def test_keys_are_updated_while_both_sides_send(seed: int, hazards: str) -> None:
    protections = sealed_pair(update_after=60)
    pair = Pair(seed, HAZARDS[hazards], data=600_000, back_data=600_000, protections=protections)
    messages = [random.Random(seed).randbytes(700)] * 5
    for end, _ in pair.ends:
        end.offer_all(messages)
    phases: set[tuple[int, int]] = set()
    while not pair.is_fully_acked:
        pair.run_for(5 * MS)
        phases.add((protections[0].phase_flags, protections[1].phase_flags))
    pair.check_data()
    assert pair.near.messages == pair.far.messages == messages
    assert pair.are_open
    assert {near for near, _ in phases} == {far for _, far in phases} == {0, wire.Flags.KEY_PHASE}


def test_a_side_that_only_receives_updates_its_keys_too() -> None:
    """Its acknowledgements are not acknowledged themselves: a PING now and then makes up for that."""
    protections = sealed_pair(update_after=50)
    pair = Pair(1, Hazards(rate_bps=50e6), data=5_000_000, protections=protections)
    pair.near.offer()
    phases = []
    while not pair.is_fully_acked:
        pair.run_for(5 * MS)
        phases.append(protections[1].phase_flags)
    pair.check_data()
    updates = sum(new != old for old, new in pairwise(phases))
    assert 3 <= updates <= pair.far.connection.stats().next_packet_number // 50
    assert pair.near.connection.stats().packets_invalid == 0


@pytest.mark.parametrize("seed", first_then_long(range(4)))
def test_an_attacker_on_the_path_only_loses_packets(seed: int) -> None:
    """It repeats, damages, truncates, extends and reflects every packet, and invents others."""
    rng = random.Random(seed)
    pair = Pair(seed, Hazards(), data=300_000, back_data=100_000, protections=sealed_pair(update_after=100))
    seen: dict[int, list[bytes]] = {0: [], 1: []}

    def forged(datagram: bytes) -> bytes:
        damaged = bytearray(datagram)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        number = rng.choice((0, rng.getrandbits(10), rng.getrandbits(62))).to_bytes(8, "big")
        return rng.choice(
            (
                bytes(damaged),
                datagram[: rng.randrange(1, len(datagram))],
                datagram + rng.randbytes(rng.randrange(1, 40)),
                datagram[:10] + number + datagram[18:],
                bytes([rng.choice(list(PacketType))]) + datagram[1:],
                rng.randbytes(rng.randrange(1, 1472)),
                datagram,
            )
        )

    def attack(side: int):  # type: ignore[no-untyped-def]
        def see(datagram: bytes) -> bool:
            seen[side].append(datagram)
            victim, other = (pair.far, pair.near) if side == 0 else (pair.near, pair.far)
            for _ in range(2):
                pair.inject(victim, forged(rng.choice(seen[side][-50:])), rng.randrange(20 * MS))
            pair.inject(other, datagram, rng.randrange(20 * MS))  # reflected
            return rng.random() < 0.05

        return see

    pair.near.hazards, pair.far.hazards = Hazards(drop=attack(0)), Hazards(drop=attack(1))
    for end, _ in pair.ends:
        end.offer_all([b"one", b"two"])
    pair.run_until_acked()
    assert pair.near.messages == pair.far.messages == [b"one", b"two"]
    assert pair.are_open
    for end, _ in pair.ends:
        assert end.connection.stats().packets_invalid > 100
    answered = pair.near.sent_bytes + pair.far.sent_bytes
    pair.near.hazards = pair.far.hazards = Hazards()
    for side, victim in ((0, pair.far), (1, pair.near)):
        for i, datagram in enumerate(seen[side]):
            pair.inject(victim, datagram, i * MS // 10)
    pair.run_for(2 * SECOND)
    assert pair.near.sent_bytes + pair.far.sent_bytes - answered < 20_000  # repeated packets cause no answers
    pair.check_data()
    assert pair.are_open


@pytest.mark.parametrize("seed", first_then_long(range(3)))
def test_sealed_packets_are_no_larger_than_others(seed: int) -> None:
    """The tag is part of every size: what the path carries is never exceeded."""
    largest = 1300
    sizes: Counter[int] = Counter()

    def measure(datagram: bytes) -> bool:
        sizes[len(datagram)] += 1
        return len(datagram) > largest or pair.random.random() < 0.05

    pair = Pair(seed, Hazards(drop=measure, rate_bps=20e6), data=5_000_000, protections=sealed_pair())
    pair.near.offer_all([bytes(20_000)])
    pair.run(lambda: pair.near.connection.stats().is_mtu_found)
    pair.run_until_acked()
    stats = pair.near.connection.stats()
    assert stats.datagram_bytes <= largest
    too_large = sum(count for size, count in sizes.items() if size > largest)
    assert 0 < too_large < 20, "only probes of the path MTU are larger"
    assert max(sizes) <= 1472
