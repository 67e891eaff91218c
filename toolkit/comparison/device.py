"""The settings of a network device that change what a transfer meets: its queue, its MTU and its offloads.

They are read through sockets, which may belong to another network namespace. Read: ethtool(8) and
include/uapi/linux/ethtool.h of the kernel.
"""

import array
import fcntl
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from toolkit.errors import NettoolError

_SIOCETHTOOL = 0x8946
_OFFLOADS: Mapping[str, int] = {
    "rx-checksumming": 0x14,
    "tx-checksumming": 0x16,
    "scatter-gather": 0x18,
    "tcp-segmentation-offload": 0x1E,
    "generic-segmentation-offload": 0x23,
    "generic-receive-offload": 0x2B,
}
"""Name as ethtool prints it -> command that reads it (ETHTOOL_GRXCSUM and so on)."""


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """A device, as far as it is known.

    qdisc:     kind of the queue at its root, for example "fq_codel"
    mtu_bytes: largest IP packet
    offloads:  name as ethtool prints it -> whether the device does it
    """

    name: str
    qdisc: str | None = None
    mtu_bytes: int | None = None
    offloads: Mapping[str, bool] = field(default_factory=dict)


def device_settings(name: str, mtu_bytes: int | None, qdisc: str | None, inet: socket.socket) -> DeviceSettings:
    """A device in the network namespace of a socket."""
    return DeviceSettings(name, qdisc, mtu_bytes, _offloads(name, inet))


def local_device(name: str) -> DeviceSettings:
    """A device of this process's network namespace; where the system does not answer, fields stay unknown."""
    mtu_bytes: int | None = None
    qdisc: str | None = None
    with suppress(OSError, ImportError, NettoolError):
        from pyroute2 import IPRoute  # loads slowly

        from toolkit.emulator.interfaces import mtu_and_queue

        with IPRoute() as netlink:
            mtu_bytes, qdisc = mtu_and_queue(netlink, name)
    with socket.socket() as inet:
        return device_settings(name, mtu_bytes, qdisc, inet)


def _offloads(name: str, inet: socket.socket) -> dict[str, bool]:
    found = {}
    for offload, command in _OFFLOADS.items():
        value = array.array("B", struct.pack("II", command, 0))  # struct ethtool_value
        address, _ = value.buffer_info()
        with suppress(OSError):
            fcntl.ioctl(inet.fileno(), _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), address))
            found[offload] = bool(struct.unpack("II", value)[1])
    return found
