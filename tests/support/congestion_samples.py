"""Template samples for congestion controllers: one acknowledged and one lost datagram on a path with an RTT of 40 ms.

Pass what a test is about; everything else keeps a plausible value.
"""

from dataclasses import replace
from typing import Any

from toolkit.rudp.congestion.base import AckSample, LossSample

MS = 1_000_000
SECOND = 1_000_000_000
DATAGRAM_BYTES = 1200
RTT_NS = 40 * MS

_ACK = AckSample(
    now_ns=100 * MS,
    newly_acked_bytes=DATAGRAM_BYTES,
    newly_lost_bytes=0,
    bytes_in_flight=9 * DATAGRAM_BYTES,
    prior_in_flight_bytes=10 * DATAGRAM_BYTES,
    delivered_bytes=DATAGRAM_BYTES,
    prior_delivered_bytes=0,
    lost_bytes=0,
    lost_since_sent_bytes=0,
    in_flight_at_send_bytes=10 * DATAGRAM_BYTES,
    largest_acked_sent_time_ns=60 * MS,
    rtt_ns=RTT_NS,
    smoothed_rtt_ns=RTT_NS,
    min_rtt_ns=RTT_NS,
    delivery_rate_bps=2.4e6,
    is_app_limited=False,
    is_window_limited=True,
)
_LOSS = LossSample(
    now_ns=100 * MS,
    lost_bytes=DATAGRAM_BYTES,
    bytes_in_flight=8 * DATAGRAM_BYTES,
    newest_lost_sent_time_ns=60 * MS,
    in_flight_at_send_bytes=10 * DATAGRAM_BYTES,
    is_persistent=False,
)


def ack_sample(now_ns: int = 100 * MS, **changes: Any) -> AckSample:
    """An acknowledgement at `now_ns` of a packet sent one RTT earlier."""
    fields = {"now_ns": now_ns, "largest_acked_sent_time_ns": now_ns - RTT_NS} | changes
    return replace(_ACK, **fields)


def loss_sample(now_ns: int, sent_ns: int, **changes: Any) -> LossSample:
    """A packet sent at `sent_ns` and declared lost at `now_ns`."""
    return replace(_LOSS, now_ns=now_ns, newest_lost_sent_time_ns=sent_ns, **changes)
