"""The files of qlogs: the first connection's log goes to the chosen file, later ones to numbered files.

A server makes a connection for a first packet, which may be forged. Its log therefore stays in memory until the client
has answered, and only then gets a file. A failure of a file ends the log, not the transfer; a warning reports it.
"""

import errno
import logging
import os
import time
from pathlib import Path
from typing import BinaryIO, Final

from toolkit.channel import Address
from toolkit.errors import UsageError, printable
from toolkit.transports.udp.qlog import QlogWriter, VantagePoint

_MAX_MEMORY_BYTES: Final = 1 << 20
_LOGGER: Final = logging.getLogger(__name__)


class LogFiles:
    """Makes the logs of the connections of one client or listener. Close it after the last."""

    def __init__(self, path: str) -> None:
        """Raises UsageError if the file cannot be written."""
        self._path = Path(path)
        self._count = 0
        try:
            self._first: BinaryIO | None = self._path.open("wb")
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise UsageError(f"cannot write {printable(path)}: {reason}; choose another file with --qlog") from error

    def open_next(self) -> BinaryIO:
        """Open the file of the next confirmed connection. Raises OSError."""
        self._count += 1
        file, self._first = self._first, None
        if file is not None:
            return file
        return self._path.with_stem(f"{self._path.stem}-{self._count}").open("wb")

    def close(self) -> None:
        """Close the first file, if no connection has used it."""
        if self._first is not None:
            self._first.close()
            self._first = None


class ConnectionLog:
    """One connection's log: `observer` writes it, `begin` opens its file, `close` ends it."""

    def __init__(self, files: LogFiles, vantage_point: VantagePoint, local: Address, remote: Address) -> None:
        self._files = files
        self._file = _DeferredFile()
        self.observer = QlogWriter(self._file, vantage_point, time.time_ns(), local, remote)

    def begin(self) -> None:
        """The connection is confirmed. Call once."""
        try:
            self._file.begin(self._files.open_next())
        except OSError as error:
            self._file.fail(error)

    def close(self) -> None:
        """End the log; one that was never begun leaves no file. Idempotent."""
        try:
            self.observer.close()
        except OSError as error:
            if self._file.is_begun:
                _LOGGER.warning("the qlog is incomplete: %s", os.strerror(error.errno or 0).lower())


class _DeferredFile:
    """A file that keeps what is written in memory until it is opened."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._file: BinaryIO | None = None
        self._error: OSError | None = None
        self.is_begun = False

    def begin(self, file: BinaryIO) -> None:
        self.is_begun = True
        self._file = file
        file.write(self._pending)
        self._pending.clear()

    def fail(self, error: OSError) -> None:
        self.is_begun = True
        self._error = error

    def write(self, data: bytes) -> None:
        if self._error is not None:
            raise self._error
        if self._file is not None:
            self._file.write(data)
        elif len(self._pending) + len(data) > _MAX_MEMORY_BYTES:
            self._error = OSError(errno.ENOBUFS, "the log of an unconfirmed connection is too long")
            raise self._error
        else:
            self._pending += data

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
