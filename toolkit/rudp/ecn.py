"""Explicit Congestion Notification: mark what is sent, check that the marks arrive, and hear the answers.

Theory. A packet sent with ECT(0) in its IP header may be marked Congestion Experienced by a queue that would rather
tell than drop. The receiver counts both and echoes the counts. Some devices clear the field or drop what carries it,
so the counts are checked against what was acknowledged, and marking ends where they do not add up.

Read: RFC 3168 section 5, RFC 9000 section 13.4.2 and appendix A.4.
"""

from typing import Final

NOT_ECT: Final = 0b00
ECT_0: Final = 0b10
_TESTING_PACKETS: Final = 10
"""Until so many were acknowledged, none of them counted may be late acknowledgements."""
_MAX_SILENT_TIMEOUTS: Final = 2
_WRAP: Final = 1 << 32


class EcnValidator:
    """`codepoint` is what to send with; counts are totals modulo 2^32, as ACK packets carry them."""

    def __init__(self) -> None:
        self.codepoint = ECT_0
        self._acked_packets = 0  # by this path
        self._ect_count = 0
        self._ce_count = 0
        self._counted_before = 0  # by paths before this one

    def on_new_path(self) -> None:
        """Mark again, until the new path shows what it makes of it; the peer's counts go on."""
        self.codepoint = ECT_0
        self._acked_packets = 0
        self._counted_before = self._ect_count + self._ce_count

    def on_ack(self, newly_acked_packets: int, ect_count: int, ce_count: int) -> int:
        """An ACK packet that settled `newly_acked_packets`; returns how many it newly reports as marked."""
        newly_marked = self._advance(ce_count, self._ce_count)
        self._ce_count += newly_marked
        self._ect_count += self._advance(ect_count, self._ect_count)
        self._acked_packets += newly_acked_packets
        if self.codepoint == NOT_ECT:
            return 0
        counted = self._ect_count + self._ce_count - self._counted_before
        if self._acked_packets > _TESTING_PACKETS and counted < self._acked_packets:
            self.codepoint = NOT_ECT  # something on the path clears the field
            return 0
        return newly_marked

    def on_timeout(self, pto_count: int) -> None:
        """Nothing has ever come back: perhaps marked packets are dropped (RFC 9000 section 13.4.2)."""
        if self._acked_packets == 0 and pto_count >= _MAX_SILENT_TIMEOUTS:
            self.codepoint = NOT_ECT

    @staticmethod
    def _advance(count: int, total: int) -> int:
        step = (count - total) % _WRAP
        return step if step < _WRAP // 2 else 0
