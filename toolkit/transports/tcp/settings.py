"""The user's TransportOptions as options of TCP sockets.

Read: tcp(7), socket(7) (SO_MAX_PACING_RATE), RFC 5482 (user timeout), RFC 6298 section 5 (the retransmission timeout
doubles), linux/tcp.h (TCP_RTO_MAX_MS).
"""

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from toolkit.channel import TransportOptions
from toolkit.errors import UsageError, printable
from toolkit.transports.tcp.tcp_info import tcp_info
from toolkit.transports.tcp.wire import MAX_STREAMS
from toolkit.units import MIN_SENDING_RATE_BPS

_PROC: Final = Path("/proc/sys/net/ipv4")
_SO_MAX_PACING_RATE: Final = 47  # asm-generic/socket.h
_MAX_NAME_BYTES: Final = 15  # TCP_CA_NAME_MAX - 1
_TCP_RTO_MAX_MS: Final = 44  # linux/tcp.h, since Linux 6.15
_MAX_RTO_MS: Final = 2_000
_MAX_RTO_RTTS: Final = 4
_BACKLOG_S: Final = 0.1  # of content at a limited rate
_LEAST_BACKLOG_BYTES: Final = 1 << 14
_MOST_BACKLOG_BYTES: Final = (1 << 31) - 1  # an int of C
_LONGEST_RTO_MS: Final = 120_000
"""The kernel's own limit, and the most that it accepts."""


def check_options(options: TransportOptions) -> None:
    """Raises UsageError for options that no TCP connection can have."""
    if not 1 <= options.streams <= MAX_STREAMS:
        raise UsageError(
            f"{options.streams} connections are not possible: choose from 1 to {MAX_STREAMS} with `streams`"
        )
    if options.rate_bps is not None and options.rate_bps < MIN_SENDING_RATE_BPS * options.streams:
        raise UsageError(
            f"a rate of {options.rate_bps:g} bit/s is too low for {options.streams} connections: choose a higher one"
        )


def configure(sock: socket.socket, options: TransportOptions) -> None:
    """Set the options of a socket before it connects or listens; accepted sockets inherit them. Raises UsageError."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    configure_sending(sock, options)
    set_user_timeout(sock, options.idle_timeout_s)


def set_user_timeout(sock: socket.socket, timeout_s: float) -> None:
    """Let the kernel drop a connection on which the peer acknowledges nothing, or takes nothing, for this long.

    See RFC 5482. Raises OSError.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1e3))


def configure_sending(sock: socket.socket, options: TransportOptions) -> None:
    """Set how a socket sends, before it sends content. Raises UsageError."""
    if options.congestion_control is not None:
        _set_congestion_control(sock, options.congestion_control)
    if options.rate_bps is not None:
        _set_rate(sock, options.rate_bps / options.streams)
    if (backlog_bytes := _backlog_bytes(options)) is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, min(backlog_bytes, _MOST_BACKLOG_BYTES))


def check_loaded(congestion_control: str) -> None:
    """Raises UsageError for a congestion control that the kernel would have to load: a peer must not cause that."""
    with suppress(OSError):
        if congestion_control not in (_PROC / "tcp_available_congestion_control").read_text().split():
            raise UsageError(
                f"TCP has no congestion control {printable(congestion_control)} here: "
                f"choose from {_listed('available')}"
            )


def limit_retransmission_timeout(sock: socket.socket) -> None:
    """Let the kernel send a lost segment again at least every 2 s, or every four round trips if they are longer.

    The timeout doubles with each try. After an outage of 10 s, the kernel would try again only every 13 and 26 s, and
    could meet one outage after another until the idle timeout: the outcome of a session then never arrives, and the
    two ends disagree. Call this once the connection has an RTT sample. Kernels before Linux 6.15 have no such option.
    """
    rtt_us = tcp_info(sock).get("rtt")
    if rtt_us is None:  # not Linux: the option's number means something else
        return
    limit_ms = min(max(_MAX_RTO_MS, _MAX_RTO_RTTS * rtt_us // 1000), _LONGEST_RTO_MS)
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, limit_ms)


def _set_congestion_control(sock: socket.socket, name: str) -> None:
    if not hasattr(socket, "TCP_CONGESTION"):
        raise UsageError(
            "this system does not let a program choose TCP's congestion control: omit `congestion_control`"
        )
    encoded = name.encode("utf-8", "replace")
    try:
        if not 0 < len(encoded) <= _MAX_NAME_BYTES or b"\0" in encoded:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, encoded)
    except PermissionError as error:
        raise UsageError(
            f"only root may choose the congestion control {printable(name)}: choose from {_listed('allowed')}"
        ) from error
    except OSError as error:
        raise UsageError(
            f"this system's TCP has no congestion control {printable(name)}: choose from {_listed('available')}"
        ) from error


def _listed(which: str) -> str:
    """Return the names of the "allowed" or "available" congestion controls, for an error message."""
    with suppress(OSError):
        return ", ".join((_PROC / f"tcp_{which}_congestion_control").read_text().split())
    return "those that the system's documentation lists"


def _backlog_bytes(options: TransportOptions) -> int | None:
    """How much may wait in the kernel unsent; None for as much as it takes.

    At a limited rate that would be seconds of content, and a message of a sender that gives up comes after it.
    """
    if options.backlog_bytes is not None or options.rate_bps is None:
        return options.backlog_bytes
    return max(_LEAST_BACKLOG_BYTES, int(options.rate_bps / options.streams / 8 * _BACKLOG_S))


def _set_rate(sock: socket.socket, rate_bps: float) -> None:
    """Let the kernel pace what it sends. It counts payload and headers, in bytes per second."""
    if not _PROC.exists():
        raise UsageError("this system cannot limit TCP's rate: omit `rate_bps`")
    sock.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, int(rate_bps / 8).to_bytes(8, "little"))
