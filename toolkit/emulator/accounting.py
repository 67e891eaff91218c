"""Account for every packet offered to a link, with counters that must balance:

    offered = delivered + corrupted + dropped (by reason) + in flight

All counters count packets as a wire would carry them. Duplicates, which the link adds, and packets that the host's
kernel loses before the link sees them (full device ring) have counters of their own outside the balance.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from toolkit.netmodel.path import DROP_REASONS
from toolkit.units import format_duration_ns, format_fraction, format_rate

SCHEMA_VERSION = 1
MAX_ECHOES = 2000
TUN, SWITCH, NETEM = "tun", "switch", "netem"
"""The emulators that a link may have: the models, the kernel's switch for a plain LAN, and the kernel's netem."""
COUNTS_PACKETS = frozenset({TUN, SWITCH})
"""The emulators whose counters count packets. On a veth pair or with netem, the kernel counts super-packets."""
EMULATOR = "emulator"
"""Drop reason: the emulator's memory limit was reached, or the far device rejected the packet."""
KERNEL = "kernel"
"""Drop reason: the kernel's netem, whose counter does not distinguish loss from a full queue."""


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """A token bucket filter of the kernel with a drop-tail queue. Sizes are those of IP packets."""

    rate_bps: float
    burst_bytes: int
    queue_bytes: int


@dataclass(slots=True)
class PathAccounting:
    """The packet counters of one direction.

    delivered, corrupted: written to the far device, intact or with a flipped bit (its kernel drops the latter)
    dropped:              by reason, one of `toolkit.netmodel.path.DROP_REASONS`, EMULATOR or KERNEL
    in_flight:            offered, and neither delivered nor dropped yet
    duplicates:           second deliveries
    marked:               delivered packets that this link marked Congestion Experienced
    host_dropped:         super-packets (with SWITCH: packets) lost in the sending end's device, or in the queue of its
                          line, before they reached the link
    offered_bytes, delivered_bytes: bytes of IP packets; duplicates do not count
    reads, writes:        super-packets taken from the sending device, and given to the receiving one
    held_ns:              sum over packets: how long each waited for the last packet of its write
    echo_delays_ns:       for the first MAX_ECHOES echo packets, by sequence number: how long the model delayed each
    """

    offered: int = 0
    offered_bytes: int = 0
    delivered: int = 0
    delivered_bytes: int = 0
    reads: int = 0
    writes: int = 0
    held_ns: float = 0.0
    echo_delays_ns: dict[int, int] = field(default_factory=dict)
    corrupted: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*DROP_REASONS, EMULATOR), 0))
    in_flight: int = 0
    duplicates: int = 0
    marked: int = 0
    host_dropped: int = 0

    @property
    def dropped_packets(self) -> int:
        """Dropped packets, for any reason."""
        return sum(self.dropped.values())

    @property
    def held_mean_ns(self) -> float:
        """How long a packet waited on average to be written together with its neighbours."""
        arrived = self.delivered + self.corrupted + self.duplicates
        return self.held_ns / arrived if arrived else 0.0

    @property
    def imbalance(self) -> int:
        """Packets unaccounted for. Anything but 0 is a defect of the emulator."""
        return self.offered - self.delivered - self.corrupted - self.dropped_packets - self.in_flight

    def to_json(self) -> dict[str, object]:
        """The counters as `nettool link --json` prints them."""
        return {
            "offered_packets": self.offered,
            "offered_bytes": self.offered_bytes,
            "delivered_packets": self.delivered,
            "delivered_bytes": self.delivered_bytes,
            "reads": self.reads,
            "writes": self.writes,
            "held_mean_ns": round(self.held_mean_ns),
            "corrupted_packets": self.corrupted,
            "dropped_packets": dict(self.dropped),
            "in_flight_packets": self.in_flight,
            "duplicate_packets": self.duplicates,
            "marked_packets": self.marked,
            "host_dropped_packets": self.host_dropped,
            "imbalance_packets": self.imbalance,
        }


@dataclass(slots=True)
class LinkAccounting:
    """The counters of a link since the last start of its clock.

    emulator:          what carries the packets: "tun", "switch", "netem" or "veth"
    cpu_ns:            CPU time of the emulator process alone
    late_p50_ns, late_p99_ns, late_max_ns: how long after their due time packets were delivered
    """

    emulator: str
    seed: int
    forward: PathAccounting
    backward: PathAccounting
    duration_ns: int
    cpu_ns: int = 0
    late_p50_ns: int = 0
    late_p99_ns: int = 0
    late_max_ns: int = 0

    @property
    def cpu_share(self) -> float:
        """CPU time as a share of one core."""
        return self.cpu_ns / self.duration_ns if self.duration_ns else 0.0

    def to_json(self) -> dict[str, object]:
        """The counters as `nettool link --json` prints them."""
        return {
            "schema_version": SCHEMA_VERSION,
            "emulator": self.emulator,
            "seed": self.seed,
            "duration_ns": self.duration_ns,
            "cpu_ns": self.cpu_ns,
            "cpu_share": round(self.cpu_share, 4),
            "late_p50_ns": self.late_p50_ns,
            "late_p99_ns": self.late_p99_ns,
            "late_max_ns": self.late_max_ns,
            "forward": self.forward.to_json(),
            "backward": self.backward.to_json(),
        }

    def summary(self) -> Iterator[str]:
        """The counters as a few lines of text."""
        for name, path in (("near -> far", self.forward), ("far -> near", self.backward)):
            parts = [f"{path.offered} packets offered", f"{path.delivered} delivered"]
            if self.duration_ns:
                parts[-1] += f" ({format_rate(path.delivered_bytes * 8e9 / self.duration_ns)} on average)"
            for reason, packets in path.dropped.items():
                if packets:
                    parts.append(f"{packets} dropped: {reason} ({format_fraction(packets / path.offered)})")
            for packets, what in (
                (path.corrupted, "corrupted"),
                (path.duplicates, "duplicated"),
                (path.marked, "marked CE"),
                (path.in_flight, "in flight"),
                (path.host_dropped, "dropped by the host before the link"),
                (path.imbalance, "UNACCOUNTED FOR"),
            ):
                if packets:
                    parts.append(f"{packets} {what}")
            yield f"{name}: " + ", ".join(parts)
        if self.emulator == TUN:
            yield (
                f"emulator: seed {self.seed}, {format_fraction(self.cpu_share)} of a core, late by "
                f"{format_duration_ns(self.late_p50_ns)} (median), {format_duration_ns(self.late_p99_ns)} (p99)"
            )
