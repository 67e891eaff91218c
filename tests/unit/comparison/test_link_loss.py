"""The loss that a link really had, beside the loss that was asked for."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest

from tests.support.synthetic_campaign import Truth, make_results
from toolkit.comparison.packet_counts import DirectionAudit, PacketAudit
from toolkit.comparison.records import Results
from toolkit.comparison.stats import proportion, shares_differ
from toolkit.comparison.summary import summarise
from toolkit.report.tables import ACCOUNTING, tables


@pytest.mark.parametrize(("share", "count"), [(0.001, 1800), (0.01, 600), (0.05, 600), (0.5, 20)])
def test_the_interval_of_a_share_holds(share: float, count: int) -> None:
    generator = random.Random(count)
    found = [proportion(sum(generator.random() < share for _ in range(count)), count) for _ in range(300)]
    held = sum(each.interval is not None and each.interval.low <= share <= each.interval.high for each in found)
    assert held >= 275


@pytest.mark.parametrize(("share", "count"), [(0.0001, 600), (0.001, 600), (0.001, 1800), (0.01, 600), (0.05, 5000)])
def test_corrected_for_many_rows_an_interval_seldom_misses(share: float, count: int) -> None:
    """Wilson's, for 60 rows, missed 0.1% of 600 packets in three campaigns of ten, and 0.01% in all."""
    error, missed = 0.05 / 60, 0.0
    for hits in range(count // 5):
        interval = proportion(hits, count, error).interval
        assert interval is not None
        if not interval.low <= share <= interval.high:
            ways = math.lgamma(count + 1) - math.lgamma(hits + 1) - math.lgamma(count - hits + 1)
            missed += math.exp(ways + hits * math.log(share) + (count - hits) * math.log1p(-share))
    assert missed <= 1.25 * error


def test_no_loss_and_nothing_but_loss() -> None:
    none, all_lost = proportion(0, 600), proportion(600, 600)
    assert none.interval is not None
    assert none.interval.low == 0
    assert none.interval.high == pytest.approx(1 - 0.025 ** (1 / 600))
    assert all_lost.interval is not None
    assert all_lost.interval.high == 1


def lossy(**lost: int) -> Results:
    """A path that was asked to lose 1%, and lost so many of 600 packets of each transport."""
    results = make_results(Truth({("tcp-cubic", "a"): 5e7, ("udp-bbr", "a"): 6e7}, repeats=9), 1)
    paths = {"a": replace(results.campaign.paths["a"], loss=0.01)}
    trials = []
    for trial in results.trials:
        count = lost.get(trial.transport.partition("-")[0], 6)
        forward = DirectionAudit(sent=650, offered=650, lost_by_link=count, dropped_by_queue=50, delivered=600 - count)
        trials.append(replace(trial, ledger=PacketAudit(forward, DirectionAudit())))
    return replace(results, campaign=replace(results.campaign, paths=paths), trials=trials)


def test_the_loss_is_that_of_all_trials_without_the_queue() -> None:
    summary = summarise(lossy(udp=7))
    row = next(row for row in summary.rows if row.transport == "udp-bbr")
    assert row.link_loss is not None
    assert row.link_loss.value == pytest.approx(7 / 600)
    assert (row.asked_loss, row.is_loss_off) == (0.01, False)
    assert "was asked for" not in summary.headline[0]
    table = next(table for table in tables(summary) if table.name == ACCOUNTING)
    assert [column.title for column in table.columns][-3:] == ["loss asked for", "loss seen", "95% interval"]
    assert [cell.text for cell in table.rows[1][-3:-1]] == ["1%", "1.167%"]


def test_nobody_resends_a_lost_ping() -> None:
    results = lossy(udp=20)
    trials = []
    for trial in results.trials:
        assert trial.ledger is not None
        forward = replace(trial.ledger.forward, lost_pings=30)
        trials.append(replace(trial, ledger=replace(trial.ledger, forward=forward), retransmitted_packets=40))
    row = next(row for row in summarise(replace(results, trials=trials)).rows if row.transport == "udp-bbr")
    assert row.resent_per_lost == 1.0


def test_one_side_with_another_loss_allows_no_claim() -> None:
    (verdict,) = summarise(lossy(udp=12)).verdicts
    assert not verdict.is_claim
    assert "No claim on udp-bbr: the link lost 2% of its packets, and 1% of the baseline's" in verdict.sentence


def test_the_same_unasked_loss_on_both_sides_is_named_with_the_claim() -> None:
    (verdict,) = summarise(lossy(udp=12, tcp=12)).verdicts
    assert verdict.is_claim
    assert "udp-bbr, tcp-cubic: the link lost 2% of its packets, where 1% was asked for." in verdict.sentence


def test_losses_of_bursts_are_not_compared_as_if_each_packet_had_its_own_chance() -> None:
    results = lossy(udp=12)
    paths = {"a": replace(results.campaign.paths["a"], burst="1%:5ms")}
    (verdict,) = summarise(replace(results, campaign=replace(results.campaign, paths=paths))).verdicts
    assert verdict.is_claim


def test_two_shares_differ_although_their_intervals_overlap() -> None:
    """Ends of two intervals that miss in 5% each are further apart than a difference that chance makes in 5%."""
    own, base = proportion(130, 5400).interval, proportion(98, 5400).interval
    assert own is not None
    assert base is not None
    assert own.low < base.high
    assert shares_differ(130, 5400, 98, 5400)


def test_equal_shares_seldom_differ_whatever_the_numbers_of_packets() -> None:
    generator = np.random.default_rng(1)
    few, many = generator.binomial(3000, 0.02, 300), generator.binomial(70000, 0.02, 300)
    found = sum(shares_differ(int(a), 3000, int(b), 70000) for a, b in zip(few, many, strict=True))
    assert found <= 25
