"""What a congestion controller is: one small Protocol, fed one sample per batch of acknowledgements.

The engine asks a controller two things, how much may be in flight (`congestion_window_bytes`) and how fast to send it
(`pacing_rate_bps`), and tells it what happened. A controller knows no packet, no socket and no clock: everything comes
as an argument, in bytes and nanoseconds. Payload and header bytes count alike: a size is that of the UDP datagram.

Delivery-rate samples are those of draft-ietf-ccwg-bbr, section 4.1: the engine stamps every sent packet with
`delivered_bytes` and the times, and reports the newest packet's sample.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class AckSample:
    """What one batch of acknowledgements has told. Times in ns since the driver's own zero, sizes in bytes.

    newly_acked_bytes:      acknowledged for the first time by this batch
    newly_lost_bytes:       declared lost by this batch (congestion signals also come as `on_loss`)
    bytes_in_flight:        outstanding after the batch
    prior_in_flight_bytes:  outstanding before it
    delivered_bytes:        total acknowledged since the connection began, after the batch
    prior_delivered_bytes:  that total when the newest acknowledged packet was sent (a round trip ends when this
                            reaches the total at the round's start)
    lost_bytes:             total declared lost since the connection began
    lost_since_sent_bytes:  of these, how many were declared lost since the newest acknowledged packet was sent
    in_flight_at_send_bytes: outstanding just after the newest acknowledged packet was sent
    rtt_ns:                 newest RTT sample without the peer's ack delay; None where the batch gave none
    smoothed_rtt_ns, min_rtt_ns: as in RFC 9002 section 5
    delivery_rate_bps:      bits per second by the sample; None where the interval was too short to be trusted
    is_app_limited:         the sample was taken while the sender had too little to send, or the peer's window held it
    is_window_limited:      the congestion window, not the application or the peer, bounded what was sent
    ecn_ce_count:           packets newly reported with Congestion Experienced
    """

    now_ns: int
    newly_acked_bytes: int
    newly_lost_bytes: int
    bytes_in_flight: int
    prior_in_flight_bytes: int
    delivered_bytes: int
    prior_delivered_bytes: int
    lost_bytes: int
    lost_since_sent_bytes: int
    in_flight_at_send_bytes: int
    largest_acked_sent_time_ns: int
    rtt_ns: int | None
    smoothed_rtt_ns: int
    min_rtt_ns: int
    delivery_rate_bps: float | None
    is_app_limited: bool
    is_window_limited: bool
    ecn_ce_count: int = 0


@dataclass(frozen=True, slots=True)
class LossSample:
    """Packets that one look declared lost; comes before the `AckSample` of the same batch, or alone from a timer.

    newest_lost_sent_time_ns: when the newest of them was sent (a recovery period ignores losses of older packets)
    is_persistent:            persistent congestion, RFC 9002 section 7.6
    in_flight_at_send_bytes:  outstanding just after the newest lost packet was sent
    """

    now_ns: int
    lost_bytes: int
    bytes_in_flight: int
    newest_lost_sent_time_ns: int
    in_flight_at_send_bytes: int
    is_persistent: bool


class CongestionController(Protocol):
    """Commands `on_*`, then plain getters. One instance serves one path of one connection."""

    name: str

    @property
    def congestion_window_bytes(self) -> int:
        """How much may be outstanding."""

    @property
    def pacing_rate_bps(self) -> float:
        """At what rate to send, in bits per second of UDP payload; never 0."""

    def on_sent(self, now_ns: int, sent_bytes: int, bytes_in_flight: int, is_app_limited: bool) -> None:
        """A batch went out; `bytes_in_flight` is before it."""

    def on_ack(self, sample: AckSample) -> None:
        """A batch of acknowledgements was processed."""

    def on_loss(self, sample: LossSample) -> None:
        """Packets were declared lost."""

    def on_spurious_loss(self, now_ns: int, lost_sent_time_ns: int) -> None:
        """Everything that the newest `on_loss` counted has arrived after all: the reaction may be undone."""

    def on_datagram_size(self, datagram_bytes: int) -> None:
        """The path's datagram size has changed."""

    def snapshot(self) -> dict[str, float | str]:
        """State for logs and plots by the field's names: phase, ssthresh, bandwidth estimate, ..."""


ControllerFactory = Callable[[int, float | None, int], CongestionController]
"""(datagram_bytes, rate_bps asked for by the user or None, seed) -> a new controller."""
