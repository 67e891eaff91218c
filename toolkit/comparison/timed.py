"""Trials of fixed duration: content without an end, and what of it had arrived when the time was up.

The sender reads content that it makes up, until its time is up, and then ends the session as with any stream: what is
on the way arrives, and both ends compare digests of all of it. The receiver learns the deadline before the sender
connects, and takes note of how much has arrived in order by then: what is hashed, and what has arrived of a record,
which TCP can open only as a whole, while UDP opens every packet by itself. That, divided by the time, is the goodput:
bytes that are acknowledged but not yet in order do not count, and what arrives later does not either.
"""

import random
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from typing import NamedTuple

from toolkit.channel import Channel
from toolkit.comparison.discard import DiscardingDestination
from toolkit.comparison.endpoint_result import Samples
from toolkit.transfer.digest import Algorithm
from toolkit.transfer.incoming_file import IncomingFile, SessionBudget
from toolkit.transfer.manifest import Entry
from toolkit.transfer.sources import StreamSlice

STREAM_NAME = "content"
_PERIOD_BYTES = 1_000_003
"""A prime, so that bytes which end up in the wrong place differ from those that belong there."""
SLICE_BYTES = 1 << 20
_LEAST_SLICE_BYTES = 1 << 14
_BACKLOG_S = 0.01
_LEAST_BACKLOG_BYTES = 1 << 16
_REAL_BYTES = 1 << 16
"""Backlog of UDP, and slices of both transports, on a path whose rate is not known."""
_LEAST_PACED_BYTES = 1_200  # about a packet


class Portions(NamedTuple):
    """How a sender without an end hands its content over.

    backlog_bytes: see TransportOptions
    slice_bytes:   how much to hand to the channel at a time
    """

    backlog_bytes: int | None
    slice_bytes: int


class TimedStream:
    """Pseudorandom content that ends at `until_s` on the monotonic clock. A stream for `SendOptions.open_stream`.

    With small `Portions`, the sender's host holds little that is not on the way yet, so that the trial ends soon after.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        seed: int,
        until_s: float,
        slice_bytes: int = SLICE_BYTES,
        clock: Callable[[], float] = time.monotonic,
        end_bytes: int | None = None,
    ) -> None:
        """`slice_bytes`: how much to hand to the channel at a time; `end_bytes`: where content ends at the latest."""
        self.size_bytes = 0
        self._hasher = algorithm.new()
        self._period = _period(seed)
        self._until_s = until_s
        self._clock = clock
        self._slice_bytes = slice_bytes
        self._end_bytes = end_bytes

    def next_slice(self) -> StreamSlice:
        """The next slice of content; an empty one if the time is up."""
        if self._clock() >= self._until_s:
            return StreamSlice(self.size_bytes, b"")
        start = self.size_bytes % _PERIOD_BYTES
        wanted_bytes = self._slice_bytes
        if self._end_bytes is not None:
            wanted_bytes = min(wanted_bytes, self._end_bytes - self.size_bytes)
        data = self._period[start : start + wanted_bytes]
        self._hasher.update(data)
        stream_slice = StreamSlice(self.size_bytes, data)
        self.size_bytes += len(data)
        return stream_slice

    def digest(self) -> bytes:
        """The digest of everything so far."""
        return self._hasher.digest()


class TimedDestination(DiscardingDestination):
    """Keeps nothing, and knows how much content is verified so far: hashed in order, without a gap."""

    def __init__(self) -> None:
        super().__init__()
        self._files: list[IncomingFile] = []

    @property
    def hashed_bytes(self) -> int:
        """May be asked from any thread."""
        return sum(file.hashed_bytes for file in self._files)

    def create(
        self, entry: Entry, algorithm: Algorithm, budget: SessionBudget, on_complete: Callable[[], None]
    ) -> IncomingFile:
        """See Destination."""
        file = super().create(entry, algorithm, budget, on_complete)
        self._files.append(file)
        return file


class Cut:
    """What had arrived at the end of the time of a trial. Its methods may be called from any thread.

    The receiver learns the deadline before the sender connects, so that no other process has to run in time at the end.

    channel:          of the session, as soon as there is one
    cut_s, cut_bytes: when it was taken, on the monotonic clock, and how much had arrived; None before
    """

    def __init__(self, destination: TimedDestination, clock: Callable[[], float] = time.monotonic) -> None:
        self.channel: Channel | None = None
        self.cut_s: float | None = None
        self.cut_bytes: int | None = None
        self._destination = destination
        self._clock = clock
        self._deadline_s: float | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def take_at(self, deadline_s: float) -> None:
        """Take it at this time on the monotonic clock, in a thread of its own."""
        self._deadline_s = deadline_s
        self._timer = threading.Timer(max(0.0, deadline_s - self._clock()), self.take)
        self._timer.daemon = True
        self._timer.start()

    def take(self) -> None:
        """The time is up: take it, unless it has been taken."""
        with self._lock:
            if self.cut_s is not None:
                return
            if self._timer is not None:
                self._timer.cancel()
            self.cut_s = self._clock()
            hashed_bytes = self._destination.hashed_bytes
            unopened = self.channel.statistics().get("unopened_bytes", 0) if self.channel is not None else 0
            self.cut_bytes = hashed_bytes + (int(unopened) if hashed_bytes else 0)  # else records hold messages

    def take_if_due(self) -> None:
        """Take it at the end of a session if the deadline has passed: on a busy machine, the timer may be late."""
        if self._deadline_s is not None and self._clock() >= self._deadline_s:
            self.take()


def backlog_bytes(rate_bps: float | None) -> int | None:
    """How much content the sender may hold unsent on a path of this rate: 10 ms of it, or the default without one."""
    return None if rate_bps is None else max(_LEAST_BACKLOG_BYTES, int(rate_bps * _BACKLOG_S / 8))


def portions(transport: str, rate_bps: float | None) -> Portions:
    """On a path that nettool creates: slices are small where little may be unsent.

    TCP encrypts, and its receiver delivers, a slice as a whole, so that on a slow path large ones would arrive late.
    """
    backlog = backlog_bytes(rate_bps)
    if backlog is None:
        return Portions(None, SLICE_BYTES)
    is_tcp = transport == "tcp"
    return Portions(backlog, _LEAST_SLICE_BYTES if is_tcp else min(SLICE_BYTES, max(_LEAST_SLICE_BYTES, backlog // 2)))


def paced_portions(rate_bps: float) -> Portions:
    """For a sender that keeps to this rate: it ends soon after its time, however low the rate is."""
    size_bytes = max(_LEAST_PACED_BYTES, min(_REAL_BYTES, int(rate_bps * _BACKLOG_S / 8)))
    return Portions(size_bytes, size_bytes)


def real_portions(transport: str) -> Portions:
    """On a path to another machine: a measured rate that is too low must not limit what is compared.

    Each transport bounds what it holds unsent by its own window instead: UDP always takes two congestion windows, and
    the kernel lets the send buffer of TCP grow to as much.
    """
    return Portions(None if transport == "tcp" else _REAL_BYTES, _REAL_BYTES)


def until(samples: Samples, seconds: float) -> Samples:
    """The samples up to this time, and at least the first one."""
    count = max(1, bisect_right(samples.t_s, seconds))
    return Samples(*(getattr(samples, column.name)[:count] for column in fields(Samples)))


@lru_cache(maxsize=2)  # a server makes up content for any seed
def _period(seed: int) -> bytes:
    return random.Random(seed).randbytes(_PERIOD_BYTES)
