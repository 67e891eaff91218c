"""Ends the wait of a channel's thread from the listener's thread."""

import contextlib
import socket
from typing import Final

_CLEARED_BYTES: Final = 4096


class WakePair:
    """A descriptor that is readable from `wake` until `clear`."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._sender, self._receiver = socket.socketpair()
        self._sender.setblocking(False)
        self._receiver.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._receiver.fileno()

    def wake(self) -> None:
        """Make it readable. Any thread may call this, also after `close`."""
        with contextlib.suppress(OSError):  # full: it is awake already; closed: it is over
            self._sender.send(b"\0")

    def clear(self) -> None:
        """Make it unreadable."""
        with contextlib.suppress(BlockingIOError):
            while self._receiver.recv(_CLEARED_BYTES):
                pass

    def close(self) -> None:
        """Free the descriptors. Idempotent."""
        self._sender.close()
        self._receiver.close()
