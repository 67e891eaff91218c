"""Where the time went: series with a known story, and the sentence that is made of it."""

from dataclasses import replace

import numpy as np
import pytest

from toolkit.compare.diagnosis import KINDS, kept, scaled, split
from toolkit.compare.explain import Facts, sentence
from toolkit.compare.theory import loss_response_bps

POINTS = 401
SECONDS, CONNECT_S, RTT_S = 4.0, 0.08, 0.04
Series = dict[str, list[float]]


def series(rate: object = 90e6, **changed: object) -> Series:
    """A transfer that begins at CONNECT_S and goes on at `rate` to SECONDS."""
    times = np.linspace(0, SECONDS, POINTS)
    rates = np.broadcast_to(np.asarray(rate, float), times.shape) * (times > CONNECT_S)
    delivered = np.cumsum(rates) * (times[1] - times[0]) / 8
    told = {
        "t_s": times,
        "delivered_bytes": delivered,
        "congestion_window_bytes": np.full(POINTS, 1e6),
        "rtt_ms": np.full(POINTS, 40.0),
        "retransmitted_packets": np.zeros(POINTS),
        "recovering_s": np.zeros(POINTS),
        "receiver_limited_s": np.zeros(POINTS),
        "busy_s": 0.1 * times,
    }
    told |= {name: np.broadcast_to(np.asarray(value, float), times.shape) for name, value in changed.items()}
    return {name: [float(value) for value in column] for name, column in told.items()}


def kinds(told: Series, ideal_bps: float | None = 95e6, seconds: float = SECONDS) -> dict[str, float]:
    split_up = split(seconds, CONNECT_S, int(told["delivered_bytes"][-1]), told, None, ideal_bps, RTT_S)
    assert sum(split_up.values()) == pytest.approx(seconds)
    assert list(split_up) == list(KINDS)
    return split_up


TIMES = np.linspace(0, SECONDS, POINTS)


def test_a_transfer_at_full_rate_is_steady() -> None:
    told = kinds(series())
    assert told["handshake_s"] == CONNECT_S
    assert told["steady_s"] > 0.95 * (SECONDS - CONNECT_S)


def test_the_way_up_ends_where_it_is_as_fast_as_later() -> None:
    told = kinds(series(np.minimum(90e6, 90e6 * (TIMES / 1.5) ** 2)))
    assert told["ramp_up_s"] == pytest.approx(1.4, abs=0.15)


def test_a_rate_that_loss_holds_down_is_recovery_and_without_loss_it_is_not() -> None:
    resent = np.floor(TIMES * 10)
    assert kinds(series(5e6, retransmitted_packets=resent))["recovery_s"] > 0.9 * SECONDS
    assert kinds(series(5e6))["recovery_s"] == 0
    assert kinds(series(90e6, retransmitted_packets=resent))["recovery_s"] == 0


def test_without_a_known_limit_the_transport_tells_when_it_recovers() -> None:
    recovering = np.clip(TIMES - 1, 0, 1)
    told = kinds(series(recovering_s=recovering, retransmitted_packets=TIMES), ideal_bps=None)
    assert told["recovery_s"] == pytest.approx(1.0, abs=0.05)


def test_windows_and_processors() -> None:
    assert kinds(series(20e6, receiver_limited_s=0.9 * TIMES))["window_limited_s"] > 0.9 * SECONDS
    assert kinds(series(20e6, busy_s=0.97 * TIMES))["cpu_bound_s"] > 0.9 * SECONDS
    receiver = {"t_s": list(TIMES), "busy_s": list(0.95 * TIMES)}
    told = series(20e6)
    split_up = split(SECONDS, CONNECT_S, int(told["delivered_bytes"][-1]), told, receiver, 95e6, RTT_S)
    assert split_up["cpu_bound_s"] > 0.9 * SECONDS


def test_the_tail_follows_the_last_acknowledgement() -> None:
    told = kinds(series(90e6 * (TIMES < 3)))
    assert told["tail_s"] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("count", [1, 2])
def test_a_transfer_too_short_for_samples(count: int) -> None:
    told = {name: column[:1] + column[-1:] * (count - 1) for name, column in series().items()}
    split_up = split(0.001, 0.002, 1000, told, None, 95e6, RTT_S)
    assert sum(split_up.values()) == pytest.approx(0.001)


def test_what_is_delivered_is_scaled_to_the_payload_and_thinned_out() -> None:
    assert list(scaled([0, 500, 1100], 1000)) == pytest.approx([0, 454.5, 1000], abs=0.1)
    assert list(scaled([0, 0], 1000)) == [0, 0]
    thin = kept(series(), 10**6)
    assert {len(column) for column in thin.values()} == {200}
    assert (thin["delivered_bytes"][0], thin["delivered_bytes"][-1]) == (0, 10**6)


FACTS = Facts("cubic", 10.0, 3.5e6, dict.fromkeys(KINDS, 0.0), 33, 95e6, 0.01, 0.04, 0.1, 0.1)


@pytest.mark.parametrize(
    ("reasons", "changed", "says"),
    [
        ({"recovery_s": 9.5, "ramp_up_s": 0.5}, {}, "cubic at 1% loss and 40 ms is good for 3.51 Mbit/s"),
        ({"recovery_s": 9.5, "ramp_up_s": 0.5}, {"loss": 0.0}, "its queue overflowed"),
        ({"recovery_s": 9.5, "ramp_up_s": 0.5}, {"congestion_control": "bbr"}, "33 packets resent"),
        ({"cpu_bound_s": 8.0, "steady_s": 2.0}, {"busy_receiver": 0.97}, "the receiver had work for 97%"),
        ({"handshake_s": 3.0, "ramp_up_s": 6.0, "steady_s": 1.0}, {}, "over before it was up to speed"),
        ({"window_limited_s": 7.0, "steady_s": 3.0}, {}, "it takes 463.9 KiB"),
        ({"steady_s": 10.0}, {"goodput_bps": 94e6}, "It filled the path: 99%"),
        ({"steady_s": 10.0}, {"ideal_bps": None}, "the two ends set the pace"),
        ({"steady_s": 10.0}, {"goodput_bps": 50e6}, "53% of what the path carries"),
    ],
)
def test_the_sentence_says_the_largest_part(reasons: dict[str, float], changed: dict[str, object], says: str) -> None:
    facts = replace(FACTS, reasons={**FACTS.reasons, **reasons}, **changed)  # type: ignore[arg-type]
    text = sentence(facts)
    assert says in text
    assert text.endswith(".")


def test_the_models_give_the_published_figures() -> None:
    def segments(control: str, loss: float, rtt_s: float) -> float:
        return (loss_response_bps(control, loss, rtt_s) or 0) / (1 - loss) * rtt_s / (8 * 1448)

    assert segments("newreno", 1e-4, 0.1) == pytest.approx(
        1.2247 / 1e-2, rel=1e-3
    )  # Mathis et al.: sqrt(3/2) / sqrt(p)
    assert segments("cubic", 1e-6, 0.1) == pytest.approx(1.054 * 0.1**0.75 / 1e-6**0.75, rel=1e-2)  # RFC 9438 5.1
    assert segments("cubic", 1e-2, 0.04) == segments("reno", 1e-2, 0.04)  # never slower than Reno
    assert loss_response_bps("bbr", 0.01, 0.04) is None
    assert loss_response_bps("cubic", 0.0, 0.04) is None
