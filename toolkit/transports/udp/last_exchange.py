"""The end of a session: a channel drives the engine until the peer has everything, and knows that it is over."""

import time
from collections.abc import Callable
from typing import Final

from toolkit.channel import MAX_LINGER_S
from toolkit.rudp.connection import Connection
from toolkit.rudp.state import ConnectionState

_MIN_LINGER_NS: Final = 1_000_000_000
_LINGER_PTOS: Final = 10
_CLOSES: Final = 3  # how often a client sends CLOSE, a probe timeout apart (RFC 9000 section 10.2)


def await_acks(
    connection: Connection, pump: Callable[[], None], wait_until: Callable[[int], object], linger_s: float | None
) -> None:
    """Return when the peer has acknowledged everything, or nothing new for `linger_s`, or after MAX_LINGER_S.

    linger_s:   None is one second, or ten probe timeouts if that is longer; it may be longer than MAX_LINGER_S
    pump:       runs one round of the driver without waiting
    wait_until: waits for something to do until this time, in nanoseconds of the monotonic clock
    """
    usual_ns = max(_MIN_LINGER_NS, _LINGER_PTOS * connection.stats().pto_ns)
    linger_ns = usual_ns if linger_s is None else int(linger_s * 1e9)
    deadline_ns = time.monotonic_ns() + linger_ns
    end_ns = time.monotonic_ns() + max(linger_ns, int(MAX_LINGER_S * 1e9))
    acked_bytes = -1
    while True:
        pump()
        if connection.state is not ConnectionState.ESTABLISHED or connection.is_fully_acked:
            return
        if connection.acked_bytes != acked_bytes:
            acked_bytes = connection.acked_bytes
            deadline_ns = min(time.monotonic_ns() + linger_ns, end_ns)
        if time.monotonic_ns() >= deadline_ns:
            return
        wait_until(deadline_ns)


def await_close(connection: Connection, pump: Callable[[], None], wait_for: Callable[[int], object]) -> None:
    """Send CLOSE until the peer has answered: if none arrives, it may wait for its idle timeout.

    pump:     see `await_acks`
    wait_for: waits for a datagram, at most this many nanoseconds
    """
    pto_ns = connection.stats().pto_ns
    for _ in range(_CLOSES):
        connection.close(0, "")
        until_ns = time.monotonic_ns() + pto_ns
        while not _is_over(connection) and (left_ns := until_ns - time.monotonic_ns()) > 0:
            pump()
            if not _is_over(connection):
                wait_for(left_ns)


def _is_over(connection: Connection) -> bool:
    return connection.state is ConnectionState.CLOSED
