"""Samples of a transfer: running totals survive when half of the samples are dropped."""

import time
from typing import Any

import pytest

from toolkit.compare import sampler
from toolkit.compare.sampler import COLUMNS, Sampler


def test_columns_are_of_one_length_and_times_rise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "MAX_SAMPLES", 8)
    monkeypatch.setattr(sampler, "FIRST_INTERVAL_S", 0.0005)
    calls = 0

    def statistics() -> dict[str, Any]:
        nonlocal calls
        calls += 1
        return {"bytes_delivered": calls, "rtt_ms": 1.0, "packets_retransmitted": 0, "is_receiver_limited": 1}

    started_s = time.monotonic()
    with Sampler(started_s, statistics) as watched:
        while calls < 20:
            time.sleep(0.001)
    elapsed_s = time.monotonic() - started_s
    series = watched.series()
    assert tuple(series) == COLUMNS
    assert len({len(column) for column in series.values()}) == 1
    assert len(series["t_s"]) <= 8
    assert series["t_s"] == sorted(series["t_s"])
    assert series["delivered_bytes"][-1] == calls
    # Every interval was counted as held by the receiver, those whose samples are gone included.
    assert series["receiver_limited_s"][-1] == pytest.approx(series["t_s"][-1])
    assert series["t_s"][-1] <= elapsed_s
    assert series["busy_s"] == sorted(series["busy_s"])


def test_recovery_lasts_a_round_trip_where_the_transport_does_not_say() -> None:
    told: dict[str, Any] = {"packets_retransmitted": 0, "rtt_ms": 1e6}
    watched = Sampler(time.monotonic(), lambda: told)
    watched._sample()
    told["packets_retransmitted"] = 1
    watched._sample()
    watched._sample()
    first, second, third = watched.series()["recovering_s"]
    assert first == 0
    assert 0 < second < third


def test_the_kernel_s_word_goes_before_ours() -> None:
    told: dict[str, Any] = {
        "is_recovering": 0,
        "packets_retransmitted": 5,
        "rtt_ms": 1e6,
        "rwnd_limited_ms": 30.0,
        "sndbuf_limited_ms": 12.0,
    }
    watched = Sampler(time.monotonic(), lambda: told)
    watched._sample()
    series = watched.series()
    assert series["recovering_s"] == [0]
    assert series["receiver_limited_s"] == pytest.approx([0.042])
