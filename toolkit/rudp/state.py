"""The states of a connection as a table, and the timers that end it.

ESTABLISHED  data and messages flow
CLOSING      this side has sent CLOSE, and answers late packets with it until the peer has answered
CLOSED       ended by the peer's CLOSE, which is answered once, by the idle timeout, or by a closed port

The idle timeout expires if nothing has arrived for its duration, or if the peer sends but acknowledges nothing of what
has been in flight for that long, and does not say that it is held up. Every event is possible in every state.

Read: RFC 9000 section 10 (connection termination).
"""

from enum import Enum, auto
from typing import Final

KEEP_ALIVES_PER_IDLE_TIMEOUT: Final = 3
UNREACHABLE_NS: Final = 500_000_000
"""How long ICMP "port unreachable" must persist, with no packet arriving in between, before the peer is considered
gone. A client that moves leaves a closed port behind, and ICMP messages can be forged."""
LOST_PEER_CODE: Final = 4


class ConnectionState(Enum):
    """What a connection can do now."""

    ESTABLISHED = auto()
    CLOSING = auto()
    CLOSED = auto()


class ConnectionEvent(Enum):
    """What moves a connection from state to state."""

    CLOSE = auto()  # the application closes the connection
    PEER_CLOSED = auto()  # CLOSE has arrived
    LOST = auto()  # the idle timeout has expired (see above), or the peer's port is closed


TRANSITIONS: Final[dict[tuple[ConnectionState, ConnectionEvent], ConnectionState]] = {
    (ConnectionState.ESTABLISHED, ConnectionEvent.CLOSE): ConnectionState.CLOSING,
    (ConnectionState.ESTABLISHED, ConnectionEvent.PEER_CLOSED): ConnectionState.CLOSED,
    (ConnectionState.ESTABLISHED, ConnectionEvent.LOST): ConnectionState.CLOSED,
    (ConnectionState.CLOSING, ConnectionEvent.CLOSE): ConnectionState.CLOSING,
    (ConnectionState.CLOSING, ConnectionEvent.PEER_CLOSED): ConnectionState.CLOSED,
    (ConnectionState.CLOSING, ConnectionEvent.LOST): ConnectionState.CLOSED,
    (ConnectionState.CLOSED, ConnectionEvent.CLOSE): ConnectionState.CLOSED,
    (ConnectionState.CLOSED, ConnectionEvent.PEER_CLOSED): ConnectionState.CLOSED,
    (ConnectionState.CLOSED, ConnectionEvent.LOST): ConnectionState.CLOSED,
}


class ConnectionLifetime:
    """The state of one connection, and why and when it ends.

    `close_code` and `close_reason` say why, once the connection is no longer ESTABLISHED.
    """

    def __init__(self, idle_timeout_ns: int, now_ns: int) -> None:
        self.state = ConnectionState.ESTABLISHED
        self.close_code = 0
        self.close_reason = ""
        self._idle_timeout_ns = idle_timeout_ns
        self._last_received_ns = now_ns
        self._last_keep_alive_ns = now_ns
        self._unreachable_since_ns: int | None = None
        self._is_close_due = False
        self._unreported_end: ConnectionEvent | None = None

    def poll_timeout(self) -> int:
        """When to call `expire_idle` and `take_keep_alive`."""
        return min(self._last_received_ns + self._idle_timeout_ns, self._keep_alive_time_ns)

    def on_received(self, now_ns: int) -> None:
        """A valid packet has arrived."""
        self._last_received_ns = now_ns
        self._unreachable_since_ns = None

    def on_late_packet(self) -> None:
        """A valid packet has arrived that is no CLOSE, although this side is no longer ESTABLISHED."""
        self._is_close_due |= self.state is ConnectionState.CLOSING

    def on_unreachable(self, now_ns: int) -> None:
        """The peer's host has reported that the port is closed: end the connection if this persists."""
        if self._unreachable_since_ns is None:
            self._unreachable_since_ns = now_ns
        elif now_ns - self._unreachable_since_ns >= UNREACHABLE_NS:
            self._end(ConnectionEvent.LOST, LOST_PEER_CODE, "the peer is gone: its port is closed")

    def expire_idle(self, now_ns: int, unacked_since_ns: int | None) -> bool:
        """End the connection if the idle timeout has expired; return whether it has.

        `unacked_since_ns` is when the oldest packet in flight was sent, or a side was held up after that. Otherwise, an
        acknowledgement of any later packet would have shown it lost. If it is older than the timeout, nothing arrives
        at the peer, or the peer sends packets but acknowledges nothing, which would make this side remember its packets
        forever.
        """
        since_ns = now_ns - self._idle_timeout_ns
        if self._last_received_ns <= since_ns:
            reason = "the peer was silent"
        elif unacked_since_ns is not None and unacked_since_ns <= since_ns:
            reason = "the peer acknowledged nothing"
        else:
            return False
        advice = "check that it and the path to it are still up"
        reason = f"{reason} for {self._idle_timeout_ns / 1e9:g} s; {advice}"
        self._end(ConnectionEvent.LOST, LOST_PEER_CODE, reason)
        return True

    def take_keep_alive(self, now_ns: int) -> bool:
        """Whether a keep-alive is due now; the next one is due an interval later."""
        if now_ns < self._keep_alive_time_ns:
            return False
        self._last_keep_alive_ns = now_ns
        return True

    def close(self, code: int, reason: str) -> None:
        """The application ends the connection."""
        self._is_close_due |= self.state is not ConnectionState.CLOSED
        self._end(ConnectionEvent.CLOSE, code, reason)

    def on_peer_close(self, code: int, reason: str) -> None:
        """CLOSE has arrived. The first one is answered with the same CLOSE."""
        self._is_close_due = self.state is ConnectionState.ESTABLISHED
        self.close_code, self.close_reason = code, reason
        self._end(ConnectionEvent.PEER_CLOSED, code, reason)

    def take_close(self) -> bool:
        """Whether to send a CLOSE now, if this was not returned before."""
        is_due, self._is_close_due = self._is_close_due, False
        return is_due

    def take_unreported_end(self) -> ConnectionEvent | None:
        """What has ended the connection, if this was not returned before."""
        end, self._unreported_end = self._unreported_end, None
        return end

    @property
    def _keep_alive_time_ns(self) -> int:
        last_ns = max(self._last_keep_alive_ns, self._last_received_ns)
        return last_ns + self._idle_timeout_ns // KEEP_ALIVES_PER_IDLE_TIMEOUT

    def _end(self, event: ConnectionEvent, code: int, reason: str) -> None:
        if self.state is ConnectionState.ESTABLISHED:
            self._unreported_end = event
            self.close_code, self.close_reason = code, reason
        self.state = TRANSITIONS[self.state, event]
