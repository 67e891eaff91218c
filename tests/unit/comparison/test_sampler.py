"""Samples of a transfer: running totals survive when half of the samples are dropped."""

import time
from dataclasses import astuple

import pytest

from toolkit.channel import Statistic
from toolkit.comparison import sampler
from toolkit.comparison.sampler import Sampler


def test_columns_are_equally_long_and_totals_survive_thinning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "MAX_SAMPLES", 8)
    calls = 0

    def statistics() -> dict[str, Statistic]:
        nonlocal calls
        calls += 1
        return {"bytes_delivered": calls, "rtt_ms": 1.0, "packets_retransmitted": 0, "is_receiver_limited": 1}

    sampled = Sampler(time.monotonic(), statistics)
    for _ in range(21):
        sampled.sample()
    series = sampled.series()
    assert {len(column) for column in astuple(series)} <= set(range(4, 8))
    assert len({len(column) for column in astuple(series)}) == 1
    assert series.delivered_bytes[-1] == calls
    assert list(series.t_s) == sorted(series.t_s)
    assert list(series.busy_s) == sorted(series.busy_s)
    # Every interval counts as limited by the receiver, those whose samples were dropped included.
    assert series.receiver_limited_s[-1] == pytest.approx(series.t_s[-1])


def test_a_thread_samples_until_the_block_is_left() -> None:
    enough = 5
    calls = 0

    def statistics() -> dict[str, Statistic]:
        nonlocal calls
        calls += 1
        return {}

    with Sampler(time.monotonic(), statistics) as sampled:
        while calls < enough:
            time.sleep(0.001)
    taken = calls
    assert len(sampled.series().t_s) == taken
    time.sleep(2 * sampler.FIRST_INTERVAL_S)
    assert calls == taken


def test_recovery_lasts_a_round_trip_if_the_transport_does_not_report_it() -> None:
    statistics: dict[str, Statistic] = {"packets_retransmitted": 0, "rtt_ms": 1e6}
    sampled = Sampler(time.monotonic(), lambda: statistics)
    sampled.sample()
    statistics["packets_retransmitted"] = 1
    sampled.sample()
    sampled.sample()
    first, second, third = sampled.series().recovering_s
    assert first == 0
    assert 0 < second < third


def test_what_the_transport_reports_takes_precedence() -> None:
    statistics: dict[str, Statistic] = {
        "is_recovering": 0,
        "packets_retransmitted": 5,
        "rtt_ms": 1e6,
        "rwnd_limited_ms": 30.0,
        "sndbuf_limited_ms": 12.0,
    }
    sampled = Sampler(time.monotonic(), lambda: statistics)
    sampled.sample()
    series = sampled.series()
    assert list(series.recovering_s) == [0]
    assert series.receiver_limited_s == pytest.approx([0.042])
