"""Says why a TCP connection was lost.

A path whose MTU is smaller than the sender's interface, with a router or firewall that drops ICMP, is a black hole: the
handshake and small messages pass, and no segment of full size ever does. The kernel sends the same segment until it
gives up, and reports a timeout or, if the receiver gives up first, a broken pipe; neither tells a user what to do.

Read: RFC 2923 section 2.1 (the black hole), RFC 4821 (packetization layer path MTU discovery).
"""

import errno
import socket
from typing import Final

from toolkit.channel import Address
from toolkit.errors import PeerClosedError
from toolkit.transports.tcp.tcp_info import tcp_info

PEER_ERRORS: Final = frozenset(
    (
        errno.EPIPE,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ENOTCONN,
    )
)
"""What a call that sends fails with if the connection is lost."""

_MIN_RETRANSMISSIONS: Final = 2
"""Fewer are no sign of a black hole: the peer may have closed the connection at its first full segment."""


class LostConnection:
    """Makes the errors of one connection.

    The connection must have sent the handshake, and nothing else, when this object is made.
    """

    def __init__(self, sock: socket.socket, peer: Address) -> None:
        self._socket = sock
        self._peer = peer
        info = tcp_info(sock)
        self._handshake_bytes = info.get("bytes_sent", 0) - info.get("bytes_retrans", 0)

    def error(self, error: OSError | None) -> PeerClosedError:
        """Return the error for a connection that has ended: with `error`, or because the peer closed it if None."""
        if self._has_no_full_segment_arrived():
            return PeerClosedError(
                f"no full packet gets through to {self._peer}: the path is down, or its MTU is smaller than your "
                "interface's; try `ip link set DEVICE mtu 1280`, or send over UDP, which finds the path's MTU"
            )
        if error is None:
            return PeerClosedError(f"{self._peer} closed the connection before the end")
        return PeerClosedError(f"the connection to {self._peer} was lost: {(error.strerror or str(error)).lower()}")

    def silence_error(self, silent_s: float) -> PeerClosedError:
        """Return the error for a peer that was silent for the idle timeout."""
        if self._has_no_full_segment_arrived():
            return self.error(None)
        return PeerClosedError(
            f"{self._peer} was silent for {silent_s:g} s; check that it and the path to it are still up"
        )

    def _has_no_full_segment_arrived(self) -> bool:
        """Whether no full segment was ever acknowledged, and at least one was sent again and again."""
        info = tcp_info(self._socket)
        if not info.get("bytes_acked"):
            return False
        acked_bytes = info["bytes_acked"] - self._handshake_bytes
        sent_bytes = info["bytes_sent"] - info["bytes_retrans"] - self._handshake_bytes
        largest_bytes = info["snd_mss"]
        retransmissions = info["total_retrans"]
        return acked_bytes < largest_bytes <= sent_bytes and retransmissions >= _MIN_RETRANSMISSIONS
