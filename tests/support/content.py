"""Content for the tests of channels: extent sources and sinks that record the calls they get."""

import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

from tests.support.background import PATIENCE_S
from toolkit.channel import Channel, Extent, ExtentSink
from toolkit.errors import PeerClosedError, TransferError


class BytesSource:
    """An ExtentSource of bytes in memory; it has no descriptor.

    released: the extents that the channel has released, in order
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.released: list[Extent] = []

    def fileno(self) -> int | None:
        return None

    def read_into(self, offset: int, buffer: memoryview) -> None:
        assert offset + len(buffer) <= len(self.content), "read beyond the extent"
        buffer[:] = self.content[offset : offset + len(buffer)]

    def on_sendfile(self, offset: int, length: int) -> None:
        raise AssertionError(f"{length} bytes from {offset} were sent from a descriptor that does not exist")

    def release(self, extent: Extent) -> None:
        self.released.append(extent)


class FileSource(BytesSource):
    """An ExtentSource of a temporary file. Close it.

    start: the offset of the content in the file; a hole precedes it
    reads, moves: the (offset, length) pairs that were read, and that were sent from the descriptor
    """

    def __init__(self, content: bytes, start: int = 0) -> None:
        super().__init__(content)
        self._start = start
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._file.seek(start)
        self._file.write(content)
        self._file.flush()
        self.reads: list[tuple[int, int]] = []
        self.moves: list[tuple[int, int]] = []

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def fileno(self) -> int | None:
        return self._file.fileno()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.reads.append((offset, len(buffer)))
        if os.preadv(self._file.fileno(), [buffer], offset) != len(buffer):
            raise TransferError("the file shrank")

    def on_sendfile(self, offset: int, length: int) -> None:
        assert self._start <= offset <= offset + length <= self._start + len(self.content)
        self.moves.append((offset, length))

    def close(self) -> None:
        self._file.close()


class BytesSink:
    """An ExtentSink that keeps what it is given.

    pieces:        by file id, the pieces by their offset
    written_bytes: the bytes written so far; a byte that is written twice counts twice
    """

    def __init__(self) -> None:
        self.pieces: dict[int, dict[int, bytes]] = {}
        self.written_bytes = 0
        self._lock = threading.Lock()

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        with self._lock:
            self.pieces.setdefault(file_id, {})[offset] = bytes(data)
            self.written_bytes += len(data)

    def content(self, file_id: int) -> bytes:
        """The content of a file from its lowest offset on. Fails if it has gaps or overlaps."""
        pieces = sorted(self.pieces.get(file_id, {}).items())
        for (offset, data), (following, _) in pairwise(pieces):
            assert offset + len(data) == following, "a gap, or bytes that were written twice"
        return b"".join(data for _, data in pieces)


class StallingDisk:
    """A disk that stalls once, when so much has been read or written. `stall` is called, and takes as long."""

    def __init__(self, stall: Callable[[], None], after_bytes: int) -> None:
        self._stall, self._left_bytes, self._has_stalled = stall, after_bytes, False

    def move(self, count: int) -> None:
        """So many bytes were read or written."""
        self._left_bytes -= count
        if self._left_bytes < 0 and not self._has_stalled:
            self._has_stalled = True
            self._stall()


class StallingSource(BytesSource):
    """A file on such a disk."""

    def __init__(self, content: bytes, disk: StallingDisk) -> None:
        super().__init__(content)
        self._disk = disk

    def read_into(self, offset: int, buffer: memoryview) -> None:
        super().read_into(offset, buffer)
        self._disk.move(len(buffer))


class StallingSink(BytesSink):
    """Files on such a disk."""

    def __init__(self, disk: StallingDisk) -> None:
        super().__init__()
        self._disk = disk

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        super().write(file_id, offset, data)
        self._disk.move(len(data))


def receive_all(channel: Channel, sink: ExtentSink) -> None:
    """Receive until the sender closes."""
    with suppress(PeerClosedError):
        while True:
            channel.receive(sink)


def receive_until(channel: Channel, sink: BytesSink, written_bytes: int, messages: int) -> list[bytes]:
    """Receive until the sink has `written_bytes` and `messages` messages have come; returns the messages."""
    received: list[bytes] = []
    deadline_s = time.monotonic() + PATIENCE_S
    while sink.written_bytes < written_bytes or len(received) < messages:
        assert time.monotonic() < deadline_s, (
            f"{sink.written_bytes} of {written_bytes} bytes and {len(received)} of {messages} messages have come"
        )
        message = channel.receive(sink, timeout_s=1.0)
        if message is not None:
            received.append(message)
    return received
