"""Devices, addresses and counters of a network namespace, through rtnetlink.

The package pyroute2 can do this too, but it takes a quarter of a second to load, in each process that makes a link and
again in the process behind the link. Only the kernel's queueing disciplines need it (`toolkit.emulator.netem`).

To read: netlink(7), rtnetlink(7), linux/if_link.h, linux/if_addr.h.
"""

import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from typing import NamedTuple

IFF_UP, IFF_MULTICAST = 0x1, 0x1000
IFA_F_NODAD = 0x02

_NEWLINK, _GETLINK, _NEWADDR, _GETADDR, _GETQDISC = 16, 18, 20, 22, 38
_REQUEST, _ACK, _DUMP, _CREATE_NEW = 0x1, 0x4, 0x300, 0x600
_ERROR, _DONE = 2, 3
_IFLA_IFNAME, _IFLA_MTU, _IFLA_TXQLEN, _IFLA_LINKINFO, _IFLA_STATS64, _IFLA_NET_NS_FD = 3, 4, 13, 18, 23, 28
_IFLA_GSO_MAX_SEGS = 40
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_TCA_STATS2, _TCA_STATS_QUEUE = 7, 3
_TC_H_ROOT = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_LINK = struct.Struct("=BxHiII")  # family, device type, index, flags, change mask
_ADDRESS = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
_QDISC = struct.Struct("=BxxxiIII")  # family, index, handle, parent, info
_INT = struct.Struct("=i")
_UINT = struct.Struct("=I")
_STATS64 = struct.Struct("=8Q")  # the first fields of rtnl_link_stats64
_QUEUE = struct.Struct("=IIIII")  # qlen, backlog, drops, requeues, overlimits
_RECEIVE_BYTES = 1 << 16
_TYPE_MASK = 0x3FFF  # without the flags "nested" and "network byte order"


class DeviceCounters(NamedTuple):
    """The kernel's counters of a device (struct rtnl_link_stats64)."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


class Netlink:
    """A connection to the network namespace in which the calling thread creates it. Methods raise OSError."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def index_of(self, device: str) -> int:
        """The index of a device."""
        return self._device(device)[0]

    def counters(self, device: str) -> DeviceCounters:
        """The counters of a device."""
        return DeviceCounters(*_STATS64.unpack_from(self._device(device)[1][_IFLA_STATS64]))

    def queue_drops(self, device: str) -> int:
        """Packets dropped by the root queueing discipline of a device, its children included."""
        request = _QDISC.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        index = self.index_of(device)
        for body in self._ask(_GETQDISC, _DUMP, request):
            _, of_index, _, parent, _ = _QDISC.unpack_from(body)
            attributes = _attributes(body[_QDISC.size :])
            if (of_index, parent) == (index, _TC_H_ROOT) and _TCA_STATS2 in attributes:
                queue = _attributes(attributes[_TCA_STATS2]).get(_TCA_STATS_QUEUE)
                return 0 if queue is None else int(_QUEUE.unpack_from(queue)[2])
        return 0

    def addresses(self) -> list[tuple[str, IPv4Interface | IPv6Interface]]:
        """Every address of the namespace, with the name of its device."""
        names = {}
        for body in self._ask(_GETLINK, _DUMP, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
            names[_LINK.unpack_from(body)[2]] = _name(_attributes(body[_LINK.size :]))
        found = []
        for body in self._ask(_GETADDR, _DUMP, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
            family, prefix, _, _, index = _ADDRESS.unpack_from(body)
            value = _attributes(body[_ADDRESS.size :]).get(_IFA_ADDRESS)
            if family in (socket.AF_INET, socket.AF_INET6) and value is not None:
                found.append((names.get(index, "?"), ip_interface(f"{ip_address(value)}/{prefix}")))
        return found

    def set_up(self, device: str, mtu_bytes: int | None = None, queue_packets: int | None = None) -> None:
        """Bring a device up without multicast, after setting its MTU and the length of its queue."""
        attributes = b""
        for kind, value in ((_IFLA_MTU, mtu_bytes), (_IFLA_TXQLEN, queue_packets)):
            if value is not None:
                attributes += _attribute(kind, _UINT.pack(value))
        self._change(device, 0, 0, attributes)
        self._change(device, IFF_UP, IFF_UP | (0 if mtu_bytes is None else IFF_MULTICAST), b"")

    def limit_offload(self, device: str, packets: int) -> None:
        """Let TCP put at most `packets` packets into one super-packet."""
        self._change(device, 0, 0, _attribute(_IFLA_GSO_MAX_SEGS, _UINT.pack(packets)))

    def add_address(self, device: str, address: IPv4Address | IPv6Address, prefix: int) -> None:
        """Give a device an address, without looking for duplicates."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        request = _ADDRESS.pack(family, prefix, 0, 0, self.index_of(device))
        request += _attribute(_IFA_LOCAL, address.packed) + _attribute(_IFA_ADDRESS, address.packed)
        if address.version == 6:
            request += _attribute(_IFA_FLAGS, _UINT.pack(IFA_F_NODAD))
        self._ask(_NEWADDR, _ACK | _CREATE_NEW, request)

    def add_veth(self, device: str, peer_namespace: int) -> None:
        """Make a pair: `device` here, and a device of that name in the namespace of descriptor `peer_namespace`."""
        name = _attribute(_IFLA_IFNAME, device.encode() + b"\0")
        peer = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + name + _attribute(_IFLA_NET_NS_FD, _INT.pack(peer_namespace))
        kind = _attribute(_IFLA_INFO_KIND, b"veth")
        data = _attribute(_IFLA_INFO_DATA, _attribute(_VETH_INFO_PEER, peer))
        request = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + name + _attribute(_IFLA_LINKINFO, kind + data)
        self._ask(_NEWLINK, _ACK | _CREATE_NEW, request)

    def _change(self, device: str, flags: int, change: int, attributes: bytes) -> None:
        request = _LINK.pack(socket.AF_UNSPEC, 0, self.index_of(device), flags, change) + attributes
        self._ask(_NEWLINK, _ACK, request)

    def _device(self, device: str) -> tuple[int, dict[int, bytes]]:
        """Its index and attributes."""
        request = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, device.encode() + b"\0")
        (body,) = self._ask(_GETLINK, _ACK, request)
        return _LINK.unpack_from(body)[2], _attributes(body[_LINK.size :])

    def _ask(self, kind: int, flags: int, request: bytes) -> list[bytes]:
        """Send a request; return the bodies of the answers."""
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(request), kind, _REQUEST | flags, self._sequence, 0)
        self._socket.send(header + request)
        bodies: list[bytes] = []
        while True:
            data = self._socket.recv(_RECEIVE_BYTES)
            while data:
                size, answer, _, sequence, _ = _HEADER.unpack_from(data)
                body, data = data[_HEADER.size : size], data[_aligned(size) :]
                if sequence != self._sequence:
                    continue
                if answer == _ERROR and (code := -_INT.unpack_from(body)[0]):
                    raise OSError(code, os.strerror(code))
                if answer in (_ERROR, _DONE):
                    return bodies
                bodies.append(body)


def _aligned(size: int) -> int:
    return (size + 3) & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(_aligned(size) - size)


def _attributes(data: bytes) -> dict[int, bytes]:
    return dict(_each_attribute(data))


def _each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        yield kind & _TYPE_MASK, data[_ATTRIBUTE.size : size]
        data = data[_aligned(size) :]


def _name(attributes: dict[int, bytes]) -> str:
    return attributes[_IFLA_IFNAME].rstrip(b"\0").decode(errors="replace")
