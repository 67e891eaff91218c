"""What BBR measures of the path: its filters for bandwidth, round-trip time and aggregation, and its view of loss.

Each is fed samples and read by attributes; none decides anything.

Read: draft-ietf-ccwg-bbr section 5.5 (updating the network path model).
"""

from typing import Final

from toolkit.rudp.congestion.base import AckSample

_NS_PER_S: Final = 1_000_000_000
_BITS: Final = 8

_EXTRA_ACKED_ROUNDS: Final = 10
"""BBR.ExtraAckedFilterLen."""
_MIN_RTT_WINDOW_NS: Final = 10 * _NS_PER_S
"""BBR.MinRTTFilterLen: a minimum older than this is forgotten when the path was emptied to measure it anew."""
_PROBE_RTT_INTERVAL_NS: Final = 5 * _NS_PER_S
"""BBR.ProbeRTTInterval."""
_NEAR_MIN_RTT_DIVISOR: Final = 10
"""A sample within this part of the minimum shows a path without a queue as well as ProbeRTT would."""

_LOSS_MEMORY_ROUNDS: Final = 16
_LOSS_PRIOR_DATAGRAMS: Final = 50
"""Weight of the assumption that a path loses nothing, against the first packets that say otherwise."""
MAX_PATH_LOSS: Final = 0.3
"""More than this is not made up for by sending more."""
_SCATTER_DEVIATIONS: Final = 3
_QUEUE_RTT_DIVISOR: Final = 8
_QUEUE_MIN_DELAY_NS: Final = 1_000_000
"""A queue is taken to be there when the RTT exceeds its minimum by an eighth and by what hosts do to it."""


class MaxBandwidth:
    """BBR.max_bw: the highest delivery rate of this ProbeBW cycle and of the one before (section 5.5.5)."""

    def __init__(self) -> None:
        self.bps = 0.0
        self._this_cycle_bps = 0.0
        self._last_cycle_bps = 0.0

    def update(self, delivery_rate_bps: float) -> None:
        self._this_cycle_bps = max(self._this_cycle_bps, delivery_rate_bps)
        self.bps = max(self._this_cycle_bps, self._last_cycle_bps)

    def advance(self) -> None:
        """A cycle is over; one without any sample does not count."""
        if self._this_cycle_bps > 0.0:
            self._last_cycle_bps, self._this_cycle_bps = self._this_cycle_bps, 0.0
            self.bps = self._last_cycle_bps


class MinRtt:
    """BBR.min_rtt, and whether it is time to empty the path to see it again (section 5.5.7).

    The draft asks for a sample below the minimum within 5 s, else it goes to ProbeRTT. Here one near it will do, for it
    shows the same thing; so a flow whose ProbeBW cycle empties the queue anyway does not pay for ProbeRTT.
    """

    def __init__(self) -> None:
        self.ns: int | None = None
        self.probe_is_due = False
        self._seen_ns = 0
        self._near_seen_ns = 0
        self._probe_min_ns: int | None = None

    def update(self, now_ns: int, rtt_ns: int) -> None:
        if self.ns is None or rtt_ns <= self.ns:
            self.ns, self._seen_ns = rtt_ns, now_ns
        if rtt_ns <= self.ns + self.ns // _NEAR_MIN_RTT_DIVISOR:
            self._near_seen_ns = now_ns
        if self._probe_min_ns is not None:
            self._probe_min_ns = min(self._probe_min_ns, rtt_ns)
        self.probe_is_due = now_ns > self._near_seen_ns + _PROBE_RTT_INTERVAL_NS

    def start_probe(self) -> None:
        self._probe_min_ns = 1 << 62

    def end_probe(self, now_ns: int) -> None:
        """The path was empty for a while: if an old minimum was not seen again, it is another path now."""
        if (
            self._probe_min_ns is not None
            and self._probe_min_ns < 1 << 62
            and now_ns > self._seen_ns + _MIN_RTT_WINDOW_NS
        ):
            self.ns, self._seen_ns = self._probe_min_ns, now_ns
        self._probe_min_ns = None
        self.postpone_probe(now_ns)

    def postpone_probe(self, now_ns: int) -> None:
        """ProbeRTT was just done, or the path was idle, which empties it too."""
        self._near_seen_ns = now_ns
        self.probe_is_due = False


class ExtraAcked:
    """BBR.extra_acked: by how much acknowledgements ran ahead of the bandwidth, at most, of late (section 5.5.9)."""

    def __init__(self) -> None:
        self.bytes = 0.0
        self._epoch_start_ns = 0
        self._epoch_acked_bytes = 0.0
        self._rounds = 0
        self._this_window_bytes = 0.0
        self._last_window_bytes = 0.0

    def update(
        self, now_ns: int, acked_bytes: int, bandwidth_bps: float, window_bytes: int, is_round_start: bool
    ) -> None:
        if is_round_start:
            self._rounds += 1
            if self._rounds >= _EXTRA_ACKED_ROUNDS // 2:
                # Two half windows stand in for one that slides, at constant cost.
                self._rounds = 0
                self._last_window_bytes, self._this_window_bytes = self._this_window_bytes, 0.0
        expected = bandwidth_bps * (now_ns - self._epoch_start_ns) / (_BITS * _NS_PER_S)
        if self._epoch_acked_bytes <= expected:
            self._epoch_start_ns, self._epoch_acked_bytes, expected = now_ns, 0.0, 0.0
        self._epoch_acked_bytes += acked_bytes
        extra = min(self._epoch_acked_bytes - expected, window_bytes)
        self._this_window_bytes = max(self._this_window_bytes, extra)
        self.bytes = max(self._this_window_bytes, self._last_window_bytes)


class Rounds:
    """Packet-timed round trips: one ends when a packet is acknowledged that was sent after it began (section 5.5.1)."""

    def __init__(self) -> None:
        self.count = 0
        self.is_start = False
        self._end_bytes = 0

    def update(self, sample: AckSample) -> None:
        self.is_start = sample.prior_delivered_bytes >= self._end_bytes
        if self.is_start:
            self.count += 1
            self._end_bytes = sample.delivered_bytes

    def restart(self, delivered_bytes: int) -> None:
        """The round that begins now ends no sooner than what is sent from now on is acknowledged."""
        self._end_bytes = delivered_bytes


class PathLoss:
    """The share of packets that the path loses whatever BBR does, as opposed to what a full queue drops.

    Loss is counted per round trip. A round whose RTT stayed near the minimum had no queue, so none was full, and its
    losses are the path's; so are those of rounds in which sending more was delivering more. Their share, with older
    rounds weighing less, is `share`. Where loss exceeds it while there *is* a queue, the excess is congestion.

    A policer drops without a queue. What stops `share` from following its drops upward is that ProbeBW_DOWN sends less:
    random loss stays the same then, a policer's falls, and so does the average.
    """

    def __init__(self, datagram_bytes: int) -> None:
        self.share = 0.0
        self._dispersion = 1.0
        self._datagram_bytes = datagram_bytes
        self.round_lost_bytes = 0
        self._round_delivered_bytes = 0
        self._lost_bytes = 0.0
        self._total_bytes = float(_LOSS_PRIOR_DATAGRAMS * datagram_bytes)

    def on_lost(self, lost_bytes: int) -> None:
        self.round_lost_bytes += lost_bytes

    def on_spurious(self, lost_bytes: int) -> None:
        self.round_lost_bytes = max(0, self.round_lost_bytes - lost_bytes)

    def on_acked(self, acked_bytes: int) -> None:
        self._round_delivered_bytes += acked_bytes

    def exceeds(self, threshold: float, flight_bytes: int) -> bool:
        """Whether this round lost `threshold` (a share) more than the path's own losses and their scatter explain.

        `flight_bytes` is what a whole round trip has in flight: the start of a round is no sample of it.
        """
        total = max(self.round_lost_bytes + self._round_delivered_bytes, flight_bytes) / self._datagram_bytes
        expected = (self.share + threshold) * total
        scatter = (self._dispersion * (self.share * total + 1)) ** 0.5
        return self.round_lost_bytes / self._datagram_bytes > expected + _SCATTER_DEVIATIONS * scatter

    def end_round(self, is_of_the_path: bool) -> None:
        """A round trip is over; its losses count when they cannot be those of a full queue."""
        lost, total = self.round_lost_bytes, self.round_lost_bytes + self._round_delivered_bytes
        if is_of_the_path and total:
            expected = max(self.share, 0.001) * total / self._datagram_bytes
            deviation = (lost / self._datagram_bytes - expected) ** 2 / max(expected, 1.0)
            self._dispersion = max(1.0, self._dispersion + (deviation - self._dispersion) / _LOSS_MEMORY_ROUNDS)
            keep = 1 - 1 / _LOSS_MEMORY_ROUNDS
            self._lost_bytes = self._lost_bytes * keep + min(lost, MAX_PATH_LOSS * total)
            self._total_bytes = self._total_bytes * keep + total
            self.share = self._lost_bytes / self._total_bytes
        self.forget_round()

    def forget(self) -> None:
        """What was taken for the path's own loss was not: measure it anew."""
        self.share, self._lost_bytes = 0.0, 0.0
        self._dispersion = 1.0
        self._total_bytes = float(_LOSS_PRIOR_DATAGRAMS * self._datagram_bytes)

    def forget_round(self) -> None:
        self.round_lost_bytes = self._round_delivered_bytes = 0


def queue_threshold_ns(min_rtt_ns: int) -> int:
    """How much above its minimum the RTT shows a queue, rather than the noise of hosts."""
    return min_rtt_ns // _QUEUE_RTT_DIVISOR + _QUEUE_MIN_DELAY_NS
