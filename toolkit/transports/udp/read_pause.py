"""How long a receiver leaves content in its socket, so that it need not run for every datagram.

A round of the channel costs a third of a millisecond, whether it handles one datagram or sixteen. At 100 Mbit/s a
datagram of 1,472 bytes arrives every 120 us, so that a receiver that runs for each uses a processor completely. Network
cards have the same problem and solve it in the same way: interrupt moderation. After content has been read, the next
read waits for a moment. What arrives after a longer silence is read at once.

The pause is a small part of the time for which the sender lets acknowledgements wait, so that they come as it wants
them: often while it measures the path in start-up, and then a few in a round trip.
"""

import time
from collections.abc import Iterable
from typing import Final

_ENOUGH_DATAGRAMS: Final = 16
"""In a read: with more, the round costs little for each, and a socket's buffer could fill during a longer pause."""
_MAX_PAUSE_NS: Final = 1_000_000
_MIN_PAUSE_NS: Final = 200_000
"""A shorter pause costs as much as it saves."""
_ACK_DELAY_SHARE: Final = 8


class ReadPause:
    """Call `on_content` after each read that brought content, and `wait` when there is something to read again."""

    def __init__(self) -> None:
        self._until_ns = 0
        self._pause_ns = _MIN_PAUSE_NS
        self._datagrams_before = 0

    def on_content(self, now_ns: int, datagrams_received: int, max_ack_delay_ns: int) -> None:
        """Content has been read.

        datagrams_received: a running total; max_ack_delay_ns: how long acknowledgements may wait (AckTracker)
        """
        count, self._datagrams_before = datagrams_received - self._datagrams_before, datagrams_received
        if count > _ENOUGH_DATAGRAMS:
            self._pause_ns //= 2
        elif count <= _ENOUGH_DATAGRAMS // 2:
            self._pause_ns *= 2
        most_ns = min(_MAX_PAUSE_NS, max_ack_delay_ns // _ACK_DELAY_SHARE)
        self._pause_ns = max(_MIN_PAUSE_NS, min(self._pause_ns, most_ns))
        if most_ns >= _MIN_PAUSE_NS:
            self._until_ns = now_ns + self._pause_ns

    def left_ns(self, now_ns: int, times_ns: Iterable[int]) -> int:
        """How long the pause still takes, or the time until one of `times_ns`, at which there is something else to do.

        At least 0.
        """
        return max(0, min((self._until_ns, *times_ns)) - now_ns)

    def wait(self, times_ns: Iterable[int]) -> None:
        """Wait for `left_ns`."""
        if left_ns := self.left_ns(time.monotonic_ns(), times_ns):
            time.sleep(left_ns / 1e9)
