"""The account of a trial's packets, from the sending end to the receiving one: it balances, or the cell is marked.

    sent + duplicated = lost by the link + dropped by its queue + under way + dropped by the hosts + received

The two ends count by themselves, the link counts by itself, and neither knows of the other. UDP counts datagrams at
its sockets. What has reached TCP's receiver, its sender tells: it counts what it sent and what it had to send again,
and what was resent and not reported as a duplicate (DSACK, RFC 2883) had not arrived; what the link itself has
duplicated came once more, and is reported too. (The receiver's own count is of no use: the kernel counts a super-packet
from a TUN device once.) On the way back there is hardly anything but acknowledgements, which are never resent, nor
put together: there the sender counts what came.

Pings beside a trial are counted by no end of it. How many requests arrived nobody tells; it is what balances the way
there, between the replies and the requests, and the way back is held to as many replies.

So whatever takes packets away in secret, or is counted by nobody, shows as a balance that is not 0. Some packets are
outside of every count: what a listener answers before there is a connection, the last acknowledgements after a socket
was closed. They are few, and TOLERANCE_* allows for them.
"""

from collections.abc import Mapping
from typing import Any

from toolkit.compare.ping import NO_PINGS, Pings
from toolkit.emulator.accounting import EMULATOR, LinkAccounting, PathAccounting
from toolkit.emulator.link_process import TUN
from toolkit.netmodel.path import AQM, QUEUE

TOLERANCE_PACKETS = 12
TOLERANCE_SHARE = 0.002
HOST_DROP_SHARE = 0.01
MOST_SEGMENTS = 64
"""Of one super-packet: a drop that the host counts once may be so many packets."""


def audit(
    ledger: LinkAccounting, sender: Mapping[str, Any], receiver: Mapping[str, Any], pings: Pings = NO_PINGS
) -> dict[str, Any]:
    """The record's `ledger` from the link's own and the two ends' objects.

    A link of the kernel's own (veth) counts super-packets, so its figures cannot be compared with the ends': there
    the ends are compared with each other, and what is missing is its queue's and the hosts' drops.
    """
    there, back = ledger.forward, ledger.backward
    received = _received_by_tcp(sender, there)
    if received is None:
        received = _first(receiver, "datagrams_received", "packets_received")
    pinged = pings.answered
    if received is not None:  # a reply more than one to a request tells of one more that arrived
        most = pings.sent + pings.replies - pings.answered
        pinged = max(pinged, min(most, there.delivered + there.duplicates - received))
    ways = {
        "forward": _way(ledger, there, _sent(sender, pings.sent), _plus(received, pinged), receiver),
        "backward": _way(
            ledger,
            back,
            _sent(receiver, pinged),
            _plus(_first(sender, "datagrams_received", "packets_received"), pings.replies),
            sender,
        ),
    }
    forward = dict(ways["forward"])
    return {
        **forward,
        "wire_bytes": ledger.forward.offered_bytes + ledger.backward.offered_bytes,
        "late_p99_ms": ledger.late_p99_ns / 1e6,
        "emulator_cpu_share": round(ledger.cpu_share, 4),
        "dropped_by_emulator": ledger.forward.dropped.get(EMULATOR, 0) + ledger.backward.dropped.get(EMULATOR, 0),
        **ways,
    }


def is_balanced(audited: Mapping[str, Any]) -> bool:
    """Whether both ways balance, within what is outside of every count."""
    ways = (audited["forward"], audited["backward"])
    return all(abs(way["balance"] or 0) <= tolerance(way["sent"] or way["offered"]) for way in ways)


def has_host_drops(audited: Mapping[str, Any]) -> bool:
    """Whether an end, and not the path, has lost more than a share that matters."""
    ways = (audited["forward"], audited["backward"])
    return any(way["dropped_by_host"] > HOST_DROP_SHARE * max(1, way["sent"] or way["offered"]) for way in ways)


def tolerance(packets: int) -> float:
    """How many packets may be missing, of so many."""
    return max(TOLERANCE_PACKETS, TOLERANCE_SHARE * packets)


def _way(
    ledger: LinkAccounting, link: PathAccounting, sent: int | None, received: int | None, target: Mapping[str, Any]
) -> dict[str, int | None]:
    is_exact = ledger.emulator == TUN
    queue_drops = link.dropped.get(QUEUE, 0) + link.dropped.get(AQM, 0)
    lost = link.dropped_packets - queue_drops + link.corrupted
    socket_drops = int(target.get("socket_drops", 0))
    told = {
        "sent": sent,
        "offered": link.offered,
        "lost_by_link": lost,
        "dropped_by_queue": queue_drops,
        "duplicated": link.duplicates,
        "in_flight": link.in_flight,
        "delivered": link.delivered,
        "received": received,
    }
    missing_before = sent - link.offered if sent is not None and is_exact else 0
    missing_after = link.delivered + link.duplicates - received if received is not None and is_exact else 0
    if not is_exact and sent is not None and received is not None:
        missing_after = sent - received
    # What the kernels say they dropped, in super-packets, explains up to so many packets of what is missing.
    before = min(max(0, missing_before), link.host_dropped * MOST_SEGMENTS)
    after = min(max(0, missing_after), (socket_drops + (0 if is_exact else queue_drops)) * MOST_SEGMENTS)
    told["dropped_by_host"] = before + (after if is_exact else 0)
    told["balance"] = missing_before + missing_after - before - after + link.imbalance * is_exact
    return told


def _sent(end: Mapping[str, Any], pings: int) -> int | None:
    return _plus(_first(end, "datagrams_sent", "packets_sent"), pings)


def _received_by_tcp(sender: Mapping[str, Any], link: PathAccounting) -> int | None:
    if "duplicates_reported" not in sender or "packets_sent" not in sender:
        return None
    in_vain = max(0, sender["duplicates_reported"] - link.duplicates)
    return int(sender["packets_sent"] - max(0, sender["packets_retransmitted"] - in_vain) + link.duplicates)


def _first(end: Mapping[str, Any], *names: str) -> int | None:
    return next((int(end[name]) for name in names if name in end), None)


def _plus(count: int | None, pings: int) -> int | None:
    return None if count is None else count + pings
