"""The specification of a link: plain values for both directions, validated on construction.

A link has two ends, `near` (where the user's command runs) and `far`. The path from near to far is the *forward* path.
All figures are those of the network layer: a rate counts the bytes of IP packets, without Ethernet framing; a delay is
one-way.

A queue without a size of its own holds one bandwidth-delay product (Villamizar and Song, "High performance TCP in
ANSNET", 1994), and at least a hundred full packets.
"""

from dataclasses import dataclass, field

from toolkit.errors import UsageError
from toolkit.units import format_duration_ns, format_rate, format_size

MIN_QUEUE_BYTES = 150_000  # a hundred packets of 1,500 bytes: room for two 64 KiB super-packets
MIN_RATE_BPS = 1e3
MAX_RATE_BPS = 1e11
MAX_DELAY_NS = 60 * 10**9
MIN_MTU_BYTES, MAX_MTU_BYTES = 576, 9216
WAN, LAN = "wan", "lan"


@dataclass(frozen=True, slots=True)
class BurstLoss:
    """Gilbert-Elliott loss in continuous time: mean sojourn times of the two states, loss probability in each.

    Sojourn times are exponential. The sequence of states depends only on the seed and on time, so every protocol that
    crosses the link meets the same bad periods (Gilbert 1960; Elliott 1963; in continuous time: Yajnik et al. 1999).
    """

    mean_good_ns: int
    mean_bad_ns: int
    loss_good: float = 0.0
    loss_bad: float = 1.0

    @classmethod
    def from_share(cls, bad_share: float, mean_bad_ns: int, loss_bad: float = 1.0) -> "BurstLoss":
        """Bad for `bad_share` of the time, in bursts of `mean_bad_ns` on average. Raises UsageError."""
        if not 0 < bad_share < 1:
            raise UsageError("the share of the time of a burst must lie between 0% and 100%: write for example 1%:20ms")
        if mean_bad_ns <= 0:
            raise UsageError("the mean length of a burst must be more than 0: write for example 1%:20ms")
        return cls(round(mean_bad_ns * (1 - bad_share) / bad_share), mean_bad_ns, 0.0, loss_bad)

    @property
    def mean_loss(self) -> float:
        """The long-run loss ratio of evenly spaced packets."""
        bad = self.mean_bad_ns / (self.mean_bad_ns + self.mean_good_ns)
        return bad * self.loss_bad + (1 - bad) * self.loss_good


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """The queue before the bottleneck.

    limit_bytes:      drop-tail limit of the backlog; without any limit, one bandwidth-delay product
    limit_ns:         the same limit in time: the bytes that the current rate carries in `limit_ns`
    codel:            CoDel (RFC 8289) with `target_ns` and `interval_ns`, in addition to the limit
    ecn:              CoDel marks ECN-capable packets instead of dropping them (RFC 8289 section 3, RFC 3168)
    ecn_threshold_ns: without CoDel: mark packets that will wait longer (step marking, RFC 8257 section 3.1)
    """

    limit_bytes: int | None = None
    limit_ns: int | None = None
    codel: bool = False
    target_ns: int = 5_000_000
    interval_ns: int = 100_000_000
    ecn: bool = False
    ecn_threshold_ns: int | None = None


@dataclass(frozen=True, slots=True)
class LinkChange:
    """A scheduled change: the fields that are not None apply from `at_ns` on; a blackout lasts `blackout_ns`.

    Times count from the start of the link.
    """

    at_ns: int
    rate_bps: float | None = None
    delay_ns: int | None = None
    loss: float | None = None
    blackout_ns: int | None = None


@dataclass(frozen=True, slots=True)
class PathSpec:
    """One direction of a link.

    rate_bps:         bottleneck rate in bits of IP packets per second; None for no bottleneck
    trace_ms:         a delivery trace instead of a rate (`toolkit.netmodel.mahimahi`)
    delay_ns:         one-way propagation delay
    jitter_ns:        mean of an additional exponential delay. Packets keep their order, and packets close in time
                      share one draw, unless `jitter_reorders`: then each packet draws its own and may overtake
    loss:             independent loss probability of each packet
    burst:            Gilbert-Elliott loss
    duplicate, corrupt: independent probabilities of each packet; a corrupted packet arrives with one bit flipped
    reorder:          probability that a packet is held back by `reorder_delay_ns`
    changes:          in order of time
    """

    rate_bps: float | None = None
    trace_ms: tuple[int, ...] | None = None
    delay_ns: int = 0
    jitter_ns: int = 0
    jitter_reorders: bool = False
    loss: float = 0.0
    burst: BurstLoss | None = None
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0
    reorder_delay_ns: int = 5_000_000
    queue: QueueSpec = field(default_factory=QueueSpec)
    changes: tuple[LinkChange, ...] = ()

    def __post_init__(self) -> None:
        if self.rate_bps is not None:
            if self.trace_ms is not None:
                raise UsageError("a path has a rate or a delivery trace, not both: leave one of them out")
            _check_rate(self.rate_bps)
        for delay_ns in (self.delay_ns, self.jitter_ns, self.reorder_delay_ns):
            _check_delay(delay_ns)
        for name in ("loss", "duplicate", "corrupt", "reorder"):
            _check_probability(name, getattr(self, name))
        if self.burst is not None:
            _check_probability("loss in a burst", self.burst.loss_bad)
            _check_probability("loss between bursts", self.burst.loss_good)
        self._check_queue()
        self._check_changes()

    def _check_queue(self) -> None:
        queue = self.queue
        if queue.limit_bytes is not None and queue.limit_ns is not None:
            raise UsageError("a queue has a limit in bytes or in time, not both: leave one of them out")
        if queue.limit_bytes is not None and queue.limit_bytes < MIN_MTU_BYTES:
            raise UsageError(f"a queue of {queue.limit_bytes} bytes holds no packet: make it 3kB or more")
        if min(v for v in (queue.limit_ns, queue.target_ns, queue.interval_ns, 1) if v is not None) <= 0:
            raise UsageError("the times of a queue must be more than 0: write for example 50ms")
        if self.rate_bps is None and self.trace_ms is None and (queue.codel or queue.ecn_threshold_ns is not None):
            raise UsageError("CoDel and ECN need a bottleneck: give the link a rate or a trace")
        if queue.codel and queue.ecn_threshold_ns is not None:
            raise UsageError("CoDel marks at its own target: write codel,ecn, or a threshold like 200kB,ecn=5ms")

    def _check_changes(self) -> None:
        if any(b.at_ns < a.at_ns for a, b in zip(self.changes, self.changes[1:], strict=False)):
            raise UsageError("changes must be in order of time: sort them")
        for change in self.changes:
            if change.at_ns < 0 or (change.blackout_ns is not None and change.blackout_ns <= 0):
                raise UsageError("a change needs a time of 0 or later, and a blackout a length of more than 0")
            if change.rate_bps is not None:
                if self.rate_bps is None:
                    raise UsageError("a change of rate needs a link with a rate: add `rate`")
                _check_rate(change.rate_bps)
            if change.delay_ns is not None:
                _check_delay(change.delay_ns)
            if change.loss is not None:
                _check_probability("loss", change.loss)

    @property
    def mean_rate_bps(self) -> float | None:
        """The initial rate, or the average rate of the trace; None without a bottleneck."""
        if self.trace_ms is None:
            return self.rate_bps
        return len(self.trace_ms) * TRACE_OPPORTUNITY_BYTES * 8e3 / self.trace_ms[-1]


TRACE_OPPORTUNITY_BYTES = 1504
"""Bytes that one line of a mahimahi trace delivers: `PACKET_SIZE` in its src/packet/packetshell.hh."""


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """Both directions, the MTU of both ends, and the seed of all random draws.

    kind: LAN has no emulated delay unless its paths say so, and without anything to emulate it is as fast as the kernel
    """

    forward: PathSpec = field(default_factory=PathSpec)
    backward: PathSpec = field(default_factory=PathSpec)
    mtu_bytes: int = 1500
    seed: int = 1
    kind: str = WAN

    def __post_init__(self) -> None:
        if not MIN_MTU_BYTES <= self.mtu_bytes <= MAX_MTU_BYTES:
            raise UsageError(f"an MTU must lie between {MIN_MTU_BYTES} and {MAX_MTU_BYTES} bytes")
        if not 0 <= self.seed < 1 << 64:
            raise UsageError("a seed must be a whole number from 0 to 18446744073709551615")

    @property
    def is_bare(self) -> bool:
        """Whether it is a LAN of which nothing is to be emulated."""
        return self.kind == LAN and self.forward == self.backward == PathSpec()

    @property
    def rtt_ns(self) -> int:
        """The propagation delay of both directions, without queues."""
        return self.forward.delay_ns + self.backward.delay_ns


def queue_limit_bytes(path: PathSpec, rtt_ns: int, rate_bps: float | None = None) -> int:
    """The capacity of the queue of `path` at `rate_bps` (default: mean rate) and `rtt_ns`; 0 without a bottleneck."""
    if path.queue.limit_bytes is not None:
        return path.queue.limit_bytes
    rate_bps = path.mean_rate_bps if rate_bps is None else rate_bps
    if rate_bps is None:
        return 0
    if path.queue.limit_ns is not None:
        return int(rate_bps * path.queue.limit_ns / 8e9)
    return max(MIN_QUEUE_BYTES, int(rate_bps * rtt_ns / 8e9))


def describe_path(path: PathSpec, rtt_ns: int) -> str:
    """`path` in one line for users, with the resulting size of its queue."""
    parts = []
    if path.trace_ms is not None and path.mean_rate_bps is not None:
        parts.append(f"trace of {format_rate(path.mean_rate_bps)} on average")
    elif path.rate_bps is not None:
        parts.append(format_rate(path.rate_bps))
    parts.append(f"delay {format_duration_ns(path.delay_ns)}")
    if path.jitter_ns:
        kind = " reordering" if path.jitter_reorders else ""
        parts.append(f"jitter {format_duration_ns(path.jitter_ns)}{kind}")
    for name in ("loss", "duplicate", "corrupt", "reorder"):
        if value := getattr(path, name):
            parts.append(f"{name} {value:.4g}")
    if path.burst is not None:
        parts.append(f"bursts of {format_duration_ns(path.burst.mean_bad_ns)}, {path.burst.mean_loss:.3%} lost")
    if path.mean_rate_bps is not None:
        codel = "CoDel, at most " if path.queue.codel else ""
        parts.append(f"queue {codel}{format_size(queue_limit_bytes(path, rtt_ns))}")
    if path.changes:
        parts.append(f"{len(path.changes)} changes")
    return ", ".join(parts)


def _check_rate(rate_bps: float) -> None:
    if not MIN_RATE_BPS <= rate_bps <= MAX_RATE_BPS:
        raise UsageError("the rate of a link must lie between 1kbit and 100Gbit")


def _check_delay(delay_ns: int) -> None:
    if not 0 <= delay_ns <= MAX_DELAY_NS:
        raise UsageError("a delay must lie between 0ms and 60s")


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UsageError(f"{name} must lie between 0% and 100%")
