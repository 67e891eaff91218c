"""The queueing delay that a transfer causes: an ICMP echo beside it every 20 ms, from a thread of its own.

The kernel at the other end answers, and the kernel here stamps the answer on its arrival, so that neither waits for
a process. What the median is above the path's own round trip is the queue that every other flow would wait in.
"""

import select
import socket
import statistics
import struct
import threading
import time
from typing import NamedTuple

from toolkit.compare.stats import quantile
from toolkit.emulator.offload import ones_complement_sum

INTERVAL_S = 0.02
ECHO_BYTES = 84  # an IP packet of ping(8)'s usual size
_SO_TIMESTAMPNS = 35
_IDENTIFIER = 0x6E62
_HEADER = struct.Struct("!BBHHH")
_REQUEST, _REPLY = 8, 0


class Pings(NamedTuple):
    """How many echo requests, how many of them were answered, and how many replies there were, duplicates too."""

    sent: int
    answered: int
    replies: int


NO_PINGS = Pings(0, 0, 0)


class Pinger:
    """Pings while the block lasts; owns the socket, a raw one or a ping socket (icmp(7)).

    What `stop` and `collect` do at leisure, where each ping has to be accounted for, the block's end does at once.
    """

    def __init__(self, sock: socket.socket, address: str) -> None:
        self._sent = 0
        self._replies = 0
        self._sock = sock
        self._address = address
        self._is_raw = sock.type == socket.SOCK_RAW
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._awaited_ns: dict[int, int] = {}
        self._round_trips_ms: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pinger", daemon=True)

    def __enter__(self) -> "Pinger":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.collect()
        self._sock.close()

    def stop(self) -> None:
        """Send no more. Idempotent."""
        self._over.set()
        self._thread.join()

    def collect(self) -> Pings:
        """All that was sent and has come; after `stop`."""
        self._take(0.0)
        return Pings(self._sent, len(self._round_trips_ms), self._replies)

    def delay(self, base_ms: float | None) -> dict[str, float] | None:
        """The record's `delay`; without a known base the least round trip is it. None without any answer."""
        round_trips = self._round_trips_ms
        if not round_trips:
            return None
        return {
            "base_ms": min(round_trips) if base_ms is None else base_ms,
            "median_ms": statistics.median(round_trips),
            "p95_ms": quantile(round_trips, 0.95),
        }

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self._over.is_set():
            now_s = time.monotonic()
            if now_s >= next_s:
                self._ping()
                next_s = max(next_s + INTERVAL_S, now_s)
            self._take(max(0.0, next_s - time.monotonic()))

    def _ping(self) -> None:
        sequence = self._sent & 0xFFFF
        body = bytes(ECHO_BYTES - 28)
        checksum = 0xFFFF - ones_complement_sum(_HEADER.pack(_REQUEST, 0, 0, _IDENTIFIER, sequence) + body)
        self._awaited_ns[sequence] = time.time_ns()
        try:
            self._sock.sendto(_HEADER.pack(_REQUEST, 0, checksum, _IDENTIFIER, sequence) + body, (self._address, 0))
            self._sent += 1
        except OSError:
            del self._awaited_ns[sequence]  # no buffer just now, or no route: there is a next time

    def _take(self, timeout_s: float) -> None:
        while select.select([self._sock], [], [], timeout_s)[0]:
            timeout_s = 0.0
            try:
                reply, ancillary, _, _ = self._sock.recvmsg(2048, 64)
            except OSError:
                return
            header = (reply[0] & 15) * 4 if self._is_raw else 0
            if len(reply) < header + _HEADER.size:
                continue
            kind, _, _, identifier, sequence = _HEADER.unpack_from(reply, header)
            is_ours = kind == _REPLY and (identifier == _IDENTIFIER or not self._is_raw)
            if not is_ours:
                continue
            self._replies += 1
            sent_ns = self._awaited_ns.pop(sequence, None)
            if sent_ns is not None and ancillary:
                seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2][:16])
                self._round_trips_ms.append(max(0, seconds * 10**9 + nanoseconds - sent_ns) / 1e6)
