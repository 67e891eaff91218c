"""Opens TUN devices, which yield and take the packets of a network namespace.

To read: Documentation/networking/tuntap.rst and include/uapi/linux/if_tun.h of the kernel.
"""

import fcntl
import os
import struct

from toolkit.errors import NettoolError

TUN_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6, _TUN_F_TSO_ECN = 0x01, 0x02, 0x04, 0x08
_TUN_F_USO4, _TUN_F_USO6 = 0x20, 0x40  # since Linux 6.2
_TCP_OFFLOADS = _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6 | _TUN_F_TSO_ECN


class TunError(NettoolError):
    """This machine, or this user, has no TUN devices."""


def open_tun(name: str) -> int:
    """Make the TUN device `name` in the current network namespace. It exists until the descriptor is closed.

    Raises TunError.
    """
    try:
        fd = os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        remedy = "load it with 'sudo modprobe tun', or start the container with '--device /dev/net/tun'"
        raise TunError(f"no {TUN_DEVICE} on this machine: {remedy}") from None
    except PermissionError:
        remedy = f"run 'sudo chmod 666 {TUN_DEVICE}', the mode that most systems use, or run as root"
        raise TunError(f"this user cannot open {TUN_DEVICE}: {remedy}") from None
    except OSError as error:
        raise TunError(f"cannot open {TUN_DEVICE} ({error.strerror}): load it with 'sudo modprobe tun'") from None
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
        try:
            fcntl.ioctl(fd, _TUNSETOFFLOAD, _TCP_OFFLOADS | _TUN_F_USO4 | _TUN_F_USO6)
        except OSError:
            fcntl.ioctl(
                fd, _TUNSETOFFLOAD, _TCP_OFFLOADS
            )  # before Linux 6.2 the kernel segments UDP itself, which is slower
    except OSError as error:
        os.close(fd)
        raise TunError(f"{TUN_DEVICE} refuses a TUN device ({error.strerror}): run as root") from None
    return fd
