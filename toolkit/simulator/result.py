"""What a simulation has to say: figures of each flow, of the queue, and how fairly the flows have shared.

Goodput counts bytes that the receiver has verified, from the flow's first packet (its handshake) to the last
acknowledgement. Retransmitted bytes are payload that was sent beyond what there was to send; lost bytes are payload
that the link dropped or damaged, which is what a perfect sender would send again.
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


class Sample(NamedTuple):
    """How a flow stands at a time; `landed_bytes` is what its receiver has, the rest is the sender's state."""

    time_ns: int
    flow: int
    congestion_window_bytes: int
    bytes_in_flight: int
    pacing_rate_bps: float
    smoothed_rtt_ns: int
    landed_bytes: int
    phase: str


class QueueingDelay:
    """One-way delay beyond propagation and the packet's own transmission: the queue, and jitter where there is any."""

    def __init__(self, spec: PathSpec) -> None:
        self._delay_ns = spec.delay_ns
        self._rate_bps = spec.rate_bps
        self._changes = list(reversed(spec.changes))
        self._delays_ns = array("d")
        self._packets = array("q")

    def add(self, offered_ns: int, fate: Fate, packet_bytes: int) -> None:
        """Packets of `packet_bytes` that were offered together arrive by `fate`. `offered_ns` never goes back."""
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
        """Over all packets; 0 where there was none."""
        return float(np.average(self._delays_ns, weights=self._packets)) if self._packets else 0.0

    def percentile_ns(self, percent: float) -> float:
        """The delay that `percent` of the packets do not exceed."""
        if not self._packets:
            return 0.0
        delays, packets = np.asarray(self._delays_ns), np.asarray(self._packets)
        order = np.argsort(delays)
        reached = np.cumsum(packets[order])
        return float(delays[order[np.searchsorted(reached, reached[-1] * percent / 100)]])


@dataclass(frozen=True, slots=True)
class FlowResult:
    """One flow's figures; times in ns of the simulation's clock, sizes in bytes of payload.

    finished_ns:    when the sender had every byte acknowledged; None where it did not come to that
    delivered_ns:   when the receiver had all that it got
    progress:       (time, bytes landed so far) at the receiver
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
        """Read off the hosts of a flow."""
        connection = client.connection
        end_ns = now_ns if client.over_ns is None else client.over_ns
        failure = ""
        if connection is None:
            failure = "the handshake did not complete"
        elif client.over_ns is None:
            failure = "it had not finished when the clock stopped"
        elif client.settled_ns is None and client.is_lost:
            failure = connection.close_reason
        stats = connection.stats() if connection else None
        unique_bytes = stats.data_sent_bytes if stats else 0
        return cls(
            congestion_control=name,
            start_ns=start_ns,
            finished_ns=client.settled_ns,
            delivered_ns=server.progress[-1][0] if server.progress else end_ns,
            end_ns=end_ns,
            landed_bytes=server.landed_bytes,
            sent_payload_bytes=client.tally.payload_bytes,
            retransmitted_bytes=client.tally.payload_bytes - unique_bytes,
            lost_bytes=client.tally.lost_payload_bytes,
            packets_sent=client.tally.packets,
            lost_packets=dict(client.tally.lost_packets + server.tally.lost_packets),
            acks_sent=server.tally.packets,
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
        """Retransmitted bytes to bytes that were lost; None where nothing was."""
        return self.retransmitted_bytes / self.lost_bytes if self.lost_bytes else None

    def landed_between(self, start_ns: int, end_ns: int) -> int:
        """Bytes that landed after `start_ns` and up to `end_ns`."""
        return self._landed_by(end_ns) - self._landed_by(start_ns)

    def _landed_by(self, time_ns: int) -> int:
        place = bisect_right(self.progress, time_ns, key=lambda entry: entry[0])
        return self.progress[place - 1][1] if place else 0


def jain_index(shares: Sequence[float]) -> float:
    """(sum x)^2 / (n sum x^2): 1 for equal shares, 1/n where one has all (Jain, Chiu and Hawe, DEC-TR-301, 1984)."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def fairness(flows: Sequence[FlowResult]) -> float | None:
    """Jain's index of what landed while all flows were there: the last start to the first end; None if never."""
    start_ns = max(flow.start_ns for flow in flows)
    end_ns = min(flow.end_ns for flow in flows)
    if len(flows) < 2 or end_ns <= start_ns:
        return None
    return jain_index([float(flow.landed_between(start_ns, end_ns)) for flow in flows])
