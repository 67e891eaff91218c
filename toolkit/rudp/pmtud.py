"""Path MTU discovery: finds the largest datagram that the path carries, from 1,200 bytes upward.

A path drops datagrams that are too large, often silently, and ICMP messages about it can be forged. The size is
therefore found by padded probe packets: those that are acknowledged fit (packetization-layer path MTU discovery). The
first probe is as large as both sides allow, which fits most paths. If it does not fit, the next one fills the packets
of Ethernet: a host with jumbo frames is often reached through a network without them. After that the search bisects. A
size is given up after three lost probes. A lost probe is no sign of congestion.

A route may change to a narrower one while large packets are in use. Then all large packets are lost while small ones
arrive: a *black hole*. The search then starts again from the base size.

Sizes are those of UDP payloads, without IP and UDP headers.

Read: RFC 8899 sections 5.1 (constants, timers), 5.2 (states) and 4.3 (black holes); RFC 9000 sections 14.1 and 14.3.
"""

from enum import Enum, auto
from typing import Final

BASE_DATAGRAM_BYTES: Final = 1200
"""BASE_PLPMTU: the size that every path must carry (RFC 9000 section 14.1)."""
ETHERNET_DATAGRAM_BYTES: Final = 1472
"""Fills a 1,500-byte IPv4 packet."""
MAX_PROBES: Final = 3
"""Number of lost probes after which a size is too large (RFC 8899 section 5.1.2)."""
PMTU_RAISE_TIMER_NS: Final = 600_000_000_000
"""How long to wait before searching again for a size above the one found (RFC 8899 section 5.1.1)."""
_SEARCH_STEP_BYTES: Final = 16
"""Resolution of the search: one percent of a packet is not worth another probe."""
_BLACK_HOLE_REPORTS: Final = 3
"""A black hole needs this many reports of lost large packets, with none of them acknowledged in between. Reports are
about a round trip apart; a burst of random loss may take many packets but makes only one report."""
_BLACK_HOLE_PACKETS: Final = 6
"""It also needs this many lost packets, so that three packets of a slow sender do not suffice."""


class MtuSearchState(Enum):
    """RFC 8899 section 5.2, figure 5."""

    BASE = auto()
    SEARCHING = auto()
    SEARCH_COMPLETE = auto()
    ERROR = auto()


class MtuSearchEvent(Enum):
    """What moves the search from state to state."""

    BASE_CONFIRMED = auto()
    BASE_LOST = auto()
    SIZE_FOUND = auto()
    RAISE_TIMER = auto()
    BLACK_HOLE = auto()


TRANSITIONS: Final = {
    (MtuSearchState.BASE, MtuSearchEvent.BASE_CONFIRMED): MtuSearchState.SEARCHING,
    (MtuSearchState.BASE, MtuSearchEvent.BASE_LOST): MtuSearchState.ERROR,
    (MtuSearchState.SEARCHING, MtuSearchEvent.SIZE_FOUND): MtuSearchState.SEARCH_COMPLETE,
    (MtuSearchState.SEARCHING, MtuSearchEvent.BLACK_HOLE): MtuSearchState.BASE,
    (MtuSearchState.SEARCH_COMPLETE, MtuSearchEvent.RAISE_TIMER): MtuSearchState.SEARCHING,
    (MtuSearchState.SEARCH_COMPLETE, MtuSearchEvent.BLACK_HOLE): MtuSearchState.BASE,
    (MtuSearchState.ERROR, MtuSearchEvent.BASE_CONFIRMED): MtuSearchState.SEARCHING,
}
"""Any other pair is a mistake of the caller, and raises KeyError."""


class PathMtu:
    """The MTU search on one path.

    Call `probe_size` after the handshake, after each acknowledgement, and once `next_timeout_ns` has come. Send a probe
    of the returned size, if any. Report the fate of probes by `on_probe_*`, and of other packets by `on_packet*`.

    The base size is confirmed from the beginning, because the INITIAL packet is padded to it.
    """

    def __init__(self, max_datagram_bytes: int) -> None:
        """`max_datagram_bytes` is the limit of interface and peer; up to the base size there is nothing to search."""
        self._max_bytes = max(max_datagram_bytes, BASE_DATAGRAM_BYTES)
        self._datagram_bytes = BASE_DATAGRAM_BYTES
        self._state = MtuSearchState.SEARCHING
        self._raise_at_ns: int | None = None
        self._large_loss_reports = 0
        self._large_packets_lost = 0
        self._has_small_arrived = False
        self._too_large_bytes: int
        self._candidate_bytes: int
        self._losses: int
        self._probe_in_flight: bool
        self._start_search()

    @property
    def state(self) -> MtuSearchState:
        """Where the search stands."""
        return self._state

    @property
    def datagram_bytes(self) -> int:
        """The largest size that is known to fit."""
        return self._datagram_bytes

    @property
    def is_found(self) -> bool:
        """Whether the search has ended for now."""
        return self._state is MtuSearchState.SEARCH_COMPLETE

    @property
    def is_at_rest(self) -> bool:
        """Whether the search has ended for good: the path carries the largest size, and no timer begins it again."""
        return self._raise_at_ns is None and self._state is MtuSearchState.SEARCH_COMPLETE

    @property
    def next_timeout_ns(self) -> int | None:
        """When to call `probe_size` even if nothing is acknowledged; None for never."""
        return self._raise_at_ns

    def probe_size(self, now_ns: int) -> int | None:
        """The size of the probe to send now, in bytes of UDP payload; None if no probe is due."""
        if self._raise_at_ns is not None and now_ns >= self._raise_at_ns:
            self._raise_at_ns = None
            self._move(MtuSearchEvent.RAISE_TIMER)
            self._start_search()
        if self._probe_in_flight:
            return None
        if self._state is MtuSearchState.BASE:
            return BASE_DATAGRAM_BYTES
        if self._state is MtuSearchState.SEARCHING:
            self._finish_if_found(now_ns)
            return self._candidate_bytes if self._state is MtuSearchState.SEARCHING else None
        return None

    def on_probe_sent(self) -> None:
        """A probe of the returned size was sent. There is one at a time."""
        self._probe_in_flight = True

    def on_probe_acked(self, size_bytes: int, now_ns: int) -> None:
        """A probe has arrived; `datagram_bytes` may have grown."""
        self._probe_in_flight = False
        self.on_packet_acked(size_bytes)
        if self._state is MtuSearchState.SEARCHING and size_bytes > self._datagram_bytes:
            self._datagram_bytes = size_bytes
            self._next_candidate()
            self._finish_if_found(now_ns)

    def on_probe_lost(self, size_bytes: int, now_ns: int) -> None:
        """A probe was declared lost."""
        self._probe_in_flight = False
        if size_bytes != (BASE_DATAGRAM_BYTES if self._state is MtuSearchState.BASE else self._candidate_bytes):
            return  # sent before a black hole was found
        self._losses += 1
        if self._losses < MAX_PROBES:
            return
        if self._state is MtuSearchState.BASE:
            self._move(MtuSearchEvent.BASE_LOST)
        elif self._state is MtuSearchState.SEARCHING:
            self._too_large_bytes = size_bytes
            self._next_candidate()
            self._finish_if_found(now_ns)

    def on_packet_acked(self, size_bytes: int) -> None:
        """Packets have arrived, the largest of `size_bytes`."""
        if size_bytes > BASE_DATAGRAM_BYTES:
            self._large_loss_reports = self._large_packets_lost = 0
            self._has_small_arrived = False
        else:
            self._has_small_arrived = True
        if self._state in (MtuSearchState.BASE, MtuSearchState.ERROR) and size_bytes >= BASE_DATAGRAM_BYTES:
            self._move(MtuSearchEvent.BASE_CONFIRMED)
            self._start_search()

    def on_packets_lost(self, size_bytes: int, count: int) -> None:
        """`count` packets, the largest of `size_bytes`, were declared lost; `datagram_bytes` may have fallen."""
        if size_bytes <= BASE_DATAGRAM_BYTES or self._datagram_bytes <= BASE_DATAGRAM_BYTES:
            return
        self._large_loss_reports += 1
        self._large_packets_lost += count
        if (
            self._has_small_arrived
            and self._large_loss_reports >= _BLACK_HOLE_REPORTS
            and self._large_packets_lost >= _BLACK_HOLE_PACKETS
        ):
            self._move(MtuSearchEvent.BLACK_HOLE)
            self._datagram_bytes = BASE_DATAGRAM_BYTES
            self._raise_at_ns = None
            self._large_loss_reports = self._large_packets_lost = 0
            self._has_small_arrived = False
            self._start_search()

    def _move(self, event: MtuSearchEvent) -> None:
        self._state = TRANSITIONS[self._state, event]

    def _start_search(self) -> None:
        """Forget which sizes were too large, and begin with the largest."""
        self._too_large_bytes = self._max_bytes + 1
        self._candidate_bytes = self._max_bytes
        self._losses = 0
        self._probe_in_flight = False

    def _next_candidate(self) -> None:
        """Bisect between the largest size that fits and the smallest that does not; try Ethernet's size first."""
        self._candidate_bytes = (self._datagram_bytes + self._too_large_bytes) // 2
        if self._datagram_bytes < ETHERNET_DATAGRAM_BYTES < self._candidate_bytes:
            self._candidate_bytes = ETHERNET_DATAGRAM_BYTES
        self._losses = 0

    def _finish_if_found(self, now_ns: int) -> None:
        """End the search once its resolution is reached; search again later if a larger size may fit some day."""
        if self._state is not MtuSearchState.SEARCHING:
            return
        is_largest = self._datagram_bytes == self._max_bytes
        if is_largest or self._candidate_bytes - self._datagram_bytes < _SEARCH_STEP_BYTES // 2:
            self._move(MtuSearchEvent.SIZE_FOUND)
            self._raise_at_ns = None if is_largest else now_ns + PMTU_RAISE_TIMER_NS
