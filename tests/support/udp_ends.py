"""Ends for the tests of the UDP transport: sources and sinks in memory, and a transfer between two channels."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from toolkit.channel import Address, Channel, Extent, TransportOptions
from toolkit.errors import PeerClosedError
from toolkit.transports.udp.channel import UdpChannel
from toolkit.transports.udp.listener import UdpListener
from toolkit.transports.udp.transport import UdpTransport

PATIENCE_S = 20.0
T = TypeVar("T")


class BytesSource:
    """Content in memory; remembers what was released."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.released: list[Extent] = []

    def fileno(self) -> int:
        raise AssertionError("UDP reads what it sends")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.content[offset : offset + len(buffer)]

    def moved(self, offset: int, length: int) -> None:
        raise AssertionError(f"UDP reads what it sends ({offset}, {length})")

    def release(self, extent: Extent) -> None:
        self.released.append(extent)


class BytesSink:
    """What has landed, by file; `total` counts every byte each time that it lands."""

    def __init__(self) -> None:
        self.files: dict[int, bytearray] = {}
        self.total = 0

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        content = self.files.setdefault(file_id, bytearray())
        content.extend(bytes(max(0, offset + len(data) - len(content))))
        content[offset : offset + len(data)] = data
        self.total += len(data)


def receive_all(channel: Channel, total_bytes: int, messages: int) -> tuple[BytesSink, list[bytes]]:
    """Until so many bytes have landed and so many messages have come."""
    sink = BytesSink()
    received: list[bytes] = []
    deadline = time.monotonic() + PATIENCE_S
    while sink.total < total_bytes or len(received) < messages:
        assert time.monotonic() < deadline, f"{sink.total} of {total_bytes} bytes, {len(received)} messages"
        message = channel.receive(sink, timeout_s=1.0)
        if message is not None:
            received.append(message)
    return sink, received


class Background(Generic[T]):
    """A call in another thread, whose result or exception `outcome` brings back."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:
            self._error = error

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def outcome(self, timeout_s: float = PATIENCE_S) -> T:
        self._thread.join(timeout_s)
        assert not self.is_alive(), "it does not end"
        if self._error is not None:
            raise self._error
        return self._results[0]


def send_all(channel: Channel, contents: list[bytes], messages: list[bytes]) -> list[BytesSource]:
    """Every content as a file of its own, in extents of at most 1 MiB, and the messages in between."""
    sources = [BytesSource(content) for content in contents]
    waiting = list(messages)
    for file_id, source in enumerate(sources):
        length = len(source.content)
        for offset in range(0, max(length, 1), 1 << 20):
            channel.send_extent(Extent(file_id, offset, min(1 << 20, length - offset)), source)
            if waiting:
                channel.send_message(waiting.pop(0))
    for message in waiting:
        channel.send_message(message)
    channel.flush()
    return sources


def connected(
    listener: UdpListener, options: TransportOptions, address: Address | None = None
) -> tuple[UdpChannel, UdpChannel]:
    """A client and the server's end of it."""
    client = UdpTransport().connect(address or listener.address, options)
    server = listener.accept(timeout_s=PATIENCE_S)
    assert server is not None
    return client, server


def wait_for_close(channel: Channel) -> str:
    """Why the peer has gone."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            channel.receive(BytesSink(), timeout_s=1.0)
        except PeerClosedError as error:
            return str(error)
    raise AssertionError("the channel stays open")
