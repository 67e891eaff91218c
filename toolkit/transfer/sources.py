"""What a sender reads from: files, checked against what was offered, and streams.

Another process may change a file while it is sent. A file is identified by device, inode, size, modification time and
change time (ctime, which no program can set). If any of these differs whenever the file is opened, or after its last
byte was read, the file is not delivered, so that no mixture of two versions arrives. The other files still are.

The size of a file of /proc or /sys says nothing. Such a file is a stream, which is read to its end.
"""

import errno
import os
import select
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

from toolkit.channel import Extent
from toolkit.errors import TransferError, printable
from toolkit.transfer.chunks import CHUNK_BYTES, ChunkRange, chunk_digest
from toolkit.transfer.digest import Algorithm, RunningDigest
from toolkit.transfer.manifest import MIN_HOLE_BYTES
from toolkit.transfer.open_files import CachedFile
from toolkit.transfer.source_tree import SourceDirectory, open_named

STREAM_SLICE_BYTES = 1 << 20
REPLACED = frozenset({errno.ELOOP, errno.ENOTDIR})  # a link took the place of a file or of a directory
CHANGED = "changed while it was sent; send it again when it is complete"
GREW = "grew while it was sent; to send what it holds now, pipe it: cat FILE | nettool ... --name NAME - HOST"
SIZE_0 = "it has content, but a size of 0; pipe it: cat FILE | nettool ... --name NAME - HOST"


class SourceChangedError(TransferError):
    """An offered file can no longer be sent, for this `reason`; the session continues without it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{printable(name)}: {reason}")
        self.reason = reason


class FileIdentity(NamedTuple):
    """What must not change while a file is sent. Bytes and nanoseconds."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """The identity in the result of a stat call."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Segment(NamedTuple):
    """A range of a file, in bytes: content or a hole."""

    offset: int
    length: int
    is_hole: bool


def segments_of(descriptor: int, size_bytes: int) -> Iterator[Segment]:
    """The file from first byte to last, as content and holes of at least MIN_HOLE_BYTES (SEEK_HOLE of lseek(2))."""
    begun = offset = 0
    while offset < size_bytes:
        try:
            data = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            # ENXIO: only a hole up to the end. Any other error: no support, so everything counts as content.
            data = size_bytes if error.errno == errno.ENXIO else offset
        data = min(data, size_bytes)
        if data - offset >= MIN_HOLE_BYTES:
            if offset > begun:
                yield Segment(begun, offset - begun, False)
            yield Segment(offset, data - offset, True)
            begun = data
        if data == size_bytes:
            break
        try:
            offset = min(os.lseek(descriptor, data, os.SEEK_HOLE), size_bytes)
        except OSError:
            offset = size_bytes
    if size_bytes > begun:
        yield Segment(begun, size_bytes - begun, False)


@dataclass(frozen=True, slots=True)
class FileOrigin:
    """An offered file.

    directory: the directory that it is in; None if the user named the file
    path:      its name in that directory, or the path that the user named
    name:      the name that both users know
    identity:  its identity when it was offered
    is_stream: whether it is read to its end, whatever its size and times say
    """

    directory: SourceDirectory | None
    path: bytes
    name: str
    identity: FileIdentity
    is_sparse: bool
    is_stream: bool = False

    def open(self) -> int:
        """A descriptor of that file. Raises SourceChangedError if it is gone or its identity has changed."""
        descriptor = self.open_unchecked()
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not self.is_same(status):
            os.close(descriptor)
            raise SourceChangedError(self.name, self.change_in(status))
        return descriptor

    def open_unchecked(self) -> int:
        """A descriptor of whatever has its name by now. Raises SourceChangedError if that cannot be opened."""
        try:
            return self.directory.open_file(self.path) if self.directory else open_named(self.path)
        except OSError as error:
            if error.errno in REPLACED:
                raise SourceChangedError(self.name, CHANGED) from error
            raise SourceChangedError(self.name, f"can no longer be read ({os_error_text(error)})") from error

    def is_same(self, status: os.stat_result) -> bool:
        """Whether this is the status of the file that was offered, unchanged."""
        return FileIdentity.of(status) == self.identity or (self.is_stream and status.st_dev == self.identity.device)

    def change_in(self, status: os.stat_result) -> str:
        """Why a file with this status cannot be sent in place of what was offered."""
        device, inode, size_bytes, _, _ = FileIdentity.of(status)
        is_larger = (device, inode) == self.identity[:2] and size_bytes > self.identity.size_bytes
        return GREW if is_larger else CHANGED

    def is_unchanged(self) -> bool:
        """Whether the path still leads to the file that was offered."""
        try:
            status = self.directory.status_of(self.path) if self.directory else os.stat(self.path)
            return self.is_same(status)
        except OSError:
            return False


class FileSource(CachedFile):
    """The content of one file, and its digest; an ExtentSource.

    The session's calls raise SourceChangedError if the file can no longer be sent. A channel's calls raise nothing, so
    that the session can go on with other files: zeros take the place of what cannot be read, and the next call of the
    session raises the error.
    """

    __slots__ = ("_algorithm", "_digest", "_failure", "_is_finished", "_origin", "_outstanding")

    def __init__(self, origin: FileOrigin, algorithm: Algorithm) -> None:
        super().__init__()
        self._origin = origin
        self._algorithm = algorithm
        self._digest = RunningDigest(algorithm, self._read_exactly)
        self._outstanding = 0
        self._is_finished = False
        self._failure: SourceChangedError | None = None

    @property
    def size_bytes(self) -> int:
        """The size of the file when it was offered."""
        return self._origin.identity.size_bytes

    def _open(self) -> int:
        return self._origin.open()

    def _read_exactly(self, offset: int, buffer: memoryview) -> None:
        descriptor = self._ensure_open()
        try:
            count = os.preadv(descriptor, (buffer,), offset)
            while count < len(buffer):
                more = os.preadv(descriptor, (buffer[count:],), offset + count)
                if not more:
                    raise SourceChangedError(self._origin.name, CHANGED)
                count += more
        except OSError as error:
            raise SourceChangedError(self._origin.name, f"cannot be read ({os_error_text(error)})") from error

    def _check(self) -> None:
        """Raise the error that a channel's call has met; called with `lock` held."""
        if self._failure is not None:
            raise self._failure

    def segments(self) -> Iterator[Segment]:
        """The content and the holes of the file, in order."""
        size_bytes = self._origin.identity.size_bytes
        if not self._origin.is_sparse:
            return iter((Segment(0, size_bytes, False),) if size_bytes else ())
        with self.lock:
            return iter(list(segments_of(self._ensure_open(), size_bytes)))

    def retain(self) -> None:
        """Count an extent of this file that is about to be handed to a channel, which will release it."""
        with self.lock:
            self._check()
            self._outstanding += 1

    def hash_hole(self, offset: int, length: int) -> None:
        """Hash everything before the hole at `offset`, then its zeros."""
        with self.lock:
            self._digest.reread(offset)
            self._digest.update_zeros(length)

    def chunk_digests(self, chunks: ChunkRange) -> tuple[bytes, ...]:
        """Hash everything before these chunks, then the chunks, each also by itself."""
        digests = []
        buffer = memoryview(bytearray(CHUNK_BYTES))
        with self.lock:
            self._check()
            for number in range(chunks.first, chunks.end):
                offset = number * CHUNK_BYTES
                content = buffer[: min(CHUNK_BYTES, self.size_bytes - offset)]
                self._digest.reread(offset)
                self._read_exactly(offset, content)
                self._digest.update(content)
                digests.append(chunk_digest(self._algorithm, content))
        return tuple(digests)

    def finish(self) -> bytes:
        """The digest, after everything was handed to the channel."""
        with self.lock:
            self._check()
            identity = self._origin.identity
            self._digest.reread(identity.size_bytes)
            descriptor = self._ensure_open()
            status = os.fstat(descriptor)
            if not self._origin.is_same(status):
                raise SourceChangedError(self._origin.name, self._origin.change_in(status))
            if not identity.size_bytes and self._has_content(descriptor):
                raise SourceChangedError(self._origin.name, SIZE_0)
            self._is_finished = True
            if not self._outstanding:
                self._close()
                self._digest.forget_file()
            return self._digest.digest()

    def _has_content(self, descriptor: int) -> bool:
        """Whether a file of size 0 holds something after all, as some file systems in user space have it."""
        try:
            return bool(os.pread(descriptor, 1, 0))
        except OSError:
            return True

    @property
    def is_released(self) -> bool:
        """Whether neither the session nor the channel needs the file any more."""
        return self._is_finished and not self._outstanding

    def close(self) -> None:
        """Close the file; idempotent. A channel that still sends extents of it may open it again."""
        with self.lock:
            self._is_finished = True
            self._pinned = False
            self._close()
            if not self._outstanding:
                self._digest.forget_file()

    def fileno(self) -> int | None:
        """See ExtentSource."""
        with self.lock:
            try:
                descriptor = self._ensure_open()
            except SourceChangedError as error:
                self._failure = error
                return None
            self._pinned = True
            return descriptor

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See ExtentSource."""
        with self.lock:
            try:
                self._read_exactly(offset, buffer)
            except SourceChangedError as error:
                self._failure = error
                buffer[:] = bytes(len(buffer))
                return
            frontier = self._digest.offset
            if offset <= frontier < offset + len(buffer):
                self._digest.update(buffer[frontier - offset :])

    def on_sendfile(self, offset: int, length: int) -> None:
        """See ExtentSource."""
        with self.lock:
            try:
                self._digest.reread(offset + length)
            except SourceChangedError as error:
                self._failure = error

    def release(self, extent: Extent) -> None:  # noqa: ARG002 - which extent does not matter
        """See ExtentSource."""
        with self.lock:
            self._outstanding -= 1
            if not self._outstanding:
                self._pinned = False
                if self._is_finished:
                    self._close()
                    self._digest.forget_file()


@dataclass(frozen=True, slots=True)
class StreamSlice:
    """A range of a stream, or a small file, kept in memory until the channel releases it; an ExtentSource.

    It is the source of one extent.
    """

    offset: int
    data: bytes

    def fileno(self) -> None:
        """See ExtentSource; the content is in no file."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See ExtentSource."""
        start = offset - self.offset
        buffer[:] = self.data[start : start + len(buffer)]

    def on_sendfile(self, offset: int, length: int) -> None:
        """See ExtentSource; never called, as there is no descriptor."""

    def release(self, extent: Extent) -> None:
        """See ExtentSource; the channel holds the only reference."""


class Stream(Protocol):
    """Content that can be read only once and whose size is known only at its end; `size_bytes` is what was read."""

    size_bytes: int

    def next_slice(self) -> StreamSlice | None:
        """The next slice; None if there is nothing yet, an empty one at the end. Raises TransferError."""

    def digest(self) -> bytes:
        """The digest of everything read."""


class StreamSource:
    """A Stream from a descriptor: a source that can be read only once and whose size is known only at its end.

    origin:     the file that the descriptor is open for; None for any other
    name:       of any other, for messages
    size_bytes: how much was read so far
    """

    def __init__(
        self, descriptor: int, algorithm: Algorithm, origin: FileOrigin | None = None, name: str = "standard input"
    ) -> None:
        self.size_bytes = 0
        self.name = name
        self._origin = origin
        self._descriptor = descriptor
        self._hasher = algorithm.new()
        self._buffer = memoryview(bytearray(STREAM_SLICE_BYTES))
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def next_slice(self) -> StreamSlice | None:
        """What can be read now, at most STREAM_SLICE_BYTES; None if nothing yet, an empty slice at the end.

        Does not block. Raises TransferError; SourceChangedError for a file, also if it waits for new content.
        """
        buffer, filled = self._buffer, 0
        try:
            while filled < len(buffer) and self._poll.poll(0):
                count = os.readv(self._descriptor, (buffer[filled:],))
                if not count:
                    break
                filled += count
            else:
                if not filled:
                    if self._origin is not None:
                        raise SourceChangedError(self._origin.name, "has no end that could be waited for")
                    return None
        except OSError as error:
            reason = f"cannot be read ({os_error_text(error)})"
            if self._origin is not None:
                raise SourceChangedError(self._origin.name, reason) from error
            raise TransferError(f"{self.name} {reason}") from error
        data = bytes(buffer[:filled])
        self._hasher.update(data)
        stream_slice = StreamSlice(self.size_bytes, data)
        self.size_bytes += filled
        return stream_slice

    def digest(self) -> bytes:
        """The digest of everything read."""
        return self._hasher.digest()


def os_error_text(error: OSError) -> str:
    """The system's text for an error, as part of a sentence."""
    return (error.strerror or "unknown error").lower()
