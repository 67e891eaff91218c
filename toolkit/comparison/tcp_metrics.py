"""What the kernel remembers of a path from one TCP connection to the next (tcp_metrics(8)), and how to make it forget.

A connection starts with the slow-start threshold and the round trip of the one before it, so that trials in turn are
not independent of each other. nettool's UDP can remember paths and keep tokens too, which the sender of a trial does
not do (`toolkit.comparison.worker`).
"""

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

NOT_SAVED, FLUSHED, KEPT = "not-saved", "flushed", "kept"
_DELETE, _VERSION = 2, 1  # include/uapi/linux/tcp_metrics.h
_KINDS = {"ADDR_IPV4": "ip4addr", "ADDR_IPV6": "ip6addr"}
_ATTRIBUTES = dict(zip((socket.AF_INET, socket.AF_INET6), _KINDS, strict=True))
_SYSCTL = Path("/proc/sys/net/ipv4/tcp_no_metrics_save")


def forget(host: str) -> str:
    """Delete what this kernel remembers of a host, where this user may: NOT_SAVED, FLUSHED or KEPT."""
    with suppress(OSError):
        if _SYSCTL.read_text().strip() == "1":
            return NOT_SAVED
    if os.geteuid() != 0:
        return KEPT
    try:
        addresses = {each[4][0]: each[0] for each in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)}
        for address, family in addresses.items():
            _flush(str(address), _ATTRIBUTES[family])
    except (OSError, ImportError, KeyError):
        return KEPT
    return FLUSHED


def _flush(address: str, attribute: str) -> None:
    """Delete the entries of one peer. Raises OSError and ImportError."""
    from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST, genlmsg  # loads slowly
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.generic import GenericNetlinkSocket

    class Metrics(genlmsg):  # type: ignore[misc]
        nla_map = (("UNSPEC", "none"), *((name, kind) for name, kind in _KINDS.items()))

    message = Metrics()
    message["cmd"], message["version"], message["attrs"] = _DELETE, _VERSION, [(attribute, address)]
    try:
        with GenericNetlinkSocket() as netlink:
            netlink.bind("tcp_metrics", Metrics)
            netlink.nlm_request(message, msg_type=netlink.prid, msg_flags=NLM_F_REQUEST | NLM_F_ACK)
    except NetlinkError as error:
        if error.code != errno.ESRCH:  # there is something to forget
            raise OSError(error.code, os.strerror(error.code)) from None
