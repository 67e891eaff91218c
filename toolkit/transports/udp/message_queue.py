"""The messages of a peer that have arrived, and wait for the application to take them."""

from collections import deque
from typing import Final

MAX_QUEUED_BYTES: Final = 16 << 20
"""Most memory for them; further messages stay in the engine, which blocks the peer."""
_OVERHEAD_BYTES: Final = 64  # of memory, for a message besides its content


class MessageQueue:
    """First in, first out. `size_bytes` is the memory that it takes."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._messages: deque[bytes] = deque()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def has_room(self) -> bool:
        """Whether another message may be added."""
        return self.size_bytes < MAX_QUEUED_BYTES

    def append(self, message: bytes) -> None:
        """Add a message."""
        self._messages.append(message)
        self.size_bytes += len(message) + _OVERHEAD_BYTES

    def take(self) -> bytes:
        """Remove the oldest message, and return it. Raises IndexError if there is none."""
        message = self._messages.popleft()
        self.size_bytes -= len(message) + _OVERHEAD_BYTES
        return message
