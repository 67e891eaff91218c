"""What a sender reads from: files, checked against what was offered, and a stream.

A file may be changed by others while it is sent. It is known by device, inode, size and time of change;
whatever differs at any opening, or after the last byte was read, ends the transfer with a clear error instead
of a mixture.
"""

import errno
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

from toolkit.channel import Extent
from toolkit.errors import TransferError, printable
from toolkit.transfer.digest import Algorithm, Frontier
from toolkit.transfer.open_files import CachedFile

MIN_HOLE_BYTES = 1 << 16  # a smaller hole is cheaper sent than told of
STREAM_SLICE_BYTES = 1 << 20


class Identity(NamedTuple):
    """What must not change while a file is sent. Bytes and nanoseconds."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """From a stat."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class Segment(NamedTuple):
    """A stretch of a file: content, or a hole. Bytes."""

    offset: int
    length: int
    is_hole: bool


def segments_of(descriptor: int, size_bytes: int) -> Iterator[Segment]:
    """The file from its first byte to its last, as content and holes of at least MIN_HOLE_BYTES (lseek(2))."""
    begun = at = 0
    while at < size_bytes:
        try:
            data = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            # ENXIO: no content up to the end. Anything else: the file system does not tell, so all is
            # content.
            data = size_bytes if error.errno == errno.ENXIO else at
        data = min(data, size_bytes)
        if data - at >= MIN_HOLE_BYTES:
            if at > begun:
                yield Segment(begun, at - begun, False)
            yield Segment(at, data - at, True)
            begun = data
        if data == size_bytes:
            at = data
            break
        try:
            at = min(os.lseek(descriptor, data, os.SEEK_HOLE), size_bytes)
        except OSError:
            at = size_bytes
    if size_bytes > begun:
        yield Segment(begun, size_bytes - begun, False)


@dataclass(frozen=True, slots=True)
class FileOrigin:
    """Where a file that is offered lies, under which name both users know it, and what it was then."""

    path: bytes
    name: str
    identity: Identity
    is_sparse: bool

    def open(self) -> int:
        """A descriptor of that very file. Raises TransferError when it is another by now, or gone."""
        try:
            # Without O_NONBLOCK a FIFO that took the file's place would block here.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise TransferError(f"{printable(self.name)}: {_why_not(error)} any more") from error
        if Identity.of(os.fstat(descriptor)) != self.identity:
            os.close(descriptor)
            raise self.changed()
        return descriptor

    def is_unchanged(self) -> bool:
        """Whether the file of that name is still the one that was offered."""
        try:
            return Identity.of(os.stat(self.path)) == self.identity
        except OSError:
            return False

    def changed(self) -> TransferError:
        """The error to raise when it is not."""
        advice = "changed while it was sent; send it again when nothing writes to it"
        return TransferError(f"{printable(self.name)}: {advice}")


class FileSource(CachedFile):
    """The content of one file, and its digest; an ExtentSource."""

    __slots__ = ("_frontier", "_is_finished", "_origin", "_outstanding")

    def __init__(self, origin: FileOrigin, algorithm: Algorithm) -> None:
        super().__init__()
        self._origin = origin
        self._frontier = Frontier(algorithm, self._read_exactly)
        self._outstanding = 0
        self._is_finished = False

    def _open(self) -> int:
        return self._origin.open()

    def _read_exactly(self, offset: int, buffer: memoryview) -> None:
        descriptor = self._opened()
        try:
            taken = os.preadv(descriptor, (buffer,), offset)
            while taken < len(buffer):
                more = os.preadv(descriptor, (buffer[taken:],), offset + taken)
                if not more:
                    raise self._origin.changed()
                taken += more
        except OSError as error:
            raise TransferError(f"{printable(self._origin.name)}: {_why_not(error)}") from error

    def segments(self) -> Iterator[Segment]:
        """What to send and what to tell of as holes, in order."""
        size_bytes = self._origin.identity.size_bytes
        if not self._origin.is_sparse:
            return iter((Segment(0, size_bytes, False),) if size_bytes else ())
        with self.lock:
            return iter(list(segments_of(self._opened(), size_bytes)))

    def hand_over(self) -> None:
        """An extent of this file is about to go to a channel, which will release it."""
        with self.lock:
            self._outstanding += 1

    def hole(self, offset: int, length: int) -> None:
        """The next segment is a hole: everything before it is hashed, and then its zeros."""
        with self.lock:
            self._frontier.reread(offset)
            self._frontier.zeros(length)

    def finish(self) -> bytes:
        """The digest, once everything was handed over. Raises TransferError when the file has changed."""
        with self.lock:
            identity = self._origin.identity
            self._frontier.reread(identity.size_bytes)
            if Identity.of(os.fstat(self._opened())) != identity:
                raise self._origin.changed()
            self._is_finished = True
            if not self._outstanding:
                self._close()
            return self._frontier.digest()

    @property
    def is_released(self) -> bool:
        """Whether neither the session nor the channel needs it any more."""
        return self._is_finished and not self._outstanding

    def close(self) -> None:
        """Give everything up; idempotent. A channel that still sends what it was given may open the file
        again.
        """
        with self.lock:
            self._is_finished = True
            self._pinned = False
            self._close()

    def fileno(self) -> int:
        """See ExtentSource."""
        with self.lock:
            descriptor = self._opened()
            self._pinned = True
            return descriptor

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See ExtentSource."""
        with self.lock:
            self._read_exactly(offset, buffer)
            frontier = self._frontier.offset
            if offset <= frontier < offset + len(buffer):
                self._frontier.update(buffer[frontier - offset :])

    def moved(self, offset: int, length: int) -> None:
        """See ExtentSource."""
        with self.lock:
            self._frontier.reread(offset + length)

    def release(self, extent: Extent) -> None:  # noqa: ARG002 - all extents of a file count alike
        """See ExtentSource."""
        with self.lock:
            self._outstanding -= 1
            if not self._outstanding:
                self._pinned = False
                if self._is_finished:
                    self._close()


@dataclass(frozen=True, slots=True)
class StreamSlice:
    """A stretch of a stream, which the channel keeps until it releases it; an ExtentSource for this one extent."""

    offset: int
    data: bytes

    def fileno(self) -> None:
        """See ExtentSource; it is in no file."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See ExtentSource."""
        at = offset - self.offset
        buffer[:] = self.data[at : at + len(buffer)]

    def moved(self, offset: int, length: int) -> None:
        """See ExtentSource; the stream's digest is taken as it is read."""

    def release(self, extent: Extent) -> None:
        """See ExtentSource; nothing else holds on to it."""


class Stream:
    """A source that can be read once, whose size shows at its end."""

    def __init__(self, descriptor: int, algorithm: Algorithm) -> None:
        self._descriptor = descriptor
        self._hasher = algorithm.new()
        self._buffer = memoryview(bytearray(STREAM_SLICE_BYTES))
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self.size_bytes = 0
        """How much was read so far."""

    def next_slice(self) -> StreamSlice | None:
        """What there is to read now, at most STREAM_SLICE_BYTES; None if nothing yet, an empty one at the
        end.

        Does not wait. Raises TransferError.
        """
        buffer, taken = self._buffer, 0
        try:
            while taken < len(buffer) and self._poll.poll(0):
                count = os.readv(self._descriptor, (buffer[taken:],))
                if not count:
                    break
                taken += count
            else:
                if not taken:
                    return None
        except OSError as error:
            raise TransferError(f"the standard input {_why_not(error)}") from error
        data = bytes(buffer[:taken])
        self._hasher.update(data)
        stretch = StreamSlice(self.size_bytes, data)
        self.size_bytes += taken
        return stretch

    def digest(self) -> bytes:
        """The digest of everything read."""
        return self._hasher.digest()


def _why_not(error: OSError) -> str:
    return f"cannot be read ({(error.strerror or 'no reason given').lower()})"
