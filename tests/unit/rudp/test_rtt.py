"""The RTT estimator, compared with RFC 9002 section 5 computed by hand."""

from toolkit.rudp.rtt import GRANULARITY_NS, INITIAL_RTT_NS, RttEstimator

MS = 1_000_000


def test_the_initial_rtt_applies_before_the_first_sample() -> None:
    rtt = RttEstimator()
    assert not rtt.has_sample
    assert (rtt.smoothed_rtt_ns, rtt.rttvar_ns) == (INITIAL_RTT_NS, INITIAL_RTT_NS // 2)
    assert rtt.pto_ns(0) == 3 * INITIAL_RTT_NS


def test_the_first_sample_replaces_the_initial_values_and_is_not_adjusted() -> None:
    rtt = RttEstimator()
    rtt.update(80 * MS, 20 * MS)
    assert (rtt.smoothed_rtt_ns, rtt.rttvar_ns, rtt.min_rtt_ns) == (80 * MS, 40 * MS, 80 * MS)


def test_later_samples_are_smoothed_by_an_eighth_and_a_quarter() -> None:
    rtt = RttEstimator()
    rtt.update(80 * MS, 0)
    rtt.update(120 * MS, 0)
    assert rtt.smoothed_rtt_ns == 85 * MS
    assert rtt.rttvar_ns == (3 * 40 * MS + 40 * MS) // 4


def test_the_variation_is_measured_from_the_smoothed_rtt() -> None:
    """A standing queue raises the RTT far above its minimum, but is no variation."""
    rtt = RttEstimator()
    rtt.update(10 * MS, 0)
    for _ in range(200):
        rtt.update(100 * MS, 0)
    assert rtt.min_rtt_ns == 10 * MS
    assert rtt.rttvar_ns < MS


def test_the_ack_delay_is_subtracted() -> None:
    rtt = RttEstimator()
    rtt.update(80 * MS, 0)
    rtt.update(100 * MS, 20 * MS)
    assert rtt.smoothed_rtt_ns == 80 * MS
    assert rtt.latest_rtt_ns == 100 * MS


def test_the_rtt_of_the_path_is_without_the_whole_delay() -> None:
    rtt = RttEstimator(max_ack_delay_ns=25 * MS)
    for sample_ms, delay_ms in ((80, 20), (88, 60), (180, 60)):
        rtt.update(sample_ms * MS, delay_ms * MS)
        assert rtt.undelayed_rtt_ns == (sample_ms - delay_ms) * MS


def test_an_ack_delay_that_leads_below_the_minimum_is_ignored() -> None:
    rtt = RttEstimator()
    rtt.update(80 * MS, 0)
    rtt.update(88 * MS, 20 * MS)
    assert rtt.smoothed_rtt_ns == 81 * MS


def test_no_more_than_the_maximum_ack_delay_is_subtracted() -> None:
    rtt = RttEstimator(max_ack_delay_ns=25 * MS)
    rtt.update(80 * MS, 0)
    rtt.update(180 * MS, 60 * MS)
    assert rtt.smoothed_rtt_ns == (7 * 80 + 155) * MS // 8


def test_the_probe_timeout_includes_at_least_the_granularity() -> None:
    rtt = RttEstimator()
    for _ in range(100):
        rtt.update(50 * MS, 0)
    assert rtt.rttvar_ns < GRANULARITY_NS // 4
    assert rtt.pto_ns(5 * MS) == rtt.smoothed_rtt_ns + GRANULARITY_NS + 5 * MS


def test_persistent_congestion_restarts_the_minimum() -> None:
    rtt = RttEstimator()
    rtt.update(20 * MS, 0)
    rtt.update(60 * MS, 0)
    assert rtt.min_rtt_ns == 20 * MS
    rtt.on_persistent_congestion()
    rtt.update(60 * MS, 0)
    rtt.update(70 * MS, 0)
    assert rtt.min_rtt_ns == 60 * MS


def test_a_clock_that_stands_still_gives_a_positive_rtt() -> None:
    rtt = RttEstimator()
    rtt.update(0, 0)
    assert rtt.smoothed_rtt_ns > 0
