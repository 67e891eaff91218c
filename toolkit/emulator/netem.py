"""The kernel's emulators on a veth pair: netem for a path, tbf for the rate.

They are the second choice. Both treat a super-packet of UDP as one packet: `gso_max_segs` makes TCP send single
packets, but the kernel splits super-packets of UDP behind the queue. netem's random draws cannot be repeated, its
jitter is uniform and may reorder, and many kernels lack it. tbf counts the bytes of Ethernet frames, 14 more per packet
than IP. It loses the tokens of a timer that is later than its burst lasts, and a busy machine has timers later than
100 us; but a burst of milliseconds lets the start of every transfer pass unshaped.

To read: tc-netem(8), tc-tbf(8), net/sched/sch_netem.c.
"""

import select
import time
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from toolkit.emulator.accounting import KERNEL, NETEM, LinkAccounting, PathAccounting
from toolkit.emulator.interfaces import DEVICE, index_of, statistics
from toolkit.errors import NettoolError, UsageError, printable
from toolkit.netmodel.path import QUEUE
from toolkit.netmodel.spec import LinkSpec, PathSpec, queue_limit_bytes

_TC_H_ROOT = 0xFFFFFFFF
_MIN_TBF_BURST_BYTES = 3 * 1514
_TBF_BURST_S = 0.004  # long enough that a late kernel timer loses no tokens
_HELD_PACKETS = 100_000  # in netem: enough for a second of delay at 1 Gbit/s; the queue is in tbf


def netem_options(path: PathSpec) -> dict[str, int | float]:
    """The netem options for `path` without its rate, in the units of pyroute2: us, percent, packets.

    Raises UsageError for what netem, or its netlink interface here, does not offer.
    """
    unsupported = {
        "bursts": path.burst is not None,
        "delivery traces": path.trace_ms is not None,
        "scheduled changes": bool(path.changes),
        "CoDel": path.queue.codel,
        "ECN marking": path.queue.ecn or path.queue.ecn_threshold_ns is not None,
        "reordering by a delay": bool(path.reorder),
    }
    for name, is_requested in unsupported.items():
        if is_requested:
            raise UsageError(f"the kernel's netem does not support {name}: use nettool's own emulator")
    options: dict[str, int | float] = {"delay": path.delay_ns // 1000, "limit": _HELD_PACKETS}
    for key, value in (("loss", path.loss), ("duplicate", path.duplicate), ("prob_corrupt", path.corrupt)):
        if value:
            options[key] = value * 100
    if path.jitter_ns:
        options["jitter"] = path.jitter_ns // 1000
    return options


def install_netem(netlink: IPRoute, path: PathSpec, spec: LinkSpec) -> None:
    """Make netem the root discipline of DEVICE and tbf its child. Raises NettoolError if the kernel lacks them."""
    options = netem_options(path)
    index = index_of(netlink, DEVICE)
    try:
        netlink.link("set", index=index, gso_max_segs=1)  # of TCP: netem would delay and drop super-packets
        netlink.tc("add", "netem", index, "1:", **options)
    except NetlinkError as error:
        if error.code in (2, 95):  # ENOENT, EOPNOTSUPP: no such discipline
            remedy = "use nettool's own emulator, or load sch_netem"
            raise NettoolError(f"this kernel has no netem: {remedy}") from None
        raise NettoolError(f"the kernel rejects these netem options: {printable(str(error))}") from None
    _add_tbf(netlink, path, spec, parent="1:1")


def _add_tbf(netlink: IPRoute, path: PathSpec, spec: LinkSpec, **place: str) -> None:
    if path.rate_bps is None:
        return
    rate = int(path.rate_bps / 8)
    burst = max(_MIN_TBF_BURST_BYTES, int(rate * _TBF_BURST_S))
    limit = max(burst, queue_limit_bytes(path, spec.rtt_ns))
    try:
        netlink.tc("add", "tbf", index_of(netlink, DEVICE), "2:", rate=rate, burst=burst, limit=limit, **place)
    except NetlinkError as error:
        raise NettoolError(f"this kernel has no tbf: {printable(str(error))}") from None


class KernelBackend:
    """A veth pair with queueing disciplines: the kernel does all the work."""

    def __init__(self, spec: LinkSpec, near: IPRoute, far: IPRoute) -> None:
        """Install the disciplines at both ends. Raises UsageError and NettoolError."""
        self._name, self._reason = ("veth", QUEUE) if spec.is_bare else (NETEM, KERNEL)
        self._near, self._far = near, far
        if not spec.is_bare:
            install_netem(near, spec.forward, spec)
            install_netem(far, spec.backward, spec)
        self.start(spec)

    def start(self, spec: LinkSpec) -> None:
        """Restart the counters. Packets that the kernel holds stay in flight."""
        self._seed = spec.seed
        self._start_ns = time.monotonic_ns()
        self._forward_before = self._counted(self._near, self._far)
        self._backward_before = self._counted(self._far, self._near)

    def run(self, control: int) -> None:
        """Wait until `control` is readable."""
        select.select([control], [], [])

    def accounting(self) -> LinkAccounting:
        """From the counters of the kernel, which count super-packets where offloads are on."""
        forward = self._account(self._counted(self._near, self._far), self._forward_before)
        backward = self._account(self._counted(self._far, self._near), self._backward_before)
        return LinkAccounting(self._name, self._seed, forward, backward, time.monotonic_ns() - self._start_ns)

    def _counted(self, sender: IPRoute, receiver: IPRoute) -> dict[str, int]:
        sent, received = statistics(sender), statistics(receiver)
        return {
            "sent": sent["tx_packets"],
            "sent_bytes": sent["tx_bytes"],
            "received": received["rx_packets"],
            "received_bytes": received["rx_bytes"],
            "queue_dropped": _drops(sender),
            "host_dropped": sent["tx_dropped"],
        }

    def _account(self, now: dict[str, int], before: dict[str, int]) -> PathAccounting:
        counted = {name: value - before[name] for name, value in now.items()}
        # The device counts a packet when netem dequeues it, that is, when it is due. A packet in flight is not in
        # `sent` yet, and the counters of the two devices of a pair agree.
        return PathAccounting(
            offered=counted["sent"] + counted["queue_dropped"],
            offered_bytes=counted["sent_bytes"],
            delivered=counted["received"],
            delivered_bytes=counted["received_bytes"],
            dropped={self._reason: counted["queue_dropped"]},
            host_dropped=counted["host_dropped"],
        )


def _drops(netlink: IPRoute) -> int:
    """Packets dropped by the root discipline of DEVICE, its child included."""
    (root,) = (q for q in netlink.get_qdiscs(index_of(netlink, DEVICE)) if q["parent"] == _TC_H_ROOT)
    counters: Any = root.get_attr("TCA_STATS2")
    queue = counters.get_attr("TCA_STATS_QUEUE") if counters is not None else None
    return int(queue["drops"]) if queue is not None else 0
