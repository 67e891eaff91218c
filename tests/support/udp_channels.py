"""Pairs of UDP channels over real sockets, and transfers between them."""

import time
from typing import Any

from tests.support.background import PATIENCE_S, Background
from tests.support.content import BytesSink, BytesSource, receive_until
from toolkit.channel import Address, Channel, Extent, TransportOptions
from toolkit.errors import PeerClosedError
from toolkit.transports.udp.channel import UdpChannel
from toolkit.transports.udp.connect import UdpTransport
from toolkit.transports.udp.listener import UdpListener


def connected(
    listener: UdpListener, options: TransportOptions, address: Address | None = None
) -> tuple[UdpChannel, UdpChannel]:
    """The client's and the server's channel of a new connection."""
    client = UdpTransport().connect(address or listener.address, options)
    server = listener.accept(timeout_s=PATIENCE_S)
    assert server is not None
    return client, server


def send_all(channel: Channel, contents: list[bytes], messages: list[bytes]) -> list[BytesSource]:
    """Send each content as a file of its own, in extents of at most 1 MiB with the messages in between, and flush."""
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


def transfer(
    sender: Channel, receiver: Channel, contents: list[bytes], messages: list[bytes]
) -> tuple[list[BytesSource], BytesSink]:
    """Send contents and messages and check that they arrive unchanged; returns the sources and the sink."""
    sending = Background(lambda: send_all(sender, contents, messages))
    sink = BytesSink()
    total_bytes = sum(map(len, contents))
    assert receive_until(receiver, sink, total_bytes, len(messages)) == messages
    serve_until_done(receiver, sink, sending)
    assert [sink.content(file_id) for file_id in range(len(contents))] == contents
    assert sink.written_bytes == total_bytes
    return sending.outcome(), sink


def serve_until_done(channel: Channel, sink: BytesSink, peer_call: Background[Any]) -> None:
    """Drive the channel until the peer's call returns: its flush needs acknowledgements."""
    deadline_s = time.monotonic() + PATIENCE_S
    while peer_call.is_alive() and time.monotonic() < deadline_s:
        channel.receive(sink, timeout_s=0.01)


def wait_for_close(channel: Channel) -> str:
    """Receive until the peer closes; returns the reason that the channel reports."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            channel.receive(BytesSink(), timeout_s=1.0)
        except PeerClosedError as error:
            return str(error)
    raise AssertionError(f"the channel is still open after {PATIENCE_S:g} s")
