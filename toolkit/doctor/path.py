"""The path to another machine: round trip and largest packet, by ICMP echo, which needs no nettool there.

The search for the MTU is that of the engine (`toolkit.rudp.pmtud`): an echo request has as many bytes of headers as a
datagram.
"""

import errno
import socket
import statistics
import time
from typing import Final, Protocol

from toolkit.channel import Address
from toolkit.doctor.capability import Capability
from toolkit.emulator.icmp import EchoProbe
from toolkit.errors import printable
from toolkit.rudp.pmtud import BASE_DATAGRAM_BYTES, PathMtu
from toolkit.transports.addresses import resolve
from toolkit.transports.udp.socket import DatagramSocket
from toolkit.units import format_duration_ns

HEADER_BYTES: Final = 28
"""Of IPv4 and UDP, and of IPv4 and ICMP."""
_MAX_DATAGRAM_BYTES: Final = 65_507
_ECHOES: Final = 5
_ANSWER_TIMEOUT_S: Final = 1.0
_IDENTIFIER: Final = 0x6E64
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3


class EchoRoundTrip(Protocol):
    """Sends an echo request of so many bytes and waits for the answer.

    Returns the round trip in ns, None without an answer within the time.
    """

    def __call__(self, packet_bytes: int, timeout_s: float) -> int | None: ...


def examine_path(address: Address) -> list[Capability]:
    """Measure the path to a host. Raises UnreachableError for one that is unknown."""
    candidates = [name for family, name in resolve(address, socket.SOCK_DGRAM) if family == socket.AF_INET]
    if not candidates:
        return [Capability("path", "not measured over IPv6", advice=_other_ways(address))]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        try:
            plain.connect(candidates[0])
        except OSError as error:
            return [Capability("path", f"no route to {printable(address.host)} ({error.strerror})", is_enough=False)]
        interface_bytes = DatagramSocket(plain).max_datagram_bytes(_MAX_DATAGRAM_BYTES) + HEADER_BYTES
    try:
        sock = _echo_socket()
    except OSError:
        return [
            Capability(
                "path",
                "not measured: this user may not send ICMP echo requests",
                is_enough=False,
                command='sudo sysctl -w net.ipv4.ping_group_range="0 2147483647"',
            )
        ]
    with sock:
        return judge_path(address, interface_bytes, _echo_path(sock, str(candidates[0][0])))


def judge_path(address: Address, interface_bytes: int, echo: EchoRoundTrip) -> list[Capability]:
    """Round trip and MTU. interface_bytes: the MTU of the interface that the path begins with."""
    small_bytes = BASE_DATAGRAM_BYTES + HEADER_BYTES
    times_ns = []
    for _ in range(_ECHOES):
        round_trip_ns = echo(min(small_bytes, interface_bytes), _ANSWER_TIMEOUT_S)
        if round_trip_ns is not None:
            times_ns.append(round_trip_ns)
        elif not times_ns:
            return [Capability("path", f"{printable(address.host)} answers no echo", advice=_other_ways(address))]
    median_ns = statistics.median(times_ns)
    answered = "" if len(times_ns) == _ECHOES else f", {len(times_ns)} of {_ECHOES} answered"
    rtt = Capability("path RTT", f"{format_duration_ns(median_ns)}{answered}")
    return [rtt, _judge_mtu(interface_bytes, search_mtu(interface_bytes, 3 * max(times_ns) / 1e9 + 0.05, echo))]


def search_mtu(interface_bytes: int, timeout_s: float, echo: EchoRoundTrip) -> int:
    """Return the largest packet that is answered, in bytes with all headers; the search stops a few bytes short."""
    search = PathMtu(interface_bytes - HEADER_BYTES)
    while (size_bytes := search.probe_size(now_ns := time.monotonic_ns())) is not None:
        search.on_probe_sent()
        if echo(size_bytes + HEADER_BYTES, timeout_s) is None:
            search.on_probe_lost(size_bytes, now_ns)
        else:
            search.on_probe_acked(size_bytes, now_ns)
    return search.datagram_bytes + HEADER_BYTES


def _judge_mtu(interface_bytes: int, mtu_bytes: int) -> Capability:
    if interface_bytes < BASE_DATAGRAM_BYTES + HEADER_BYTES:
        return Capability(
            "path MTU",
            f"{interface_bytes:,} bytes at the interface",
            is_enough=False,
            cost=f"nettool's protocol on UDP needs {BASE_DATAGRAM_BYTES + HEADER_BYTES:,}",
            advice="use nettool tcp-send",
        )
    if mtu_bytes < interface_bytes:
        return Capability(
            "path MTU",
            f"{mtu_bytes:,} bytes or a few more, of {interface_bytes:,} at the interface",
            is_enough=False,
            cost="TCP stalls if a router is silent about it; nettool's protocol on UDP finds the size by itself",
            command="sudo sysctl -w net.ipv4.tcp_mtu_probing=1",
        )
    return Capability("path MTU", f"{mtu_bytes:,} bytes")


def _other_ways(address: Address) -> str:
    return f"run 'nettool echo' there, and here: nettool ping {printable(address.host)}"


def _echo_socket() -> socket.socket:
    """A ping socket (icmp(7)), or a raw one for root, whose packets are not fragmented. Raises OSError."""
    failure: OSError = OSError(errno.EACCES, "no echo socket")
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            sock = socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP)
        except OSError as error:
            failure = error
            continue
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        return sock
    raise failure


def _echo_path(sock: socket.socket, host: str) -> EchoRoundTrip:
    probe = EchoProbe(sock, host, _IDENTIFIER)

    def echo(packet_bytes: int, timeout_s: float) -> int | None:
        number, deadline_s = probe.sent, time.monotonic() + timeout_s
        probe.send(packet_bytes)
        while probe.sent > number and number not in probe.answers_ns:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                break
            probe.receive(left_s)
        return probe.answers_ns.get(number) if probe.sent > number else None

    return echo
