"""What happened in the course of a transfer: one thread that looks at an end every few milliseconds.

Times and counts are kept as running totals, so that half of the samples can be dropped whenever there are
too many: what is left still sums up what happened in between. The thread only reads; the channel stays its
owner's.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FIRST_INTERVAL_S = 0.005
MAX_SAMPLES = 400
COLUMNS = (
    "t_s",
    "delivered_bytes",
    "congestion_window_bytes",
    "rtt_ms",
    "retransmitted_packets",
    "recovering_s",
    "receiver_limited_s",
    "busy_s",
)
_SCHEDSTAT = Path("/proc/self/schedstat")


def busy_seconds() -> float:
    """How long this process has had work so far: on a processor, and waiting for one."""
    try:
        waiting_ns = int(_SCHEDSTAT.read_text().split()[1])
    except (OSError, IndexError, ValueError):
        waiting_ns = 0
    return time.process_time() + waiting_ns / 1e9


class Sampler:
    """Samples until the block is left. Without `statistics` it keeps times and processor only."""

    def __init__(self, origin_s: float, statistics: Callable[[], Mapping[str, Any]] | None = None) -> None:
        """`origin_s` of the monotonic clock is time 0; `statistics` is a channel's."""
        self._origin_s = origin_s
        self._statistics = statistics
        self._interval_s = FIRST_INTERVAL_S
        self._rows: list[tuple[float, ...]] = []
        self._busy_origin_s = busy_seconds()
        self._recovering_s = self._receiver_limited_s = 0.0
        self._retransmitted = 0
        self._recovering_until_s = 0.0
        self._last_s = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> "Sampler":
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._sample()

    def series(self) -> dict[str, list[float]]:
        """The columns by name, each as long as the others."""
        columns = list(zip(*self._rows, strict=True))
        return {name: list(column) for name, column in zip(COLUMNS, columns, strict=True)}

    def _run(self) -> None:
        while not self._over.wait(self._interval_s):
            self._sample()

    def _sample(self) -> None:
        now_s = time.monotonic() - self._origin_s
        told = self._statistics() if self._statistics is not None else {}
        elapsed_s, self._last_s = now_s - self._last_s, now_s
        retransmitted = told.get("packets_retransmitted", 0)
        rtt_ms = told.get("rtt_ms", 0.0)
        if retransmitted > self._retransmitted:
            self._recovering_until_s = now_s + rtt_ms / 1e3
        self._retransmitted = retransmitted
        if told.get("is_recovering", now_s < self._recovering_until_s):
            self._recovering_s += elapsed_s
        if "rwnd_limited_ms" in told:
            self._receiver_limited_s = (told["rwnd_limited_ms"] + told["sndbuf_limited_ms"]) / 1e3
        elif told.get("is_receiver_limited"):
            self._receiver_limited_s += elapsed_s
        self._rows.append(
            (
                now_s,
                told.get("bytes_delivered", 0),
                told.get("congestion_window_bytes", 0),
                rtt_ms,
                retransmitted,
                self._recovering_s,
                self._receiver_limited_s,
                busy_seconds() - self._busy_origin_s,
            )
        )
        if len(self._rows) >= MAX_SAMPLES:
            del self._rows[1::2]
            self._interval_s *= 2
