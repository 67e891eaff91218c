"""Content that a program gives to a sender as objects: bytes, and file objects.

Bytes have a size, so they are offered as a file and are sent like one. A file object promises nothing but a `read` that
may block: it is a stream, and a thread of its own reads it into a pipe, so that the session stays alive meanwhile. Its
`fileno` is never asked for: that of a GzipFile, for one, leads to other bytes than `read` returns.
"""

import os
import threading
from dataclasses import dataclass
from io import FileIO
from typing import Protocol, Self

from toolkit.errors import TransferError, printable
from toolkit.transfer.digest import Algorithm
from toolkit.transfer.open_files import anonymous_file
from toolkit.transfer.sources import (
    FileIdentity,
    FileOrigin,
    SourceChangedError,
    StreamSlice,
    StreamSource,
    os_error_text,
)

_READ_BYTES = 1 << 18


class BinaryReader(Protocol):
    """A file object in binary mode, as far as a sender needs it."""

    def read(self, size: int, /) -> bytes | None:
        """Return up to `size` bytes; b"" at the end."""


@dataclass(frozen=True, slots=True)
class BytesOrigin(FileOrigin):
    """Content in memory that is offered as a file: each opening makes an anonymous file of it."""

    content: bytes = b""

    @classmethod
    def of(cls, name: str, content: bytes) -> Self:
        """The origin of an offered file with this name and content."""
        identity = FileIdentity(0, 0, len(content), 0, 0)
        return cls(None, b"", name, identity, is_sparse=False, content=content)

    def open_unchecked(self) -> int:
        """See FileOrigin."""
        try:
            with open(anonymous_file(), "wb") as file:
                file.write(self.content)
                file.seek(0)
                return os.dup(file.fileno())
        except OSError as error:
            raise SourceChangedError(self.name, f"cannot be read ({os_error_text(error)})") from error

    def is_same(self, status: os.stat_result) -> bool:
        """See FileOrigin; nobody else can change it."""
        return status.st_size == self.identity.size_bytes

    def is_unchanged(self) -> bool:
        """See FileOrigin."""
        return True


class ReaderStream(StreamSource):
    """A Stream from a file object, which it does not close. A context manager, which ends the reading.

    descriptor: is readable when `next_slice` has something

    Raises TransferError if no thread can be started.
    """

    def __init__(self, reader: BinaryReader, name: str, algorithm: Algorithm) -> None:
        self.descriptor, self._writing = os.pipe()
        super().__init__(self.descriptor, algorithm, name=printable(name))
        self._reader = reader
        self._failure: BaseException | None = None
        try:
            threading.Thread(target=self._fill, daemon=True).start()
        except RuntimeError as error:  # no thread is left
            os.close(self.descriptor)
            os.close(self._writing)
            raise TransferError(f"{self.name} cannot be read ({error})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)  # a thread that still writes gets EPIPE

    def next_slice(self) -> StreamSlice | None:
        """See Stream. Raises TransferError if the file object raised an error, or returned something else."""
        following = super().next_slice()
        if following is not None and not following.data and self._failure is not None:
            raise TransferError(
                f"{self.name} cannot be read ({printable(str(self._failure)) or type(self._failure).__name__})"
            ) from self._failure
        return following

    def _fill(self) -> None:
        with open(self._writing, "wb", buffering=0) as pipe:
            try:
                while data := self._reader.read(_READ_BYTES):
                    if not _write_all(pipe, memoryview(data)):
                        return
                if data is None:
                    raise BlockingIOError("it does not block, and has nothing yet")
            except BaseException as error:  # even SystemExit: else what has been read would pass for the whole
                self._failure = error


def _write_all(pipe: FileIO, data: memoryview) -> bool:
    """Return whether the reading end was open for all of it."""
    left = data
    while left:
        try:
            left = left[pipe.write(left) :]
        except BrokenPipeError:
            return False
    return True
