"""How BBR's Startup fills a path in few round trips without overshooting.

A sender that doubles its window each round trip learns of a full path a round trip late, when the window has doubled
once more. Two signs come earlier:

- *The rate of the bottleneck.* Startup sends each window within a quarter of a round trip. From a quarter of the
  bandwidth-delay product on, it thus sends faster than the path; the packets leave a queue for a moment, spaced by the
  bottleneck. Its rate is known before the window has reached it, and the window then stops a little above what that
  rate carries. Conversely, a window that has left no queue shows that the path carries four times as much in a round
  trip; so the window grows by up to that factor, and the less, the longer the RTT becomes. The initial window leaves
  at once. It grows by eight if its packets arrive within a 16th of a round trip.
- *Losses without a queue,* as in a buffer of a few packets, or at random. Startup sends less: Beta of the volume in
  flight, spread over the round trip. If this lowers the loss, a buffer was full, and Startup goes on without such
  bursts. If it does not, the loss is random.

Read: Arghavani et al., "SUSS: Improving TCP performance by speeding up slow-start", SIGCOMM 2024 (growth by four while
no queue is in sight); RFC 9406 (HyStart++); Dovrolis et al., "Packet-dispersion techniques and a capacity-estimation
methodology", IEEE/ACM ToN 2004.
"""

from enum import Enum
from typing import Final

from toolkit.rudp.congestion.base import (
    ACKS_PER_RTT,
    BITS_PER_BYTE,
    NS_PER_S,
    AckSample,
    PathMemory,
    initial_window_bytes,
)
from toolkit.rudp.congestion.bbr_model import BETA, UNBOUNDED, BbrModel
from toolkit.rudp.congestion.careful_resume import CarefulResume, ResumePhase
from toolkit.rudp.congestion.path_model import BottleneckRate
from toolkit.rudp.congestion.random_loss import LossCount

STARTUP_ACKS_PER_RTT: Final = 16
"""So many acknowledgements per round trip show a queue within an eighth of it."""
RESUMING_ACKS_PER_RTT: Final = 128
"""The sooner the first acknowledgement, the sooner a remembered path is validated, or left alone."""
WINDOWS_PER_RTT: Final = 4.0
"""Startup sends a window within a quarter of a round trip."""
CAREFUL_WINDOWS_PER_RTT: Final = 2.0
"""The same after a loss."""
FULL_GAIN: Final = 1.25
"""Window and rate exceed what the bottleneck has shown by this much, in case that it was measured too low."""
_AGGREGATED_RTTS: Final = 1 / (2 * ACKS_PER_RTT)
"""What waits for an acknowledgement on average, and is no queue."""
_HOST_NS: Final = 500_000
"""How long the hosts may hold what is in flight, beyond the minimum RTT."""
FAST_GROWTH: Final = 3.0
"""How much the window grows per byte acknowledged while nothing queues. Doubling is 1."""
_QUIET_HINTS: Final = 1.5
"""The growth is that of doubling once the queue's delay times this factor is the least that may be a queue."""
_TRAIN_RTT_DIVISOR: Final = 16
TRAIN_GROWTH: Final = 7.0
"""The packets of the initial window leave at once, and wait for each other at the bottleneck. If that takes at most a
16th of a round trip, then the path carries 16 initial windows in one, and the second window is eight."""
_BUSY_RTT_DIVISOR: Final = 16
"""The rate of the bottleneck is measured over at least this part of a round trip."""
_MAX_REDUCTIONS: Final = 1
"""After so many reductions, more losses end Startup."""
_BURST_RTT_DIVISOR: Final = 8
"""Losses of a full buffer go on for at least this part of a round trip; a burst of random losses does not."""
_LOWERED: Final = 0.6
"""Sending BETA as much has lowered the loss if at most this share of it is left. What was lost before is reckoned a
standard deviation lower than it was counted: it was judged because it was so much."""
_TEST_LOSSES: Final = 12
"""A test goes on until it would have seen so many losses if they were random: a few packets prove nothing."""
_CLEAR_DEVIATIONS: Final = 2.0
"""A test ends sooner if its losses are fewer than random ones by so many standard deviations."""
_MAX_TEST_ROUNDS: Final = 6
"""A test has at most so many rounds, however small the window is."""


class LossVerdict(Enum):
    """What is known about the losses of Startup."""

    NONE = "nothing to judge"
    REDUCED = "sends less from now on"
    TESTING = "sends less, and the result is not known yet"
    BUFFER = "sending less has lowered the loss"
    RANDOM = "sending less has not lowered the loss"
    FULL = "too much even after sending less"


class StartupGuard:
    """Limits on the window and the rate while BBR starts, for one path."""

    def __init__(self, model: BbrModel) -> None:
        self.verdict = LossVerdict.NONE
        self._model = model
        self._bottleneck = BottleneckRate()
        self._resume = CarefulResume()
        self._may_grow_fast = True
        self._quiet_share = 1.0
        self._train_growth = 0.0
        self._train_start_bytes: int | None = None
        self._acked_bytes = 0  # what has arrived since the sender had enough to send
        self._idle_bytes = 0  # what had arrived before
        self._share_before = 0.0  # of the packets that were lost, at least; the test compares with it
        self._excess_ns: int | None = None
        self._rounds = 0
        self._tested = LossCount()
        self._reductions = 0

    def resume(self, memory: PathMemory, start: tuple[float, float]) -> tuple[float, float]:
        """Return the window in bytes and the rate in bits per second to start with, given a memory of this path.

        `start` is the same without it, which remains if the memory saves nothing.
        """
        window_bytes = self._resume.start(memory, start[0])
        return start if window_bytes is None else (window_bytes, self._resume.limit_bps)

    @property
    def resume_phase(self) -> ResumePhase:
        """What has become of the memory."""
        return self._resume.phase

    @property
    def is_path_proved(self) -> bool:
        """Whether the path has carried what was remembered: then the queue that Drain empties was Startup's own."""
        return self._resume.phase is ResumePhase.VALIDATED

    def on_ack(self, sample: AckSample) -> None:
        """Look for a queue, and for the rate of the bottleneck."""
        model = self._model
        queue, min_rtt_ns = model.queue, model.min_rtt_ns
        if model.rounds.is_start:
            has_hint = queue.standing_ns > queue.quiet_hint_ns(min_rtt_ns)
            has_queue = queue.mean_ns > queue.hint_ns(min_rtt_ns)
            late_bps = model.bw_latest if sample.is_late else None
            # After a loss, less is sent than the rate measured, and the queue that it leaves is short.
            if self._bottleneck.end_round(has_queue or self.is_slow, has_hint, late_bps):
                model.full_bw.restart(model.bw_latest)  # the window was too small to show growth
                self._may_grow_fast = False  # it was not sent within a quarter of a round trip, which proves more
            if (proved_bps := self._resume.start_round(sample.prior_in_flight_bytes)) is not None:
                self._bottleneck.assume(proved_bps)
            if self._resume.phase is ResumePhase.UNVALIDATED:
                self._idle_bytes = sample.delivered_bytes
        self._acked_bytes = sample.delivered_bytes - self._idle_bytes
        self._bottleneck.update(sample, queue.is_hinted, min_rtt_ns // _BUSY_RTT_DIVISOR, model.max_bw.bps)
        if queue.is_hinted:
            self._may_grow_fast = False
        if sample.rtt_ns is not None:
            delay_ns = sample.rtt_ns - min_rtt_ns
            self._quiet_share = max(0.0, 1 - _QUIET_HINTS * delay_ns / queue.quiet_hint_ns(min_rtt_ns))
            self._train_growth = self._growth_after_train(sample, delay_ns)

    def _growth_after_train(self, sample: AckSample, delay_ns: int) -> float:
        """The growth that the packets of the initial window allow: as much of it has arrived in time."""
        if sample.prior_delivered_bytes or self._resume.phase is not ResumePhase.NONE:  # sent later, or more than that
            return 0.0
        if self._train_start_bytes is None:
            self._train_start_bytes = sample.delivered_bytes
        model = self._model
        arrived_share = (sample.delivered_bytes - self._train_start_bytes) / initial_window_bytes(model.datagram_bytes)
        is_short = delay_ns < arrived_share * model.min_rtt_ns / _TRAIN_RTT_DIVISOR
        return TRAIN_GROWTH if is_short else 0.0

    def on_excessive_loss(self, now_ns: int) -> LossVerdict:
        """Too much was lost in this round so far. Returns REDUCED if the sender should send less now, or FULL."""
        excess_ns, self._excess_ns = self._excess_ns or now_ns, self._excess_ns or now_ns
        if now_ns < excess_ns + self._model.min_rtt_ns // _BURST_RTT_DIVISOR:
            return self.verdict  # perhaps a single burst
        if self.verdict is not LossVerdict.TESTING and self._reductions < _MAX_REDUCTIONS:
            self.verdict = LossVerdict.TESTING
            self._share_before = self._model.loss.round_count.least_share
            self._rounds = 0
            self._tested = LossCount()
            self._reductions += 1
            return LossVerdict.REDUCED
        if self.verdict is not LossVerdict.TESTING:
            self.verdict = LossVerdict.FULL
        return self.verdict

    def reduced_window_bytes(self, window_bytes: float) -> float:
        """The window after REDUCED, where `window_bytes` was too much."""
        return self._retreat() if self._resume.is_active else BETA * window_bytes

    def proved_window_bytes(self, window_bytes: float) -> float:
        """The window to return to after an outage: what was lost in it has proved nothing that is remembered."""
        return min(window_bytes, self._retreat()) if self._resume.is_active else window_bytes

    def next_window_bytes(self, window_bytes: float, newly_acked_bytes: int) -> float:
        """The window after an acknowledgement. It shrinks only if the path does not carry what is remembered of it."""
        if self._resume.is_active and self._model.queue.is_seen:
            return self.proved_window_bytes(window_bytes)
        grown_bytes = window_bytes + self.growth * newly_acked_bytes / (1 - self._model.loss.ratio)
        return max(window_bytes, min(grown_bytes, self.max_window_bytes))

    def _retreat(self) -> float:
        self._resume.retreat()
        self._may_grow_fast = False
        return max(self._acked_bytes / 2, float(initial_window_bytes(self._model.datagram_bytes)))

    def end_round(self, is_excessive: bool) -> LossVerdict:
        """A round ends. The first one after a reduction still has losses from before; the test begins with the second.

        Losses are random unless sending less has lowered their share (`_LOWERED`). If it has, a buffer was full, and
        still is if the loss is excessive.
        """
        if not is_excessive:
            self._excess_ns = None
        if self.verdict is not LossVerdict.TESTING:
            return self.verdict
        self._rounds += 1
        if self._rounds == 1:
            return self.verdict
        loss, tested = self._model.loss, self._tested + self._model.loss.round_count
        self._tested = tested
        expected = self._share_before * tested.packets
        is_clearly_lower = tested.lost <= expected - _CLEAR_DEVIATIONS * expected**0.5
        if expected < _TEST_LOSSES and not is_clearly_lower and self._rounds < _MAX_TEST_ROUNDS:
            return self.verdict
        if tested.share > _LOWERED * self._share_before:
            self.verdict = LossVerdict.RANDOM
            loss.believe(tested.share)
            self._reductions = 0
        else:
            self.verdict = LossVerdict.FULL if is_excessive else LossVerdict.BUFFER
        return self.verdict

    @property
    def acks_per_rtt(self) -> int:
        """Many acknowledgements until the bottleneck has been measured. They may be what has filled the way back."""
        if self._resume.is_active:
            return RESUMING_ACKS_PER_RTT
        return ACKS_PER_RTT if self._bottleneck.was_measured else STARTUP_ACKS_PER_RTT

    @property
    def is_slow(self) -> bool:
        """Whether losses suggest a short buffer, which a burst would overflow."""
        return self.verdict not in (LossVerdict.NONE, LossVerdict.RANDOM)

    @property
    def is_bounded(self) -> bool:
        """Whether the rate of the bottleneck bounds the window."""
        return self._bottleneck.bps is not None

    @property
    def growth(self) -> float:
        """How much the window grows per byte acknowledged."""
        if self.verdict is LossVerdict.TESTING:
            return 0.0
        if self._resume.phase is ResumePhase.UNVALIDATED:
            return 0.0
        if self._resume.is_active:
            return 2 * FULL_GAIN - 1  # what was sent at half the rate is followed at FULL_GAIN of it
        if self.is_slow:
            return 1.0
        if self.is_bounded:  # and the pacing rate as well
            return FAST_GROWTH
        quiet_growth = 1.0 + (FAST_GROWTH - 1.0) * self._quiet_share
        return max(quiet_growth, self._train_growth) if self._may_grow_fast else 1.0

    @property
    def max_window_bytes(self) -> float:
        """The window beyond which the path is full."""
        rate_bps = self._bottleneck.bps
        if rate_bps is None:
            return UNBOUNDED
        model = self._model
        held_ns = (FULL_GAIN + _AGGREGATED_RTTS) * model.min_rtt_ns + _HOST_NS
        delivered_bytes = rate_bps * held_ns / (BITS_PER_BYTE * NS_PER_S)
        return max(delivered_bytes / (1 - model.loss.ratio), model.min_pipe_bytes)

    def pacing_rate_bps(self, window_rate_bps: float) -> float:
        """The rate to send at, where `window_rate_bps` is a window per round trip."""
        if self.is_slow:
            return FULL_GAIN * window_rate_bps
        if self._resume.is_active:
            return self._resume.limit_bps
        rate_bps = self._bottleneck.bps
        limit_bps = UNBOUNDED if rate_bps is None else FULL_GAIN * rate_bps / (1 - self._model.loss.ratio)
        windows = WINDOWS_PER_RTT if self.verdict is LossVerdict.NONE else CAREFUL_WINDOWS_PER_RTT
        return min(windows * window_rate_bps, limit_bps)
