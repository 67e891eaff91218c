"""What happens in the course of a transfer: a thread that samples an endpoint every few milliseconds.

Times and counts are running totals, so that half of the samples can be dropped whenever there are too many: what is
left still sums up what happened in between. The thread only reads; the channel belongs to the thread that uses it.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from toolkit.channel import Statistic
from toolkit.comparison.endpoint_result import Samples

FIRST_INTERVAL_S = 0.005
MAX_SAMPLES = 400
_SCHEDSTAT = Path("/proc/self/schedstat")


def waiting_seconds() -> float:
    """How long the main thread of this process has waited for a processor so far; 0 if the system does not tell."""
    try:
        return int(_SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


class Sampler:
    """Samples until the block is left. Without `statistics` it records only times and processor use."""

    def __init__(self, origin_s: float, statistics: Callable[[], Mapping[str, Statistic]] | None = None) -> None:
        """`origin_s` on the monotonic clock is time 0; `statistics` is that of a channel."""
        self._origin_s = origin_s
        self._statistics = statistics
        self._interval_s = FIRST_INTERVAL_S
        self._rows: list[tuple[float, ...]] = []
        self._busy_origin_s, self._waiting_origin_s = time.process_time(), waiting_seconds()
        self._recovering_s = self._receiver_limited_s = 0.0
        self._retransmitted = 0.0
        self._recovering_until_s = 0.0
        self._last_s = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> "Sampler":
        self.sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self.sample()

    def series(self) -> Samples:
        """The samples so far, column by column."""
        return Samples(*(list(column) for column in zip(*self._rows, strict=True)))

    def sample(self) -> None:
        """Take one sample now. Inside the block the thread does it."""
        now_s = time.monotonic() - self._origin_s
        statistics = self._statistics() if self._statistics is not None else {}

        def figure(name: str, default: float = 0.0) -> float:
            value = statistics.get(name, default)
            return default if isinstance(value, str) else value

        elapsed_s, self._last_s = now_s - self._last_s, now_s
        retransmitted, rtt_ms = figure("packets_retransmitted"), figure("rtt_ms")
        if retransmitted > self._retransmitted:
            self._recovering_until_s = now_s + rtt_ms / 1e3
        self._retransmitted = retransmitted
        if figure("is_recovering", now_s < self._recovering_until_s):
            self._recovering_s += elapsed_s
        if "rwnd_limited_ms" in statistics:  # the kernel's own total
            self._receiver_limited_s = (figure("rwnd_limited_ms") + figure("sndbuf_limited_ms")) / 1e3
        elif figure("is_receiver_limited"):
            self._receiver_limited_s += elapsed_s
        self._rows.append(
            (
                now_s,
                figure("bytes_delivered"),
                figure("congestion_window_bytes"),
                rtt_ms,
                retransmitted,
                self._recovering_s,
                self._receiver_limited_s,
                time.process_time() - self._busy_origin_s,
                waiting_seconds() - self._waiting_origin_s,
            )
        )
        if len(self._rows) >= MAX_SAMPLES:
            del self._rows[1::2]
            self._interval_s *= 2

    def _run(self) -> None:
        while not self._is_over.wait(self._interval_s):
            self.sample()
