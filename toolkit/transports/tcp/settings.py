"""What a user may set of TCP, put on sockets; and the texts of what a system answers to listening and connecting."""

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from toolkit.channel import Address, TransportOptions
from toolkit.errors import UnreachableError, UsageError, printable
from toolkit.transports.tcp.wire import MAX_STREAMS

_AVAILABLE: Final = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
_SO_MAX_PACING_RATE: Final = 47  # asm-generic/socket.h
_MAX_NAME_BYTES: Final = 15  # TCP_CA_NAME_MAX - 1


def check_options(options: TransportOptions) -> None:
    """Raises UsageError for what no connection could be given."""
    if not 1 <= options.streams <= MAX_STREAMS:
        raise UsageError(f"{options.streams} streams are not possible: choose from 1 to {MAX_STREAMS}")
    if options.rate_bps is not None and options.rate_bps < 8 * options.streams:
        raise UsageError(f"a rate of {options.rate_bps:g} bit/s is too low to send anything: choose a higher one")


def configure(sock: socket.socket, options: TransportOptions) -> None:
    """Set up a socket that will connect, or listen: who is accepted inherits everything. Raises UsageError."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if options.congestion_control is not None:
        _set_congestion_control(sock, options.congestion_control)
    if options.rate_bps is not None:
        _set_rate(sock, options.rate_bps / options.streams)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # What the peer's host does not acknowledge for so long ends the connection (RFC 5482).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(options.idle_timeout_s * 1e3))


def _set_congestion_control(sock: socket.socket, name: str) -> None:
    if not hasattr(socket, "TCP_CONGESTION"):
        raise UsageError("this system does not let a program choose TCP's congestion control: leave --cc away")
    encoded = name.encode("utf-8", "replace")
    try:
        if not 0 < len(encoded) <= _MAX_NAME_BYTES or b"\0" in encoded:
            raise OSError(errno.ENOENT, "no such name")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, encoded)
    except PermissionError as error:
        raise UsageError(
            f"only root may choose the congestion control {printable(name)} here: choose from {_available('allowed')}"
        ) from error
    except OSError as error:
        raise UsageError(
            f"this system's TCP has no congestion control {printable(name)}: choose from {_available('available')}"
        ) from error


def _available(which: str) -> str:
    path = _AVAILABLE.with_name(f"tcp_{which}_congestion_control")
    with suppress(OSError):
        return ", ".join(path.read_text().split())
    return "those that the system's documentation names"


def _set_rate(sock: socket.socket, rate_bps: float) -> None:
    """The kernel paces what it sends (tcp(7)); it counts payload and headers, bytes per second."""
    if not os.path.exists("/proc/sys/net"):
        raise UsageError("this system cannot bound TCP's rate: leave --rate away")
    sock.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, int(rate_bps / 8).to_bytes(8, "little"))


def connect_error(address: Address, error: OSError) -> UnreachableError:
    """Why nobody was reached at `address`, and what to do."""
    if error.errno == errno.ECONNREFUSED:
        return UnreachableError(f"nothing listens at {_shown(address)}; start `nettool recv` there")
    if isinstance(error, TimeoutError):
        return UnreachableError(f"{_shown(address)} does not answer; check the address, and firewalls on the way")
    return UnreachableError(
        f"{_shown(address)} cannot be reached ({_reason(error)}); check the address and the network"
    )


def listen_error(address: Address, error: OSError) -> UnreachableError:
    """Why `address` cannot be listened on, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return UnreachableError(f"TCP port {address.port} is taken by another program; choose one with --port")
    if error.errno in (errno.EACCES, errno.EPERM):
        return UnreachableError(f"TCP port {address.port} needs the rights of root; choose one above 1023 with --port")
    if error.errno == errno.EADDRNOTAVAIL:
        return UnreachableError(f"{printable(address.host)} is no address of this machine; choose one with --bind")
    return UnreachableError(f"cannot listen at {_shown(address)} ({_reason(error)}); choose another address or port")


def _shown(address: Address) -> str:
    return printable(str(address))


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
