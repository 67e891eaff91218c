"""How Startup learns the rate of the bottleneck, and what its losses mean."""

import pytest

from tests.support.congestion_samples import DATAGRAM_BYTES, MS, ack_sample
from toolkit.rudp.congestion.base import ACKS_PER_RTT, initial_window_bytes
from toolkit.rudp.congestion.bbr_model import UNBOUNDED, BbrModel
from toolkit.rudp.congestion.bbr_startup import (
    FAST_GROWTH,
    FULL_GAIN,
    STARTUP_ACKS_PER_RTT,
    TRAIN_GROWTH,
    LossVerdict,
    StartupGuard,
)
from toolkit.rudp.congestion.path_model import BottleneckRate

RTT_NS = 40 * MS
RATE_BPS = 100e6
ROUND_BYTES = 200 * DATAGRAM_BYTES


def started_model() -> BbrModel:
    model = BbrModel(DATAGRAM_BYTES)
    model.min_rtt.update(0, RTT_NS)
    return model


def lose(model: BbrModel, share: float) -> None:
    model.loss.on_lost(int(share * ROUND_BYTES))
    model.loss.on_acked(int((1 - share) * ROUND_BYTES))


def reduced_guard(model: BbrModel, share: float) -> StartupGuard:
    """A guard that has just had to send less, because `share` was lost for a quarter of a round trip."""
    guard = StartupGuard(model)
    lose(model, share)
    assert guard.on_excessive_loss(RTT_NS) is LossVerdict.NONE
    assert guard.on_excessive_loss(RTT_NS + RTT_NS // 4) is LossVerdict.REDUCED
    model.loss.discard_round()
    return guard


def feed_queue(rate: BottleneckRate, packets: int, round_trip: int = 0) -> None:
    """Acknowledgements of packets sent at once in this round trip, which leave the bottleneck at RATE_BPS."""
    sent_ns = round_trip * RTT_NS
    for index in range(packets):
        delay_ns = int(index * DATAGRAM_BYTES * 8e9 / RATE_BPS)
        sample = ack_sample(
            sent_ns + RTT_NS + delay_ns,
            largest_acked_sent_time_ns=sent_ns,
            rtt_ns=RTT_NS + delay_ns,
            delivered_bytes=round_trip * ROUND_BYTES + index * DATAGRAM_BYTES,
        )
        rate.update(sample, index > 0, 2 * MS, 0.0)


def test_packets_of_a_burst_show_the_rate_of_the_bottleneck() -> None:
    rate = BottleneckRate()
    feed_queue(rate, 10)
    assert rate.bps is None
    feed_queue(rate, 40, round_trip=1)
    assert rate.bps == pytest.approx(RATE_BPS, rel=0.01)


@pytest.mark.parametrize("earlier_ns", [0, 1000])
def test_arrivals_at_one_time_or_in_disorder_show_no_rate(earlier_ns: int) -> None:
    """On a path of some nanoseconds, a queue need not last for any time to be measured."""
    rate = BottleneckRate()
    for index in range(3):
        sample = ack_sample(
            largest_acked_sent_time_ns=RTT_NS, rtt_ns=RTT_NS - index * earlier_ns, delivered_bytes=index
        )
        rate.update(sample, has_queue=index > 0, span_ns=0, least_bps=0.0)
    assert rate.bps is None


def test_a_rate_that_leaves_no_queue_for_a_whole_round_is_forgotten() -> None:
    rate = BottleneckRate()
    feed_queue(rate, 40)
    for _ in range(2):
        assert not rate.end_round(has_queue=False, is_above_minimum=False)
        assert rate.bps is not None
    assert rate.end_round(has_queue=False, is_above_minimum=False)
    assert rate.bps is None
    assert rate.was_measured


def test_a_rate_that_a_late_sender_has_not_used_is_kept() -> None:
    rate = BottleneckRate()
    feed_queue(rate, 40)
    for _ in range(2):
        rate.end_round(has_queue=False, is_above_minimum=False)
    assert not rate.end_round(has_queue=False, is_above_minimum=False, late_bps=0.9 * RATE_BPS)
    assert rate.end_round(has_queue=False, is_above_minimum=False, late_bps=1.1 * RATE_BPS)


def test_nothing_is_measured_after_a_round_of_jitter_or_of_another_flows_queue() -> None:
    rate = BottleneckRate()
    rate.end_round(has_queue=True, is_above_minimum=True)
    feed_queue(rate, 40)
    assert rate.bps is None


def test_the_window_and_the_rate_stop_a_little_above_the_bottleneck() -> None:
    model = started_model()
    guard = StartupGuard(model)
    assert guard.max_window_bytes == UNBOUNDED
    for index in range(60):
        delay_ns = int(index * DATAGRAM_BYTES * 8e9 / RATE_BPS)
        sample = ack_sample(
            RTT_NS + delay_ns,
            largest_acked_sent_time_ns=0,
            rtt_ns=RTT_NS + delay_ns,
            delivered_bytes=index * DATAGRAM_BYTES,
            prior_delivered_bytes=-1,
        )
        model.update(sample, 100 * DATAGRAM_BYTES)
        guard.on_ack(sample)
    window_bytes = RATE_BPS * RTT_NS / 8e9
    assert FULL_GAIN * window_bytes <= guard.max_window_bytes <= 1.5 * window_bytes
    assert guard.pacing_rate_bps(RATE_BPS) == pytest.approx(FULL_GAIN * RATE_BPS, rel=0.05)


@pytest.mark.parametrize(("rate_bps", "is_wide"), [(100e6, True), (20e6, False)])
def test_an_initial_window_that_passes_within_a_16th_of_the_round_trip_is_followed_by_eight(
    rate_bps: float, is_wide: bool
) -> None:
    model = started_model()
    guard = StartupGuard(model)
    window_bytes = initial_window_bytes(DATAGRAM_BYTES)
    for bytes_ahead in range(0, window_bytes, DATAGRAM_BYTES):
        delay_ns = int(bytes_ahead * 8e9 / rate_bps)
        sample = ack_sample(
            RTT_NS + delay_ns,
            largest_acked_sent_time_ns=0,
            rtt_ns=RTT_NS + delay_ns,
            newly_acked_bytes=DATAGRAM_BYTES,
            delivered_bytes=bytes_ahead + DATAGRAM_BYTES,
        )
        model.update(sample, window_bytes)
        guard.on_ack(sample)
        if bytes_ahead:
            assert (guard.growth == TRAIN_GROWTH) == is_wide
    later = ack_sample(2 * RTT_NS, prior_delivered_bytes=window_bytes, delivered_bytes=2 * window_bytes)
    guard.on_ack(later)
    assert guard.growth <= FAST_GROWTH


def test_a_burst_of_losses_changes_nothing() -> None:
    model = started_model()
    guard = StartupGuard(model)
    lose(model, 0.1)
    assert guard.on_excessive_loss(RTT_NS) is LossVerdict.NONE
    guard.end_round(is_excessive=False)
    assert guard.on_excessive_loss(3 * RTT_NS) is LossVerdict.NONE
    assert guard.growth == FAST_GROWTH


def test_loss_that_sending_less_does_not_lower_is_random() -> None:
    model = started_model()
    guard = reduced_guard(model, 0.1)
    assert guard.growth == 0.0
    assert guard.end_round(is_excessive=True) is LossVerdict.TESTING
    lose(model, 0.1)
    assert guard.end_round(is_excessive=True) is LossVerdict.RANDOM
    model.loss.end_round(is_random=True, is_below_capacity=True)
    assert model.loss.ratio == pytest.approx(0.1)
    assert guard.growth == FAST_GROWTH


def test_few_packets_prove_nothing_so_the_test_goes_on() -> None:
    """Of 40 packets of a path that loses 20%, the first 20 may all arrive."""
    model = started_model()
    guard = reduced_guard(model, 0.2)
    guard.end_round(is_excessive=True)
    for lost, packets, verdict in (
        (0, 20, LossVerdict.TESTING),
        (6, 20, LossVerdict.TESTING),
        (12, 40, LossVerdict.RANDOM),
    ):
        model.loss.on_lost(lost * DATAGRAM_BYTES)
        model.loss.on_acked((packets - lost) * DATAGRAM_BYTES)
        assert guard.end_round(is_excessive=False) is verdict
        model.loss.end_round(is_random=verdict is LossVerdict.RANDOM, is_below_capacity=True)
    assert model.loss.ratio == pytest.approx(18 / 80, rel=0.2)


def test_a_test_ends_even_if_it_never_sees_enough_packets() -> None:
    model = started_model()
    guard = reduced_guard(model, 0.05)
    verdicts = []
    for _ in range(6):
        model.loss.on_acked(4 * DATAGRAM_BYTES)
        verdicts.append(guard.end_round(is_excessive=False))
        model.loss.discard_round()
    assert verdicts == [LossVerdict.TESTING] * 5 + [LossVerdict.BUFFER]


def test_loss_that_sending_less_lowers_is_a_full_buffer() -> None:
    model = started_model()
    guard = reduced_guard(model, 0.3)
    guard.end_round(is_excessive=True)
    lose(model, 0.0)
    assert guard.end_round(is_excessive=False) is LossVerdict.BUFFER
    assert guard.growth == 1.0
    lose(model, 0.1)
    guard.on_excessive_loss(10 * RTT_NS)
    assert guard.on_excessive_loss(11 * RTT_NS) is LossVerdict.FULL


def test_loss_that_is_lower_but_still_too_high_ends_startup() -> None:
    model = started_model()
    guard = reduced_guard(model, 0.5)
    guard.end_round(is_excessive=True)
    lose(model, 0.2)
    assert guard.end_round(is_excessive=True) is LossVerdict.FULL


def test_the_window_grows_by_four_while_nothing_queues_and_doubles_once_something_does() -> None:
    model = started_model()
    guard = StartupGuard(model)
    growths = []
    for number, rtt_ms in enumerate((40, 40.5, 43, 43, 43, 40)):
        sample = ack_sample((number + 1) * RTT_NS, rtt_ns=int(rtt_ms * MS), delivered_bytes=number * DATAGRAM_BYTES)
        model.update(sample, 100 * DATAGRAM_BYTES)
        guard.on_ack(sample)
        growths.append(guard.growth)
    assert growths[0] == FAST_GROWTH
    assert FAST_GROWTH > growths[1] > growths[2]
    assert growths[2:] == [1.0] * 4, "three samples show a queue, so it is not far from being full"


def test_acknowledgements_are_fewer_once_the_bottleneck_has_been_measured() -> None:
    """They may be what has filled the way back, so that the rate was theirs."""
    model = started_model()
    guard = StartupGuard(model)
    assert guard.acks_per_rtt == STARTUP_ACKS_PER_RTT
    for index in range(60):
        delay_ns = int(index * DATAGRAM_BYTES * 8e9 / RATE_BPS)
        sample = ack_sample(
            RTT_NS + delay_ns,
            largest_acked_sent_time_ns=0,
            rtt_ns=RTT_NS + delay_ns,
            delivered_bytes=index * DATAGRAM_BYTES,
            prior_delivered_bytes=-1,
        )
        model.update(sample, 100 * DATAGRAM_BYTES)
        guard.on_ack(sample)
    assert guard.acks_per_rtt == ACKS_PER_RTT
