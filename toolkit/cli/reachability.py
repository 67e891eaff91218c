"""Where a receiver can be reached, and what to type at the other end: what its user is told before anybody connects."""

import ipaddress
import socket
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from toolkit.channel import Address

EVERY_ADDRESS: Final = ("", "0.0.0.0", "::")
"""Values of --bind that mean every interface; 0.0.0.0 means IPv4 only."""
_MAX_SHOWN: Final = 6
_WIDTH: Final = 80


def listening_lines(
    bound: Address, transports: Iterable[str], *, is_loopback: bool, needs_directory: bool = True
) -> list[str]:
    """Return the lines that say where a receiver listens and from where it can be reached.

    needs_directory: whether it has to name one to be reached from other machines
    """
    line = f"listening on {bound} ({', '.join(transports)})"
    if is_loopback:
        options = f"--bind 0.0.0.0{' --dir DIR' if needs_directory else ''}"
        return [f"{line}: this machine only", f"for other machines, start it with {options}"]
    if bound.host not in EVERY_ADDRESS:
        return [line]
    found = addresses_here(bound.host)
    if not found:
        return [line, "this machine has no address that others can reach: is it connected to a network?"]
    more = len(found) - _MAX_SHOWN
    listed = ", ".join(found[:_MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return [line, *textwrap.wrap(f"reachable at {listed}", _WIDTH, subsequent_indent="  ", break_on_hyphens=False)]


def addresses_here(bind: str) -> list[str]:
    """Return the addresses of this machine at which others can reach a receiver with this --bind.

    The one that packets would leave from comes first, then IPv4 before IPv6. Link-local addresses are left out: they
    need the name of an interface of the other machine.
    """
    import psutil  # only receivers on every interface need it

    families = (socket.AF_INET,) if bind == "0.0.0.0" else (socket.AF_INET, socket.AF_INET6)
    found = [
        ipaddress.ip_address(one.address)
        for addresses in psutil.net_if_addrs().values()
        for one in addresses
        if one.family in families
    ]
    usable = [str(ip) for ip in sorted(found, key=lambda ip: ip.version) if not (ip.is_loopback or ip.is_link_local)]
    first = outgoing_address(bind)
    return list(dict.fromkeys([first, *usable] if first in usable else usable))


def reachable_address(bind: str) -> str:
    """Return an address at which other machines probably reach this one, or "HOST" if none is known."""
    if bind not in EVERY_ADDRESS:
        return bind
    return next(iter(addresses_here(bind)), "HOST")


def outgoing_address(bind: str) -> str | None:
    """Return the address that packets to other networks leave from; None without a route.

    Connecting a UDP socket sends nothing, but chooses that address. The destinations are reserved for documentation
    (RFC 5737, RFC 3849).
    """
    choices = [(socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")]
    for family, far in choices[:1] if bind == "0.0.0.0" else choices:
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            return str(probe.getsockname()[0])
    return None


def sender_lines(command: str, *, is_loopback: bool, asks_for_code: bool) -> Sequence[str]:
    """Return the lines that say what to type at the other end."""
    where = "on this machine" if is_loopback else "on the other machine"
    return [f"{where}, run this command{' and enter the code' if asks_for_code else ''}:", f"  {command}"]
