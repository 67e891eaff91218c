"""The files of qlogs: the first connection's log goes to the chosen file, later ones to numbered files.

A server makes a connection for a first packet, which may be forged. Its log therefore stays in memory until the client
has answered, and only then gets a file. A failure of a file ends the log, not the transfer; a warning reports it.
"""

import errno
import logging
import time
from pathlib import Path
from typing import BinaryIO, Final

from toolkit.channel import Address
from toolkit.errors import UsageError
from toolkit.output_files import open_output
from toolkit.transports.udp.qlog import QlogWriter, VantagePoint

OPTION: Final = "`qlog`"
MARK: Final = b'"title":"nettool"'
"""In the header of every log that nettool writes; see `toolkit.output_files`."""
_MAX_MEMORY_BYTES: Final = 1 << 20
_LOGGER: Final = logging.getLogger(__name__)


class LogFiles:
    """Makes the logs of the connections of one client or listener. Close it after the last."""

    def __init__(self, path: str) -> None:
        """Raises UsageError if the file cannot be written, or is one that nettool did not write."""
        self._path = Path(path)
        self._count = 0
        self._first: BinaryIO | None = open_output(self._path, OPTION, MARK)

    def open_next(self) -> BinaryIO:
        """Open the file of the next confirmed connection. Raises OSError, UsageError."""
        self._count += 1
        file, self._first = self._first, None
        if file is not None:
            return file
        return open_output(self._path.with_stem(f"{self._path.stem}-{self._count}"), OPTION, MARK)

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
        except UsageError as error:  # a file that nettool did not write has the name
            self._file.fail(OSError(errno.EEXIST, str(error).removeprefix(f"{OPTION} ")))

    def close(self) -> None:
        """End the log; one that was never begun leaves no file. Idempotent."""
        try:
            self.observer.close()
        except OSError as error:
            if self._file.is_begun:
                reason = error.strerror or str(error)
                _LOGGER.warning(
                    "the qlog is incomplete: %s",
                    reason if error.errno == errno.EEXIST else reason[:1].lower() + reason[1:],
                )


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
