"""Explicit Congestion Notification: mark packets, check that the marks arrive, and read the counts that come back.

A packet sent with ECT(0) in its IP header may be marked Congestion Experienced (CE) by a queue, instead of being
dropped. The receiver counts both codepoints and reports the totals. Some devices clear the field or drop packets that
carry it. The totals are therefore checked against the number of acknowledged packets, and marking stops if they do
not add up.

Read: RFC 3168 section 5, RFC 9000 section 13.4.2 and appendix A.4.
"""

from typing import Final

NOT_ECT: Final = 0b00
ECT_0: Final = 0b10
_TESTING_PACKETS: Final = 10
"""The check begins after this many acknowledged packets: the counts of the first ones may arrive late."""
_MAX_SILENT_PTOS: Final = 2
_WRAP: Final = 1 << 32


class EcnValidator:
    """ECN on one path: `codepoint` is what to send with. Counts are totals modulo 2^32, as in ACK packets."""

    def __init__(self, ect_count: int = 0, ce_count: int = 0) -> None:
        """The counts are those that the peer had reported when this path came into use."""
        self.codepoint = ECT_0
        self._ect_count = ect_count
        self._ce_count = ce_count
        self._initial_count = ect_count + ce_count
        self._acked_packets = 0

    def for_new_path(self) -> "EcnValidator":
        """Return the validator of the next path: it marks again, and the peer's counts continue."""
        return EcnValidator(self._ect_count, self._ce_count)

    def on_ack(self, newly_acked_packets: int, ect_count: int, ce_count: int) -> int:
        """Take the counts of an ACK packet; return how many packets it newly reports as marked CE."""
        newly_marked = self._increase(ce_count, self._ce_count)
        self._ce_count += newly_marked
        self._ect_count += self._increase(ect_count, self._ect_count)
        self._acked_packets += newly_acked_packets
        if self.codepoint == NOT_ECT:
            return 0
        counted = self._ect_count + self._ce_count - self._initial_count
        if self._acked_packets > _TESTING_PACKETS and counted < self._acked_packets:
            self.codepoint = NOT_ECT  # a device on the path clears the field
            return 0
        return newly_marked

    def on_timeout(self, pto_count: int) -> None:
        """Stop marking if nothing was ever acknowledged: a device may drop marked packets (section 13.4.2)."""
        if self._acked_packets == 0 and pto_count >= _MAX_SILENT_PTOS:
            self.codepoint = NOT_ECT

    @staticmethod
    def _increase(count: int, total: int) -> int:
        increase = (count - total) % _WRAP
        return increase if increase < _WRAP // 2 else 0
