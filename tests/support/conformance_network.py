"""Transports to test, pairs of channels over them, and sources and sinks that keep account of what they saw."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from tests.support.memory_transport import MemoryTransport
from toolkit.channel import Address, Channel, Extent, Listener, Transport, TransportOptions
from toolkit.errors import PeerClosedError
from toolkit.transports.tcp.transport import TcpTransport
from toolkit.transports.udp.transport import UdpTransport

PATIENCE_S = 30.0  # after so long something hangs


class Case(NamedTuple):
    """A transport to test: how to make it, where it listens, and its options."""

    make: Callable[[], Transport]
    host: str = "127.0.0.1"
    options: TransportOptions = TransportOptions()


CASES = {
    "memory": Case(MemoryTransport, "memory"),
    "memory-shuffled": Case(lambda: MemoryTransport(shuffle_seed=7), "memory"),
    "tcp": Case(TcpTransport),
    "tcp-ipv6": Case(TcpTransport, "::1"),
    "tcp-three-streams": Case(TcpTransport, options=TransportOptions(streams=3)),
    "udp": Case(UdpTransport),
    "udp-ipv6": Case(UdpTransport, "::1"),
    "udp-without-offload": Case(UdpTransport, options=TransportOptions(offload="off")),
}


class Network:
    """A transport with one listener, and pairs of channels over it, all of which are freed at the end."""

    def __init__(self, case: Case) -> None:
        self.transport = case.make()
        self.options = case.options
        self.listener: Listener = self.transport.listen(Address(case.host, 0), case.options)
        self._channels: list[Channel] = []

    def pair(self, **options: Any) -> tuple[Channel, Channel]:
        """The sending and the receiving end of a new session."""
        asked = replace(self.options, **options)
        sender, receiver = together(
            lambda: self.transport.connect(self.listener.address, asked),
            lambda: self.listener.accept(PATIENCE_S),
        )
        assert receiver is not None
        self._channels += (sender, receiver)
        return sender, receiver

    def close(self) -> None:
        for channel in self._channels:
            channel.abort()
        self.listener.close()
        with suppress(PeerClosedError):
            self.listener.accept(0)


def together(*bodies: Callable[[], Any]) -> list[Any]:
    """Run each in a thread of its own; their results in order, or the first error. Fails when one hangs."""
    results: list[Any] = [None] * len(bodies)
    errors: list[BaseException] = []

    def run(index: int, body: Callable[[], Any]) -> None:
        try:
            results[index] = body()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index, body), daemon=True) for index, body in enumerate(bodies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        if thread.is_alive() and not errors:
            pytest.fail(f"thread {threads.index(thread)} of {len(threads)} hangs")
    if errors:
        raise errors[0]
    return results


class BytesSource:
    """An ExtentSource over bytes, which counts what was released; its descriptor is a file of the same
    content.
    """

    def __init__(self, content: bytes, file: Any = None) -> None:
        self.content = content
        self.released: list[Extent] = []
        self._file = file
        if file is not None:
            file.write(content)
            file.flush()

    def fileno(self) -> int:
        number: int = self._file.fileno()
        return number

    def read_into(self, offset: int, buffer: memoryview) -> None:
        assert offset + len(buffer) <= len(self.content), "read beyond the extent"
        buffer[:] = self.content[offset : offset + len(buffer)]

    def moved(self, offset: int, length: int) -> None:
        assert 0 <= offset <= offset + length <= len(self.content)

    def release(self, extent: Extent) -> None:
        self.released.append(extent)


class BytesSink:
    """An ExtentSink that keeps content by file, and fails where a byte lands twice."""

    def __init__(self) -> None:
        self.landed: dict[int, dict[int, bytes]] = {}
        self.landed_bytes = 0
        self._lock = threading.Lock()

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        with self._lock:
            self.landed.setdefault(file_id, {})[offset] = bytes(data)
            self.landed_bytes += len(data)

    def content(self, file_id: int) -> bytes:
        """What has landed, which must be without gaps and overlaps from its lowest offset on."""
        pieces = sorted(self.landed.get(file_id, {}).items())
        for (offset, data), (following, _) in pairwise(pieces):
            assert offset + len(data) == following, "a gap, or bytes that landed twice"
        return b"".join(data for _, data in pieces)


def receive_until(channel: Channel, sink: BytesSink, landed_bytes: int, messages: int) -> list[bytes]:
    """Receive until so much has come; the messages."""
    received: list[bytes] = []
    while sink.landed_bytes < landed_bytes or len(received) < messages:
        message = channel.receive(sink, PATIENCE_S)
        if message is not None:
            received.append(message)
    return received
