"""When to send how much: bursts at a rate, exact in the long run even where timers are late.

Theory. Sending each packet by its own timer is too dear at high rates, and sending a whole window at once
overflows queues. So the pacer releases a *send quantum* at a time: what the rate makes of 1 ms, but no less
than two datagrams and no more than 64 KiB, what one segmentation-offloaded send can carry. (RFC 9002 section
7.7 asks for pacing; draft-ietf-ccwg-bbr section 4.6.3 has the same quantum.)

`_release_ns` is a virtual time: when all that was sent so far would be on the wire at exactly the rate. A
quantum may go as soon as it has come. A timer that fires late has earned more than one quantum meanwhile, and
the virtual time, not the clock, is what the next send counts from; so late timers cost no rate. That holds
only while the pacer is what the sender waits for: a sender that was held by its window or had nothing to
send has earned nothing, for what it would send at once then, no queue has room for.
"""

from typing import Final

_NS_PER_S: Final = 1_000_000_000
_QUANTUM_NS: Final = 1_000_000
"""A quantum is the rate times this."""
_MIN_QUANTUM_DATAGRAMS: Final = 2
_MAX_QUANTUM_BYTES: Final = 64 * 1024
_TIMER_LATENESS_NS: Final = 200_000
"""What a timer and the sender's own round of work take at the least: above 2.6 Gb/s a quantum is the rate times this,
for the sender could not come back any sooner."""
_MAX_ROUND_BYTES: Final = 8 * _MAX_QUANTUM_BYTES
"""At most this much per call, however late: the driver looks at its receive side in between."""
_CATCH_UP_NS: Final = 4_000_000
"""Lateness that is made good: many times the usual 80 us of a timer, and the length of a scheduler's time
slice. The burst after it is what the bottleneck could have carried meanwhile, so it adds at most this to the queue."""
_CATCH_UP_QUANTA: Final = 2
"""The same bound for low rates, where two datagrams take longer than `_CATCH_UP_NS`."""


class Pacer:
    """Ask `budget_bytes`, send no more than that, report it by `on_sent`; wake again at `next_send_time_ns`.

    What need not be paced (acknowledgements, messages, the probes of a timeout and of the path MTU) is sent without
    asking, and not reported: it is small, or seldom.
    """

    def __init__(self) -> None:
        self._release_ns = 0
        self._is_waited_for = False
        self._lateness_ns = 0
        self._granted_bytes = 0

    def budget_bytes(self, now_ns: int, rate_bps: float, datagram_bytes: int) -> int:
        """How many bytes may go now at `rate_bps` (> 0): whole quanta of whole datagrams, 0 when it is too early.

        Ask only when there is something to send and the window has room for it: an answer of 0 means that the
        sender waits for the pacer from now on.
        """
        late_ns = now_ns - self._release_ns
        if late_ns < 0:
            self._is_waited_for = True
            return 0
        quantum_bytes = self.quantum_bytes(rate_bps, datagram_bytes)
        if self._is_waited_for:
            quanta_ns = _CATCH_UP_QUANTA * quantum_bytes * 8 * _NS_PER_S / rate_bps
            self._lateness_ns = min(late_ns, max(_CATCH_UP_NS, round(quanta_ns)))
        self._is_waited_for = False
        earned_bytes = quantum_bytes + self._lateness_ns * rate_bps / (8 * _NS_PER_S)
        granted_bytes = min(earned_bytes, max(_MAX_ROUND_BYTES, quantum_bytes))
        self._granted_bytes = int(granted_bytes // quantum_bytes) * quantum_bytes
        return self._granted_bytes

    def on_sent(self, now_ns: int, sent_bytes: int, rate_bps: float) -> None:
        """`sent_bytes` went out at `now_ns`, while the rate was `rate_bps` (> 0)."""
        start_ns = max(self._release_ns, now_ns - self._lateness_ns)
        self._release_ns = start_ns + round(sent_bytes * 8 * _NS_PER_S / rate_bps)
        # Who took less than was granted is held by something else; who took all of it may still be owed the rest.
        is_owed = sent_bytes >= self._granted_bytes
        self._lateness_ns = max(0, now_ns - self._release_ns) if is_owed else 0

    def next_send_time_ns(self) -> int:
        """When the next quantum may go; not later than now when one may go at once."""
        return self._release_ns

    @staticmethod
    def quantum_bytes(rate_bps: float, datagram_bytes: int) -> int:
        """The send quantum: `rate_bps` x 1 ms between 2 datagrams and 64 KiB, or 512 KiB where timers are too slow
        for that; in whole datagrams."""
        rate_bytes_per_ns = rate_bps / (8 * _NS_PER_S)
        wanted_bytes = min(rate_bytes_per_ns * _QUANTUM_NS, _MAX_QUANTUM_BYTES)
        wanted_bytes = max(wanted_bytes, min(rate_bytes_per_ns * _TIMER_LATENESS_NS, _MAX_ROUND_BYTES))
        return max(int(wanted_bytes // datagram_bytes), _MIN_QUANTUM_DATAGRAMS) * datagram_bytes
