"""Pacing: sends bursts at a rate that is exact in the long run, even if timers are late.

One timer per packet costs too much at high rates, and a whole window at once overflows queues. The pacer therefore
releases one *send quantum* at a time: the bytes of 1 ms at the given rate, but at least two datagrams and at most
64 KiB, which is what one segmentation-offloaded send can carry. Above 2 Gbit/s, timers are too slow for that: the
quantum is then the bytes of 250 us, at most 512 KiB. Each round of the sender costs processor time, however little it
sends. So on a path with a deep queue (`BurstRoom`), a quantum is up to 2 ms, also at most 512 KiB.

`_release_ns` is a virtual time: when everything sent so far would have left at exactly the given rate. The next
quantum may be sent once that time has come. A late timer has earned more than one quantum, and the next send counts
from the virtual time, not from the clock; so late timers cost no rate. This holds while the sender waits for the
pacer, and while it is busy: a round that takes longer than its quantum lasts has earned a larger one. Otherwise, a
processor that is too slow for the rate would lower the rate, hence the quantum, and need more rounds for each byte. A
sender that was limited by its window, or had nothing to send, earns nothing meanwhile: no queue would have room for the
burst. How much lateness is made up for depends on what the path's queues have taken (`CatchUp`).

Read: RFC 9002 section 7.7 (pacing), draft-ietf-ccwg-bbr section 4.6.3 (send quantum).
"""

from typing import Final

_NS_PER_S: Final = 1_000_000_000
_QUANTUM_NS: Final = 1_000_000
"""A quantum is the rate times this duration."""
_MIN_QUANTUM_DATAGRAMS: Final = 2
_MAX_QUANTUM_BYTES: Final = 64 * 1024
"""Half of it would take a fifth more of the sender's processor time at 1 Gbit/s. What a short queue of this host drops
is taken back."""
_MAX_QUANTUM_NS: Final = 2_000_000
"""The duration of a quantum on a path whose queue has room for it, where 64 KiB are no limit."""
_QUEUE_SHARE: Final = 4
"""A quantum takes at most a quarter of the queue that the path has shown."""
_QUEUE_SAMPLES: Final = 4
_QUEUE_NS: Final = 50_000_000
"""A queue is shown by at least as many RTT samples, over at least this time."""
_MIN_ROUND_NS: Final = 250_000
"""Minimum time between two rounds of the sender, which a timer and the round itself take. Above 2 Gbit/s a quantum is
the rate times this duration."""
_MAX_ROUND_BYTES: Final = 512 * 1024
"""Maximum per call, however late it is, so that the driver returns to receiving."""
_CATCH_UP_NS: Final = 1_000_000
"""Lateness that is always made up for: many times the usual 80 us of a timer. The bottleneck could have carried the
burst meanwhile, so that it adds at most this delay to the queue."""
_CATCH_UP_QUANTA: Final = 2
"""The same limit for low rates, at which two datagrams take longer than `_CATCH_UP_NS`."""
_MAX_CATCH_UP_NS: Final = 32_000_000
"""Lateness that is made up for at most: some time slices of a scheduler, and less than most queues hold."""
_SHORT_RTT_NS: Final = 10_000_000
"""More than `_CATCH_UP_NS` is made up for only on a path as short as a few time slices. On a longer one the window
carries the flow meanwhile, and Startup, which sends faster than the path, overflows a queue with one burst."""
_BACK_OFF_NS: Final = 250_000
_MAX_BACK_OFF_NS: Final = 16_000_000
"""Pause after a queue of this host was full, which doubles for each time in a row. The driver may wait longer."""


class CatchUp:
    """How much lateness of the sender the queues of the path have room for (`limit_ns`).

    A process that shares its processor with many others is late by whole time slices. If it made up for 1 ms of each,
    it would hardly send, and many small packets would cost both ends the time that they lack. A burst as long as a time
    slice overflows a shallow queue, however, also one of this host. So on a short path the limit doubles each time a
    burst at the limit has arrived, and is half of the burst for good if one has lost something.

    One burst is watched at a time, the longest of those in flight: a queue that has room for it has room for all.
    """

    def __init__(self) -> None:
        self.limit_ns = _CATCH_UP_NS
        self._ceiling_ns = _MAX_CATCH_UP_NS
        self._burst_time_ns: int | None = None  # when the burst that is watched began; None for none
        self._burst_end_ns = 0  # when its latest part was sent
        self._burst_ns = 0  # the lateness that it makes up for
        self._is_latest = False  # whether it is the latest burst, so that it may go on

    def on_burst(self, now_ns: int, late_ns: int) -> None:
        """A sender is late and makes up for it."""
        burst_ns = min(late_ns, self.limit_ns)
        self._is_latest = burst_ns >= _CATCH_UP_NS and (self._burst_time_ns is None or burst_ns > self._burst_ns)
        if self._is_latest:
            self._burst_time_ns = self._burst_end_ns = now_ns
            self._burst_ns = burst_ns

    def on_more(self, now_ns: int) -> None:
        """The sender sends another part of its latest burst, which was too long for one call."""
        if self._is_latest:
            self._burst_end_ns = now_ns

    def on_acked(self, sent_time_ns: int, min_rtt_ns: int) -> None:
        """A packet that was sent at this time has arrived, and the losses that this shows have been reported."""
        if self._burst_time_ns is not None and sent_time_ns > self._burst_end_ns:
            self._burst_time_ns = None
            if self._burst_ns >= self.limit_ns and min_rtt_ns < _SHORT_RTT_NS:
                self.limit_ns = min(2 * self.limit_ns, self._ceiling_ns)

    def on_lost(self, sent_time_ns: int) -> None:
        """A packet that was sent at this time has been lost."""
        if self._burst_time_ns is not None and sent_time_ns >= self._burst_time_ns:
            self._burst_time_ns = None
            self.limit_ns = self._ceiling_ns = max(self._burst_ns // 2, _CATCH_UP_NS)


class BurstRoom:
    """How long a burst the path has room for (`limit_ns`): a quarter of the longest queue that it has shown.

    A queue is shown by the least delay within a round trip, or within 50 ms if that is longer. On a path shorter than a
    few time slices, delays are those of processes that wait for a processor, and show nothing. A shallow queue never
    shows a long delay, whatever is lost and why: it never gets more than the least quantum.
    """

    def __init__(self) -> None:
        self.limit_ns = 0
        self._start_ns = self._samples = self._least_ns = 0

    def on_rtt(self, now_ns: int, rtt_ns: int, min_rtt_ns: int) -> None:
        """An RTT sample was taken, and this is their minimum."""
        if min_rtt_ns < _SHORT_RTT_NS:
            return
        delay_ns = max(0, rtt_ns - min_rtt_ns)
        self._least_ns = min(self._least_ns, delay_ns) if self._samples else delay_ns
        self._samples += 1
        if self._samples == 1:
            self._start_ns = now_ns
        elif self._samples >= _QUEUE_SAMPLES and now_ns - self._start_ns >= max(min_rtt_ns, _QUEUE_NS):
            self.limit_ns = max(self.limit_ns, min(self._least_ns // _QUEUE_SHARE, _MAX_QUANTUM_NS))
            self._samples = 0


class Pacer:
    """Send at most `budget_bytes`, report it by `on_sent`, and return at `next_send_time_ns`. Report `on_limited`.

    Acknowledgements and probes are neither paced nor reported: they are small or rare.

    catch_up:    is told which packets arrive and which are lost
    burst_room:  is told the RTT samples
    is_too_late: the sender is later than the last `budget_bytes` makes up for: it, and not the path, limits the rate
    """

    def __init__(self) -> None:
        self.catch_up = CatchUp()
        self.burst_room = BurstRoom()
        self.is_too_late = False
        self._release_ns = 0
        self._is_waited_for = False
        self._is_busy = False  # has sent all that was granted, and nothing else has limited it since
        self._lateness_ns = 0
        self._granted_bytes = 0
        self._back_off_ns = _BACK_OFF_NS
        self._was_dropped = False

    def budget_bytes(self, now_ns: int, rate_bps: float, datagram_bytes: int, max_bytes: int = _MAX_ROUND_BYTES) -> int:
        """How many bytes may be sent now at `rate_bps` (> 0): whole quanta of whole datagrams, 0 if it is too early.

        max_bytes: most that the sender can send at once, whole datagrams; what is earned beyond is not lost

        Call it only if there is something to send and the window has room for it: after a result of 0 the pacer
        assumes that the sender waits for it.
        """
        late_ns = now_ns - self._release_ns
        if late_ns < 0:
            self._is_waited_for = True
            return 0
        quantum_bytes = self.quantum_bytes(rate_bps, datagram_bytes, self.burst_room.limit_ns)
        self.is_too_late = False
        if self._is_waited_for:
            quanta_ns = _CATCH_UP_QUANTA * quantum_bytes * 8 * _NS_PER_S / rate_bps
            self._lateness_ns = min(late_ns, max(self.catch_up.limit_ns, round(quanta_ns)))
            self.is_too_late = late_ns > self._lateness_ns
            self.catch_up.on_burst(now_ns, late_ns)
        elif self._lateness_ns:
            self.catch_up.on_more(now_ns)
        if self._is_busy and not self._is_waited_for:
            self._lateness_ns = max(self._lateness_ns, min(late_ns, _CATCH_UP_NS))
        self._is_waited_for = self._is_busy = False
        earned_bytes = quantum_bytes + self._lateness_ns * rate_bps / (8 * _NS_PER_S)
        granted_bytes = min(earned_bytes, max(_MAX_ROUND_BYTES, quantum_bytes))
        self._granted_bytes = min(int(granted_bytes // quantum_bytes) * quantum_bytes, max_bytes)
        return self._granted_bytes

    def grant_burst(self, sent_bytes: int) -> None:
        """So many bytes leave now, although nothing has earned them. Report them by `on_sent`."""
        self.is_too_late = self._is_waited_for = self._is_busy = False
        self._lateness_ns = 0
        self._granted_bytes = sent_bytes

    def on_sent(self, now_ns: int, sent_bytes: int, rate_bps: float) -> None:
        """`sent_bytes` were sent at `now_ns`, at a rate of `rate_bps` (> 0)."""
        if not self._was_dropped:
            self._back_off_ns = _BACK_OFF_NS
        self._was_dropped = False
        start_ns = max(self._release_ns, now_ns - self._lateness_ns)
        self._release_ns = start_ns + round(sent_bytes * 8 * _NS_PER_S / rate_bps)
        # A sender that used less than it was granted is limited by something else, and has no claim to the rest.
        self._is_busy = sent_bytes >= self._granted_bytes
        self._lateness_ns = max(0, now_ns - self._release_ns) if self._is_busy else 0

    def on_limited(self) -> None:
        """The sender has nothing to send, or its window has no room: the time until its next call earns nothing."""
        self._is_busy = False

    def on_local_drop(self, now_ns: int) -> None:
        """A queue of this host is full: let it drain for a moment, and do not make up for that."""
        self.catch_up.on_lost(now_ns)
        self._release_ns = max(self._release_ns, now_ns + self._back_off_ns)
        self._back_off_ns = min(2 * self._back_off_ns, _MAX_BACK_OFF_NS)
        self._was_dropped = True
        self._is_waited_for = self._is_busy = False
        self._lateness_ns = 0

    def next_send_time_ns(self) -> int:
        """When the next quantum may be sent; in the past if it may be sent at once."""
        return self._release_ns

    @staticmethod
    def quantum_bytes(rate_bps: float, datagram_bytes: int, room_ns: int = 0) -> int:
        """The send quantum in whole datagrams: `rate_bps` x 1 ms between 2 datagrams and 64 KiB.

        At rates for which timers are too slow it is `rate_bps` x 250 us, up to 512 KiB; and `rate_bps` x `room_ns`, if
        that is more, up to the same limit.
        """
        rate_bytes_per_ns = rate_bps / (8 * _NS_PER_S)
        wanted_bytes = min(rate_bytes_per_ns * _QUANTUM_NS, _MAX_QUANTUM_BYTES)
        wanted_bytes = max(wanted_bytes, min(rate_bytes_per_ns * max(_MIN_ROUND_NS, room_ns), _MAX_ROUND_BYTES))
        return max(int(wanted_bytes // datagram_bytes), _MIN_QUANTUM_DATAGRAMS) * datagram_bytes
