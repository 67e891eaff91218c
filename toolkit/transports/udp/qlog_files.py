"""Where the qlog of each connection goes: into the file that was asked for, later ones into numbered files beside it.

A server makes a connection for a first packet that may be forged, so what is told of it waits in memory, and a file
is made once the client has answered. Whatever goes wrong with a file ends the log and not the transfer; a warning
says so.
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

_MAX_WAITING_BYTES: Final = 1 << 20
_LOGGER: Final = logging.getLogger(__name__)


class LogFiles:
    """Makes the logs of the connections of one client or listener. `close` it when no more come."""

    def __init__(self, path: str) -> None:
        """Raises UsageError where the file cannot be written."""
        self._path = Path(path)
        self._count = 0
        try:
            self._first: BinaryIO | None = self._path.open("wb")
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            raise UsageError(f"cannot write {printable(path)}: {why}; choose another file with --qlog") from error

    def new(self, vantage_point: VantagePoint, local: Address, remote: Address) -> "ConnectionLog":
        """The log of a connection that is made now."""
        return ConnectionLog(self, vantage_point, local, remote)

    def open_next(self) -> BinaryIO:
        """The file of the next connection that is confirmed."""
        self._count += 1
        file, self._first = self._first, None
        if file is not None:
            return file
        return self._path.with_stem(f"{self._path.stem}-{self._count}").open("wb")

    def close(self) -> None:
        """Close the first file, if no connection has come to use it."""
        if self._first is not None:
            self._first.close()
            self._first = None


class ConnectionLog:
    """One connection's log: `trace` listens to it, `begin` opens the file, `close` ends it."""

    def __init__(self, files: LogFiles, vantage_point: VantagePoint, local: Address, remote: Address) -> None:
        self._files = files
        self._file = _WaitingFile()
        self.trace = QlogWriter(self._file, vantage_point, time.time_ns(), local, remote)

    def begin(self) -> None:
        """The connection is confirmed. Call once."""
        try:
            self._file.begin(self._files.open_next())
        except OSError as error:
            self._file.fail(error)

    def close(self) -> None:
        """What was never begun leaves nothing behind. Idempotent."""
        try:
            self.trace.close()
        except OSError as error:
            if self._file.is_wanted:
                _LOGGER.warning("the qlog is incomplete: %s", os.strerror(error.errno or 0).lower())


class _WaitingFile:
    """A file to write to before it is there."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._file: BinaryIO | None = None
        self._error: OSError | None = None
        self.is_wanted = False

    def begin(self, file: BinaryIO) -> None:
        self.is_wanted = True
        self._file = file
        file.write(self._waiting)
        self._waiting.clear()

    def fail(self, error: OSError) -> None:
        self.is_wanted = True
        self._error = error

    def write(self, data: bytes) -> None:
        if self._error is not None:
            raise self._error
        if self._file is not None:
            self._file.write(data)
        elif len(self._waiting) + len(data) > _MAX_WAITING_BYTES:
            self._error = OSError(errno.ENOBUFS, "too much is told of a connection that is not confirmed")
            raise self._error
        else:
            self._waiting += data

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
