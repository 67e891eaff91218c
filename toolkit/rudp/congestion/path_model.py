"""Measurements of a network path: bandwidth, minimum RTT, ACK aggregation, round trips and queueing delay.

Each class consumes samples and exposes its estimate as attributes. No class here decides anything; BBR and the
fixed-rate controller do. Bandwidths are in bits per second of UDP datagrams, volumes in bytes.

Read: draft-ietf-ccwg-bbr section 5.5, "Updating the Network Path Model Parameters".
"""

from typing import Final

from toolkit.rudp.congestion.base import BITS_PER_BYTE, NS_PER_S, AckSample

_MAX_BUSY_SPANS: Final = 8
"""The pause between two windows is longer than so many times the shortest measurement of the bottleneck."""
_TEST_ROUNDS: Final = 2
"""Rounds at a measured rate before its queue must be seen. In the first one, the path is still being filled."""
_FULL_BW_GROWTH: Final = 1.25
_EXTRA_ACKED_ROUNDS: Final = 10
"""BBR.ExtraAckedFilterLen."""
_PROBE_RTT_INTERVAL_NS: Final = 1_250_000_000
_PROBE_RTT_INTERVAL_RTTS: Final = 8
"""BBR.ProbeRTTInterval: 1.25 s, but at least eight round trips, because a cycle of ProbeBW takes five or more."""
_MIN_RTT_WINDOW_INTERVALS: Final = 2
"""BBR.MinRTTFilterLen: after as many intervals, ProbeRTT replaces a minimum that it does not see again. With the 10 s
of the draft, a path whose RTT doubles would carry a quarter of its rate for as long."""
_NEAR_MIN_RTT_DIVISOR: Final = 10
"""A sample within this fraction of the minimum shows an empty queue as well as ProbeRTT would."""
_QUEUE_RTT_DIVISOR: Final = 8
_QUEUE_NOISE_NS: Final = 1_000_000
"""Without jitter, an RTT counts as a queue if it exceeds the minimum by an eighth plus 1 ms."""
_HINT_RTT_DIVISOR: Final = 32
_HINT_NOISE_NS: Final = 250_000
"""The same for a hint of a queue, which only makes Startup measure the rate of the bottleneck."""
_QUEUE_SLOPE: Final = 0.5
_QUEUE_SCALE_NS: Final = 10_000_000
"""The pacing gain changes by _QUEUE_SLOPE per queueing delay of one RTT plus 10 ms beyond the target."""
_MAX_GAIN_REDUCTION: Final = 0.15
_DEEP_QUEUE_NOISE_NS: Final = 5_000_000
_RECENT_SAMPLES: Final = 3
_SPACING_RTT_DIVISOR: Final = 8
"""Samples closer than this part of a round trip share the same jitter, and tell nothing about it."""
_NOISE_SAMPLES: Final = 16
"""Time constant, in samples, of the average that measures the noise."""
_NOISE_FACTOR: Final = 4
"""The threshold for a queue rises by this many times the noise."""


class MaxBandwidth:
    """BBR.max_bw (`bps`): the highest delivery rate of the current and the previous ProbeBW cycle."""

    def __init__(self) -> None:
        self.bps = 0.0
        self._this_cycle_bps = 0.0
        self._last_cycle_bps = 0.0

    def update(self, delivery_rate_bps: float) -> None:
        """Add a delivery-rate sample."""
        self._this_cycle_bps = max(self._this_cycle_bps, delivery_rate_bps)
        self.bps = max(self._this_cycle_bps, self._last_cycle_bps)

    def advance(self) -> None:
        """A cycle ends. A cycle without samples does not count."""
        if self._this_cycle_bps > 0.0:
            self._last_cycle_bps, self._this_cycle_bps = self._this_cycle_bps, 0.0
            self.bps = self._last_cycle_bps


class FullBandwidth:
    """BBR.full_bw: counts the rounds in which the delivery rate has not grown by 25%."""

    def __init__(self) -> None:
        self._bps = 0.0
        self._rounds = 0

    def end_round(self, delivery_rate_bps: float) -> bool:
        """A round with usable samples ends; the argument is its best rate. Returns whether that was growth."""
        if self.is_growth(delivery_rate_bps):
            self.restart(delivery_rate_bps)
            return True
        self._rounds += 1
        return False

    def is_growth(self, delivery_rate_bps: float) -> bool:
        """Whether the rate is at least 25% above the best earlier one."""
        return delivery_rate_bps >= self._bps * _FULL_BW_GROWTH

    def has_plateau(self, rounds: int) -> bool:
        """Whether the last `rounds` rounds have brought no growth."""
        return self._rounds >= rounds

    def restart(self, delivery_rate_bps: float) -> None:
        """Measure growth from this rate on."""
        self._bps, self._rounds = delivery_rate_bps, 0


class MinRtt:
    """BBR.min_rtt (`ns`), and whether ProbeRTT should measure it again (`is_probe_due`).

    The draft enters ProbeRTT unless a sample at or below the minimum arrived lately. Here a sample near the minimum
    suffices, because it also shows an empty queue. A flow whose own cycle empties the queue thus avoids ProbeRTT, which
    costs 2% of the rate.
    """

    def __init__(self) -> None:
        self.ns: int | None = None
        self.is_probe_due = False
        self._seen_ns = 0
        self._near_seen_ns = 0
        self._probed_ns: int | None = None

    def update(self, now_ns: int, rtt_ns: int, noise_ns: float = 0.0) -> None:
        """Add an RTT sample. The noise of RTTs widens what counts as near the minimum."""
        if self.ns is None or rtt_ns <= self.ns:
            self.ns, self._seen_ns = rtt_ns, now_ns
        if rtt_ns <= self.ns + self.ns // _NEAR_MIN_RTT_DIVISOR + noise_ns:
            self._near_seen_ns = now_ns
        if self._probed_ns is not None:
            self._probed_ns = min(self._probed_ns, rtt_ns)
        self.is_probe_due = now_ns > self._near_seen_ns + self._interval_ns

    @property
    def _interval_ns(self) -> int:
        return max(_PROBE_RTT_INTERVAL_NS, _PROBE_RTT_INTERVAL_RTTS * (self.ns or 0))

    def start_probe(self, rtt_ns: int) -> None:
        """ProbeRTT has emptied the path; `rtt_ns` is the latest sample."""
        self._probed_ns = rtt_ns

    def end_probe(self, now_ns: int) -> None:
        """ProbeRTT ends. If it did not see the old minimum and that is too old, its own minimum replaces it."""
        if self._probed_ns is not None and now_ns > self._seen_ns + _MIN_RTT_WINDOW_INTERVALS * self._interval_ns:
            self.ns, self._seen_ns = self._probed_ns, now_ns
        self._probed_ns = None
        self.postpone_probe(now_ns)

    def postpone_probe(self, now_ns: int) -> None:
        """The path has just been empty, after ProbeRTT or because there was nothing to send."""
        self._near_seen_ns = now_ns
        self.is_probe_due = False


class ExtraAcked:
    """BBR.extra_acked (`bytes`): how far acknowledgements ran ahead of the bandwidth, at most, in the last 10 rounds.

    A receiver that acknowledges four times per round trip reports a quarter of it at once. The window must cover that.
    """

    def __init__(self) -> None:
        self.bytes = 0.0
        self._epoch_start_ns = 0
        self._epoch_acked_bytes = 0.0
        self._rounds = 0
        self._this_half_bytes = 0.0
        self._last_half_bytes = 0.0

    def update(self, sample: AckSample, bandwidth_bps: float, cwnd_bytes: int, is_round_start: bool) -> None:
        """Add one batch of acknowledgements, given the estimated bandwidth and the congestion window."""
        if is_round_start:
            self._rounds += 1
            if self._rounds >= _EXTRA_ACKED_ROUNDS // 2:
                # Two half windows replace a sliding one: constant cost, and a maximum lives half a window longer
                # at most.
                self._rounds = 0
                self._last_half_bytes, self._this_half_bytes = self._this_half_bytes, 0.0
        expected_bytes = bandwidth_bps * (sample.now_ns - self._epoch_start_ns) / (BITS_PER_BYTE * NS_PER_S)
        if self._epoch_acked_bytes <= expected_bytes:
            self._epoch_start_ns, self._epoch_acked_bytes, expected_bytes = sample.now_ns, 0.0, 0.0
        self._epoch_acked_bytes += sample.newly_acked_bytes
        extra_bytes = min(self._epoch_acked_bytes - expected_bytes, cwnd_bytes)
        self._this_half_bytes = max(self._this_half_bytes, extra_bytes)
        self.bytes = max(self._this_half_bytes, self._last_half_bytes)


class BottleneckRate:
    """Measures the rate of the bottleneck while packets queue there (`bps`; None until measured).

    Packets that leave a queue are spaced by the bottleneck, however fast they were sent: its rate shows within a part
    of a round trip, before the window covers the path. The time of an arrival is known from the acknowledgement's
    delay, unless acknowledgements queue on their way back: such a rate is too low, and is forgotten once a round with
    fewer acknowledgements has no queue. Aggregation, jitter and other flows disturb so short a measurement. So it never
    replaces `MaxBandwidth`, and is not made at all once a whole round has had a queue before: that is jitter, or the
    queue of another flow.

    was_measured: a rate has been measured at some time
    """

    def __init__(self) -> None:
        self.bps: float | None = None
        self.was_measured = False
        self._is_disturbed = False
        self._tested_rounds = 0
        self._start: tuple[int, int] | None = None
        self._recent: tuple[tuple[int, int], ...] = ()

    def update(self, sample: AckSample, has_queue: bool, span_ns: int, least_bps: float) -> None:
        """Add one batch of acknowledgements; the queue must last for `span_ns` to be measured.

        The rate is at least `least_bps`, which the path has already delivered.
        """
        if sample.rtt_ns is None or self._is_disturbed:
            return
        arrival_ns = sample.largest_acked_sent_time_ns + sample.rtt_ns
        self._recent = (*self._recent[1 - _RECENT_SAMPLES :], (arrival_ns, sample.delivered_bytes))
        if not has_queue:
            self._start = None
            return
        earliest_ns = arrival_ns - _MAX_BUSY_SPANS * span_ns
        if self._start is None or self._start[0] < earliest_ns:
            self._start = next(recent for recent in self._recent if recent[0] >= earliest_ns)
        start_ns, start_bytes = self._start
        elapsed_ns = arrival_ns - start_ns
        if elapsed_ns >= max(span_ns, 1):
            bps = (sample.delivered_bytes - start_bytes) * BITS_PER_BYTE * NS_PER_S / elapsed_ns
            if bps >= least_bps:
                self.bps = bps
                self.was_measured = True

    def assume(self, bps: float) -> None:
        """Take a rate for the bottleneck's until it is measured, or until it leaves no queue."""
        if self.bps is None:
            self.bps, self._tested_rounds = bps, 1

    def end_round(self, has_queue: bool, is_above_minimum: bool, late_bps: float | None = None) -> bool:
        """A round ends. If a whole round at the rate measured left no queue, the rate was too low.

        has_queue:        the mean of the round's RTTs shows a queue
        is_above_minimum: all of its RTTs are above the minimum
        late_bps:         the round's best delivery rate if this host has let the sender run late; else None

        Returns whether the rate has been forgotten.
        """
        self._is_disturbed |= is_above_minimum and self.bps is None
        is_forgotten = self._tested_rounds >= _TEST_ROUNDS and not has_queue
        if is_forgotten and late_bps is not None and self.bps is not None:
            is_forgotten = late_bps >= self.bps  # else the sender has not used the rate
        if is_forgotten:
            self.bps = self._start = None
        self._tested_rounds = 0 if self.bps is None else self._tested_rounds + 1
        return is_forgotten


class Rounds:
    """Packet-timed round trips (draft section 5.5.1).

    A round ends when a packet is acknowledged that was sent after the round began.

    is_start: BBR.round_start, whether the latest sample starts a round
    """

    def __init__(self) -> None:
        self.is_start = False
        self._end_bytes = 0
        self._delivered_bytes = 0

    def update(self, sample: AckSample) -> None:
        """Add one batch of acknowledgements."""
        self._delivered_bytes = sample.delivered_bytes
        self.is_start = sample.prior_delivered_bytes >= self._end_bytes
        if self.is_start:
            self._end_bytes = sample.delivered_bytes

    def restart(self) -> None:
        """Start a round now: it ends when a packet sent from now on is acknowledged."""
        self._end_bytes = self._delivered_bytes


class QueueDelay:
    """Estimates the queue at the bottleneck from the RTT above its minimum.

    A queue makes the RTT rise or fall over several samples; jitter makes it reverse from one sample to the next. The
    mean size of the reversals is the noise, and an RTT counts as a queue only if it is well above the noise.

    is_seen:     all of the latest samples show a queue
    is_hinted:   all of them are above the minimum RTT by more than noise
    is_deep:     they show a growing queue of at least half the minimum RTT, as Startup builds
    standing_ns: the smallest queueing delay of the last complete round, i.e. the queue that does not drain
    mean_ns:     the mean queueing delay of that round
    was_absent:  the last two complete rounds had no queue on average. A packet declared lost in the last round, and
                 sent in the one before, was then not dropped by a full queue.
    is_round_stale: the round under way tells of a queue that has drained since; its owner says so
    """

    def __init__(self) -> None:
        self.is_seen = False
        self.is_hinted = False
        self.is_deep = False
        self.standing_ns = 0
        self.mean_ns = 0.0
        self.was_absent = True
        self._latest_ns: tuple[int, ...] = ()
        self._recent_ns: tuple[int, ...] = ()
        self._recent_time_ns = -NS_PER_S
        self._noise_ns = 0.0
        self._noise_samples = 0
        self._round_min_ns: int | None = None
        self._round_sum_ns = 0
        self._round_samples = 0
        self.is_round_stale = False
        self._last_round_was_absent = True

    def update(self, now_ns: int, rtt_ns: int, min_rtt_ns: int) -> None:
        """Add an RTT sample."""
        delay_ns = max(0, rtt_ns - min_rtt_ns)
        self._latest_ns = (*self._latest_ns[1 - _RECENT_SAMPLES :], delay_ns)
        is_full = len(self._latest_ns) == _RECENT_SAMPLES
        self.is_hinted = is_full and min(self._latest_ns) > self.hint_ns(min_rtt_ns)
        if now_ns - self._recent_time_ns >= min_rtt_ns // _SPACING_RTT_DIVISOR:
            self._recent_time_ns = now_ns
            self._update_recent(delay_ns, min_rtt_ns)
        self._round_min_ns = delay_ns if self._round_min_ns is None else min(self._round_min_ns, delay_ns)
        self._round_sum_ns += delay_ns
        self._round_samples += 1

    def _update_recent(self, delay_ns: int, min_rtt_ns: int) -> None:
        self._recent_ns = (*self._recent_ns[1 - _RECENT_SAMPLES :], delay_ns)
        least_ns, is_rising = 0, False
        if len(self._recent_ns) == _RECENT_SAMPLES:
            oldest_ns, middle_ns, newest_ns = self._recent_ns
            self._update_noise(middle_ns - oldest_ns, newest_ns - middle_ns)
            least_ns, is_rising = min(self._recent_ns), oldest_ns < middle_ns < newest_ns
        self.is_seen = least_ns > self._visible_ns(min_rtt_ns)
        self.is_deep = is_rising and least_ns > min_rtt_ns // 2 + _DEEP_QUEUE_NOISE_NS + self.noise_margin_ns

    def end_round(self, min_rtt_ns: int) -> None:
        """A round trip ends."""
        self.standing_ns = 0 if self.is_round_stale else self._round_min_ns or 0
        self.is_round_stale = False
        self.mean_ns = self._round_sum_ns / max(self._round_samples, 1)
        is_absent = self._round_sum_ns <= self._round_samples * self._visible_ns(min_rtt_ns)
        self.was_absent = is_absent and self._last_round_was_absent
        self._last_round_was_absent = is_absent
        self._round_min_ns = None
        self._round_sum_ns = self._round_samples = 0

    def is_standing(self, min_rtt_ns: int) -> bool:
        """Whether `standing_ns` exceeds the noise."""
        return self.standing_ns > self._visible_ns(min_rtt_ns)

    def reset_standing(self) -> None:
        """Forget the standing queue, because the phase that built or drained it is over."""
        self.standing_ns = 0

    def _update_noise(self, step_ns: int, next_step_ns: int) -> None:
        reversal_ns = min(abs(step_ns), abs(next_step_ns)) if step_ns * next_step_ns < 0 else 0
        self._noise_samples = min(self._noise_samples + 1, _NOISE_SAMPLES)
        self._noise_ns += (reversal_ns - self._noise_ns) / self._noise_samples

    def gain_reduction(self, target_ns: float, min_rtt_ns: int) -> float:
        """How much to lower the pacing gain for a standing queue of `target_ns`; negative if it is shorter."""
        excess = (self.standing_ns - target_ns) / (min_rtt_ns + _QUEUE_SCALE_NS)
        return min(_QUEUE_SLOPE * excess, _MAX_GAIN_REDUCTION)

    @staticmethod
    def quiet_hint_ns(min_rtt_ns: int) -> int:
        """The smallest queueing delay that may be one on a path without jitter."""
        return min_rtt_ns // _HINT_RTT_DIVISOR + _HINT_NOISE_NS

    def hint_ns(self, min_rtt_ns: int) -> float:
        """The smallest queueing delay that may be one."""
        return self.quiet_hint_ns(min_rtt_ns) + self.noise_margin_ns

    @property
    def noise_margin_ns(self) -> float:
        """How much further than without noise an RTT must lie above its minimum to mean anything."""
        return _NOISE_FACTOR * self._noise_ns

    def _visible_ns(self, min_rtt_ns: int) -> float:
        """The smallest queueing delay that counts as a queue."""
        return min_rtt_ns // _QUEUE_RTT_DIVISOR + _QUEUE_NOISE_NS + self.noise_margin_ns
