"""The delivery rate of the path: one sample per batch of acknowledgements.

A sample is the data delivered between the sending of a packet and its acknowledgement, divided by the longer of two
times: that of sending this data, and that of acknowledging it. Acknowledgements that arrive compressed can therefore
not make the path look faster than the sender fed it. Samples taken while the sender had too little to send, or ran too
late to send what it might, are only lower bounds.

Read: draft-ietf-ccwg-bbr section 4.1 (delivery-rate samples).
"""

from toolkit.rudp.sent_packets import SendState

_NS_PER_S = 1_000_000_000


class DeliveryEstimator:
    """`on_send` stamps a batch; `sample_bps` samples the rate once it is acknowledged. Totals in bytes, times in ns."""

    def __init__(self) -> None:
        self.delivered_bytes = 0
        self.lost_bytes = 0
        self._delivered_time_ns = 0
        self._first_sent_time_ns = 0
        self._app_limited_until = 0
        self._late_until = 0

    def on_send(self, now_ns: int, bytes_in_flight: int, sent_bytes: int) -> SendState:
        """Return the stamp of a batch of `sent_bytes` that is sent while `bytes_in_flight` are outstanding."""
        if bytes_in_flight == 0:
            self._first_sent_time_ns = self._delivered_time_ns = now_ns
        return SendState(
            now_ns,
            self.delivered_bytes,
            self._delivered_time_ns,
            self._first_sent_time_ns,
            self.lost_bytes,
            bytes_in_flight + sent_bytes,
            self._app_limited_until > 0,
            self._late_until > 0,
        )

    def on_app_limited(self, bytes_in_flight: int) -> None:
        """The sender has too little to send. Samples are app-limited until what is in flight now was delivered."""
        self._app_limited_until = max(1, self.delivered_bytes + bytes_in_flight)

    def on_late(self, bytes_in_flight: int) -> None:
        """This host let the sender run too late. Samples say so until what is in flight now was delivered."""
        self._late_until = max(1, self.delivered_bytes + bytes_in_flight)

    def on_delivered(self, now_ns: int, newly_acked_bytes: int) -> None:
        """These bytes were acknowledged."""
        self.delivered_bytes += newly_acked_bytes
        self._delivered_time_ns = now_ns
        if self.delivered_bytes > self._app_limited_until:
            self._app_limited_until = 0
        if self.delivered_bytes > self._late_until:
            self._late_until = 0

    def sample_bps(self, now_ns: int, state: SendState, min_rtt_ns: int) -> float | None:
        """Return bits per second; None if the interval is shorter than the minimum RTT, so that it cannot be right."""
        self._first_sent_time_ns = max(self._first_sent_time_ns, state.sent_time_ns)
        send_elapsed_ns = state.sent_time_ns - state.first_sent_time_ns
        ack_elapsed_ns = now_ns - state.delivered_time_ns
        interval_ns = max(send_elapsed_ns, ack_elapsed_ns)
        if interval_ns < min_rtt_ns or interval_ns <= 0:
            return None
        return (self.delivered_bytes - state.delivered_bytes) * 8 * _NS_PER_S / interval_ns
