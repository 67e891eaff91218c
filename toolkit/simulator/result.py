"""The result of a simulation: figures of each flow, of the queue, and of fairness.

Goodput counts payload that the receiver has verified, from the first packet of the flow (its handshake) to the last
acknowledgement. Retransmitted bytes are payload sent beyond the size of the flow. Lost bytes are payload that the link
dropped or corrupted, which even a perfect sender has to send again.

The fields named `landed_bytes` count delivered payload; they keep that name for readers of the JSON and CSV output.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from toolkit.netmodel.path import Fate
from toolkit.netmodel.spec import PathSpec
from toolkit.simulator.host import ClientHost, ServerHost
from toolkit.units import rate_of, to_seconds


class FlowSample(NamedTuple):
    """The state of a flow at one time: payload delivered to its receiver (`landed_bytes`), and state of its sender."""

    time_ns: int
    flow: int
    congestion_window_bytes: int
    bytes_in_flight: int
    pacing_rate_bps: float
    smoothed_rtt_ns: int
    landed_bytes: int
    phase: str


class QueueingDelay:
    """One-way delay minus propagation and the transmission of the packet itself: the queue, and jitter if any."""

    def __init__(self, spec: PathSpec) -> None:
        self._delay_ns = spec.delay_ns
        self._rate_bps = spec.rate_bps
        self._changes = list(reversed(spec.changes))
        self._delays_ns = array("d")
        self._packets = array("q")

    def add(self, offered_ns: int, fate: Fate, packet_bytes: int) -> None:
        """Add packets of `packet_bytes`, offered together, that arrive as in `fate`. `offered_ns` never decreases."""
        while self._changes and self._changes[-1].at_ns <= offered_ns:
            change = self._changes.pop()
            self._delay_ns = self._delay_ns if change.delay_ns is None else change.delay_ns
            self._rate_bps = self._rate_bps if change.rate_bps is None else change.rate_bps
        transmission_ns = packet_bytes * 8e9 / self._rate_bps if self._rate_bps else 0.0
        middle_ns = fate.first_ns + (fate.packets - 1) * fate.gap_ns / 2
        self._delays_ns.append(max(0.0, middle_ns - offered_ns - self._delay_ns - transmission_ns))
        self._packets.append(fate.packets)

    @property
    def mean_ns(self) -> float:
        """The mean over all packets; 0 without packets."""
        return float(np.average(self._delays_ns, weights=self._packets)) if self._packets else 0.0

    def percentile_ns(self, percent: float) -> float:
        """The delay that `percent` of the packets do not exceed; 0 without packets."""
        if not self._packets:
            return 0.0
        delays, packets = np.asarray(self._delays_ns), np.asarray(self._packets)
        order = np.argsort(delays)
        reached = np.cumsum(packets[order])
        return float(delays[order[np.searchsorted(reached, reached[-1] * percent / 100)]])


@dataclass(frozen=True, slots=True)
class FlowResult:
    """The figures of one flow: times in ns of virtual time, sizes in bytes of payload.

    finished_ns:    when every byte was acknowledged; None if that did not happen
    delivered_ns:   when the last byte was delivered
    landed_bytes:   payload delivered, each byte once
    progress:       (time, bytes delivered so far) at the receiver
    lost_packets:   of both directions, by reason
    """

    congestion_control: str
    start_ns: int
    finished_ns: int | None
    delivered_ns: int
    end_ns: int
    landed_bytes: int
    sent_payload_bytes: int
    retransmitted_bytes: int
    lost_bytes: int
    packets_sent: int
    lost_packets: dict[str, int]
    acks_sent: int
    spurious_losses: int
    smoothed_rtt_ns: int
    min_rtt_ns: int
    failure: str
    progress: list[tuple[int, int]]

    @classmethod
    def of(cls, name: str, start_ns: int, client: ClientHost, server: ServerHost, now_ns: int) -> "FlowResult":
        """The result of a flow, from the state of its hosts at `now_ns`."""
        connection = client.connection
        end_ns = now_ns if client.ended_ns is None else client.ended_ns
        failure = ""
        if connection is None:
            failure = "the handshake did not complete"
        elif client.ended_ns is None:
            failure = "not finished at the time limit"
        elif client.finished_ns is None and client.is_closed:
            failure = connection.close_reason
        stats = connection.stats() if connection else None
        unique_bytes = stats.data_sent_bytes if stats else 0
        return cls(
            congestion_control=name,
            start_ns=start_ns,
            finished_ns=client.finished_ns,
            delivered_ns=server.progress[-1][0] if server.progress else end_ns,
            end_ns=end_ns,
            landed_bytes=server.delivered_bytes,
            sent_payload_bytes=client.counters.payload_bytes,
            retransmitted_bytes=client.counters.payload_bytes - unique_bytes,
            lost_bytes=client.counters.lost_payload_bytes,
            packets_sent=client.counters.packets,
            lost_packets=dict(client.counters.lost_packets + server.counters.lost_packets),
            acks_sent=server.counters.packets,
            spurious_losses=stats.packets_spuriously_lost if stats else 0,
            smoothed_rtt_ns=stats.smoothed_rtt_ns if stats else 0,
            min_rtt_ns=stats.min_rtt_ns if stats else 0,
            failure=failure,
            progress=server.progress,
        )

    @property
    def goodput_bps(self) -> float:
        """Bits of verified payload per second, from the first packet to the end."""
        return rate_of(self.landed_bytes, to_seconds(self.end_ns - self.start_ns))

    @property
    def retransmission_ratio(self) -> float | None:
        """Retransmitted bytes per lost byte; None if nothing was lost."""
        return self.retransmitted_bytes / self.lost_bytes if self.lost_bytes else None

    def delivered_between(self, start_ns: int, end_ns: int) -> int:
        """Bytes delivered after `start_ns` and up to `end_ns`."""
        return self._delivered_by(end_ns) - self._delivered_by(start_ns)

    def _delivered_by(self, time_ns: int) -> int:
        index = bisect_right(self.progress, time_ns, key=lambda entry: entry[0])
        return self.progress[index - 1][1] if index else 0


@dataclass(frozen=True, slots=True)
class ExperimentResult:
    """The figures of all flows together: rates in bits of payload per second, times in ns.

    duration_ns:    from the first packet of the first flow to the end of the last flow
    ideal_bps:      the upper bound of the path (`toolkit.netmodel.ideal`); None without a bottleneck
    queue_*_ns:     queueing delay of the packets on the forward path
    jain_index:     None for a single flow
    """

    flows: list[FlowResult]
    duration_ns: int
    goodput_bps: float
    ideal_bps: float | None
    queue_mean_ns: float
    queue_p95_ns: float
    jain_index: float | None
    samples: list[FlowSample]

    @property
    def ideal_share(self) -> float | None:
        """Goodput as a share of the ideal."""
        return self.goodput_bps / self.ideal_bps if self.ideal_bps else None

    @property
    def is_finished(self) -> bool:
        """Whether every flow had all of its bytes acknowledged."""
        return all(flow.finished_ns is not None for flow in self.flows)

    @property
    def retransmission_ratio(self) -> float | None:
        """Retransmitted bytes per lost byte, over all flows; None if nothing was lost."""
        lost = sum(flow.lost_bytes for flow in self.flows)
        return sum(flow.retransmitted_bytes for flow in self.flows) / lost if lost else None


def jain_index(shares: Sequence[float]) -> float:
    """(sum x)^2 / (n sum x^2): 1 for equal shares, 1/n if one flow has all (Jain, Chiu and Hawe, DEC-TR-301, 1984)."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def jain_index_of(flows: Sequence[FlowResult]) -> float | None:
    """Jain's index of the bytes delivered while all flows were active; None for a single flow or without overlap."""
    start_ns = max(flow.start_ns for flow in flows)
    end_ns = min(flow.end_ns for flow in flows)
    if len(flows) < 2 or end_ns <= start_ns:
        return None
    return jain_index([float(flow.delivered_between(start_ns, end_ns)) for flow in flows])
