"""What the host has: processors, encryption, and what its kernel does for sockets.

`examine_host` asks the system; the `judge_*` functions take what was found, whatever machine that is.

Read: udp(7) (UDP_SEGMENT, UDP_GRO), socket(7) (SO_RCVBUF), tcp(7) (tcp_rmem, tcp_allowed_congestion_control).
"""

import socket
from collections.abc import Collection, Sequence
from typing import Final

from toolkit.comparison.host_info import HostInfo, host_info, sysctl, tcp_controls
from toolkit.doctor.capability import Capability
from toolkit.rudp.flow_control import WANTED_SOCKET_BUFFER_BYTES, initial_window_bytes
from toolkit.security.aead import Speeds, measured_speeds
from toolkit.security.keys import AeadName
from toolkit.transports.udp.socket import DatagramSocket
from toolkit.units import format_rate, format_size

_USUAL_CONTROLS: Final = ("cubic", "bbr")  # reno is part of every kernel
_PARTIES: Final = 3
"""Sender, receiver and emulator each keep a processor busy when a comparison runs on one machine."""
_SLOW_CIPHER_MBPS: Final = 2_000
_LONG_RTT_S: Final = 0.1
_WANTED_TCP_BYTES: Final = 32 << 20
_TCP_WINDOW_SHARE: Final = 2
"""The kernel keeps half of a TCP buffer for its own overhead, unless it has measured less."""


def examine_host() -> list[Capability]:
    """Ask this machine, as this user. Takes some milliseconds."""
    host = host_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        udp = DatagramSocket(plain)
        offloads = judge_offloads(udp.can_segment, udp.can_coalesce)
        buffer = judge_receive_buffer(udp.receive_buffer_bytes)
    available = (sysctl("net.ipv4.tcp_available_congestion_control") or "").split()
    return [
        judge_processors(host),
        judge_encryption(measured_speeds()),
        offloads,
        buffer,
        *(
            judge_tcp_buffer(name, host.sysctl[f"net.ipv4.{name}"])
            for name in ("tcp_rmem", "tcp_wmem")
            if f"net.ipv4.{name}" in host.sysctl
        ),
        judge_controls(available, tcp_controls()),
    ]


def judge_processors(host: HostInfo) -> Capability:
    """Judge the number of processors, and whether their clock is steady."""
    cores = host.cores or 1
    found = f"{cores} usable ({host.cpu})"
    slow = sorted(set(host.governors) - {"performance"})
    if slow:
        return Capability(
            "processors",
            f"{found}, governor {', '.join(slow)}",
            is_enough=False,
            cost="rates differ from run to run while the clock adapts",
            command="sudo cpupower frequency-set -g performance",
        )
    if cores < _PARTIES:
        return Capability(
            "processors",
            found,
            is_enough=False,
            cost="sender, receiver and emulator share them: comparisons on this machine say less about fast paths",
            advice="compare with another machine: nettool bench remote HOST",
        )
    return Capability("processors", found)


def judge_encryption(speeds: Speeds) -> Capability:
    """Judge the speed of the two ciphers: the faster one seals every packet."""
    fastest = max(speeds.values())
    found = ", ".join(f"{name} {format_rate(mbps * 1e6)}" for name, mbps in speeds.items())
    if fastest < _SLOW_CIPHER_MBPS:
        return Capability(
            "encryption", found, is_enough=False, cost=f"no transfer is faster than {format_rate(fastest * 1e6)}"
        )
    if speeds[AeadName.AES_256_GCM] < speeds[AeadName.CHACHA20_POLY1305]:
        return Capability(
            "encryption",
            found,
            is_enough=False,
            cost="this processor has no fast AES: ChaCha20-Poly1305 is chosen automatically, and takes more time",
        )
    return Capability("encryption", found)


def judge_offloads(can_segment: bool, can_coalesce: bool) -> Capability:
    """Judge whether one system call can carry many datagrams."""
    offloads = [("UDP_SEGMENT (GSO)", can_segment), ("UDP_GRO", can_coalesce)]
    present = [name for name, is_there in offloads if is_there]
    missing = [name for name, is_there in offloads if not is_there]
    if not missing:
        return Capability("UDP offloads", " and ".join(present))
    return Capability(
        "UDP offloads",
        f"no {' and no '.join(missing)}",
        is_enough=False,
        cost="a system call for each datagram: a third of the rate, or less, where a processor is the limit",
        advice="use Linux 5.0 or newer",
    )


def judge_receive_buffer(buffer_bytes: int) -> Capability:
    """Judge the buffer of a UDP socket. The system reports it with its own overhead, which doubles it."""
    name = "UDP receive buffer"
    if buffer_bytes >= WANTED_SOCKET_BUFFER_BYTES:
        return Capability(name, format_size(buffer_bytes))
    window_bytes = initial_window_bytes(buffer_bytes)
    return Capability(
        name,
        f"{format_size(buffer_bytes)} of {format_size(WANTED_SOCKET_BUFFER_BYTES)}",
        is_enough=False,
        cost=f"a receiver begins with a window of {format_size(window_bytes)}, and loses datagrams of bursts",
        command=f"sudo sysctl -w net.core.rmem_max={WANTED_SOCKET_BUFFER_BYTES // 2}",
    )


def judge_tcp_buffer(name: str, setting: str) -> Capability:
    """Judge a buffer of TCP.

    name: tcp_rmem or tcp_wmem; setting: its least, usual and largest number of bytes
    """
    end = "receive" if name == "tcp_rmem" else "send"
    least, usual, largest = (int(word) for word in setting.split())
    found = f"up to {format_size(largest)}"
    if largest >= _WANTED_TCP_BYTES:
        return Capability(f"TCP {end} buffer", found)
    window_bytes = largest // _TCP_WINDOW_SHARE
    rate = format_rate(8 * window_bytes / _LONG_RTT_S)
    return Capability(
        f"TCP {end} buffer",
        found,
        is_enough=False,
        cost=f"a connection keeps about {format_size(window_bytes)} in flight: {rate} at an RTT of 100 ms",
        command=f'sudo sysctl -w net.ipv4.{name}="{least} {usual} {_WANTED_TCP_BYTES}"',
    )


def judge_controls(available: Sequence[str], choosable: Collection[str]) -> Capability:
    """Judge the congestion controls of TCP; those of nettool's own protocol are always there.

    available: those that the kernel has loaded
    choosable: those of them that this user may choose
    """
    name = "TCP congestion"
    found = f"{', '.join(sorted(choosable)) or 'none'}"
    reserved = [control for control in available if control not in choosable]
    if reserved:
        allowed = " ".join([*sorted(choosable), *reserved])
        return Capability(
            name,
            f"{found}; for root only: {', '.join(reserved)}",
            is_enough=False,
            cost=f"tcp-send --cc {reserved[0]} is refused for this user",
            command=f'sudo sysctl -w net.ipv4.tcp_allowed_congestion_control="{allowed}"',
        )
    missing = [control for control in _USUAL_CONTROLS if control not in available]
    if missing:
        return Capability(
            name,
            f"{found}; not loaded: {', '.join(missing)}",
            is_enough=False,
            cost=f"tcp-send --cc {missing[0]} is refused, and nothing can be compared with it",
            command=" && ".join(f"sudo modprobe tcp_{control}" for control in missing),
        )
    return Capability(name, found)
