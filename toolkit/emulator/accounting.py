"""What became of every packet that was offered to a link: counters that must balance.

    offered = delivered + corrupted + every reason for a drop + what is still under way

All of these count packets as a wire would carry them. What the link adds (second deliveries) and what the
host's kernel loses before the link sees it (a full device ring) stand beside the sum, under their own names.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from toolkit.netmodel.path import DROP_REASONS
from toolkit.units import format_duration_ns, format_fraction, format_rate

SCHEMA_VERSION = 1
EMULATOR = "emulator"
"""Dropped because the emulator may hold no more in memory, or because the other end's device took it not."""


@dataclass(slots=True)
class PathAccounting:
    """One direction. All are packets but those named otherwise.

    delivered, corrupted: written to the other end, whole or damaged (its kernel drops and counts the damaged)
    dropped:              by reason: those of `toolkit.netmodel.path.DROP_REASONS`, and EMULATOR
    in_flight:            offered, and neither delivered nor dropped yet
    duplicates:           second deliveries
    marked:               those of the delivered that carry Congestion Experienced by this link
    host_dropped:         lost in the sending end's device ring before they were offered (in super-packets)
    offered_bytes, delivered_bytes: of IP packets; what is delivered twice counts once
    """

    offered: int = 0
    offered_bytes: int = 0
    delivered: int = 0
    delivered_bytes: int = 0
    corrupted: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*DROP_REASONS, EMULATOR), 0))
    in_flight: int = 0
    duplicates: int = 0
    marked: int = 0
    host_dropped: int = 0

    @property
    def dropped_packets(self) -> int:
        """Over all reasons."""
        return sum(self.dropped.values())

    @property
    def imbalance(self) -> int:
        """Packets that nobody accounts for: 0, or the emulator has a defect."""
        return self.offered - self.delivered - self.corrupted - self.dropped_packets - self.in_flight

    def to_json(self) -> dict[str, object]:
        """The counters by name, with the balance."""
        return {
            "offered_packets": self.offered,
            "offered_bytes": self.offered_bytes,
            "delivered_packets": self.delivered,
            "delivered_bytes": self.delivered_bytes,
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
    """A link's account since its clock was started.

    emulator:          what carried the packets: "tun", "netem" or "veth"
    cpu_ns:            CPU time of the emulator's process, and none of the two ends'
    late_p50_ns, late_p99_ns, late_max_ns: by how much packets were delivered after they were due
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
        """Of one core."""
        return self.cpu_ns / self.duration_ns if self.duration_ns else 0.0

    def to_json(self) -> dict[str, object]:
        """The accounting as `nettool link --json` prints it."""
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
        """A few lines for a person."""
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
                (path.in_flight, "still under way"),
                (path.host_dropped, "super-packets lost by the host before the link"),
                (path.imbalance, "UNACCOUNTED FOR"),
            ):
                if packets:
                    parts.append(f"{packets} {what}")
            yield f"{name}: " + ", ".join(parts)
        if self.emulator == "tun":
            yield (
                f"emulator: seed {self.seed}, {format_fraction(self.cpu_share)} of a core, late by "
                f"{format_duration_ns(self.late_p50_ns)} (median), {format_duration_ns(self.late_p99_ns)} (p99)"
            )
