"""What BBR measures of a path: bandwidth, round-trip time, aggregation, queue. Fed with samples, read by
attributes.

Nothing here decides anything. Bandwidths are in bits per second of UDP datagrams, volumes in bytes.

Read: draft-ietf-ccwg-bbr section 5.5, "Updating the Network Path Model".
"""

from typing import Final

from toolkit.rudp.congestion.base import AckSample

_NS_PER_S: Final = 1_000_000_000
_BITS_PER_BYTE: Final = 8

_FULL_BW_GROWTH: Final = 1.25
_EXTRA_ACKED_ROUNDS: Final = 10
"""BBR.ExtraAckedFilterLen."""
_MIN_RTT_WINDOW_NS: Final = 10 * _NS_PER_S
"""BBR.MinRTTFilterLen: how long a minimum is believed that ProbeRTT does not see again."""
_PROBE_RTT_INTERVAL_NS: Final = 5 * _NS_PER_S
"""BBR.ProbeRTTInterval."""
_NEAR_MIN_RTT_DIVISOR: Final = 10
"""A sample within this part above the minimum shows an empty queue as well as ProbeRTT would."""
_QUEUE_RTT_DIVISOR: Final = 8
_QUEUE_NOISE_NS: Final = 1_000_000
_HOST_NOISE_NS: Final = 4_000_000
"""On a path without jitter, an RTT of an eighth and 1 ms above the minimum, but at least of 4 ms above, is taken for a
queue: less may be hosts that were busy, whose schedulers let a process wait for that long."""
_DEEP_QUEUE_NOISE_NS: Final = 5_000_000
_RECENT_SAMPLES: Final = 3
_NOISE_SAMPLES: Final = 16
"""Of how many the noise is the mean: older ones weigh less."""
_NOISE_FACTOR: Final = 4
"""How many times the noise an RTT must exceed what a quiet path shows, to be taken for a queue."""


class MaxBandwidth:
    """BBR.max_bw: the highest delivery rate of this ProbeBW cycle and of the one before."""

    def __init__(self) -> None:
        self.bps = 0.0
        self._this_cycle_bps = 0.0
        self._last_cycle_bps = 0.0

    def update(self, delivery_rate_bps: float) -> None:
        self._this_cycle_bps = max(self._this_cycle_bps, delivery_rate_bps)
        self.bps = max(self._this_cycle_bps, self._last_cycle_bps)

    def advance(self) -> None:
        """A cycle is over. One without any sample does not count."""
        if self._this_cycle_bps > 0.0:
            self._last_cycle_bps, self._this_cycle_bps = self._this_cycle_bps, 0.0
            self.bps = self._last_cycle_bps


class FullBandwidth:
    """BBR.full_bw: since when the delivery rate has not grown by a quarter any more."""

    def __init__(self) -> None:
        self._bps = 0.0
        self._rounds = 0

    def end_round(self, delivery_rate_bps: float) -> bool:
        """A round is over that could tell, `delivery_rate_bps` the best of it; returns whether that was growth."""
        if self.is_growth(delivery_rate_bps):
            self.restart(delivery_rate_bps)
            return True
        self._rounds += 1
        return False

    def is_growth(self, delivery_rate_bps: float) -> bool:
        """Whether that is a quarter more than before."""
        return delivery_rate_bps >= self._bps * _FULL_BW_GROWTH

    def has_plateau(self, rounds: int) -> bool:
        """Whether there was no growth for so many rounds."""
        return self._rounds >= rounds

    def restart(self, delivery_rate_bps: float) -> None:
        """Count anew, from this rate on."""
        self._bps, self._rounds = delivery_rate_bps, 0


class MinRtt:
    """BBR.min_rtt, and whether it is time to empty the path to see it again.

    The draft goes to ProbeRTT unless a sample below the minimum came within 5 s. Here one near it will do,
    for it shows the same; so a flow whose own cycle empties the queue does not pay 2% of its rate for
    ProbeRTT.
    """

    def __init__(self) -> None:
        self.ns: int | None = None
        self.is_probe_due = False
        self._seen_ns = 0
        self._near_seen_ns = 0
        self._probed_ns: int | None = None

    def update(self, now_ns: int, rtt_ns: int) -> None:
        if self.ns is None or rtt_ns <= self.ns:
            self.ns, self._seen_ns = rtt_ns, now_ns
        if rtt_ns <= self.ns + self.ns // _NEAR_MIN_RTT_DIVISOR:
            self._near_seen_ns = now_ns
        if self._probed_ns is not None:
            self._probed_ns = min(self._probed_ns, rtt_ns)
        self.is_probe_due = now_ns > self._near_seen_ns + _PROBE_RTT_INTERVAL_NS

    def start_probe(self, rtt_ns: int) -> None:
        """The path is empty from now on; `rtt_ns` is a sample of that."""
        self._probed_ns = rtt_ns

    def end_probe(self, now_ns: int) -> None:
        """The path was empty for a while. If it did not show the old minimum again, it is another path by now."""
        if self._probed_ns is not None and now_ns > self._seen_ns + _MIN_RTT_WINDOW_NS:
            self.ns, self._seen_ns = self._probed_ns, now_ns
        self._probed_ns = None
        self.postpone_probe(now_ns)

    def postpone_probe(self, now_ns: int) -> None:
        """The path has just been empty, by ProbeRTT or because there was nothing to send."""
        self._near_seen_ns = now_ns
        self.is_probe_due = False


class ExtraAcked:
    """BBR.extra_acked: by how much acknowledgements ran ahead of the bandwidth, at most, in the last 10
    rounds.

    A receiver that acknowledges four times a round trip reports a quarter of it at once; the window has to
    cover that.
    """

    def __init__(self) -> None:
        self.bytes = 0.0
        self._epoch_start_ns = 0
        self._epoch_acked_bytes = 0.0
        self._rounds = 0
        self._this_half_bytes = 0.0
        self._last_half_bytes = 0.0

    def update(self, sample: AckSample, bandwidth_bps: float, window_bytes: int, is_round_start: bool) -> None:
        if is_round_start:
            self._rounds += 1
            if self._rounds >= _EXTRA_ACKED_ROUNDS // 2:
                # Two half windows stand in for one that slides: constant cost, at most half a window more
                # memory.
                self._rounds = 0
                self._last_half_bytes, self._this_half_bytes = self._this_half_bytes, 0.0
        expected_bytes = bandwidth_bps * (sample.now_ns - self._epoch_start_ns) / (_BITS_PER_BYTE * _NS_PER_S)
        if self._epoch_acked_bytes <= expected_bytes:
            self._epoch_start_ns, self._epoch_acked_bytes, expected_bytes = sample.now_ns, 0.0, 0.0
        self._epoch_acked_bytes += sample.newly_acked_bytes
        extra_bytes = min(self._epoch_acked_bytes - expected_bytes, window_bytes)
        self._this_half_bytes = max(self._this_half_bytes, extra_bytes)
        self.bytes = max(self._this_half_bytes, self._last_half_bytes)


class Rounds:
    """Packet-timed round trips: one ends when a packet is acknowledged that was sent after it began."""

    def __init__(self) -> None:
        self.is_start = False
        self._end_bytes = 0
        self._delivered_bytes = 0

    def update(self, sample: AckSample) -> None:
        self._delivered_bytes = sample.delivered_bytes
        self.is_start = sample.prior_delivered_bytes >= self._end_bytes
        if self.is_start:
            self._end_bytes = sample.delivered_bytes

    def restart(self) -> None:
        """End the round with the first packet that is sent from now on, not earlier."""
        self._end_bytes = self._delivered_bytes


class QueueDelay:
    """What the RTT above its minimum tells of the queue at the bottleneck.

    A queue rises or falls for a while; what turns back from one sample to the next is jitter. By how much it does is
    the noise, and an RTT shows a queue only where it is well above that.

    is_seen:     the latest samples all show one
    is_deep:     they show one of at least half the minimum RTT, and that it grows, as our own does in Startup
    standing_ns: what was never less during the last complete round: the queue that does not drain
    was_absent:  during the last two complete rounds there was none on average, so that nothing which was declared
                 lost in the last one, and sent in the one before, was dropped by a full queue
    """

    def __init__(self) -> None:
        self.is_seen = False
        self.is_deep = False
        self.standing_ns = 0
        self.was_absent = True
        self._recent_ns: tuple[int, ...] = ()
        self._noise_ns = 0.0
        self._noise_samples = 0
        self._round_min_ns: int | None = None
        self._round_sum_ns = 0
        self._round_samples = 0
        self._last_round_was_absent = True

    def update(self, rtt_ns: int, min_rtt_ns: int) -> None:
        delay_ns = max(0, rtt_ns - min_rtt_ns)
        self._recent_ns = (*self._recent_ns[1 - _RECENT_SAMPLES :], delay_ns)
        least_ns, is_rising = 0, False
        if len(self._recent_ns) == _RECENT_SAMPLES:
            oldest_ns, middle_ns, newest_ns = self._recent_ns
            self._update_noise(middle_ns - oldest_ns, newest_ns - middle_ns)
            least_ns, is_rising = min(self._recent_ns), oldest_ns < middle_ns < newest_ns
        self.is_seen = least_ns > self._visible_ns(min_rtt_ns)
        self.is_deep = is_rising and least_ns > min_rtt_ns // 2 + _DEEP_QUEUE_NOISE_NS + self._jitter_ns
        self._round_min_ns = delay_ns if self._round_min_ns is None else min(self._round_min_ns, delay_ns)
        self._round_sum_ns += delay_ns
        self._round_samples += 1

    def _update_noise(self, step_ns: int, next_step_ns: int) -> None:
        turn_ns = min(abs(step_ns), abs(next_step_ns)) if step_ns * next_step_ns < 0 else 0
        self._noise_samples = min(self._noise_samples + 1, _NOISE_SAMPLES)
        self._noise_ns += (turn_ns - self._noise_ns) / self._noise_samples

    @property
    def _jitter_ns(self) -> float:
        return _NOISE_FACTOR * self._noise_ns

    def _visible_ns(self, min_rtt_ns: int) -> float:
        quiet_ns = max(min_rtt_ns // _QUEUE_RTT_DIVISOR + _QUEUE_NOISE_NS, _HOST_NOISE_NS)
        return quiet_ns + self._jitter_ns

    def end_round(self, min_rtt_ns: int) -> None:
        self.standing_ns = self._round_min_ns or 0
        is_absent = self._round_sum_ns <= self._round_samples * self._visible_ns(min_rtt_ns)
        self.was_absent = is_absent and self._last_round_was_absent
        self._last_round_was_absent = is_absent
        self._round_min_ns = None
        self._round_sum_ns = self._round_samples = 0

    def is_standing(self, min_rtt_ns: int) -> bool:
        """Whether `standing_ns` is more than noise."""
        return self.standing_ns > self._visible_ns(min_rtt_ns)

    def forget_standing(self) -> None:
        """The queue was drained on purpose since the last complete round."""
        self.standing_ns = 0
