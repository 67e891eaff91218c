"""NewReno and CUBIC against the rules of their RFCs: recovery periods, undo, growth, and HyStart++."""

from typing import Any

import pytest

from tests.support.congestion_samples import DATAGRAM_BYTES, MS, SECOND, ack_sample, loss_sample
from toolkit.rudp.congestion.cubic import Cubic
from toolkit.rudp.congestion.hystart import HyStart
from toolkit.rudp.congestion.loss_based import LossBasedController
from toolkit.rudp.congestion.newreno import NewReno

INITIAL_BYTES = 10 * DATAGRAM_BYTES
RTT_NS = 50 * MS
CONTROLLERS = [NewReno, Cubic]


def ack(control: LossBasedController, now_ns: int, **changes: Any) -> None:
    """Acknowledge a packet sent one RTT of 50 ms earlier."""
    fields = {"largest_acked_sent_time_ns": now_ns - RTT_NS, "rtt_ns": RTT_NS, "smoothed_rtt_ns": RTT_NS} | changes
    control.on_ack(ack_sample(now_ns, min_rtt_ns=RTT_NS, **fields))


def lose(control: LossBasedController, now_ns: int, sent_ns: int, is_persistent: bool = False) -> None:
    control.on_loss(loss_sample(now_ns, sent_ns, is_persistent=is_persistent))


@pytest.mark.parametrize("kind", CONTROLLERS)
@pytest.mark.parametrize(("mss", "initial"), [(1200, 12_000), (1472, 14_720), (9000, 18_000)])
def test_the_initial_window_follows_rfc_9002(kind: type[LossBasedController], mss: int, initial: int) -> None:
    assert kind(mss, None, 0).congestion_window_bytes == initial


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_slow_start_grows_by_the_bytes_acknowledged(kind: type[LossBasedController]) -> None:
    control = kind(DATAGRAM_BYTES, None, 0)
    ack(control, 100 * MS, newly_acked_bytes=INITIAL_BYTES)
    assert control.congestion_window_bytes == 2 * INITIAL_BYTES


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_an_unused_window_does_not_grow(kind: type[LossBasedController]) -> None:
    control = kind(DATAGRAM_BYTES, None, 0)
    ack(control, 100 * MS, newly_acked_bytes=INITIAL_BYTES, is_window_limited=False)
    assert control.congestion_window_bytes == INITIAL_BYTES
    lose(control, 150 * MS, 120 * MS)
    reduced = control.congestion_window_bytes
    for now_ms in range(300, 2000, 50):
        ack(control, now_ms * MS, newly_acked_bytes=DATAGRAM_BYTES, is_window_limited=False)
    assert control.congestion_window_bytes == reduced


@pytest.mark.parametrize(("kind", "factor"), [(NewReno, 0.5), (Cubic, 0.7)])
def test_the_window_shrinks_once_per_round_trip(kind: type[LossBasedController], factor: float) -> None:
    control = kind(DATAGRAM_BYTES, None, 0)
    lose(control, 100 * MS, 50 * MS)
    assert control.congestion_window_bytes == int(factor * INITIAL_BYTES)
    lose(control, 120 * MS, 99 * MS)  # sent before the recovery period began
    ack(control, 140 * MS)  # also sent before it
    assert control.congestion_window_bytes == int(factor * INITIAL_BYTES)
    lose(control, 200 * MS, 150 * MS)
    assert control.congestion_window_bytes == pytest.approx(factor * factor * INITIAL_BYTES, abs=1)


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_an_ecn_mark_has_the_effect_of_a_loss(kind: type[LossBasedController]) -> None:
    marked, lossy = kind(DATAGRAM_BYTES, None, 0), kind(DATAGRAM_BYTES, None, 0)
    ack(marked, 100 * MS, ecn_ce_count=1)
    lose(lossy, 100 * MS, 50 * MS)
    assert marked.congestion_window_bytes == lossy.congestion_window_bytes


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_the_window_never_falls_below_two_datagrams(kind: type[LossBasedController]) -> None:
    control = kind(DATAGRAM_BYTES, None, 0)
    for second in range(1, 50):
        lose(control, second * SECOND, second * SECOND - 10 * MS)
    assert control.congestion_window_bytes == 2 * DATAGRAM_BYTES


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_persistent_congestion_starts_over_in_slow_start(kind: type[LossBasedController]) -> None:
    control = kind(DATAGRAM_BYTES, None, 0)
    ack(control, 100 * MS, newly_acked_bytes=100 * DATAGRAM_BYTES)
    lose(control, SECOND, 900 * MS, is_persistent=True)
    assert control.congestion_window_bytes == 2 * DATAGRAM_BYTES
    ack(control, SECOND + 60 * MS, newly_acked_bytes=2 * DATAGRAM_BYTES)
    assert control.congestion_window_bytes == 4 * DATAGRAM_BYTES


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_a_spurious_congestion_event_is_undone(kind: type[LossBasedController]) -> None:
    control = kind(DATAGRAM_BYTES, None, 0)
    lose(control, 100 * MS, 50 * MS)
    control.on_spurious_loss(110 * MS, 50 * MS)
    assert control.congestion_window_bytes == INITIAL_BYTES
    assert control.snapshot()["phase"] == "slow_start"


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_a_congestion_event_with_a_real_loss_is_not_undone(kind: type[LossBasedController]) -> None:
    control = kind(DATAGRAM_BYTES, None, 0)
    lose(control, 100 * MS, 50 * MS)
    lose(control, 110 * MS, 60 * MS)
    reduced = control.congestion_window_bytes
    control.on_spurious_loss(120 * MS, 60 * MS)
    assert control.congestion_window_bytes == reduced


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_the_requested_rate_limits_the_pacing_rate(kind: type[LossBasedController]) -> None:
    control = kind(DATAGRAM_BYTES, 3e6, 0)
    ack(control, 100 * MS, newly_acked_bytes=1000 * DATAGRAM_BYTES)
    assert control.pacing_rate_bps == 3e6


def test_newreno_grows_by_one_datagram_per_round_trip() -> None:
    control = NewReno(DATAGRAM_BYTES, None, 0)
    lose(control, 100 * MS, 50 * MS)
    window = control.congestion_window_bytes
    for now_ms in (200, 250, 300, 350):
        ack(control, now_ms * MS, newly_acked_bytes=control.congestion_window_bytes)
    assert control.congestion_window_bytes == pytest.approx(window + 4 * DATAGRAM_BYTES, rel=0.01)


def grow(control: LossBasedController, from_ns: int, to_ns: int, rtt_ns: int) -> None:
    """Acknowledge a full window per round trip."""
    now_ns = from_ns
    while now_ns < to_ns:
        ack(control, now_ns, newly_acked_bytes=control.congestion_window_bytes, smoothed_rtt_ns=rtt_ns)
        now_ns += rtt_ns


def test_cubic_returns_to_w_max_after_k() -> None:
    """RFC 9438 section 4.2: K = cbrt(W_max (1 - beta_cubic) / C) is 9.09 s for a W_max of 1,000 segments."""
    control = Cubic(DATAGRAM_BYTES, None, 0)
    ack(control, 100 * MS, newly_acked_bytes=990 * DATAGRAM_BYTES)
    lose(control, 200 * MS, 150 * MS)
    assert control.congestion_window_bytes == 700 * DATAGRAM_BYTES
    grow(control, 300 * MS, 300 * MS + int(9.09 * SECOND), 50 * MS)
    assert control.congestion_window_bytes == pytest.approx(1000 * DATAGRAM_BYTES, rel=0.01)
    grow(control, int(9.4 * SECOND), int(20 * SECOND), 50 * MS)
    assert control.congestion_window_bytes > 1300 * DATAGRAM_BYTES


def test_cubic_follows_reno_where_reno_is_faster() -> None:
    """RFC 9438 section 4.3: with a small window and a short RTT, alpha_cubic = 0.53 segments per round trip."""
    control = Cubic(DATAGRAM_BYTES, None, 0)
    lose(control, 100 * MS, 50 * MS)
    window = control.congestion_window_bytes
    grow(control, 200 * MS, 205 * MS, MS)
    assert control.congestion_window_bytes == pytest.approx(window + 5 * 0.529 * DATAGRAM_BYTES, rel=0.02)


def test_cubic_lowers_w_max_after_a_loss_below_it() -> None:
    """Fast convergence, RFC 9438 section 4.7."""
    control = Cubic(DATAGRAM_BYTES, None, 0)
    ack(control, 100 * MS, newly_acked_bytes=990 * DATAGRAM_BYTES)
    lose(control, 200 * MS, 150 * MS)
    lose(control, 300 * MS, 250 * MS)
    assert control.snapshot()["w_max"] == pytest.approx(700 * DATAGRAM_BYTES * 1.7 / 2)


def test_cubic_excludes_the_time_of_an_application_limited_period() -> None:
    """RFC 9438 section 5.8."""
    paused, steady = Cubic(DATAGRAM_BYTES, None, 0), Cubic(DATAGRAM_BYTES, None, 0)
    for control in (paused, steady):
        ack(control, 100 * MS, newly_acked_bytes=990 * DATAGRAM_BYTES)
        lose(control, 200 * MS, 150 * MS)
        grow(control, 300 * MS, 500 * MS, 50 * MS)
    ack(paused, 20 * SECOND, newly_acked_bytes=DATAGRAM_BYTES, is_window_limited=False)
    grow(paused, 20 * SECOND + 50 * MS, 20 * SECOND + 250 * MS, 50 * MS)
    grow(steady, 500 * MS, 700 * MS, 50 * MS)
    assert paused.congestion_window_bytes == pytest.approx(steady.congestion_window_bytes, rel=0.01)


def test_cubic_excludes_the_time_of_an_idle_period() -> None:
    """RFC 9438 section 5.8, if a full window follows the idle period, so that all its samples are window-limited.

    A second idle period is excluded too. A packet sent while others are in flight does not end an idle period.
    """
    idle, steady = Cubic(DATAGRAM_BYTES, None, 0), Cubic(DATAGRAM_BYTES, None, 0)
    for control in (idle, steady):
        ack(control, 100 * MS, newly_acked_bytes=990 * DATAGRAM_BYTES)
        lose(control, 200 * MS, 150 * MS)
        grow(control, 300 * MS, 500 * MS, 50 * MS)  # the last acknowledgement arrives at 450 ms
    for start_ns in (30 * SECOND, 60 * SECOND):
        idle.on_sent(start_ns, DATAGRAM_BYTES, 0, is_app_limited=True)
        idle.on_sent(start_ns, 9 * DATAGRAM_BYTES, DATAGRAM_BYTES, is_app_limited=False)
        grow(idle, start_ns + 50 * MS, start_ns + 300 * MS, 50 * MS)
    grow(steady, 500 * MS, 1000 * MS, 50 * MS)
    assert idle.congestion_window_bytes == pytest.approx(steady.congestion_window_bytes, abs=1)


def test_cubic_starts_its_epoch_where_slow_start_ends_after_persistent_congestion() -> None:
    """RFC 9438 section 4.8: K is 0 and W_max is the window, not the old W_max."""
    control = Cubic(DATAGRAM_BYTES, None, 0)
    ack(control, 100 * MS, newly_acked_bytes=990 * DATAGRAM_BYTES)
    lose(control, SECOND, 900 * MS, is_persistent=True)
    now_ns = 2 * SECOND
    while control.snapshot()["phase"] == "slow_start":
        ack(control, now_ns, newly_acked_bytes=100 * DATAGRAM_BYTES)
        now_ns += 50 * MS
    window = control.congestion_window_bytes
    ack(control, now_ns, newly_acked_bytes=DATAGRAM_BYTES)
    assert control.snapshot()["w_max"] == window


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_hystart_applies_to_the_first_slow_start_only(kind: type[LossBasedController]) -> None:
    """RFC 9406 section 4.3: later ones end at ssthresh."""
    control = kind(DATAGRAM_BYTES, None, 0)
    ack(control, 100 * MS, newly_acked_bytes=990 * DATAGRAM_BYTES)
    lose(control, SECOND, 900 * MS, is_persistent=True)
    for number, rtt_ms in enumerate([40, 40, 40, 60, 60, 60, 80, 80, 80]):
        before = control.congestion_window_bytes
        ack(
            control,
            (1100 + number) * MS,
            newly_acked_bytes=DATAGRAM_BYTES,
            rtt_ns=rtt_ms * MS,
            prior_delivered_bytes=(1 + number // 3) * 1000 * DATAGRAM_BYTES,
            delivered_bytes=(2 + number // 3) * 1000 * DATAGRAM_BYTES,
        )
        assert control.congestion_window_bytes == before + DATAGRAM_BYTES


def feed_round(hystart: HyStart, number: int, rtts_ms: list[float]) -> None:
    for rtt_ms in rtts_ms:
        hystart.on_ack(
            ack_sample(
                prior_delivered_bytes=number * 1000, delivered_bytes=(number + 1) * 1000, rtt_ns=int(rtt_ms * MS)
            )
        )


def test_hystart_ends_slow_start_after_five_rounds_of_css_if_the_delay_stays() -> None:
    hystart = HyStart()
    feed_round(hystart, 0, [40, 40, 40, 40])
    assert hystart.growth_divisor == 1
    feed_round(hystart, 1, [46, 46, 47, 48])
    assert hystart.growth_divisor == 4
    for number in range(2, 7):
        assert not hystart.is_done
        feed_round(hystart, number, [60, 60, 60, 60])
    assert hystart.is_done


def test_hystart_resumes_slow_start_if_the_delay_was_jitter() -> None:
    hystart = HyStart()
    feed_round(hystart, 0, [40, 40, 40, 40])
    feed_round(hystart, 1, [46, 46, 47, 48])
    feed_round(hystart, 2, [40, 41, 40, 44])
    assert hystart.growth_divisor == 1
    for number in range(3, 12):
        feed_round(hystart, number, [40, 43, 41, 40])
    assert not hystart.is_done


def test_hystart_ignores_rounds_with_too_few_samples() -> None:
    hystart = HyStart()
    feed_round(hystart, 0, [40, 40, 40, 40])
    feed_round(hystart, 1, [60, 60])
    assert hystart.growth_divisor == 1
