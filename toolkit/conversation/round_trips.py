"""Round trips of numbered probes: percentiles, loss, reordering and jitter.

Read: RFC 3550 section 6.4.1 and appendix A.8 for the jitter, here of round trips instead of one-way transits; RFC 4737
section 3.3 for what counts as reordered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

PERCENTS: Final = (50, 90, 95, 99)
_JITTER_GAIN: Final = 16
_BINS: Final = 8
_BAR_COLUMNS: Final = 40


def quantiles_ns(times_ns: Sequence[int]) -> dict[str, float]:
    """The smallest, some percentiles, and the largest of at least one time, by name."""
    import numpy as np

    values = np.percentile(times_ns, (0, *PERCENTS, 100))
    return dict(zip(("min", *(f"p{percent}" for percent in PERCENTS), "max"), map(float, values), strict=True))


@dataclass(slots=True)
class EchoRoundTrips:
    """What became of the probes that were sent. Times in nanoseconds.

    reordered:  replies that came after a reply to a later probe
    duplicates: further replies to a probe
    jitter_ns:  the smoothed difference of successive round trips
    path_times_ns: round trips of the path, without the time for which the hosts held the packets; empty where it is not
                measured apart
    """

    sent: int = 0
    reordered: int = 0
    duplicates: int = 0
    jitter_ns: float = 0.0
    times_ns: dict[int, int] = field(default_factory=dict)
    path_times_ns: list[int] = field(default_factory=list)
    _sent_ns: dict[int, int] = field(default_factory=dict)
    _last_ns: int | None = None
    _highest: int = -1

    def on_sent(self, number: int, now_ns: int) -> None:
        """Probe `number` is sent."""
        self.sent += 1
        self._sent_ns[number] = now_ns

    def on_reply(self, number: int, now_ns: int) -> None:
        """A reply to probe `number` has arrived; one that was never sent is ignored."""
        if number not in self._sent_ns:
            return
        if number in self.times_ns:
            self.duplicates += 1
            return
        time_ns = now_ns - self._sent_ns[number]
        self.times_ns[number] = time_ns
        self.reordered += number < self._highest
        self._highest = max(self._highest, number)
        if self._last_ns is not None:
            self.jitter_ns += (abs(time_ns - self._last_ns) - self.jitter_ns) / _JITTER_GAIN
        self._last_ns = time_ns

    @property
    def answered(self) -> int:
        """How many probes were answered."""
        return len(self.times_ns)

    @property
    def loss(self) -> float:
        """The share of probes without an answer, 0 to 1."""
        return 1 - self.answered / self.sent if self.sent else 0.0

    def fields(self) -> dict[str, Any]:
        """Return the figures for programs (docs/data-format.md)."""
        found: dict[str, Any] = {
            "sent": self.sent,
            "answered": self.answered,
            "loss": self.loss,
            "reordered": self.reordered,
            "duplicates": self.duplicates,
            "jitter_ms": self.jitter_ns / 1e6,
        }
        for prefix, times_ns in (("rtt", list(self.times_ns.values())), ("path_rtt", self.path_times_ns)):
            if times_ns:
                found |= {f"{prefix}_{name}_ms": time_ns / 1e6 for name, time_ns in quantiles_ns(times_ns).items()}
        return found

    def histogram(self) -> list[str]:
        """Return the distribution of the round trips as lines of text; none for fewer than five."""
        if self.answered < 5:
            return []
        import numpy as np

        counts, edges = np.histogram([time_ns / 1e6 for time_ns in self.times_ns.values()], _BINS)
        most = int(counts.max())
        lines = []
        for number, count in enumerate(map(int, counts)):
            span = f"{edges[number]:9.3f} to {edges[number + 1]:.3f} ms"
            lines.append(f"{span:26}{count:6}  {'#' * -(-_BAR_COLUMNS * count // most)}".rstrip())
        return lines
