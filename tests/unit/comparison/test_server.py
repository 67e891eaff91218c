"""What a measuring server keeps of a peer whose first message has not come."""

from typing import cast

import pytest

from toolkit.channel import Channel, ExtentSink
from toolkit.comparison.server import _PeekedChannel
from toolkit.errors import ProtocolError
from toolkit.transfer.incoming import MAX_EARLY_PIECES


class ContentFirst:
    """A channel that brings pieces of one byte, and then its first message."""

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces

    def receive(self, sink: ExtentSink, _timeout_s: float | None = None, _wake: int | None = None) -> bytes | None:
        for number in range(self._pieces):
            sink.write(number, 0, memoryview(b"x"))
        self._pieces = 0
        return b"first"


class CountingSink:
    def __init__(self) -> None:
        self.written: list[tuple[int, int, bytes]] = []

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        self.written.append((file_id, offset, bytes(data)))


def peeked(pieces: int) -> _PeekedChannel:
    return _PeekedChannel(cast(Channel, ContentFirst(pieces)))


def test_content_that_precedes_the_first_message_is_bounded_in_pieces() -> None:
    with pytest.raises(ProtocolError, match="did not offer"):
        peeked(MAX_EARLY_PIECES + 1).peek(60.0)


def test_content_that_precedes_the_first_message_follows_it() -> None:
    channel, sink = peeked(2), CountingSink()
    assert channel.peek(60.0) == b"first"
    assert channel.receive(sink) == b"first"
    assert channel.receive(sink) is None
    assert sink.written == [(0, 0, b"x"), (1, 0, b"x")]
