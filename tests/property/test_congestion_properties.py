"""Controllers, MTU search, pacer and RTT estimator stay usable for any input, however inconsistent."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.repetitions import examples
from toolkit.rudp.congestion.base import (
    CONTROLLER_NAMES,
    AckSample,
    CongestionController,
    LossSample,
    controller_factory,
)
from toolkit.rudp.congestion.bbr import Bbr
from toolkit.rudp.pacer import Pacer
from toolkit.rudp.pmtud import BASE_DATAGRAM_BYTES, PathMtu
from toolkit.rudp.rtt import RttEstimator

MS = 1_000_000
MSS = 1200


@dataclass(frozen=True)
class Step:
    """Some time passes; then packets are sent, acknowledged, lost, marked or found to be spuriously lost."""

    elapsed_ns: int
    sent: int
    acked: int
    lost: int
    rtt_ns: int | None
    rate_bps: float | None
    marked: int
    is_app_limited: bool
    is_persistent: bool
    is_spurious: bool


steps = st.builds(
    Step,
    elapsed_ns=st.integers(0, 3_000_000_000),
    sent=st.integers(0, 2000),
    acked=st.integers(0, 2000),
    lost=st.integers(0, 2000),
    rtt_ns=st.none() | st.integers(1, 2_000_000_000),
    rate_bps=st.none() | st.floats(0, 1e12),
    marked=st.integers(0, 3),
    is_app_limited=st.booleans(),
    is_persistent=st.booleans(),
    is_spurious=st.booleans(),
)


class Driver:
    """Keeps the byte totals consistent, as the interface requires, and takes everything else from the steps."""

    def __init__(self, control: CongestionController) -> None:
        self.control = control
        self.now_ns = self.in_flight = self.delivered = self.lost = self.round_delivered = 0
        self.rtt = RttEstimator()

    def apply(self, step: Step) -> None:
        control = self.control
        self.now_ns += step.elapsed_ns
        if step.sent:
            control.on_sent(self.now_ns, step.sent * MSS, self.in_flight, step.is_app_limited)
            self.in_flight += step.sent * MSS
        prior = self.in_flight
        lost = min(step.lost * MSS, self.in_flight)
        if lost:
            self.in_flight -= lost
            self.lost += lost
            sent_ns = max(0, self.now_ns - (step.rtt_ns or 0))
            control.on_loss(LossSample(self.now_ns, lost, self.in_flight, sent_ns, prior, step.is_persistent))
            if step.is_spurious:
                control.on_spurious_loss(self.now_ns, sent_ns)
        acked = min(step.acked * MSS, self.in_flight)
        if not acked:
            return
        if step.rtt_ns is not None:
            self.rtt.update(step.rtt_ns, 0)
        self.in_flight -= acked
        self.delivered += acked
        control.on_ack(
            AckSample(
                now_ns=self.now_ns,
                newly_acked_bytes=acked,
                newly_lost_bytes=lost,
                bytes_in_flight=self.in_flight,
                prior_in_flight_bytes=prior,
                delivered_bytes=self.delivered,
                prior_delivered_bytes=self.round_delivered,
                lost_bytes=self.lost,
                lost_since_sent_bytes=lost,
                in_flight_at_send_bytes=prior,
                largest_acked_sent_time_ns=max(0, self.now_ns - (step.rtt_ns or 0)),
                rtt_ns=step.rtt_ns,
                smoothed_rtt_ns=self.rtt.smoothed_rtt_ns,
                min_rtt_ns=self.rtt.min_rtt_ns,
                delivery_rate_bps=step.rate_bps,
                is_app_limited=step.is_app_limited,
                is_window_limited=not step.is_app_limited,
                ecn_ce_count=step.marked,
            )
        )
        self.round_delivered = self.delivered - acked // 2


@pytest.mark.parametrize("name", CONTROLLER_NAMES)
@settings(max_examples=examples(60), deadline=None)
@given(st.lists(steps, max_size=60), st.integers(0, 2**64 - 1))
def test_window_and_rate_stay_usable(name: str, history: list[Step], seed: int) -> None:
    driver = Driver(controller_factory(name)(MSS, 50e6, seed))
    for step in history:
        driver.apply(step)
        assert driver.control.congestion_window_bytes >= 2 * MSS
        assert 0 < driver.control.pacing_rate_bps <= 50e6
        assert all(isinstance(v, str) or not math.isnan(v) for v in driver.control.snapshot().values())


def test_marks_never_raise_a_fixed_rate() -> None:
    """Not even if packets that were sent before arrive faster than the path is used now."""
    driver = Driver(controller_factory("rate")(MSS, 50e6, 1))
    for _ in range(20):
        before_bps = driver.control.pacing_rate_bps
        driver.apply(Step(20 * MS, 10, 10, 0, 20 * MS, 100e6, 1, False, False, False))
        assert driver.control.pacing_rate_bps <= before_bps


@pytest.mark.parametrize("name", CONTROLLER_NAMES)
@settings(max_examples=examples(20), deadline=None)
@given(st.lists(steps, max_size=40), st.integers(0, 1000))
def test_equal_samples_and_seeds_give_equal_windows(name: str, history: list[Step], seed: int) -> None:
    one, other = (Driver(controller_factory(name)(MSS, 50e6, seed)) for _ in range(2))
    for step in history:
        one.apply(step)
        other.apply(step)
    assert one.control.snapshot() == other.control.snapshot()
    assert one.control.pacing_rate_bps == other.control.pacing_rate_bps


@settings(max_examples=examples(20), deadline=None)
@given(st.lists(steps, min_size=10, max_size=40))
def test_bbr_uses_a_clean_path_after_any_history(history: list[Step]) -> None:
    """After any steps, 1,500 clean round trips lead to a window and a rate that use the path."""
    driver = Driver(Bbr(MSS, None, 1))
    for step in history:
        driver.apply(step)
    driver.in_flight = 0
    rtt_ns, capacity_bps = 40 * MS, 50e6
    for _ in range(1500):
        window = driver.control.congestion_window_bytes
        driver.round_delivered = driver.delivered
        rate = min(capacity_bps, driver.control.pacing_rate_bps, window * 8e9 / rtt_ns)
        packets = max(1, int(rate * rtt_ns / 8e9 / MSS))
        in_bdp = capacity_bps * rtt_ns / 8e9
        queue_ns = int(max(0.0, window - in_bdp) * 8e9 / capacity_bps) if rate >= capacity_bps else 0
        clean = Step(rtt_ns, packets, packets, 0, rtt_ns + queue_ns, rate, 0, False, False, False)
        driver.apply(clean)
    assert driver.control.pacing_rate_bps > 0.8 * capacity_bps
    assert driver.control.congestion_window_bytes > 0.8 * capacity_bps * rtt_ns / 8e9


mtu_events = st.one_of(
    st.tuples(st.just("probe"), st.booleans()),
    st.tuples(st.just("acked"), st.integers(1, 9000)),
    st.tuples(st.just("lost"), st.integers(1, 9000)),
    st.tuples(st.just("wait"), st.integers(1, 1200)),
)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(mtu_events, max_size=120), st.integers(500, 9000))
def test_the_mtu_search_follows_its_table_on_any_path(events: list[tuple[str, int]], max_bytes: int) -> None:
    """An event that the table does not allow in the current state would raise KeyError."""
    mtu = PathMtu(max_bytes)
    now_ns = 0
    for kind, value in events:
        if kind == "probe":
            size = mtu.probe_size(now_ns)
            if size is not None:
                assert BASE_DATAGRAM_BYTES <= size <= max(max_bytes, BASE_DATAGRAM_BYTES)
                mtu.on_probe_sent()
                (mtu.on_probe_acked if value else mtu.on_probe_lost)(size, now_ns)
        elif kind == "acked":
            mtu.on_packet_acked(value)
        elif kind == "lost":
            mtu.on_packets_lost(value, 5)
        else:
            now_ns += value * 1_000_000_000
        assert BASE_DATAGRAM_BYTES <= mtu.datagram_bytes <= max(max_bytes, BASE_DATAGRAM_BYTES)


@settings(max_examples=examples(100), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5 * MS), st.integers(1, 100)), min_size=20, max_size=100),
    st.floats(1e5, 40e9),
)
def test_the_pacer_never_exceeds_the_rate_by_more_than_a_burst(
    requests: list[tuple[int, int]], rate_bps: float
) -> None:
    """Whenever the budget is requested, and whatever share of it is used."""
    pacer = Pacer()
    now_ns = sent = 0
    for wait_ns, percent in requests:
        now_ns += wait_ns
        budget = pacer.budget_bytes(now_ns, rate_bps, MSS)
        taken = min(budget, max(MSS, budget * percent // 100 // MSS * MSS))
        if taken:
            pacer.on_sent(now_ns, taken, rate_bps)
            sent += taken
        burst = 2 * Pacer.quantum_bytes(rate_bps, MSS) + rate_bps / 8 * 0.004 + 2 * Pacer.quantum_bytes(rate_bps, MSS)
        assert sent <= rate_bps / 8e9 * now_ns + burst


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000 * MS), st.integers(0, 2000 * MS)), min_size=1, max_size=50))
def test_the_rtt_stays_between_its_samples(samples: list[tuple[int, int]]) -> None:
    rtt = RttEstimator(max_ack_delay_ns=25 * MS)
    for latest_ns, delay_ns in samples:
        rtt.update(latest_ns, delay_ns)
    seen = [max(latest, 1) for latest, _ in samples]
    assert rtt.min_rtt_ns == min(seen)
    assert min(seen) - len(seen) <= rtt.smoothed_rtt_ns <= max(seen)
    assert rtt.pto_ns(0) > rtt.smoothed_rtt_ns
