"""The order in which the receiver of several connections reports content, failures and the end."""

import socket
import threading
from collections.abc import Iterator
from typing import cast

import pytest

from toolkit.channel import ExtentSink
from toolkit.errors import PeerClosedError, ProtocolError
from toolkit.transports.tcp.pool import StreamPool
from toolkit.transports.tcp.stream import TcpStream


class FirstStream:
    """Its peer closes it, but only after all content has come over the other connection."""

    extents_read = 0
    is_given_up = False
    idle_timeout_s = 60.0

    def __init__(self) -> None:
        self.is_asked = threading.Event()

    def receive(self, sink: ExtentSink | None, timeout_s: float | None, *wakes: int | None) -> bytes | None:
        del sink, timeout_s, wakes
        self.is_asked.set()
        for thread in threading.enumerate():
            if thread.name == "tcp stream":
                thread.join()
        raise PeerClosedError("the peer closed the connection")

    def reset_silence(self) -> None:
        pass


class OtherStream:
    """Receives one extent once the first stream is being read, and then meets its own end."""

    has_plaintext = True
    is_between_frames = True

    def __init__(self, first: FirstStream, sock: socket.socket, end: Exception) -> None:
        self.socket = sock
        self.extents_read = 0
        self._first = first
        self._end = end

    def receive(self, sink: ExtentSink | None, timeout_s: float | None, *wakes: int | None) -> bytes | None:
        del sink, timeout_s, wakes
        assert self._first.is_asked.wait(60)
        if self.extents_read:
            raise self._end
        self.extents_read += 1
        return None


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        yield sock


def pool_of(sock: socket.socket, end: Exception) -> StreamPool:
    first = FirstStream()
    return StreamPool(cast(list[TcpStream], [first, OtherStream(first, sock, end)]))


def test_the_last_content_is_reported_before_the_end(sock: socket.socket) -> None:
    """Even if all threads have ended by the time at which the first connection is found closed."""
    pool = pool_of(sock, PeerClosedError("the peer closed the connection"))
    try:
        assert pool.receive(None, 60) is None
        with pytest.raises(PeerClosedError):
            pool.receive(None, 60)
    finally:
        pool.stop(is_orderly=True)


def test_a_failure_of_another_connection_is_reported_before_the_end(sock: socket.socket) -> None:
    pool = pool_of(sock, ProtocolError("not a frame"))
    try:
        with pytest.raises(ProtocolError, match="not a frame"):
            pool.receive(None, 60)
        with pytest.raises(PeerClosedError):
            pool.receive(None, 60)
    finally:
        pool.stop(is_orderly=True)
