"""Delivery-rate samples: delivered bytes, divided by the longer of the times for sending and acknowledging them."""

from toolkit.rudp.delivery_rate import DeliveryEstimator
from toolkit.rudp.sent_packets import SendState

MS = 1_000_000
KB = 1000


def test_a_steady_path_is_measured_at_its_rate() -> None:
    """1,000 bytes per ms and an RTT of 10 ms: 8 Mbit/s from the second round trip on."""
    estimator = DeliveryEstimator()
    states: dict[int, SendState] = {}
    for ms in range(40):
        if ms >= 10:
            estimator.on_delivered(ms * MS, KB)
            sample = estimator.sample_bps(ms * MS, states[ms - 10], 10 * MS)
            if ms >= 20:
                assert sample == 8e6
        states[ms] = estimator.on_send(ms * MS, min(ms, 10) * KB, KB)


def test_compressed_acknowledgements_do_not_raise_the_rate() -> None:
    """1,000 bytes per ms; acknowledgements are held until 30 ms, then arrive in bursts."""
    estimator = DeliveryEstimator()
    states = [estimator.on_send(ms * MS, ms * KB, KB) for ms in range(30)]
    estimator.on_delivered(30 * MS, 21 * KB)
    estimator.sample_bps(30 * MS, states[20], 10 * MS)
    state = estimator.on_send(32 * MS, 10 * KB, KB)
    estimator.on_delivered(40 * MS, 12 * KB)  # 12 KB in the 10 ms since the last acknowledgement: 9.6 Mbit/s
    assert estimator.sample_bps(40 * MS, state, 8 * MS) == 8e6  # but sending them took 12 ms


def test_an_interval_below_the_minimum_rtt_gives_no_sample() -> None:
    estimator = DeliveryEstimator()
    state = estimator.on_send(0, 0, KB)
    estimator.on_delivered(9 * MS, KB)
    assert estimator.sample_bps(9 * MS, state, 10 * MS) is None
    assert estimator.sample_bps(10 * MS, state, 10 * MS) == KB * 8 * 100


def test_a_clock_that_stands_still_gives_no_sample() -> None:
    estimator = DeliveryEstimator()
    state = estimator.on_send(5, 0, KB)
    estimator.on_delivered(5, KB)
    assert estimator.sample_bps(5, state, 0) is None


def test_idle_time_is_not_part_of_the_next_sample() -> None:
    estimator = DeliveryEstimator()
    state = estimator.on_send(0, 0, KB)
    estimator.on_delivered(10 * MS, KB)
    estimator.sample_bps(10 * MS, state, MS)
    state = estimator.on_send(5000 * MS, 0, KB)
    estimator.on_delivered(5010 * MS, KB)
    assert estimator.sample_bps(5010 * MS, state, MS) == KB * 8 * 100


def test_a_stamp_holds_the_bytes_in_flight_and_lost() -> None:
    estimator = DeliveryEstimator()
    estimator.lost_bytes = 7
    state = estimator.on_send(3, 4000, 1000)
    assert (state.sent_time_ns, state.in_flight_bytes, state.lost_bytes, state.delivered_bytes) == (3, 5000, 7, 0)


def test_app_limited_ends_once_what_was_in_flight_is_delivered() -> None:
    estimator = DeliveryEstimator()
    assert not estimator.on_send(0, 0, 2 * KB).is_app_limited
    estimator.on_app_limited(2 * KB)
    assert estimator.on_send(1, 2 * KB, KB).is_app_limited
    estimator.on_delivered(2, 2 * KB)
    assert estimator.on_send(3, KB, KB).is_app_limited
    estimator.on_delivered(4, KB)
    assert not estimator.on_send(5, KB, KB).is_app_limited


def test_lateness_ends_once_what_was_in_flight_is_delivered() -> None:
    estimator = DeliveryEstimator()
    assert not estimator.on_send(0, 0, 2 * KB).is_late
    estimator.on_late(2 * KB)
    assert estimator.on_send(1, 2 * KB, KB).is_late
    estimator.on_delivered(2, 2 * KB)
    assert estimator.on_send(3, KB, KB).is_late
    estimator.on_delivered(4, KB)
    state = estimator.on_send(5, KB, KB)
    assert not state.is_late
    assert not state.is_app_limited


def test_app_limited_with_nothing_in_flight_marks_the_next_packets() -> None:
    estimator = DeliveryEstimator()
    estimator.on_app_limited(0)
    assert estimator.on_send(0, 0, KB).is_app_limited
    estimator.on_delivered(1, KB)
    assert not estimator.on_send(2, 0, KB).is_app_limited
