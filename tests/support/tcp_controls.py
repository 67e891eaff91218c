"""The congestion controls of TCP that the user of the tests may choose: root any that the kernel has, others a few."""

import os
from pathlib import Path

_SYSCTL = Path("/proc/sys/net/ipv4")


def selectable_controls() -> list[str]:
    """The names that this process may set on a socket."""
    which = "available" if os.geteuid() == 0 else "allowed"
    return (_SYSCTL / f"tcp_{which}_congestion_control").read_text().split()


def default_control() -> str:
    """The control of the transport `tcp` in a campaign on this machine: cubic, or the kernel's where it may not be."""
    is_selectable = "cubic" in selectable_controls()
    return "cubic" if is_selectable else (_SYSCTL / "tcp_congestion_control").read_text().strip()
