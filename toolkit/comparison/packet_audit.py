"""The audit of a trial's packets, from the sending endpoint to the receiving one: it balances, or the trial is marked.

    sent + duplicated = lost by the link + dropped by its queue + in flight + dropped by hosts + received

The two endpoints and the link count independently. UDP counts datagrams at its sockets. How many segments reached the
receiver of TCP follows from the sender's counters: segments sent, minus those it had to retransmit. If DSACK (RFC 2883)
reports a retransmission as a duplicate, the original had arrived. Duplicates that the link itself made are reported as
well, and add to what was received. (The receiver's own count is of no use: the kernel counts a super-packet from a TUN
device once.) The way back carries hardly anything but acknowledgements, which are neither retransmitted nor merged:
there the sender counts what arrived.

Pings beside a trial are counted by no endpoint, so the number of requests that arrived is unknown. The audit takes the
number that balances the forward direction, between the answered and the sent ones, and holds the way back to as many
replies.

Whatever drops packets silently, or forgets to count them, shows up as a balance other than 0. A few packets are outside
every count: what a listener answers before there is a connection, the last acknowledgements after a socket was closed.
TOLERANCE_PACKETS and TOLERANCE_SHARE allow for them.
"""

from dataclasses import replace

from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.packet_counts import DirectionAudit, PacketAudit
from toolkit.comparison.ping import NO_PINGS, Pings
from toolkit.comparison.stats import quantile
from toolkit.emulator.accounting import COUNTS_PACKETS, EMULATOR, SWITCH, LinkAccounting, PathAccounting
from toolkit.netmodel.path import AQM, QUEUE

TOLERANCE_PACKETS = 12
TOLERANCE_SHARE = 0.002
HOST_DROP_SHARE = 0.01
_LEAST_PINGS = 20
MAX_SEGMENTS = 64
"""Segments in one super-packet: a drop that a host counts once may stand for as many packets."""


def audit(
    link: LinkAccounting, sender: EndpointResult, receiver: EndpointResult, pings: Pings = NO_PINGS
) -> PacketAudit:
    """The audit of one trial from the counters of the link and the results of the two endpoints.

    A veth pair counts super-packets, which cannot be compared with the packets of the endpoints: its counts are left
    out. It has no queue, and the endpoints are compared with each other.
    """
    forward, backward = link.forward, link.backward
    received = _received_by_tcp(sender, forward)
    if received is None:
        received = _first(receiver.datagrams_received, receiver.packets_received)
    requests_arrived = pings.answered
    if received is not None:  # a second reply to a request shows that the request arrived twice
        most = pings.sent + pings.replies - pings.answered
        requests_arrived = max(requests_arrived, min(most, forward.delivered + forward.duplicates - received))
    is_exact = link.emulator in COUNTS_PACKETS
    is_known = received is not None and is_exact
    lost_pings = max(0, pings.sent - requests_arrived) if is_known else 0
    acknowledged = _first(sender.datagrams_received, sender.packets_received)
    return PacketAudit(
        forward=replace(
            _direction(link, forward, _sent(sender, pings.sent), _plus(received, requests_arrived), receiver),
            lost_pings=lost_pings,
        ),
        backward=_direction(
            link, backward, _sent(receiver, requests_arrived), _plus(acknowledged, pings.replies), sender
        ),
        emulator=link.emulator,
        wire_bytes=forward.offered_bytes + backward.offered_bytes if is_exact else None,
        late_p99_ms=link.late_p99_ns / 1e6,
        ping_late_p95_ms=_ping_late_p95_ms(link, pings),
        packets_per_read=round(forward.offered / forward.reads, 2) if forward.reads else None,
        packets_per_write=round(forward.delivered / forward.writes, 2) if forward.writes else None,
        held_mean_ms=round(forward.held_mean_ns / 1e6, 4) if forward.writes else None,
        emulator_cpu_share=round(link.cpu_share, 4),
        dropped_by_emulator=forward.dropped.get(EMULATOR, 0) + backward.dropped.get(EMULATOR, 0),
    )


def _ping_late_p95_ms(link: LinkAccounting, pings: Pings) -> float | None:
    """How late the emulator was by the clock of the kernel, which also sees what waits to be read by the emulator."""
    there, back = link.forward.echo_delays_ns, link.backward.echo_delays_ns
    late_ns = [
        round_trip_ns - there[sequence] - back[sequence]
        for sequence, round_trip_ns in pings.round_trips_ns.items()
        if sequence in there and sequence in back
    ]
    return round(quantile(late_ns, 0.95) / 1e6, 3) if len(late_ns) >= _LEAST_PINGS else None


def is_balanced(audited: PacketAudit) -> bool:
    """Whether both directions balance, within the tolerance."""
    return all(abs(each.balance) <= tolerance(each.packets) for each in (audited.forward, audited.backward))


def has_host_drops(audited: PacketAudit) -> bool:
    """Whether the endpoints' hosts, and not the path, lost a share of packets that matters."""
    directions = (audited.forward, audited.backward)
    return any(each.dropped_by_host > HOST_DROP_SHARE * max(1, each.packets) for each in directions)


def has_self_loss(audited: PacketAudit | None, sender: EndpointResult) -> bool:
    """Whether queues of the sender's own host dropped a share of its packets that matters, also if it noticed."""
    dropped = sender.local_drops or 0
    if audited is not None:
        dropped += audited.forward.dropped_by_sender
    sent = _first(sender.datagrams_sent, sender.packets_sent) or 0
    return dropped > HOST_DROP_SHARE * max(1, sent)


def tolerance(packets: int) -> float:
    """Number of missing packets that is tolerated, given the number of packets sent."""
    return max(TOLERANCE_PACKETS, TOLERANCE_SHARE * packets)


def _direction(
    link: LinkAccounting, path: PathAccounting, sent: int | None, received: int | None, target: EndpointResult
) -> DirectionAudit:
    if link.emulator not in COUNTS_PACKETS:
        return _between_endpoints(path, sent, received, target)
    queue_drops = path.dropped.get(QUEUE, 0) + path.dropped.get(AQM, 0)
    missing_before = sent - path.offered if sent is not None else 0
    missing_after = path.delivered + path.duplicates - received if received is not None else 0
    # The kernels count their drops in super-packets: each explains up to MAX_SEGMENTS missing packets. Only the device
    # before a switch has cut them.
    before = min(max(0, missing_before), path.host_dropped * (1 if link.emulator == SWITCH else MAX_SEGMENTS))
    after = min(max(0, missing_after), (target.socket_drops or 0) * MAX_SEGMENTS)
    return DirectionAudit(
        sent=sent,
        offered=path.offered,
        lost_by_link=path.dropped_packets - queue_drops + path.corrupted,
        dropped_by_queue=queue_drops,
        duplicated=path.duplicates,
        in_flight=path.in_flight,
        delivered=path.delivered,
        received=received,
        dropped_by_host=before + after,
        dropped_by_sender=before,
        balance=missing_before + missing_after - before - after + path.imbalance,
    )


def _between_endpoints(
    path: PathAccounting, sent: int | None, received: int | None, target: EndpointResult
) -> DirectionAudit:
    missing = sent - received if sent is not None and received is not None else 0
    by_host = min(max(0, missing), (path.host_dropped + (target.socket_drops or 0)) * MAX_SEGMENTS)
    return DirectionAudit(
        sent=sent,
        offered=None,
        delivered=None,
        received=received,
        dropped_by_host=by_host,
        balance=missing - by_host,
    )


def _sent(endpoint: EndpointResult, pings: int) -> int | None:
    return _plus(_first(endpoint.datagrams_sent, endpoint.packets_sent), pings)


def _received_by_tcp(sender: EndpointResult, path: PathAccounting) -> int | None:
    if sender.duplicates_reported is None or sender.packets_sent is None:
        return None
    in_vain = max(0, sender.duplicates_reported - path.duplicates)
    return sender.packets_sent - max(0, (sender.packets_retransmitted or 0) - in_vain) + path.duplicates


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)


def _plus(count: int | None, pings: int) -> int | None:
    return None if count is None else count + pings
