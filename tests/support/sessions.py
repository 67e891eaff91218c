"""Helpers for the tests of sessions: channel pairs, channels that record or observe, entries, and whole files."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xxhash

from tests.support.background import PATIENCE_S
from tests.support.memory_transport import MemoryChannel, MemoryTransport
from toolkit.channel import Address, Channel, Extent, TransportOptions
from toolkit.errors import PeerClosedError
from toolkit.transfer.digest import ALGORITHMS
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.messages import AnyMessage, EntryOutcome, EntryStatus, FileDigest, decode_untrusted
from toolkit.transfer.sources import FileIdentity, FileOrigin

XXH3 = ALGORITHMS[0]
MTIME_NS = 10**18

Ends = tuple[MemoryChannel, MemoryChannel]
"""The sending and the receiving end of a channel."""


@contextmanager
def channel_pair(shuffle_seed: int | None = None) -> Iterator[Ends]:
    """Both ends of a channel in memory, aborted at the end of the block."""
    transport = MemoryTransport(shuffle_seed)
    listener = transport.listen(Address("", 0), TransportOptions())
    sender = transport.connect(listener.address, TransportOptions())
    receiver = listener.accept(0)
    assert receiver is not None
    try:
        yield sender, receiver
    finally:
        sender.abort()
        receiver.abort()
        listener.close()


class ObservedChannel:
    """A channel that calls `before_receive` before every receive, and `on_message` with every message received."""

    def __init__(
        self,
        channel: Channel,
        on_message: Callable[[AnyMessage], None] = lambda _: None,
        before_receive: Callable[[int | None], None] = lambda _: None,
    ) -> None:
        self._channel = channel
        self._on_message = on_message
        self._before_receive = before_receive

    def receive(self, sink: Any = None, timeout_s: float | None = None, wake: int | None = None) -> bytes | None:
        """See Channel. `before_receive` gets `wake`."""
        self._before_receive(wake)
        message = self._channel.receive(sink, timeout_s, wake)
        if message is not None:
            self._on_message(decode_untrusted(message))
        return message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)


class RecordingChannel:
    """A channel that records the calls of a session, and shows it no message of its peer until it waits for one.

    calls: message types by name, extents as "LENGTH bytes of FILE_ID", and "wait"
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.calls: list[str] = []

    def send_message(self, message: bytes, has_more: bool = False) -> None:
        """See Channel."""
        self.calls.append(decode_untrusted(message).TYPE.name)
        self._channel.send_message(message, has_more)

    def send_extent(self, extent: Extent, source: Any) -> None:
        """See Channel."""
        self.calls.append(f"{extent.length} bytes of {extent.file_id}")
        self._channel.send_extent(extent, source)

    def receive(self, sink: Any = None, timeout_s: float | None = None, wake: int | None = None) -> bytes | None:
        """See Channel."""
        if timeout_s == 0:
            return None
        self.calls.append("wait")
        return self._channel.receive(sink, timeout_s, wake)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)


def messages_until_close(channel: Channel) -> list[AnyMessage]:
    """Every message that the peer sends until it closes the channel."""
    messages = []
    with suppress(PeerClosedError):
        while (data := channel.receive(timeout_s=PATIENCE_S)) is not None:
            messages.append(decode_untrusted(data))
    return messages


def file_entry(path: bytes, size: int | None = 5, content: int | None = None, mode: int = 0o644) -> Entry:
    """A file of an offer; all of it is content unless `content` says less."""
    return Entry(EntryKind.FILE, path, mode, MTIME_NS, size, (size or 0) if content is None else content)


def directory_entry(path: bytes, mode: int = 0o755) -> Entry:
    """A directory of an offer."""
    return Entry(EntryKind.DIRECTORY, path, mode, MTIME_NS)


def xxh3(content: bytes) -> bytes:
    """The default digest of some content."""
    return xxhash.xxh3_128(content).digest()


def commit(files: IncomingFiles, file_id: int, content: bytes) -> EntryOutcome:
    """Send the digest of `content`, all of which has arrived, and commit the file."""
    files.expect(FileDigest(file_id, len(content), xxh3(content)))
    while files.backlog_wait_s is not None:
        files.hash_backlog()
    assert [found for found, _ in files.complete_files()] == [file_id]
    return files.commit(file_id)


def deliver(files: IncomingFiles, file_id: int, content: bytes) -> EntryOutcome:
    """Write all of a file at once and commit it."""
    files.write(file_id, 0, memoryview(content))
    return commit(files, file_id, content)


def failure_of(files: IncomingFiles, file_id: int) -> str:
    """Commit a file that has failed; the reason in its outcome."""
    assert [found for found, _ in files.complete_files()] == [file_id]
    outcome = files.commit(file_id)
    assert outcome.status is EntryStatus.FAILED
    return outcome.reason


def origin_of(path: Path) -> FileOrigin:
    """The origin of a file as it is now."""
    status = path.stat()
    is_sparse = status.st_blocks * 512 < status.st_size
    return FileOrigin(None, os.fsencode(path), path.name, FileIdentity.of(status), is_sparse)
