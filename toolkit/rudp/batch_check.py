"""Notices that datagrams which are sent together never arrive, while single ones do.

The kernel passes the datagrams of one call as one large packet to the network device (UDP_SEGMENT). A firewall or a
driver that cannot handle it may drop it without a word. Everything would then depend on the probes of timeouts, which
are single datagrams, and the transfer would crawl at one packet a round trip or less.
"""

from typing import Final

_MIN_REPORTS: Final = 3
"""A verdict needs this many reports of lost packets. Reports are about a round trip apart; an outage makes few."""
_MIN_PACKETS: Final = 6
"""It also needs this many lost packets that were sent together."""


class BatchCheck:
    """What has become of packets that were sent together, on one path.

    is_allowed: whether to send several packets at a time
    is_decided: whether some have arrived, or too many have not; nothing needs to be reported any more
    """

    def __init__(self) -> None:
        self.is_allowed = True
        self.is_decided = False
        self._reports = 0
        self._packets = 0
        self._has_single_arrived = False

    def on_acked(self, together: int) -> None:
        """Packets were acknowledged, `together` of them sent together with others that were acknowledged too."""
        if together:
            self.is_decided = True
        elif self._reports:
            self._has_single_arrived = True

    def on_lost(self, together: int) -> None:
        """Packets were declared lost, `together` of them sent together with others that were lost too."""
        self._reports += together > 0
        self._packets += together
        if self._has_single_arrived and self._reports >= _MIN_REPORTS and self._packets >= _MIN_PACKETS:
            self.is_allowed = False
            self.is_decided = True
