"""What one session may take from the receiver, and what happens when it takes more.

A peer is not trusted, whether or not it has a code or a key. What it can make the receiver use is limited here
(SessionLimits: bytes, entries, time), in session_server.py (sessions at a time), and by constants beside the code that
they protect: MAX_OPEN_GROUPS, MAX_PENDING_RANGES, OPTIMISTIC_BYTES, MAX_HELD_BYTES, MAX_DIRECTORY_BYTES, ZeroHashing.
docs/protocol.md lists all of them.

A session that goes beyond a limit ends with LimitError, which names the parameter; the sender is told the same.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from toolkit.channel import WAIT_CHECK_S
from toolkit.errors import RefusedError
from toolkit.units import format_seconds, format_size

MIN_PROGRESS_BYTES: Final = 1 << 16
"""How much content within the stall timeout is progress: 900 bit/s at the default, less than any path in use."""
FIRST_MESSAGE_S: Final = 30.0
"""How long a peer may take to begin a session; its first message needs no disk and no scan."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one session may take; the defaults fit a receiver that strangers can reach.

    max_bytes:       size of all files, with their holes. None for no limit but the free space, which is shared out over
                     all sessions: nettool cannot know how much a user wants to receive.
    max_files:       files and directories offered. Each takes an inode, and a file system has few: 1,000,000 is one
                     large source tree after another, and a sixty-fifth of the inodes of 1 TiB of ext4.
    max_seconds:     duration. A week suffices for 10 TB at 130 Mbit/s, and then a slot is free again in any case.
    stall_seconds:   how long a session may last without progress: MIN_PROGRESS_BYTES of content, an offer, a hole,
                     digests of chunks, or a finished file. Only time that the receiver spends waiting for the peer
                     counts. Ten minutes is longer than a sender takes to list a large directory, or a path to come
                     back.
    """

    max_bytes: int | None = None
    max_files: int = 1_000_000
    max_seconds: float = 7 * 86_400.0
    stall_seconds: float = 600.0


class LimitError(RefusedError):
    """The peer went beyond a limit of this receiver, which the message names with its parameter."""


class ByteBudget:
    """The bytes that a session may still bring. Thread-safe."""

    def __init__(self, limit_bytes: int | None) -> None:
        self._limit_bytes = limit_bytes
        self._remaining_bytes = limit_bytes
        self._lock = threading.Lock()

    @property
    def refusal(self) -> str:
        """Why something is refused that does not fit."""
        if not self._limit_bytes:
            return "the receiver accepts no more files"
        return f"the receiver accepts {format_size(self._limit_bytes or 0)} in a session (its `max_bytes`)"

    def try_take(self, length: int) -> bool:
        """Take that many bytes if they are left; returns whether they were."""
        with self._lock:
            if self._remaining_bytes is None:
                return True
            if length > self._remaining_bytes:
                return False
            self._remaining_bytes -= length
            return True

    def give_back(self, length: int) -> None:
        """Give back bytes that were taken and will not come."""
        with self._lock:
            if self._remaining_bytes is not None:
                self._remaining_bytes += length

    def take(self, length: int) -> None:
        """Take that many bytes. Raises LimitError if they are not left."""
        if not self.try_take(length):
            raise LimitError(self.refusal)


class SessionWatch:
    """Ends a session that has lasted too long, or whose peer makes no progress.

    Only waiting counts as a stall, so that a slow disk at this end is not taken for a slow peer.
    """

    def __init__(self, limits: SessionLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._end_s = clock() + limits.max_seconds
        self._waited_s = 0.0
        self._blocked_s = 0.0  # when `check_blocked` was last called
        self._received_bytes = 0
        self._steps = 0

    def on_waited(self, duration_s: float) -> None:
        """Count time that was spent waiting for the peer."""
        self._waited_s += duration_s

    def check(self, has_begun: bool, received_bytes: int, steps: int) -> None:
        """Compare with what has been received and done so far. Raises LimitError.

        steps: counts offers, holes, comparisons and finished files
        """
        if not has_begun and self._waited_s >= FIRST_MESSAGE_S:
            raise LimitError(f"the sender connected and sent nothing for {format_seconds(FIRST_MESSAGE_S)}")
        if steps != self._steps or received_bytes - self._received_bytes >= MIN_PROGRESS_BYTES:
            self._steps, self._received_bytes, self._waited_s = steps, received_bytes, 0.0
        self._check_times(has_begun)

    def check_blocked(self) -> None:
        """Count the time since the last call as time spent waiting. Raises LimitError.

        To be called every WAIT_CHECK_S or more often while a message waits for room: the peer takes nothing.
        """
        now_s = self._clock()
        self.on_waited(min(now_s - self._blocked_s, WAIT_CHECK_S))
        self._blocked_s = now_s
        self._check_times(has_begun=True)

    def _check_times(self, has_begun: bool) -> None:
        if self._clock() >= self._end_s:
            raise LimitError(
                f"a session may last {format_seconds(self._limits.max_seconds)} (the receiver's `max_seconds`)"
            )
        if has_begun and self._waited_s >= self._limits.stall_seconds:
            raise LimitError(
                f"no progress for {format_seconds(self._limits.stall_seconds)} (the receiver's `stall_seconds`)"
            )
