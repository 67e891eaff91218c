"""From what a user writes to socket addresses, in the order in which they are worth trying.

A name has addresses of both families, and one family may be broken on the way without anybody having noticed. So
families are interleaved, IPv6 first (RFC 8305 section 4), within a family in the system's own order (RFC 6724):
whoever tries them staggered reaches a host that has one working address within moments.
"""

import queue
import socket
import threading
from itertools import zip_longest
from typing import Any

from toolkit.channel import Address
from toolkit.errors import UnreachableError, UsageError, printable

SocketAddress = tuple[int, tuple[Any, ...]]
"""A family, and what `connect` and `bind` take in it: a numeric host, a port, and of IPv6 its scope."""

RESOLVE_TIMEOUT_S = 5.0


def resolve(address: Address, kind: int, timeout_s: float = RESOLVE_TIMEOUT_S) -> list[SocketAddress]:
    """Every address of the host, at least one, in Happy Eyeballs order.

    kind: socket.SOCK_STREAM or socket.SOCK_DGRAM. The system's resolver cannot be interrupted; after `timeout_s`
    it is left to itself. Raises UnreachableError where there is no address, UsageError for an impossible port.
    """
    if not 0 <= address.port <= 65535:
        raise UsageError(f"there is no port {address.port}: choose one from 1 to 65535")
    try:
        return interleave(_look_up(address, kind, socket.AI_NUMERICHOST))
    except (OSError, UnicodeError):
        return interleave(_resolve_name(address, kind, timeout_s))


def interleave(addresses: list[SocketAddress]) -> list[SocketAddress]:
    """Without repetitions, families in turn, IPv6 first, the order within each kept."""
    addresses = list(dict.fromkeys(addresses))
    ipv6 = [a for a in addresses if a[0] == socket.AF_INET6]
    others = [a for a in addresses if a[0] != socket.AF_INET6]
    return [a for pair in zip_longest(ipv6, others) for a in pair if a is not None]


def _look_up(address: Address, kind: int, flags: int = 0) -> list[SocketAddress]:
    found = socket.getaddrinfo(address.host, address.port, type=kind, flags=flags)
    return [(int(family), to) for family, _, _, _, to in found]


def host_of(name: tuple[Any, ...]) -> str:
    """The numeric host in what `getsockname`, `getpeername` and `accept` give, with the scope of an IPv6 one."""
    host, scope = str(name[0]), name[3] if len(name) == 4 else 0
    return f"{host}%{scope}" if scope and "%" not in host else host


def address_of(name: tuple[Any, ...]) -> Address:
    """The same as an address; an IPv4 host of an IPv6 socket is shown as what it is (RFC 4291 section 2.5.5.2)."""
    host = host_of(name)
    return Address(host.removeprefix("::ffff:") if "." in host else host, name[1])


def _resolve_name(address: Address, kind: int, timeout_s: float) -> list[SocketAddress]:
    name = printable(address.host)
    answers: queue.SimpleQueue[list[SocketAddress] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(_look_up(address, kind))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise UnreachableError(
            f"the name {name} was not resolved within {timeout_s:g} s; try again, or give the address itself"
        ) from None
    if isinstance(answer, socket.gaierror) and answer.errno == socket.EAI_AGAIN:
        raise UnreachableError(
            f"the name service does not answer for {name}; try again, or give the address itself"
        ) from answer
    if isinstance(answer, Exception) or not answer:
        raise UnreachableError(f"no host is known by the name {name}; check the spelling, or give the address itself")
    return answer
