"""When a memory of the path is used, and when it is left alone."""

import pytest

from tests.support.congestion_samples import DATAGRAM_BYTES, MS, ack_sample, loss_sample
from toolkit.rudp.congestion.base import PathMemory, ResumingController, controller_factory
from toolkit.rudp.congestion.bbr import Bbr
from toolkit.rudp.congestion.careful_resume import CarefulResume, ResumePhase

MEMORY = PathMemory(100e6, 40 * MS)
VOLUME_BYTES = 500_000
INITIAL_BYTES = 12_000


@pytest.mark.parametrize(("rtt_ms", "is_same"), [(31, False), (32, True), (40, True), (59, True), (61, False)])
def test_another_rtt_is_another_path(rtt_ms: int, is_same: bool) -> None:
    assert MEMORY.matches(rtt_ms * MS) == is_same


def test_half_is_sent_in_the_first_round_trip_and_all_after_the_second() -> None:
    resume = CarefulResume()
    window_bytes = resume.start(MEMORY, INITIAL_BYTES)
    assert window_bytes == pytest.approx(VOLUME_BYTES / 2, rel=0.13)
    assert resume.limit_bps == 50e6
    assert resume.start_round(VOLUME_BYTES // 2) is None
    assert resume.phase is ResumePhase.VALIDATING
    assert 100e6 <= resume.limit_bps <= 125e6
    assert resume.start_round(VOLUME_BYTES) == 100e6
    assert not resume.is_active
    assert resume.start_round(VOLUME_BYTES) is None


def test_a_volume_that_the_second_round_trip_sends_anyway_is_not_resumed() -> None:
    resume = CarefulResume()
    assert resume.start(PathMemory(10e6, 40 * MS), INITIAL_BYTES) is None
    assert resume.phase is ResumePhase.NONE


def test_only_a_controller_that_can_is_given_a_memory() -> None:
    is_able = {
        name: isinstance(controller_factory(name)(1200, 1e6, 1), ResumingController)
        for name in ("bbr", "cubic", "newreno", "rate")
    }
    assert is_able == {"bbr": True, "cubic": False, "newreno": False, "rate": False}


def resumed_bbr() -> Bbr:
    bbr = Bbr(DATAGRAM_BYTES, None, 1)
    bbr.resume(MEMORY)
    assert bbr.congestion_window_bytes > VOLUME_BYTES / 2
    assert bbr.pacing_rate_bps == 50e6
    return bbr


def acknowledge(bbr: Bbr, delays_ns: list[int], in_flight_bytes: int = VOLUME_BYTES // 2) -> None:
    """Acknowledgements of packets of the first round trip, an eighth of it apart."""
    for index, delay_ns in enumerate(delays_ns, 1):
        bbr.on_ack(
            ack_sample(
                40 * MS + index * 5 * MS + delay_ns,
                rtt_ns=40 * MS + delay_ns,
                newly_acked_bytes=10 * DATAGRAM_BYTES,
                delivered_bytes=index * 10 * DATAGRAM_BYTES,
                prior_in_flight_bytes=in_flight_bytes,
            )
        )


def test_a_queue_makes_bbr_retreat_to_half_of_what_has_arrived() -> None:
    bbr = resumed_bbr()
    acknowledge(bbr, [0, 10 * MS, 15 * MS, 20 * MS])
    assert bbr.snapshot()["careful_resume"] == "retreated"
    assert bbr.congestion_window_bytes == pytest.approx(4 * 10 * DATAGRAM_BYTES / 2, abs=10 * DATAGRAM_BYTES)


def test_bbr_goes_on_while_nothing_queues() -> None:
    bbr = resumed_bbr()
    window_bytes = bbr.congestion_window_bytes
    acknowledge(bbr, [0, 0, 0, 0])
    assert bbr.snapshot()["careful_resume"] == "validating"
    assert bbr.congestion_window_bytes > window_bytes


def test_a_sender_with_little_to_send_proves_nothing() -> None:
    bbr = resumed_bbr()
    window_bytes = bbr.congestion_window_bytes
    acknowledge(bbr, [0, 0, 0, 0], in_flight_bytes=10 * DATAGRAM_BYTES)
    assert bbr.snapshot()["careful_resume"] == "unvalidated"
    assert (bbr.congestion_window_bytes, bbr.pacing_rate_bps) == (window_bytes, 50e6)
    bbr.on_ack(
        ack_sample(
            120 * MS,
            prior_delivered_bytes=40 * DATAGRAM_BYTES,
            delivered_bytes=50 * DATAGRAM_BYTES,
            prior_in_flight_bytes=VOLUME_BYTES // 2,
        )
    )
    assert bbr.snapshot()["careful_resume"] == "validating"


def test_after_an_outage_nothing_is_sent_on_trust() -> None:
    bbr = resumed_bbr()
    acknowledge(bbr, [0])
    bbr.on_loss(loss_sample(900 * MS, 40 * MS, lost_bytes=VOLUME_BYTES // 2, is_persistent=True))
    assert bbr.snapshot()["careful_resume"] == "retreated"
    for round_ in (1, 2):
        delivered_bytes = (10 + 10 * round_) * DATAGRAM_BYTES
        bbr.on_ack(
            ack_sample(
                (1000 + 40 * round_) * MS,
                prior_delivered_bytes=10 * DATAGRAM_BYTES * round_,
                delivered_bytes=delivered_bytes,
            )
        )
    assert bbr.congestion_window_bytes < VOLUME_BYTES / 4


def test_a_retreat_does_not_count_what_has_arrived_while_there_was_little_to_send() -> None:
    bbr = resumed_bbr()
    arrived_bytes = 10 * VOLUME_BYTES
    bbr.on_ack(ack_sample(prior_delivered_bytes=arrived_bytes - DATAGRAM_BYTES, delivered_bytes=arrived_bytes))
    for index, delay_ms in enumerate((10, 15, 20, 25), 1):
        bbr.on_ack(
            ack_sample(
                (100 + 5 * index) * MS,
                rtt_ns=(40 + delay_ms) * MS,
                delivered_bytes=arrived_bytes + 10 * index * DATAGRAM_BYTES,
                prior_in_flight_bytes=VOLUME_BYTES // 2,
            )
        )
    assert bbr.snapshot()["careful_resume"] == "retreated"
    assert bbr.congestion_window_bytes <= 30 * DATAGRAM_BYTES
