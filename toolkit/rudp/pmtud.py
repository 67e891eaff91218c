"""The path's datagram size, found by probing from 1,200 bytes upward.

Theory. A path drops what is too large for it, often without a word, and a word by ICMP can be forged; so the
size is found by sending padded probe packets and seeing which are acknowledged (packetization-layer path MTU
discovery). The first probe is as large as both sides allow, which is right on most paths; where it is
not, sizes are halved in between. A probe is given up after three losses; a lost probe says nothing about
congestion.

A route may change to a narrower one while large packets are in use: then all of those are lost while small
ones get through, a *black hole*, and the search starts over from the base size.

Sizes are UDP payloads, without IP and UDP headers. Sans-I/O: the engine's loss detection tells the fate of a
probe.

Read: RFC 8899 sections 5.1 (constants, timers), 5.2 (states), 4.3 (black holes), RFC 9000 sections 14.1 and
      14.3.
"""

from enum import Enum, auto
from typing import Final

BASE_DATAGRAM_BYTES: Final = 1200
"""BASE_PLPMTU: what every path of QUIC, and of ours, must carry (RFC 9000 section 14.1)."""
MAX_PROBES: Final = 3
"""Losses of one size after which it counts as too large (RFC 8899 section 5.1.2)."""
PMTU_RAISE_TIMER_NS: Final = 600_000_000_000
"""How long to be content with less than the interface allows (RFC 8899 section 5.1.1)."""
_SEARCH_STEP_BYTES: Final = 16
"""Nearer than this the search does not look: a hundredth of a packet gains nothing."""
_BLACK_HOLE_LOOKS: Final = 3
"""Loss detection must have reported large packets lost this often without one of them acknowledged. Counted
in looks, a round trip or so apart, and not in packets: a burst of random loss takes many packets at once."""
_BLACK_HOLE_PACKETS: Final = 6
"""And at least this many packets must have been lost, so that a slow sender's three do not suffice."""


class State(Enum):
    """RFC 8899 section 5.2, figure 5."""

    BASE = auto()
    SEARCHING = auto()
    SEARCH_COMPLETE = auto()
    ERROR = auto()


class Event(Enum):
    """What moves the search from state to state."""

    BASE_CONFIRMED = auto()
    BASE_LOST = auto()
    SIZE_FOUND = auto()
    RAISE_TIMER = auto()
    BLACK_HOLE = auto()


TRANSITIONS: Final = {
    (State.BASE, Event.BASE_CONFIRMED): State.SEARCHING,
    (State.BASE, Event.BASE_LOST): State.ERROR,
    (State.SEARCHING, Event.SIZE_FOUND): State.SEARCH_COMPLETE,
    (State.SEARCHING, Event.BLACK_HOLE): State.BASE,
    (State.SEARCH_COMPLETE, Event.RAISE_TIMER): State.SEARCHING,
    (State.SEARCH_COMPLETE, Event.BLACK_HOLE): State.BASE,
    (State.ERROR, Event.BASE_CONFIRMED): State.SEARCHING,
}
"""Any other pair is a mistake of the caller's, and raises KeyError."""


class PathMtu:
    """Ask `probe_size` after the handshake and whenever something was acknowledged or `next_timeout_ns` has
    come; send a probe of that size if it gives one; report probes by `on_probe_*`, all other packets by
    `on_packet*`.

    The engine's handshake packets are padded to the base size, so that a connection begins with that one
    confirmed.
    """

    def __init__(self, max_datagram_bytes: int) -> None:
        """`max_datagram_bytes`: what interface and peer allow at most; below the base size there is no search."""
        self._max_bytes = max(max_datagram_bytes, BASE_DATAGRAM_BYTES)
        self._datagram_bytes = BASE_DATAGRAM_BYTES
        self._state = State.SEARCHING
        self._raise_at_ns: int | None = None
        self._large_looks = 0
        self._large_lost = 0
        self._small_got_through = False
        self._too_large_bytes: int
        self._candidate_bytes: int
        self._losses: int
        self._probe_in_flight: bool
        self._start_search()

    @property
    def state(self) -> State:
        return self._state

    @property
    def datagram_bytes(self) -> int:
        """The largest size known to get through."""
        return self._datagram_bytes

    @property
    def is_found(self) -> bool:
        """The search is over for now."""
        return self._state is State.SEARCH_COMPLETE

    @property
    def next_timeout_ns(self) -> int | None:
        """When to ask `probe_size` again even if nothing was acknowledged; None when there is no such time."""
        return self._raise_at_ns

    def probe_size(self, now_ns: int) -> int | None:
        """The size of the probe to send now, in bytes of UDP payload; None while there is none to send."""
        if self._raise_at_ns is not None and now_ns >= self._raise_at_ns:
            self._raise_at_ns = None
            self._move(Event.RAISE_TIMER)
            self._start_search()
        if self._probe_in_flight:
            return None
        if self._state is State.BASE:
            return BASE_DATAGRAM_BYTES
        if self._state is State.SEARCHING:
            self._settle(now_ns)
            return self._candidate_bytes if self._state is State.SEARCHING else None
        return None

    def on_probe_sent(self) -> None:
        """A probe of the size that was asked for is on its way; there is one at a time."""
        self._probe_in_flight = True

    def on_probe_acked(self, size_bytes: int, now_ns: int) -> None:
        """A probe arrived; `datagram_bytes` may have grown."""
        self._probe_in_flight = False
        self.on_packet_acked(size_bytes)
        if self._state is State.SEARCHING and size_bytes > self._datagram_bytes:
            self._datagram_bytes = size_bytes
            self._next_candidate()
            self._settle(now_ns)

    def on_probe_lost(self, size_bytes: int, now_ns: int) -> None:
        """A probe was declared lost, which is not a signal of congestion."""
        self._probe_in_flight = False
        if size_bytes != (BASE_DATAGRAM_BYTES if self._state is State.BASE else self._candidate_bytes):
            return  # left over from before a black hole
        self._losses += 1
        if self._losses < MAX_PROBES:
            return
        if self._state is State.BASE:
            self._move(Event.BASE_LOST)
        elif self._state is State.SEARCHING:
            self._too_large_bytes = size_bytes
            self._next_candidate()
            self._settle(now_ns)

    def on_packet_acked(self, size_bytes: int) -> None:
        """A packet of `size_bytes` (the largest of a batch is enough) got through."""
        if size_bytes > BASE_DATAGRAM_BYTES:
            self._large_looks = self._large_lost = 0
            self._small_got_through = False
        else:
            self._small_got_through = True
        if self._state in (State.BASE, State.ERROR) and size_bytes >= BASE_DATAGRAM_BYTES:
            self._move(Event.BASE_CONFIRMED)
            self._start_search()

    def on_packets_lost(self, size_bytes: int, count: int) -> None:
        """One look declared `count` packets lost, the largest of `size_bytes`; `datagram_bytes` may have fallen."""
        if size_bytes <= BASE_DATAGRAM_BYTES or self._datagram_bytes <= BASE_DATAGRAM_BYTES:
            return
        self._large_looks += 1
        self._large_lost += count
        if (
            self._small_got_through
            and self._large_looks >= _BLACK_HOLE_LOOKS
            and self._large_lost >= _BLACK_HOLE_PACKETS
        ):
            self._move(Event.BLACK_HOLE)
            self._datagram_bytes = BASE_DATAGRAM_BYTES
            self._raise_at_ns = None
            self._large_looks = self._large_lost = 0
            self._small_got_through = False
            self._start_search()

    def _move(self, event: Event) -> None:
        self._state = TRANSITIONS[self._state, event]

    def _start_search(self) -> None:
        """Forget which sizes were too large; the first to be tried is the largest."""
        self._too_large_bytes = self._max_bytes + 1
        self._candidate_bytes = self._max_bytes
        self._losses = 0
        self._probe_in_flight = False

    def _next_candidate(self) -> None:
        """Between what is known to get through and what is known not to."""
        self._candidate_bytes = (self._datagram_bytes + self._too_large_bytes) // 2
        self._losses = 0

    def _settle(self, now_ns: int) -> None:
        """End the search when there is nothing left to find, and wake up later if it found less than the most."""
        if self._state is not State.SEARCHING:
            return
        is_largest = self._datagram_bytes == self._max_bytes
        if is_largest or self._candidate_bytes - self._datagram_bytes < _SEARCH_STEP_BYTES // 2:
            self._move(Event.SIZE_FOUND)
            self._raise_at_ns = None if is_largest else now_ns + PMTU_RAISE_TIMER_NS
