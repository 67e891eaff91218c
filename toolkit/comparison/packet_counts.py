"""The `ledger` of a trial: the packets of both directions, as the endpoints and the link counted them.

`toolkit.comparison.packet_audit` fills it in; docs/data-format.md describes each field.
"""

from dataclasses import dataclass

from toolkit.comparison.json_codec import encode, encode_fields


@dataclass(frozen=True, slots=True)
class DirectionAudit:
    """Packets of one direction, counted at the endpoints and by the link between them (see packet_audit.py).

    sent, received:   counted by the endpoints; None where an endpoint does not know
    offered:          packets that reached the link; None where the link counts super-packets
    lost_by_link:     lost or corrupted by the link
    dropped_by_queue: dropped by the link's queue
    lost_pings:       those of the two that belong to the ping beside the transfer, as far as is known
    duplicated:       extra copies made by the link
    in_flight:        still on the link when it was read
    delivered:        left the link, extra copies not counted; None like `offered`
    dropped_by_host:  lost by the endpoints' own kernels
    dropped_by_sender: those of them that the sending end's kernel lost, before the link
    balance:          packets that no counter accounts for; 0 when all is well
    """

    sent: int | None = None
    offered: int | None = 0
    lost_by_link: int = 0
    dropped_by_queue: int = 0
    lost_pings: int = 0
    duplicated: int = 0
    in_flight: int = 0
    delivered: int | None = 0
    received: int | None = None
    dropped_by_host: int = 0
    dropped_by_sender: int = 0
    balance: int = 0

    @property
    def packets(self) -> int:
        """Packets sent, as far as anybody knows."""
        return self.sent or self.offered or 0


@dataclass(frozen=True, slots=True)
class PacketAudit:
    """The `ledger` of a trial.

    forward, backward:   from the sender to the receiver, and back
    wire_bytes:          bytes of IP packets offered, both directions; None where the link counts super-packets
    late_p99_ms:         99th percentile of how late the emulator delivered packets, by its own clock
    ping_late_p95_ms:    95th percentile of how much longer pings took, by the kernel's clock, than the model says
    packets_per_read, packets_per_write: that the emulator took from the sender, and gave to the receiver, together
    held_mean_ms:        how long a packet waited on average to be given together with its neighbours
    emulator_cpu_share:  of one core; 0 where the kernel is the emulator
    dropped_by_emulator: packets that the emulator dropped for its own reasons
    emulator:            what carried the packets: "tun", "switch" or "veth"
    """

    forward: DirectionAudit
    backward: DirectionAudit
    wire_bytes: int | None = 0
    late_p99_ms: float = 0.0
    ping_late_p95_ms: float | None = None
    packets_per_read: float | None = None
    packets_per_write: float | None = None
    held_mean_ms: float | None = None
    emulator_cpu_share: float = 0.0
    dropped_by_emulator: int = 0
    emulator: str | None = None

    def to_json(self) -> dict[str, object]:
        """The forward counts stand at the top level as well."""
        return {**encode(self.forward), **encode_fields(self)}
