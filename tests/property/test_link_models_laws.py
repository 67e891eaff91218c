"""Invariants of the path model for every path and all traffic: complete, causal and deterministic."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.repetitions import examples
from toolkit.netmodel.path import Fate, PathModel
from toolkit.netmodel.spec import BurstLoss, LinkChange, PathSpec, QueueSpec

MS = 1_000_000
RTT_NS = 20 * MS
SHARES = st.sampled_from([0.0, 0.05, 0.3])
QUEUES = st.builds(
    QueueSpec,
    limit_bytes=st.sampled_from([3000, 30_000]),
    codel=st.booleans(),
    ecn=st.booleans(),
    target_ns=st.just(2 * MS),
    interval_ns=st.just(10 * MS),
)
PATHS = st.builds(
    PathSpec,
    rate_bps=st.sampled_from([2e6, 5e7]),
    delay_ns=st.sampled_from([0, 3 * MS]),
    jitter_ns=st.sampled_from([0, 2 * MS]),
    jitter_reorders=st.booleans(),
    loss=SHARES,
    burst=st.sampled_from([None, BurstLoss(20 * MS, 5 * MS, 0.01, 0.7)]),
    duplicate=SHARES,
    corrupt=SHARES,
    reorder=SHARES,
    queue=QUEUES,
    changes=st.sampled_from(
        [
            (),
            (
                LinkChange(20 * MS, rate_bps=1e6, delay_ns=MS),
                LinkChange(40 * MS, loss=0.5),
                LinkChange(50 * MS, blackout_ns=5 * MS),
            ),
        ]
    ),
)
# (pause before it in us, packets, bytes of each, bytes of the last, carries ECT)
BURSTS = st.lists(
    st.tuples(st.integers(0, 8000), st.integers(1, 40), st.integers(100, 1500), st.integers(40, 100), st.booleans()),
    min_size=1,
    max_size=25,
)
Burst = tuple[int, int, int, int, bool]


def carry(spec: PathSpec, bursts: list[Burst], seed: int, *, one_by_one: bool = False) -> tuple[list[Fate], list[int]]:
    """Send `bursts` over a path; return all fates, and when each packet was offered."""
    path = PathModel(spec, RTT_NS, seed)
    fates: list[Fate] = []
    offered: list[int] = []
    now_ns = 0
    for pause_us, packets, size, last, is_ecn in bursts:
        now_ns += pause_us * 1000
        if one_by_one:
            for index in range(packets):
                path.handle_packets(now_ns, size if index < packets - 1 else last, is_ecn=is_ecn)
        else:
            path.handle_packets(now_ns, size, packets, last, is_ecn)
        offered += [now_ns] * packets
        fates += path.poll_fates(now_ns)
    while (next_ns := path.next_fate_ns()) is not None:
        now_ns = max(now_ns, int(next_ns) + 1)
        fates += path.poll_fates(now_ns)
    return fates, offered


def by_packet(fates: list[Fate]) -> dict[tuple[int, bool], tuple[str, int, bool, float | None]]:
    """(packet number, is duplicate) -> its fate, independent of the grouping into Fates."""
    return {
        (index, fate.is_duplicate): (
            fate.drop,
            0 if fate.drop else fate.delivery_ns(index),
            fate.is_marked,
            fate.corrupt_at,
        )
        for fate in fates
        for index in range(fate.first, fate.first + fate.packets)
    }


@given(PATHS, BURSTS, st.integers(0, 2**64 - 1))
@settings(max_examples=examples(60))
def test_every_packet_has_exactly_one_fate(spec: PathSpec, bursts: list[Burst], seed: int) -> None:
    fates, offered = carry(spec, bursts, seed)
    firsts = sorted(
        index for fate in fates if not fate.is_duplicate for index in range(fate.first, fate.first + fate.packets)
    )
    assert firsts == list(range(len(offered)))


@given(PATHS, BURSTS, st.integers(0, 1000))
@settings(max_examples=examples(60))
def test_nothing_arrives_before_transmission_and_propagation(spec: PathSpec, bursts: list[Burst], seed: int) -> None:
    fates, offered = carry(spec, bursts, seed)
    fastest_bps = max([spec.rate_bps or 0, *(c.rate_bps or 0 for c in spec.changes)])
    shortest_ns = min([spec.delay_ns, *(c.delay_ns for c in spec.changes if c.delay_ns is not None)])
    sizes = [size if index < packets - 1 else last for _, packets, size, last, _ in bursts for index in range(packets)]
    for fate in fates:
        for index, at in fate.deliveries():
            assert at >= offered[index] + shortest_ns + sizes[index] * 8e9 / fastest_bps - 1


@given(PATHS, BURSTS, st.integers(0, 1000))
@settings(max_examples=examples(60))
def test_packets_keep_their_order_without_reordering(spec: PathSpec, bursts: list[Burst], seed: int) -> None:
    fates, _ = carry(replace(spec, reorder=0.0, jitter_reorders=False), bursts, seed)
    came = [at for fate in fates for _, at in fate.deliveries()]
    assert came == sorted(came)


@given(PATHS, BURSTS, st.integers(0, 1000))
@settings(max_examples=examples(60))
def test_the_same_seed_and_packets_give_the_same_fates(spec: PathSpec, bursts: list[Burst], seed: int) -> None:
    assert carry(spec, bursts, seed) == carry(spec, bursts, seed)


@given(PATHS, BURSTS, st.integers(0, 1000))
@settings(max_examples=examples(80))
def test_a_burst_has_the_fates_of_its_packets_offered_alone(spec: PathSpec, bursts: list[Burst], seed: int) -> None:
    together, _ = carry(spec, bursts, seed)
    alone, _ = carry(spec, bursts, seed, one_by_one=True)
    grouped, single = by_packet(together), by_packet(alone)
    assert grouped.keys() == single.keys()
    for packet, (drop, at, is_marked, corrupt_at) in grouped.items():
        assert (drop, is_marked, corrupt_at) == (single[packet][0], *single[packet][2:]), packet
        assert abs(at - single[packet][1]) <= 1, packet  # a product and a sum of floats may differ by rounding
