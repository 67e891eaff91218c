"""From a host and a port to a socket: name resolution, staggered connection attempts and binding, for every transport.

A name may have addresses of both families, and one family may be broken on the path without anyone having noticed.
`resolve` therefore interleaves the families, IPv6 first, and `connect_first` starts the attempts a quarter of a second
apart and keeps the one that succeeds first: a host with one working address is reached within moments.

Read: RFC 8305 (Happy Eyeballs: section 4 for the order, section 5 for the delay), RFC 6724 (the system's own order).
"""

import errno
import ipaddress
import os
import queue
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import zip_longest
from math import ceil
from typing import Any, Final, Protocol, TypeVar

from toolkit.channel import RECEIVER, Address, PeerProgram
from toolkit.errors import UnreachableError, UsageError, printable
from toolkit.transports.port_holder import port_holder

SocketAddress = tuple[int, tuple[Any, ...]]
"""A family and the address that `connect` and `bind` take in it: a numeric host, a port, and for IPv6 a scope."""

RESOLVE_TIMEOUT_S: Final = 5.0
CONNECTION_ATTEMPT_DELAY_S: Final = 0.25  # RFC 8305 section 5
_PROTOCOLS: Final[dict[int, str]] = {socket.SOCK_STREAM: "TCP", socket.SOCK_DGRAM: "UDP"}

# Resolving


def resolve(address: Address, kind: int, timeout_s: float = RESOLVE_TIMEOUT_S) -> list[SocketAddress]:
    """Return every socket address of the host, at least one, in the order in which to try them.

    kind: socket.SOCK_STREAM or socket.SOCK_DGRAM. The system's resolver cannot be interrupted; after `timeout_s` it
    is left running in its thread. Raises UnreachableError if the host has no address, UsageError for a port that
    does not exist.
    """
    if not 0 <= address.port <= 65535:
        raise UsageError(f"port {address.port} does not exist: choose one from 1 to 65535")
    try:
        return interleave(_look_up(address, kind, socket.AI_NUMERICHOST))
    except (OSError, UnicodeError):
        return interleave(_resolve_name(address, kind, timeout_s))


def interleave(addresses: list[SocketAddress]) -> list[SocketAddress]:
    """Alternate the families, IPv6 first, without duplicates; the order within each family is kept."""
    addresses = list(dict.fromkeys(addresses))
    ipv6 = [a for a in addresses if a[0] == socket.AF_INET6]
    others = [a for a in addresses if a[0] != socket.AF_INET6]
    return [a for pair in zip_longest(ipv6, others) for a in pair if a is not None]


def _look_up(address: Address, kind: int, flags: int = 0) -> list[SocketAddress]:
    # Python loads its tables of international names (2 ms) before it looks up text; an ASCII name does not need them.
    is_plain = address.host.isascii() and address.host.isprintable()
    host = address.host.encode() if is_plain else address.host
    found = socket.getaddrinfo(host, address.port, type=kind, flags=flags)
    return [(int(family), name) for family, _, _, _, name in found]


def _resolve_name(address: Address, kind: int, timeout_s: float) -> list[SocketAddress]:
    name = printable(address.host)
    answers: queue.SimpleQueue[list[SocketAddress] | Exception] = queue.SimpleQueue()

    def query() -> None:
        try:
            answers.put(_look_up(address, kind))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=query, name="resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise UnreachableError(
            f"the name {name} was not resolved within {timeout_s:g} s; try again, or use an IP address"
        ) from None
    if isinstance(answer, socket.gaierror) and answer.errno == socket.EAI_AGAIN:
        raise UnreachableError(
            f"the name service does not answer for {name}; try again, or use an IP address"
        ) from answer
    if isinstance(answer, Exception) and ":" in address.host and "%" in address.host:
        interface = printable(address.host.partition("%")[2])
        raise UnreachableError(f"this machine has no interface {interface}; `ip link` lists them") from answer
    if isinstance(answer, Exception) or not answer:
        raise UnreachableError(f"no host is known by the name {name}; check the spelling, or use an IP address")
    return answer


def address_of(name: tuple[Any, ...]) -> Address:
    """Return a name from `getsockname`, `getpeername` or `accept` as an Address, with the scope of an IPv6 host.

    An IPv4-mapped IPv6 host becomes IPv4 (RFC 4291 section 2.5.5.2).
    """
    host, scope = str(name[0]), name[3] if len(name) == 4 else 0
    if scope and "%" not in host:
        host = f"{host}%{scope}"
    return Address(host.removeprefix("::ffff:") if "." in host else host, name[1])


# Connecting


class ConnectionAttempt(Protocol):
    """A connection to one socket address that is being set up, with the handshake of the transport if it has one."""

    events: int
    """The poll events that `advance` waits for, such as select.POLLOUT."""

    def fileno(self) -> int:
        """Return the descriptor to poll."""

    def advance(self) -> bool:
        """Do what can be done without waiting; return whether the connection is set up. Raises OSError if it failed."""

    def deadline_s(self) -> float | None:
        """When (`time.monotonic`) to call `advance` even without an event; None for never."""

    def close(self) -> None:
        """Give up and free everything."""


Attempt = TypeVar("Attempt", bound=ConnectionAttempt)


def connect_first(
    candidates: Sequence[SocketAddress], begin: Callable[[SocketAddress], Attempt], deadline_s: float
) -> Attempt:
    """Return the first attempt that succeeds; every other one is closed.

    The next attempt begins CONNECTION_ATTEMPT_DELAY_S after the previous one, or at once if none is running.

    begin:      starts an attempt; may raise OSError
    deadline_s: on the clock of `time.monotonic`

    Raises TimeoutError at the deadline if an attempt is still running. Otherwise raises the OSError of the most
    telling failure: a refusal before any other, else the last. Passes on other exceptions of the attempts.
    """
    waiting = deque(candidates)
    running: list[Attempt] = []
    failures: list[OSError] = []
    winner: Attempt | None = None
    next_start_s = time.monotonic()
    try:
        while (waiting or running) and (now_s := time.monotonic()) < deadline_s:
            if waiting and (now_s >= next_start_s or not running):
                next_start_s = now_s + CONNECTION_ATTEMPT_DELAY_S
                try:
                    running.append(begin(waiting.popleft()))
                except OSError as error:
                    failures.append(error)
                    continue
            for attempt in list(running):
                try:
                    if attempt.advance():
                        winner = attempt
                        return attempt
                except OSError as error:
                    failures.append(error)
                    running.remove(attempt)
                    attempt.close()
            if running:
                _poll(running, min(deadline_s, next_start_s) if waiting else deadline_s)
    finally:
        for attempt in running:
            if attempt is not winner:
                attempt.close()
    refusal = next((failure for failure in failures if failure.errno == errno.ECONNREFUSED), None)
    raise refusal or (_timeout() if running or not failures else failures[-1])


def finish_connecting(attempt: ConnectionAttempt, deadline_s: float) -> None:
    """Wait until one attempt has succeeded. Raises TimeoutError at the deadline, OSError if it fails."""
    while not attempt.advance():
        if time.monotonic() >= deadline_s:
            raise _timeout()
        _poll([attempt], deadline_s)


def _poll(attempts: Sequence[ConnectionAttempt], until_s: float) -> None:
    poll = select.poll()
    for attempt in attempts:
        poll.register(attempt.fileno(), attempt.events)
    times_s = [until_s, *(time_s for attempt in attempts if (time_s := attempt.deadline_s()) is not None)]
    poll.poll(ceil(max(0.0, min(times_s) - time.monotonic()) * 1e3))


def _timeout() -> TimeoutError:
    return TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


def connect_error(address: Address, kind: int, error: OSError, program: PeerProgram = RECEIVER) -> UnreachableError:
    """Return the error for a user whose connection to `address` failed with `error`.

    kind: as for `resolve`; program: what should listen there
    """
    peer, protocol = printable(str(address)), _PROTOCOLS[kind]
    if _lacks_scope(address):
        return _scope_error(address)
    if error.errno == errno.ECONNREFUSED:
        reason = f"nothing listens at {peer} for {protocol}"
        if address.is_loopback or address.host == "localhost":
            return UnreachableError(f"{reason}; start `{program.command}` on this machine")
        return UnreachableError(
            f"{reason}: `{program.command}` does not run there, has another port, or listens for that machine only;"
            f" start it there with {program.for_the_network}"
        )
    if isinstance(error, TimeoutError):
        return UnreachableError(
            f"{peer} does not answer over {protocol}; check the address, firewalls, and that `{program.command}` runs"
            " there"
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return UnreachableError(
            "this process may open no more files or connections: raise the limit (ulimit -n), or use fewer `streams`"
        )
    if error.errno == errno.EMSGSIZE:
        return UnreachableError(
            f"the path to {peer} is too narrow for UDP, which needs an MTU of 1,228 bytes; use `nettool tcp-send`"
        )
    return UnreachableError(
        f"{peer} cannot be reached over {protocol} ({reason_of(error)}); check the address and the network"
    )


# Binding


def bind_first(
    address: Address,
    kind: int,
    configure: Callable[[socket.socket], None] | None = None,
    finish: Callable[[socket.socket], None] | None = None,
) -> socket.socket:
    """Return a socket that is bound to the first usable one of the host's socket addresses.

    The empty host means every address of both families: a dual-stack socket, or IPv4 alone where IPv6 is missing. So
    does "::", except that it needs IPv6.

    kind:      as for `resolve`
    configure: sets the options of a socket before it is bound
    finish:    does what follows binding, such as `listen`

    Raises UnreachableError if no address can be bound, and what `resolve`, `configure` and `finish` raise.
    """
    if address.host:
        candidates = resolve(address, kind)
    else:
        candidates = [(socket.AF_INET6, ("::", address.port)), (socket.AF_INET, ("0.0.0.0", address.port))]
    failure: OSError | None = None
    for family, name in candidates:
        try:
            sock = socket.socket(family, kind)
        except OSError as error:
            failure = failure or error
            continue
        try:
            if configure is not None:
                configure(sock)
            if family == socket.AF_INET6:
                is_every = address.host in ("", "::")
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not is_every))
            sock.bind(name)
            if finish is not None:
                finish(sock)
        except OSError as error:
            sock.close()
            failure = failure or error
            if error.errno == errno.EADDRINUSE:
                break
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    assert failure is not None, "there is at least one candidate"
    raise _bind_error(address, kind, failure) from failure


def _bind_error(address: Address, kind: int, error: OSError) -> UnreachableError:
    protocol = _PROTOCOLS[kind]
    if _lacks_scope(address):
        return _scope_error(address)
    if error.errno == errno.EADDRINUSE:
        return UnreachableError(
            f"{protocol} port {address.port} is in use by {port_holder(kind, address.port)}; choose one with `port`"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return UnreachableError(
            f"{protocol} port {address.port} needs root privileges; choose one above 1023 with `port`"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return UnreachableError(f"{printable(address.host)} is not an address of this machine; choose one with `bind`")
    return UnreachableError(
        f"cannot listen at {printable(str(address))} over {protocol} ({reason_of(error)}); "
        "choose another address or port"
    )


def _lacks_scope(address: Address) -> bool:
    """Whether the host is a link-local IPv6 address (fe80::/10) without its interface, which every link has."""
    try:
        ip = ipaddress.IPv6Address(address.host)
    except ValueError:
        return False
    return ip.is_link_local and ip.scope_id is None


def _scope_error(address: Address) -> UnreachableError:
    host = printable(address.host)
    return UnreachableError(
        f"{host} is a link-local address, which every interface has: add the one that leads there, as in {host}%eth0"
    )


def reason_of(error: OSError) -> str:
    """Return the system's text for an error, for the middle of a sentence: "no route to host"."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
