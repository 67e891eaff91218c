"""A LAN with a rate on queues of the kernel: for users without a TUN device, which the models need.

    near: DEVICE --veth-- near [bridge] far --veth-- DEVICE :far
                          tbf           tbf

The kernel cuts the super-packets of TCP and UDP into packets before they leave an end, as a network card does, because
the devices of the ends do not segment. So the queue of a port receives, counts and drops packets as on a wire. Each
port has a token bucket filter (tbf) and a first-in, first-out queue, limited in bytes of IP packets. The receiving end
merges packets again (GRO), which makes reception cheap. There is no delay but that of the queue and of the kernel, and
no other impairment.

It is the second choice. The work of the queues is done in the system calls of the sender, and a timer for each packet
is dear in a virtual machine: 12 us a packet were measured there, as long as it takes at 1 Gbit/s, so that the sender
cannot fill the queue. And tbf loses the tokens of a timer that is later than its bucket lasts; on a machine without a
free processor, the rate is then lower. The check of the link measures it. A larger bucket would help, but passes as
many bytes without shaping after each pause (BURST_S).

To read: tc-tbf(8), tc-stab(8), veth(4), drivers/net/veth.c and net/sched/sch_tbf.c of the kernel.
"""

import os
import select
import struct
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.tcmsg.common import tick_in_usec

from toolkit.emulator import namespaces
from toolkit.emulator.accounting import EMULATOR, SWITCH, Bottleneck, LinkAccounting, PathAccounting
from toolkit.emulator.interfaces import DEVICE, FAR, NEAR, index_of, statistics
from toolkit.errors import NettoolError, printable
from toolkit.netmodel.path import QUEUE
from toolkit.netmodel.spec import LAN, LinkSpec, PathSpec, QueueSpec, queue_limit_bytes

BURST_S = 120e-6
_LEAST_BURST_PACKETS = 2
_ETHERNET_BYTES = 14
_MAX_RATE_BPS = 8.0 * (2**32 - 1)  # tbf's field has 32 bits for bytes per second
_BRIDGE = "switch"
_TC_H_ROOT = 0xFFFFFFFF
_SETTINGS = (
    ("ipv6/conf/default/disable_ipv6", "1"),  # the ports send no packets of their own
    ("bridge/bridge-nf-call-iptables", "0"),  # nor does a packet filter see every packet
    ("bridge/bridge-nf-call-ip6tables", "0"),
)
_SEGMENTATION = (
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-udp-segmentation",
)
_MERGING = "rx-gro"
_IP_BYTES = struct.pack("=HHBBhiIIII", 28, 1, 0, 0, 0, -_ETHERNET_BYTES, 0, 0, 0, 0)
"""TCA_STAB_BASE with a struct tc_sizespec, which pyroute2 takes packed: sizes are without the Ethernet header."""


class SwitchError(NettoolError):
    """This kernel, or this user, cannot make the switch."""


def can_switch(spec: LinkSpec) -> bool:
    """Whether `spec` is a LAN with rates and plain queues, and nothing else to emulate."""
    return spec.kind == LAN and _is_plain(spec.forward) and _is_plain(spec.backward)


def _is_plain(path: PathSpec) -> bool:
    queue = QueueSpec(limit_bytes=path.queue.limit_bytes, limit_ns=path.queue.limit_ns)
    plain = PathSpec(rate_bps=path.rate_bps, queue=queue)
    return path == plain and path.rate_bps is not None and path.rate_bps <= _MAX_RATE_BPS


def make_switch(near: int, far: int, mtu_bytes: int) -> IPRoute:
    """Move this process into a new network namespace with a bridge. Its ports NEAR and FAR lead to DEVICE at the ends.

    `near` and `far` are descriptors of the ends' namespaces. Returns a netlink socket of the new one, which keeps it
    alive and which the caller closes. Raises SwitchError.
    """
    try:
        os.close(namespaces.new_network())
    except NettoolError as error:
        raise SwitchError(str(error)) from None
    netlink = IPRoute()
    try:
        _make_bridge(netlink, near, far, mtu_bytes)
    except BaseException:
        netlink.close()
        raise
    return netlink


def _make_bridge(netlink: IPRoute, near: int, far: int, mtu_bytes: int) -> None:
    for setting, value in _SETTINGS:
        with suppress(OSError):  # this kernel has no such setting, or /proc/sys is read-only
            Path("/proc/sys/net", setting).write_text(value)
    try:
        netlink.link(
            "add", ifname=_BRIDGE, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0, mtu=mtu_bytes
        )
        bridge = index_of(netlink, _BRIDGE)
        netlink.link("set", index=bridge, state="up")
        for name, namespace in ((NEAR, near), (FAR, far)):
            netlink.link("add", ifname=name, kind="veth", peer={"ifname": DEVICE, "net_ns_fd": namespace})
            set_offloads(name, is_merging=False)
            netlink.link("set", index=index_of(netlink, name), mtu=mtu_bytes, master=bridge, state="up")
    except NetlinkError as error:
        raise SwitchError(f"this kernel cannot bridge two veth pairs ({printable(str(error))})") from None


def set_offloads(device: str, *, is_merging: bool) -> None:
    """Have the kernel cut what leaves `device`, in this network namespace, into packets; merge what arrives, or not.

    Raises SwitchError.
    """
    try:
        with closing(IoctlEthtool(device)) as ethtool:
            features = ethtool.get_features()
            for name in _SEGMENTATION:
                if name in features:  # a kernel without a kind of segmentation does not offload it
                    features[name] = False
            if _MERGING in features:
                features[_MERGING] = is_merging
            ethtool.set_features(features)
    except (EthtoolError, OSError) as error:
        raise SwitchError(f"this kernel cannot switch segmentation off ({printable(str(error))})") from None


class _Port:
    """A port of the switch: counts what enters it from its end, and limits what leaves it to its end."""

    def __init__(self, netlink: IPRoute, name: str) -> None:
        self._netlink = netlink
        self._name = name
        self._index = index_of(netlink, name)

    def limit(self, path: PathSpec, mtu_bytes: int) -> None:
        """Install the rate and the queue of `path`. Raises SwitchError."""
        assert path.rate_bps is not None
        rate = int(path.rate_bps / 8)
        burst = max(_LEAST_BURST_PACKETS * mtu_bytes, int(rate * BURST_S))
        limit = max(mtu_bytes, queue_limit_bytes(path, 0))  # an empty queue accepts any packet
        try:
            self._netlink.tc("add", "tbf", self._index, "1:", rate=rate, burst=burst, limit=limit, stab=_IP_BYTES)
        except NetlinkError as error:
            raise SwitchError(f"this kernel has no token bucket filter ({printable(str(error))})") from None

    def bottleneck(self) -> Bottleneck:
        """What the kernel has installed."""
        installed = self._queue().get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")
        rate = int(installed["rate"])
        return Bottleneck(rate * 8.0, round(installed["buffer"] / tick_in_usec * rate / 1e6), int(installed["limit"]))

    def counters(self) -> dict[str, int]:
        """The counters of the kernel since the port was made.

        entered, entered_bytes: packets from the end
        left, left_bytes:       packets that the queue passed on
        queue_dropped, waiting: packets that the queue dropped, and those in it
        refused:                packets that the end's device dropped behind the queue
        """
        device = statistics(self._netlink, self._name)
        queue = self._queue().get_attr("TCA_STATS2")
        passed, state = queue.get_attr("TCA_STATS_BASIC"), queue.get_attr("TCA_STATS_QUEUE")
        return {
            "entered": device["rx_packets"],
            "entered_bytes": device["rx_bytes"] - _ETHERNET_BYTES * device["rx_packets"],
            "left": passed["packets"],
            "left_bytes": passed["bytes"],
            "queue_dropped": state["drops"],
            "waiting": state["qlen"],
            "refused": device["tx_dropped"],
        }

    def _queue(self) -> Any:
        (root,) = (q for q in self._netlink.get_qdiscs(self._index) if q["parent"] == _TC_H_ROOT)
        return root


class SwitchBackend:
    """The ports of a switch, and the packet counters of the link."""

    def __init__(self, spec: LinkSpec, switch: IPRoute, near: IPRoute, far: IPRoute) -> None:
        """Limit the ports NEAR and FAR of `switch`; the other arguments are the two ends. Raises SwitchError."""
        self._near_port, self._far_port = _Port(switch, NEAR), _Port(switch, FAR)
        self._ends = near, far
        self._far_port.limit(spec.forward, spec.mtu_bytes)
        self._near_port.limit(spec.backward, spec.mtu_bytes)
        self.start(spec)

    def start(self, spec: LinkSpec) -> None:
        """Restart the counters. What is in the queues then counts as offered after the start."""
        self._seed = spec.seed
        self._start_ns = time.monotonic_ns()
        self._before = self._counted()

    def run(self, control: int) -> None:
        """Wait until `control` is readable."""
        select.select([control], [], [])

    def bottleneck(self) -> Bottleneck:
        """What limits the way from near to far."""
        return self._far_port.bottleneck()

    def accounting(self) -> LinkAccounting:
        """From the counters of the kernel, which count packets."""
        now, before = self._counted(), self._before
        forward, backward = (_accounted(counted, earlier) for counted, earlier in zip(now, before, strict=True))
        return LinkAccounting(SWITCH, self._seed, forward, backward, time.monotonic_ns() - self._start_ns)

    def _counted(self) -> tuple[dict[str, int], dict[str, int]]:
        """The counters of both directions."""
        near, far = self._near_port.counters(), self._far_port.counters()
        return _direction(near, far, self._ends[0]), _direction(far, near, self._ends[1])


def _direction(begin: dict[str, int], end: dict[str, int], sender: IPRoute) -> dict[str, int]:
    """The counters of one direction, from those of the port where it begins and of the one where it ends."""
    entered = {name: begin[name] for name in ("entered", "entered_bytes")}
    return {**end, **entered, "host_dropped": statistics(sender)["tx_dropped"]}


def _accounted(now: dict[str, int], before: dict[str, int]) -> PathAccounting:
    counted = {name: value - before[name] for name, value in now.items()}
    return PathAccounting(
        offered=counted["entered"] + before["waiting"],
        offered_bytes=counted["entered_bytes"],
        delivered=counted["left"] - counted["refused"],
        delivered_bytes=counted["left_bytes"],
        dropped={QUEUE: counted["queue_dropped"], EMULATOR: counted["refused"]},
        in_flight=now["waiting"],
        host_dropped=counted["host_dropped"],
    )
