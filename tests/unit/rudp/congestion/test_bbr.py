"""BBR's state machine and control parameters, fed with single samples."""

import pytest

from tests.support.congestion_samples import DATAGRAM_BYTES, MS, SECOND, ack_sample, loss_sample
from toolkit.rudp.congestion.base import AckSample
from toolkit.rudp.congestion.bbr import Bbr
from toolkit.rudp.congestion.bbr_phases import PHASES, Phase

FIRST_FLIGHT_ACK: AckSample = ack_sample(
    50 * MS,
    newly_acked_bytes=10 * DATAGRAM_BYTES,
    delivered_bytes=10 * DATAGRAM_BYTES,
    bytes_in_flight=0,
)


def test_the_table_has_every_phase_and_every_phase_is_reachable() -> None:
    assert set(PHASES) == set(Phase)
    assert frozenset().union(*(spec.successors for spec in PHASES.values())) == set(Phase) - {Phase.STARTUP}


def test_startup_paces_at_least_the_bandwidth_and_grows_the_window() -> None:
    control = Bbr(DATAGRAM_BYTES, None, 1)
    control.on_ack(FIRST_FLIGHT_ACK)
    assert control.phase is Phase.STARTUP
    assert control.pacing_rate_bps >= 2.77 * 2.4e6
    assert control.congestion_window_bytes > 20 * DATAGRAM_BYTES


def test_persistent_congestion_shrinks_the_window_and_a_good_round_restores_it() -> None:
    control = Bbr(DATAGRAM_BYTES, None, 1)
    control.on_ack(FIRST_FLIGHT_ACK)
    before_bytes = control.congestion_window_bytes
    control.on_loss(loss_sample(3 * SECOND, 60 * MS, bytes_in_flight=0, is_persistent=True))
    assert control.congestion_window_bytes == 4 * DATAGRAM_BYTES
    control.on_ack(
        ack_sample(
            3 * SECOND + 40 * MS,
            delivered_bytes=11 * DATAGRAM_BYTES,
            prior_delivered_bytes=10 * DATAGRAM_BYTES,
        )
    )
    assert control.congestion_window_bytes >= before_bytes


@pytest.mark.parametrize(("rtt_ms", "is_full"), [(60, True), (40, False)])
def test_a_sender_that_is_late_leaves_startup_once_a_queue_stands(rtt_ms: int, is_full: bool) -> None:
    """The queue has never drained, so the path was at its limit. Without one, the path may carry more."""
    control = Bbr(DATAGRAM_BYTES, None, 1)
    control.on_ack(FIRST_FLIGHT_ACK)
    phases = {Phase.STARTUP}
    delivered_bytes = 10 * DATAGRAM_BYTES
    for number in range(40):  # four to a round
        prior_bytes, delivered_bytes = delivered_bytes - 35 * DATAGRAM_BYTES, delivered_bytes + 10 * DATAGRAM_BYTES
        now_ns = 100 * MS + number * rtt_ms * MS // 4
        control.on_ack(
            ack_sample(
                now_ns,
                newly_acked_bytes=10 * DATAGRAM_BYTES,
                delivered_bytes=delivered_bytes,
                prior_delivered_bytes=prior_bytes,
                largest_acked_sent_time_ns=now_ns - rtt_ms * MS,
                rtt_ns=rtt_ms * MS,
                is_late=True,
            )
        )
        phases.add(control.phase)
    assert (Phase.DRAIN in phases) == is_full


def test_the_requested_rate_limits_the_pacing_rate() -> None:
    control = Bbr(DATAGRAM_BYTES, 3e6, 1)
    control.on_ack(FIRST_FLIGHT_ACK)
    assert control.pacing_rate_bps == 3e6
