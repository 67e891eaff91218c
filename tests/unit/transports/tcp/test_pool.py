"""The order in which the receiver of several connections reports content, failures and the end, and how a pool ends."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.support.content import BytesSource
from toolkit.channel import Extent, ExtentSink
from toolkit.errors import PeerClosedError, ProtocolError
from toolkit.transports.tcp.pool import StreamPool
from toolkit.transports.tcp.stream import SMALL_BYTES, TcpStream


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


class BusyStream:
    """Sends a slice until its socket is shut down."""

    sends_files = True

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.is_sending = threading.Event()

    def send_slice(self, *_arguments: object) -> None:
        self.is_sending.set()
        self.socket.recv(1)


class InterruptedSource(BytesSource):
    """A file; the first release of its second extent is interrupted."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(b"")
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def release(self, extent: Extent) -> None:
        super().release(extent)
        if self.released.count(extent) == extent.file_id == 1:
            raise KeyboardInterrupt


def test_an_interrupted_stop_closes_no_descriptor_twice(tmp_path: Path) -> None:
    """Another file may have got its number meanwhile."""
    (tmp_path / "sent").touch()
    extents = [Extent(file_id, 0, SMALL_BYTES + 1) for file_id in range(3)]
    ours, peers = socket.socketpair()
    with ours, peers, open(tmp_path / "sent", "rb") as file:
        source, stream = InterruptedSource(file.fileno()), BusyStream(ours)
        pool = StreamPool(cast(list[TcpStream], [stream, stream]))
        for extent in extents:
            pool.send_extent(extent, source)
            assert stream.is_sending.wait(60)
        with pytest.raises(KeyboardInterrupt):
            pool.stop(is_orderly=False)
        others = [os.open(tmp_path / "sent", os.O_RDONLY) for _ in extents]
        pool.stop(is_orderly=False)
        for descriptor in others:
            os.close(descriptor)
    assert source.released == extents
