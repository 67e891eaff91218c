"""Devices and addresses of the two ends of a link, configured through netlink.

The default addresses are reserved for benchmarks (RFC 2544 section C.2.2, RFC 5180 section 8) and should be in use
nowhere; a user whose network uses them chooses others. An IPv6 address carries the IPv4 address in the last bits of
2001:2::/48.
"""

import contextlib
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface
from pathlib import Path
from typing import NamedTuple

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from toolkit.errors import NettoolError, UsageError, printable

NEAR, FAR = "near", "far"
"""The two ends of a link."""
DEVICE = "link0"
"""The device of each end."""
DEFAULT_NETWORK = "198.18.0.0/30"
_OTHER_NETWORKS = ("198.19.255.252/30", "10.9.8.0/30")
_IPV6_BASE = int(IPv6Address("2001:2::"))
_IFA_F_NODAD = 0x02
_IFF_UP, _IFF_NOARP, _IFF_MULTICAST = 0x1, 0x80, 0x1000


class Addresses(NamedTuple):
    """The IPv4 addresses of both ends, and their prefix length."""

    near: IPv4Address
    far: IPv4Address
    prefix: int

    @classmethod
    def of_network(cls, text: str) -> "Addresses":
        """The first two addresses of an IPv4 network such as 10.9.8.0/30. Raises UsageError."""
        try:
            network = IPv4Network(text)
        except ValueError:
            raise UsageError(f"'{printable(text, 40)}' is not an IPv4 network: write it like 10.9.8.0/30") from None
        if network.prefixlen > 30:
            raise UsageError(f"{network} has no room for two addresses: use a /30 or larger, like 10.9.8.0/30")
        return cls(network[1], network[2], network.prefixlen)

    @property
    def network(self) -> IPv4Network:
        """The network that both ends are in."""
        return IPv4Network((self.near, self.prefix), strict=False)

    @property
    def network_ipv6(self) -> IPv6Network:
        """The IPv6 network that both ends are in."""
        return IPv6Network((_IPV6_BASE + int(self.network.network_address), 96 + self.prefix))

    @property
    def near_ipv6(self) -> IPv6Address:
        """The IPv6 address of the near end."""
        return self.network_ipv6[1]

    @property
    def far_ipv6(self) -> IPv6Address:
        """The IPv6 address of the far end."""
        return self.network_ipv6[2]


def require_unused(addresses: Addresses) -> None:
    """Raise UsageError if this (outer) network namespace uses an address in the range of the link.

    The link would work, but a command meant for the outer host would reach the end of the link instead and measure the
    wrong path.
    """
    with IPRoute() as netlink:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in netlink.get_links()}
        for entry in netlink.get_addr():
            used = ip_interface(f"{entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}").network
            for ours in (addresses.network, addresses.network_ipv6):
                if used.version == ours.version and used.overlaps(ours):
                    where = printable(str(names.get(entry["index"])), 20)
                    raise UsageError(
                        f"{ours} is in use here ({used} on {where}): choose another range, like --addresses 10.9.8.0/30"
                    )


def unused_network() -> str:
    """Return a range that this (outer) network namespace does not use, for a link whose addresses nobody has to know.

    Raises UsageError if it uses all candidates.
    """
    for network in (DEFAULT_NETWORK, *_OTHER_NETWORKS):
        try:
            require_unused(Addresses.of_network(network))
        except UsageError as error:
            failure = error
        else:
            return network
    raise failure


def configure(netlink: IPRoute, address: IPv4Address, ipv6: IPv6Address, prefix: int, mtu_bytes: int) -> None:
    """Bring up the loopback and DEVICE in the namespace of `netlink`. Raises NettoolError.

    Multicast and link-local addresses are off, so that the link carries only what the commands send. A TCP connection
    learns nothing from those before it (tcp_metrics(8)).
    """
    settings = Path("/proc/sys/net")
    for name, value in (
        (f"ipv6/conf/{DEVICE}/addr_gen_mode", "1"),
        (f"ipv6/conf/{DEVICE}/accept_ra", "0"),
        ("ipv4/tcp_no_metrics_save", "1"),
    ):
        with contextlib.suppress(OSError):  # no IPv6, or /proc/sys is read-only: the kernel may send a few packets
            (settings / name).write_text(value)
    try:
        netlink.link("set", index=index_of(netlink, "lo"), state="up")
        index = index_of(netlink, DEVICE)
        netlink.link("set", index=index, mtu=mtu_bytes, txqlen=4000)
        # The ends are introduced to each other. Without address resolution, an IPv6 address joins no multicast group,
        # whose reports the kernel would send at random times.
        netlink.link("set", index=index, flags=_IFF_UP | _IFF_NOARP, change=_IFF_UP | _IFF_NOARP | _IFF_MULTICAST)
        netlink.addr("add", index=index, address=str(address), prefixlen=prefix)
    except NetlinkError as error:
        raise NettoolError(f"cannot configure an end of the link: {printable(str(error))}") from None
    with contextlib.suppress(NetlinkError):  # IPv6 is off, or the MTU is too small for it
        netlink.addr("add", index=index, address=str(ipv6), prefixlen=96 + prefix, flags=_IFA_F_NODAD)


def introduce(netlink: IPRoute, peer: IPRoute, *peer_addresses: IPv4Address | IPv6Address) -> None:
    """Tell the end of `netlink` the link-layer address of the other, so that the link carries no address resolution.

    Raises NettoolError.
    """
    (device,) = peer.get_links(index_of(peer, DEVICE))
    for address in peer_addresses:
        try:
            netlink.neigh(
                "replace",
                ifindex=index_of(netlink, DEVICE),
                dst=str(address),
                lladdr=device.get_attr("IFLA_ADDRESS"),
                state="permanent",
            )
        except NetlinkError as error:
            if address.version == 4:  # IPv6 may be off
                raise NettoolError(f"cannot configure an end of the link: {printable(str(error))}") from None


def make_veth(netlink: IPRoute, far: int) -> None:
    """Make a veth pair: DEVICE here and DEVICE in the namespace of descriptor `far`. Raises NettoolError."""
    try:
        netlink.link("add", ifname=DEVICE, kind="veth", peer={"ifname": DEVICE, "net_ns_fd": far})
    except NetlinkError as error:
        raise NettoolError(f"cannot make a veth pair: {printable(str(error))}") from None


def mtu_and_queue(netlink: IPRoute, name: str) -> tuple[int, str]:
    """The MTU of a device in bytes, and the kind of its root queueing discipline, for example "fq_codel".

    Raises NettoolError if there is no such device.
    """
    for link in netlink.get_links(*netlink.link_lookup(ifname=name)):
        if link.get_attr("IFLA_IFNAME") == name:
            return int(link.get_attr("IFLA_MTU")), str(link.get_attr("IFLA_QDISC"))
    raise NettoolError(f"there is no device '{printable(name, 20)}'")


def statistics(netlink: IPRoute, name: str = DEVICE) -> dict[str, int]:
    """The kernel counters of a device (struct rtnl_link_stats64)."""
    (link,) = netlink.get_links(index_of(netlink, name))
    return dict(link.get_attr("IFLA_STATS64"))


def index_of(netlink: IPRoute, name: str) -> int:
    """The index of an existing interface."""
    return int(netlink.link_lookup(ifname=name)[0])
