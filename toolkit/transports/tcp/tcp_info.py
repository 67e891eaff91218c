"""The kernel's view of a TCP connection: `struct tcp_info`, read with the socket option TCP_INFO.

The structure grows at its end with every few kernels. The layout is therefore a table, and a field that the running
kernel does not fill is absent: nothing here depends on the kernel's version. Other systems number and shape TCP_INFO
differently; no fields are known there.

Read: linux/tcp.h, tcp(7).
"""

import fcntl
import socket
import struct
import sys
import termios
from typing import Final

# In the order of linux/tcp.h, under the kernel's names without their prefix; None stands for bit fields. Times are in
# microseconds unless the name ends in _ms, rates in bytes per second.
_LAYOUT: Final = (
    *(("B", name) for name in ("state", "ca_state", "retransmits", "probes", "backoff", "options", None, None)),
    *(("I", name) for name in ("rto", "ato", "snd_mss", "rcv_mss", "unacked", "sacked", "lost", "retrans", "fackets")),
    *(("I", name) for name in ("last_data_sent_ms", "last_ack_sent_ms", "last_data_recv_ms", "last_ack_recv_ms")),
    *(("I", name) for name in ("pmtu", "rcv_ssthresh", "rtt", "rttvar", "snd_ssthresh", "snd_cwnd", "advmss")),
    *(("I", name) for name in ("reordering", "rcv_rtt", "rcv_space", "total_retrans")),
    *(("Q", name) for name in ("pacing_rate", "max_pacing_rate", "bytes_acked", "bytes_received")),
    *(("I", name) for name in ("segs_out", "segs_in", "notsent_bytes", "min_rtt", "data_segs_in", "data_segs_out")),
    *(("Q", name) for name in ("delivery_rate", "busy_time", "rwnd_limited", "sndbuf_limited")),
    *(("I", name) for name in ("delivered", "delivered_ce")),
    *(("Q", name) for name in ("bytes_sent", "bytes_retrans")),
    *(("I", name) for name in ("dsack_dups", "reord_seen", "rcv_ooopack", "snd_wnd")),
)

# Every field happens to be aligned to its own size, so the compiler adds no padding and neither does the table.
_FIELDS: Final[dict[str, tuple[struct.Struct, int]]] = {}
_end = 0
for _code, _name in _LAYOUT:
    _field = struct.Struct(f"={_code}")
    if _name is not None:
        _FIELDS[_name] = (_field, _end)
    _end += _field.size
_BUFFER_BYTES: Final = 2 * _end
"""More than any kernel fills today."""

OPTION_ECN: Final = 8
"""The bit of `options` that is set if both ends have negotiated ECN."""
_UNKNOWN_RTT: Final = (1 << 32) - 1
"""The kernel's minimum RTT before the first sample."""


def tcp_info(sock: socket.socket) -> dict[str, int]:
    """Return the fields that this kernel fills, by name; empty where TCP_INFO is not available."""
    if not sys.platform.startswith("linux"):
        return {}
    try:
        return parse_tcp_info(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BUFFER_BYTES))
    except OSError:
        return {}


def parse_tcp_info(filled: bytes) -> dict[str, int]:
    """Return the fields that lie within the bytes that a kernel of any version has filled."""
    info: dict[str, int] = {
        name: field.unpack_from(filled, offset)[0]
        for name, (field, offset) in _FIELDS.items()
        if offset + field.size <= len(filled)
    }
    if info.get("min_rtt") == _UNKNOWN_RTT:
        del info["min_rtt"]
    return info


def unacknowledged_bytes(sock: socket.socket) -> int:
    """How much was handed to the kernel and not acknowledged by the peer's. Raises OSError."""
    count: int = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
    return count


def buffer_bytes(sock: socket.socket, option: int) -> int:
    """The size of a socket's send or receive buffer as the kernel has tuned it by now; 0 if it does not say."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, option)
    except OSError:
        return 0


def congestion_control(sock: socket.socket) -> str:
    """Return the name of the congestion control in use; "" if the system does not report it."""
    if not hasattr(socket, "TCP_CONGESTION"):
        return ""
    try:
        name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    except OSError:
        return ""
    return name.split(b"\0", 1)[0].decode("ascii", "replace")
