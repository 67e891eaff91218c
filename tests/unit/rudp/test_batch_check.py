"""A path that loses everything that is sent together."""

from functools import partial

from tests.support.engine_pair import MS, SECOND, Hazards, Pair
from toolkit.rudp.batch_check import BatchCheck


def is_allowed(*events: tuple[str, int]) -> bool:
    check = BatchCheck()
    for event, together in events:
        (check.on_acked if event == "acked" else check.on_lost)(together)
    return check.is_allowed


def test_three_reports_of_lost_batches_and_a_single_packet_in_between_decide() -> None:
    assert not is_allowed(("lost", 9), ("acked", 0), ("lost", 3), ("lost", 3))


def test_less_than_that_does_not() -> None:
    assert is_allowed(("lost", 9), ("acked", 0), ("lost", 9))
    assert is_allowed(("lost", 9), ("lost", 9), ("lost", 9)), "an outage loses single packets as well"
    assert is_allowed(("acked", 0), ("lost", 9), ("lost", 9), ("lost", 9)), "it has arrived before the outage"
    assert is_allowed(("lost", 1), ("acked", 0), ("lost", 1), ("acked", 0), ("lost", 1))
    assert is_allowed(("lost", 9), ("acked", 0), ("lost", 0), ("lost", 0)), "these were single packets"


def test_a_batch_that_has_arrived_ends_the_check() -> None:
    check = BatchCheck()
    check.on_acked(1)
    assert check.is_decided
    assert check.is_allowed


def test_a_transfer_over_a_path_that_loses_batches_goes_on_with_single_packets() -> None:
    hazards = Hazards(rate_bps=70e6, delay_ns=10 * MS, drop_batches=True)
    pair = Pair(3, hazards, Hazards(delay_ns=10 * MS), data=5_000_000)
    pair.near.offer()
    pair.run_until_acked(limit_ns=10 * SECOND)
    assert not pair.near.connection.stats().is_batching
    assert pair.now_ns < 2.5 * SECOND, "0.6 s at the rate of the path"


def test_random_loss_and_an_outage_do_not_look_like_it() -> None:
    for seed in range(20):

        def is_out(begin_ns: int, now_ns: int) -> bool:
            return begin_ns <= now_ns < begin_ns + SECOND

        hazards = Hazards(delay_ns=10 * MS, loss=0.3, blackout=partial(is_out, (1000 + 20 * seed) * MS))
        pair = Pair(seed, hazards, Hazards(delay_ns=10 * MS), data=300_000)
        pair.near.offer()
        pair.run_until_acked()
        assert pair.near.connection.stats().is_batching, f"seed {seed}"
