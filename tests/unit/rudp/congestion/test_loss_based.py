"""NewReno and CUBIC: recovery periods, undo, growth, and HyStart++, against the RFCs' rules."""

import dataclasses

import pytest

from toolkit.rudp.congestion.base import AckSample, LossSample
from toolkit.rudp.congestion.cubic import Cubic
from toolkit.rudp.congestion.hystart import HyStart
from toolkit.rudp.congestion.loss_based import LossBasedController
from toolkit.rudp.congestion.newreno import NewReno

MS = 1_000_000
SECOND = 1_000_000_000
MSS = 1200
INITIAL = 10 * MSS
CONTROLLERS = [NewReno, Cubic]

ACK = AckSample(
    now_ns=100 * MS,
    newly_acked_bytes=MSS,
    newly_lost_bytes=0,
    bytes_in_flight=9 * MSS,
    prior_in_flight_bytes=10 * MSS,
    delivered_bytes=MSS,
    prior_delivered_bytes=0,
    lost_bytes=0,
    lost_since_sent_bytes=0,
    in_flight_at_send_bytes=10 * MSS,
    largest_acked_sent_time_ns=50 * MS,
    rtt_ns=50 * MS,
    smoothed_rtt_ns=50 * MS,
    min_rtt_ns=50 * MS,
    delivery_rate_bps=1e6,
    is_app_limited=False,
    is_window_limited=True,
)
LOSS = LossSample(
    now_ns=100 * MS,
    lost_bytes=MSS,
    bytes_in_flight=8 * MSS,
    newest_lost_sent_time_ns=50 * MS,
    in_flight_at_send_bytes=10 * MSS,
    is_persistent=False,
)


def ack(control: LossBasedController, now_ns: int, **changes: object) -> None:
    """An acknowledgement of what was sent one RTT of 50 ms before."""
    sent_ns = now_ns - 50 * MS
    control.on_ack(dataclasses.replace(ACK, now_ns=now_ns, largest_acked_sent_time_ns=sent_ns, **changes))  # type: ignore[arg-type]


def lose(control: LossBasedController, now_ns: int, sent_ns: int, **changes: object) -> None:
    control.on_loss(dataclasses.replace(LOSS, now_ns=now_ns, newest_lost_sent_time_ns=sent_ns, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", CONTROLLERS)
@pytest.mark.parametrize(("mss", "initial"), [(1200, 12_000), (1472, 14_720), (9000, 18_000)])
def test_the_initial_window_is_that_of_rfc_9002(kind: type[LossBasedController], mss: int, initial: int) -> None:
    assert kind(mss, None, 0).congestion_window_bytes == initial


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_slow_start_grows_by_what_is_acknowledged(kind: type[LossBasedController]) -> None:
    control = kind(MSS, None, 0)
    ack(control, 100 * MS, newly_acked_bytes=INITIAL)
    assert control.congestion_window_bytes == 2 * INITIAL


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_a_window_that_is_not_used_does_not_grow(kind: type[LossBasedController]) -> None:
    control = kind(MSS, None, 0)
    ack(control, 100 * MS, newly_acked_bytes=INITIAL, is_window_limited=False)
    assert control.congestion_window_bytes == INITIAL
    lose(control, 150 * MS, 120 * MS)
    reduced = control.congestion_window_bytes
    for now_ms in range(300, 2000, 50):
        ack(control, now_ms * MS, newly_acked_bytes=MSS, is_window_limited=False)
    assert control.congestion_window_bytes == reduced


@pytest.mark.parametrize(("kind", "factor"), [(NewReno, 0.5), (Cubic, 0.7)])
def test_one_round_trip_is_one_loss_event(kind: type[LossBasedController], factor: float) -> None:
    control = kind(MSS, None, 0)
    lose(control, 100 * MS, 50 * MS)
    assert control.congestion_window_bytes == int(factor * INITIAL)
    lose(control, 120 * MS, 99 * MS)  # sent before the period began
    ack(control, 140 * MS)  # so was this
    assert control.congestion_window_bytes == int(factor * INITIAL)
    lose(control, 200 * MS, 150 * MS)
    assert control.congestion_window_bytes == pytest.approx(factor * factor * INITIAL, abs=1)


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_an_ecn_mark_is_answered_like_a_loss(kind: type[LossBasedController]) -> None:
    marked, lossy = kind(MSS, None, 0), kind(MSS, None, 0)
    ack(marked, 100 * MS, ecn_ce_count=1)
    lose(lossy, 100 * MS, 50 * MS)
    assert marked.congestion_window_bytes == lossy.congestion_window_bytes


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_the_window_never_falls_below_two_datagrams(kind: type[LossBasedController]) -> None:
    control = kind(MSS, None, 0)
    for second in range(1, 50):
        lose(control, second * SECOND, second * SECOND - 10 * MS)
    assert control.congestion_window_bytes == 2 * MSS


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_persistent_congestion_starts_over_in_slow_start(kind: type[LossBasedController]) -> None:
    control = kind(MSS, None, 0)
    ack(control, 100 * MS, newly_acked_bytes=100 * MSS)
    lose(control, SECOND, 900 * MS, is_persistent=True)
    assert control.congestion_window_bytes == 2 * MSS
    ack(control, SECOND + 60 * MS, newly_acked_bytes=2 * MSS)
    assert control.congestion_window_bytes == 4 * MSS


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_a_spurious_loss_event_is_undone(kind: type[LossBasedController]) -> None:
    control = kind(MSS, None, 0)
    lose(control, 100 * MS, 50 * MS)
    control.on_spurious_loss(110 * MS, 50 * MS)
    assert control.congestion_window_bytes == INITIAL
    assert control.snapshot()["phase"] == "slow_start"


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_an_event_is_undone_only_when_nothing_of_it_was_real(kind: type[LossBasedController]) -> None:
    control = kind(MSS, None, 0)
    lose(control, 100 * MS, 50 * MS)
    lose(control, 110 * MS, 60 * MS)
    reduced = control.congestion_window_bytes
    control.on_spurious_loss(120 * MS, 60 * MS)
    assert control.congestion_window_bytes == reduced


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_the_rate_that_the_user_bounds_is_kept(kind: type[LossBasedController]) -> None:
    control = kind(MSS, 3e6, 0)
    ack(control, 100 * MS, newly_acked_bytes=1000 * MSS)
    assert control.pacing_rate_bps == 3e6


def test_newreno_grows_by_one_datagram_a_round_trip() -> None:
    control = NewReno(MSS, None, 0)
    lose(control, 100 * MS, 50 * MS)
    window = control.congestion_window_bytes
    for now_ms in (200, 250, 300, 350):
        ack(control, now_ms * MS, newly_acked_bytes=control.congestion_window_bytes)
    assert control.congestion_window_bytes == pytest.approx(window + 4 * MSS, rel=0.01)


def grow(control: LossBasedController, from_ns: int, to_ns: int, rtt_ns: int) -> None:
    """A full window acknowledged per round trip."""
    now_ns = from_ns
    while now_ns < to_ns:
        ack(control, now_ns, newly_acked_bytes=control.congestion_window_bytes, smoothed_rtt_ns=rtt_ns)
        now_ns += rtt_ns


def test_cubic_is_back_at_w_max_after_k() -> None:
    """RFC 9438 section 4.2: K = cbrt(W_max (1 - beta) / C); 1,000 segments lost at give 9.09 s."""
    control = Cubic(MSS, None, 0)
    ack(control, 100 * MS, newly_acked_bytes=990 * MSS)
    lose(control, 200 * MS, 150 * MS)
    assert control.congestion_window_bytes == 700 * MSS
    grow(control, 300 * MS, 300 * MS + int(9.09 * SECOND), 50 * MS)
    assert control.congestion_window_bytes == pytest.approx(1000 * MSS, rel=0.01)
    grow(control, int(9.4 * SECOND), int(20 * SECOND), 50 * MS)
    assert control.congestion_window_bytes > 1300 * MSS


def test_cubic_follows_reno_where_reno_is_faster() -> None:
    """RFC 9438 section 4.3: at a small window and a short RTT, by alpha_cubic = 0.53 segments a round trip."""
    control = Cubic(MSS, None, 0)
    lose(control, 100 * MS, 50 * MS)
    window = control.congestion_window_bytes
    grow(control, 200 * MS, 205 * MS, MS)
    assert control.congestion_window_bytes == pytest.approx(window + 5 * 0.529 * MSS, rel=0.02)


def test_cubic_gives_way_when_it_loses_before_w_max() -> None:
    """RFC 9438 section 4.7."""
    control = Cubic(MSS, None, 0)
    ack(control, 100 * MS, newly_acked_bytes=990 * MSS)
    lose(control, 200 * MS, 150 * MS)
    lose(control, 300 * MS, 250 * MS)
    assert control.snapshot()["w_max"] == pytest.approx(700 * MSS * 1.7 / 2)


def test_cubic_stands_still_while_the_application_has_nothing() -> None:
    """RFC 9438 section 5.8: a pause is no time of the curve's."""
    paused, steady = Cubic(MSS, None, 0), Cubic(MSS, None, 0)
    for control in (paused, steady):
        ack(control, 100 * MS, newly_acked_bytes=990 * MSS)
        lose(control, 200 * MS, 150 * MS)
        grow(control, 300 * MS, 500 * MS, 50 * MS)
    ack(paused, 20 * SECOND, newly_acked_bytes=MSS, is_window_limited=False)
    grow(paused, 20 * SECOND + 50 * MS, 20 * SECOND + 250 * MS, 50 * MS)
    grow(steady, 500 * MS, 700 * MS, 50 * MS)
    assert paused.congestion_window_bytes == pytest.approx(steady.congestion_window_bytes, rel=0.01)


def test_cubic_stands_still_while_nothing_is_under_way() -> None:
    """RFC 9438 section 5.8: after a silence too that ends with a full window, of which every sample is window-limited.

    The next silence counts again, and a window that was sent while another was under way ends none.
    """
    idle, steady = Cubic(MSS, None, 0), Cubic(MSS, None, 0)
    for control in (idle, steady):
        ack(control, 100 * MS, newly_acked_bytes=990 * MSS)
        lose(control, 200 * MS, 150 * MS)
        grow(control, 300 * MS, 500 * MS, 50 * MS)  # the last acknowledgement comes at 450 ms
    for start_ns in (30 * SECOND, 60 * SECOND):
        idle.on_sent(start_ns, MSS, 0, is_app_limited=True)
        idle.on_sent(start_ns, 9 * MSS, MSS, is_app_limited=False)
        grow(idle, start_ns + 50 * MS, start_ns + 300 * MS, 50 * MS)
    grow(steady, 500 * MS, 1000 * MS, 50 * MS)
    assert idle.congestion_window_bytes == pytest.approx(steady.congestion_window_bytes, abs=1)


def test_cubic_goes_on_from_where_slow_start_ends_after_persistent_congestion() -> None:
    """RFC 9438 section 4.8: K is 0 then and W_max the window, not the plateau of the path before."""
    control = Cubic(MSS, None, 0)
    ack(control, 100 * MS, newly_acked_bytes=990 * MSS)
    lose(control, SECOND, 900 * MS, is_persistent=True)
    now_ns = 2 * SECOND
    while control.snapshot()["phase"] == "slow_start":
        ack(control, now_ns, newly_acked_bytes=100 * MSS)
        now_ns += 50 * MS
    window = control.congestion_window_bytes
    ack(control, now_ns, newly_acked_bytes=MSS)
    assert control.snapshot()["w_max"] == window


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_hystart_judges_the_first_slow_start_alone(kind: type[LossBasedController]) -> None:
    """RFC 9406 section 4.3: a later one knows from its ssthresh where to end."""
    control = kind(MSS, None, 0)
    ack(control, 100 * MS, newly_acked_bytes=990 * MSS)
    lose(control, SECOND, 900 * MS, is_persistent=True)
    for number, rtt_ms in enumerate([40, 40, 40, 60, 60, 60, 80, 80, 80]):
        before = control.congestion_window_bytes
        ack(
            control,
            (1100 + number) * MS,
            newly_acked_bytes=MSS,
            rtt_ns=rtt_ms * MS,
            prior_delivered_bytes=(1 + number // 3) * 1000 * MSS,
            delivered_bytes=(2 + number // 3) * 1000 * MSS,
        )
        assert control.congestion_window_bytes == before + MSS


def feed_round(hystart: HyStart, number: int, rtts_ms: list[float]) -> None:
    for rtt_ms in rtts_ms:
        hystart.on_ack(
            dataclasses.replace(
                ACK, prior_delivered_bytes=number * 1000, delivered_bytes=(number + 1) * 1000, rtt_ns=int(rtt_ms * MS)
            )
        )


def test_hystart_slows_down_for_five_rounds_and_leaves_when_the_delay_stays() -> None:
    hystart = HyStart()
    feed_round(hystart, 0, [40, 40, 40, 40])
    assert hystart.growth_divisor == 1
    feed_round(hystart, 1, [46, 46, 47, 48])
    assert hystart.growth_divisor == 4
    for number in range(2, 7):
        assert not hystart.is_over
        feed_round(hystart, number, [60, 60, 60, 60])
    assert hystart.is_over


def test_hystart_goes_on_when_the_delay_was_jitter() -> None:
    hystart = HyStart()
    feed_round(hystart, 0, [40, 40, 40, 40])
    feed_round(hystart, 1, [46, 46, 47, 48])
    feed_round(hystart, 2, [40, 41, 40, 44])
    assert hystart.growth_divisor == 1
    for number in range(3, 12):
        feed_round(hystart, number, [40, 43, 41, 40])
    assert not hystart.is_over


def test_hystart_does_not_judge_by_less_than_its_samples() -> None:
    hystart = HyStart()
    feed_round(hystart, 0, [40, 40, 40, 40])
    feed_round(hystart, 1, [60, 60])
    assert hystart.growth_divisor == 1
