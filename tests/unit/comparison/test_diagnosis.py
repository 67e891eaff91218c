"""Where the time of a transfer goes: samples with a known story."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pytest
from numpy.typing import ArrayLike

from toolkit.comparison.diagnosis import loss_response_bps, scale_to_payload, split_time, thinned
from toolkit.comparison.endpoint_result import Samples
from toolkit.comparison.records import TimeSplit

POINTS = 401
SECONDS, CONNECT_S, RTT_S = 4.0, 0.08, 0.04
TIMES = np.linspace(0, SECONDS, POINTS)


def samples(rate: ArrayLike = 90e6, **changed: ArrayLike) -> Samples:
    """A transfer that starts at CONNECT_S and runs at `rate`, in bits per second, until SECONDS."""
    rates = np.broadcast_to(np.asarray(rate, float), TIMES.shape) * (TIMES > CONNECT_S)
    columns: dict[str, ArrayLike] = {
        "t_s": TIMES,
        "delivered_bytes": np.cumsum(rates) * (TIMES[1] - TIMES[0]) / 8,
        "congestion_window_bytes": 1e6,
        "rtt_ms": 40.0,
        "retransmitted_packets": 0.0,
        "recovering_s": 0.0,
        "receiver_limited_s": 0.0,
        "busy_s": 0.1 * TIMES,
        "waiting_s": 0.0,
        **changed,
    }
    return Samples(**{name: as_column(value) for name, value in columns.items()})


def as_column(value: ArrayLike) -> Sequence[float]:
    return [float(each) for each in np.broadcast_to(np.asarray(value, float), TIMES.shape)]


def split(sender: Samples, ideal_bps: float | None = 95e6, receiver: Samples | None = None) -> TimeSplit:
    size = int(sender.delivered_bytes[-1])
    time_split = split_time(SECONDS, CONNECT_S, size, sender, receiver, ideal_bps, RTT_S)
    assert sum(time_split.by_kind().values()) == pytest.approx(SECONDS)
    return time_split


def test_a_transfer_at_full_rate_is_steady() -> None:
    time_split = split(samples())
    assert time_split.handshake_s == CONNECT_S
    assert time_split.steady_s > 0.95 * (SECONDS - CONNECT_S)


def test_ramp_up_ends_when_the_rate_reaches_its_later_average() -> None:
    time_split = split(samples(np.minimum(90e6, 90e6 * (TIMES / 1.5) ** 2)))
    assert time_split.ramp_up_s == pytest.approx(1.4, abs=0.15)


def test_recovery_is_being_in_recovery_at_a_low_rate() -> None:
    """It once began with the first retransmission and never ended."""
    resent = np.minimum(TIMES * 100, 10)
    recovering = np.clip(TIMES - 1, 0, 1)
    time_split = split(samples(5e6, retransmitted_packets=resent, recovering_s=recovering))
    assert time_split.recovery_s == pytest.approx(1.0, abs=0.05)
    assert time_split.congestion_limited_s == pytest.approx(SECONDS - CONNECT_S - 1, abs=0.1)
    full = split(samples(90e6, retransmitted_packets=resent, recovering_s=recovering))
    assert (full.recovery_s, full.congestion_limited_s) == (0, 0)


def test_waiting_for_a_processor_is_not_using_one() -> None:
    waiting = split(samples(20e6, busy_s=0.5 * TIMES, waiting_s=0.45 * TIMES))
    assert waiting.cpu_bound_s == 0
    assert waiting.waiting_s > 0.9 * SECONDS
    assert split(samples(20e6, busy_s=0.5 * TIMES, waiting_s=0.2 * TIMES)).waiting_s == 0
    receiver = samples(busy_s=0.1 * TIMES, waiting_s=0.8 * TIMES)
    assert split(samples(20e6), receiver=receiver).waiting_s > 0.9 * SECONDS


def test_on_a_path_without_a_limit_the_transport_says_when_it_recovers() -> None:
    recovering = np.clip(TIMES - 1, 0, 1)
    time_split = split(samples(recovering_s=recovering, retransmitted_packets=TIMES), ideal_bps=None)
    assert time_split.recovery_s == pytest.approx(1.0, abs=0.05)


def test_limits_by_window_and_by_processor() -> None:
    assert split(samples(20e6, receiver_limited_s=0.9 * TIMES)).window_limited_s > 0.9 * SECONDS
    assert split(samples(20e6, busy_s=0.97 * TIMES)).cpu_bound_s > 0.9 * SECONDS
    assert split(samples(20e6), receiver=samples(busy_s=0.95 * TIMES)).cpu_bound_s > 0.9 * SECONDS


def test_the_tail_follows_the_last_acknowledgement() -> None:
    assert split(samples(90e6 * (TIMES < 3))).tail_s == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("count", [1, 2])
def test_a_transfer_too_short_for_many_samples(count: int) -> None:
    whole = samples()
    first_and_last = {
        each.name: [*getattr(whole, each.name)[:1], *getattr(whole, each.name)[-1:] * (count - 1)]
        for each in fields(Samples)
    }
    time_split = split_time(0.001, 0.002, 1000, Samples(**first_and_last), None, 95e6, RTT_S)
    assert sum(time_split.by_kind().values()) == pytest.approx(0.001)


def test_delivered_bytes_are_scaled_to_the_payload() -> None:
    assert list(scale_to_payload([0, 500, 1100], 1000)) == pytest.approx([0, 454.5, 1000], abs=0.1)
    assert list(scale_to_payload([0, 0], 1000)) == [0, 0]


def test_a_recorded_series_has_at_most_200_points_and_both_ends() -> None:
    series = thinned(samples(), 10**6)
    columns = (series.t_s, series.delivered_bytes, series.congestion_window_bytes, series.rtt_ms)
    assert {len(column) for column in columns} == {200}
    assert (series.delivered_bytes[0], series.delivered_bytes[-1]) == (0, 10**6)


def test_the_models_give_the_published_figures() -> None:
    def segments(control: str, loss: float, rtt_s: float) -> float:
        return (loss_response_bps(control, loss, rtt_s) or 0) / (1 - loss) * rtt_s / (8 * 1448)

    assert segments("newreno", 1e-4, 0.1) == pytest.approx(1.2247 / 1e-2, rel=1e-3)  # Mathis et al.: sqrt(3 / 2p)
    assert segments("cubic", 1e-6, 0.1) == pytest.approx(1.054 * 0.1**0.75 / 1e-6**0.75, rel=1e-2)  # RFC 9438 5.1
    assert segments("cubic", 1e-2, 0.04) == segments("reno", 1e-2, 0.04)  # never slower than Reno
    assert loss_response_bps("bbr", 0.01, 0.04) is None
    assert loss_response_bps("cubic", 0.0, 0.04) is None
