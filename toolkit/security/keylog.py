"""The key log: for debugging, NETTOOL_KEYLOG names a file to which the keys of every session are appended.

Anyone who reads the file can decrypt recorded packets. A line is one generation of one direction's keys:

    NETTOOL udp|tcp CONNECTION GENERATION AEAD KEY IV

CONNECTION, KEY and IV are hexadecimal. CONNECTION is the connection id of the packets that the keys seal (UDP), or the
token of the session (16 bytes), the number of the connection (2) and the direction, 0 for the client's (1) (TCP).
docs/wireshark reads it.
"""

import logging
import os
import stat
from dataclasses import dataclass
from functools import cache

from toolkit.errors import printable
from toolkit.security.keys import TrafficKeys

VARIABLE = "NETTOOL_KEYLOG"

# Never through a link, and never waiting for the reader of a FIFO, wherever the name has come from.
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_MARK = "NETTOOL"  # of every line
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggedTrafficKeys(TrafficKeys):
    """Keys whose later generations are logged as they are derived."""

    transport: str = ""
    connection: bytes = b""

    def next(self) -> "LoggedTrafficKeys":
        """Return the generation after this one, logged."""
        keys = super().next()
        log_keys(self.transport, self.connection, keys)
        return LoggedTrafficKeys(keys.aead_name, keys.secret, keys.generation, self.transport, self.connection)


def with_key_log(transport: str, connection: bytes, keys: TrafficKeys) -> TrafficKeys:
    """Log `keys` and return what to use in their place, so that every later generation is logged too.

    Returns `keys` themselves if NETTOOL_KEYLOG is not set. The arguments are those of `log_keys`.
    """
    if not os.environ.get(VARIABLE):
        return keys
    log_keys(transport, connection, keys)
    return LoggedTrafficKeys(keys.aead_name, keys.secret, keys.generation, transport, connection)


def log_keys(transport: str, connection: bytes, keys: TrafficKeys) -> None:
    """Append `keys` if NETTOOL_KEYLOG is set; otherwise do nothing. Never fails: a warning reports what goes wrong.

    transport:  `udp` or `tcp`
    connection: what identifies the connection in its packets
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return
    line = (
        f"{_MARK} {transport} {connection.hex()} {keys.generation} {keys.aead_name} {keys.key.hex()} {keys.iv.hex()}\n"
    )
    try:
        descriptor = os.open(path, _FLAGS, 0o600)
        try:
            reason = _why_not_private(os.fstat(descriptor)) or _why_not_ours(descriptor)
            if not reason:
                os.write(descriptor, line.encode())  # one write: sessions log from their own threads and processes
        finally:
            os.close(descriptor)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
    if reason:
        warn_once(f"{VARIABLE}: cannot write {printable(path)}: {reason}; the keys are not logged")
    else:
        warn_once(f"{VARIABLE} is set: anyone who reads {printable(path)} can decrypt this process's sessions")


def _why_not_private(status: os.stat_result) -> str:
    """Return why other users may read what is written to this file, or put something else in its place; "" if not."""
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_uid != os.geteuid():
        return "it belongs to another user"
    return "others can use it (its mode is not 600)" if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) else ""


def _why_not_ours(descriptor: int) -> str:
    """Return why nothing may be appended to a file that is none of our logs; "" if it is one, or empty.

    A log may begin with a comment.
    """
    head = os.pread(descriptor, len(_MARK), 0)
    return "" if head in (b"", _MARK.encode()) or head.startswith(b"# ") else "nettool did not write it"


@cache
def warn_once(message: str) -> None:
    """Report `message`, once a process."""
    _LOGGER.warning("%s", message)
