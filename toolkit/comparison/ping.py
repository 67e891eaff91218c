"""The queueing delay that a transfer causes: an ICMP echo beside it every 20 ms, from a thread of its own.

The kernel at the far end answers, and the local kernel timestamps the reply on arrival, so that neither waits for a
process. A ping that finds the queue full is lost, and counts too. By how much the median exceeds the path's own round
trip is the queue that every other flow would wait in.
"""

import math
import socket
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from toolkit.comparison.records import DelaySummary
from toolkit.comparison.stats import quantile
from toolkit.emulator.icmp import EchoProbe

INTERVAL_S = 0.02
_IDENTIFIER = 0x6E62


class Pings(NamedTuple):
    """Number of echo requests, of those answered, and of replies with duplicates; round trips by sequence number."""

    sent: int
    answered: int
    replies: int
    round_trips_ns: Mapping[int, int] = MappingProxyType({})


NO_PINGS = Pings(0, 0, 0)


def delay_summary(
    round_trips_ms: Sequence[float], lost: int, base_ms: float | None, loss: float = 0.0
) -> DelaySummary | None:
    """The delay that these pings show; None without any reply.

    lost: pings without a reply. Those beyond what random `loss` explains, by two standard deviations, were dropped by a
          full queue. What they would have waited is not known: at least as long as any other, which is how they count.
    """
    if not round_trips_ms:
        return None
    sent = len(round_trips_ms) + lost
    by_chance = sent * loss + 2 * math.sqrt(sent * loss * (1 - loss))
    dropped = max(0, lost - math.ceil(by_chance))
    waits_ms = [*round_trips_ms, *[max(round_trips_ms)] * dropped]
    return DelaySummary(
        base_ms=min(round_trips_ms) if base_ms is None else base_ms,
        median_ms=statistics.median(waits_ms),
        p95_ms=quantile(waits_ms, 0.95),
        lost=dropped,
    )


class Pinger:
    """Pings while the block lasts; owns the socket, a raw one or a ping socket (icmp(7)).

    Leaving the block stops it. Where every ping has to be accounted for, call `stop` and `collect` before that.
    """

    def __init__(self, sock: socket.socket, address: str) -> None:
        self._sock = sock
        self._probe = EchoProbe(sock, address, _IDENTIFIER)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pinger", daemon=True)

    def __enter__(self) -> "Pinger":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.collect()
        self._sock.close()

    def stop(self) -> None:
        """Send no more requests. Idempotent."""
        self._is_over.set()
        self._thread.join()

    def collect(self) -> Pings:
        """Every request and reply so far; call it after `stop`."""
        self._probe.receive(0.0)
        probe = self._probe
        return Pings(probe.sent, len(probe.round_trips_ns), probe.replies, dict(probe.answers_ns))

    def delay(self, base_ms: float | None, loss: float = 0.0) -> DelaySummary | None:
        """The round trips so far; None without any reply.

        base_ms: defaults to the shortest round trip
        loss:    share of pings that the path loses at random
        """
        round_trips_ms = [round_trip_ns / 1e6 for round_trip_ns in self._probe.round_trips_ns]
        return delay_summary(round_trips_ms, self._probe.lost, base_ms, loss)

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self._is_over.is_set():
            now_s = time.monotonic()
            if now_s >= next_s:
                self._probe.send()
                next_s = max(next_s + INTERVAL_S, now_s)
            self._probe.receive(max(0.0, next_s - time.monotonic()))
