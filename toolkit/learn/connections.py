"""The experiments of the lessons on TCP connections: their states, the queue of a listener, and the SYN that arrived.

An ordinary user may not capture packets, but Linux hands the SYN of an accepted connection, as it came from the
network, to a program that asks for it (TCP_SAVE_SYN, Linux 4.3).
"""

import select
import socket
import time
from contextlib import ExitStack
from ipaddress import IPv4Address
from typing import Final

from toolkit.errors import TransferError, error_name
from toolkit.learn.sockets import LOOPBACK, WAIT_S, accepted, listening_socket, port_of, tcp_socket

_TCP_SAVE_SYN: Final = 27  # linux/tcp.h
_TCP_SAVED_SYN: Final = 28
_MAX_SYN_BYTES: Final = 120  # the longest IPv4 and TCP headers
_STATES: Final = {1: "ESTABLISHED", 2: "SYN_SENT", 5: "FIN_WAIT2", 7: "CLOSE", 8: "CLOSE_WAIT", 10: "LISTEN"}
_WORD_BYTES: Final = 4
_ETHERNET_BYTES: Final = 14
_IP_BYTES: Final = 20
_BACKLOG: Final = 1
_CLIENTS: Final = 4
_OPTION_NAMES: Final = {2: "MSS", 3: "window scale", 4: "SACK permitted", 8: "timestamps"}


def state_of(sock: socket.socket) -> str:
    """Return the state of a TCP socket, as `ss` and RFC 9293 name it."""
    number = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return _STATES.get(number, str(number))


def _wait_for_state(sock: socket.socket, state: str) -> str:
    deadline = time.monotonic() + WAIT_S
    while state_of(sock) != state and time.monotonic() < deadline:
        time.sleep(0.001)
    return state_of(sock)


def _save_syn(listener: socket.socket) -> None:
    """Let the kernel keep the SYN of each connection. Raises TransferError if it does not know how."""
    try:
        listener.setsockopt(socket.IPPROTO_TCP, _TCP_SAVE_SYN, 1)
    except OSError:
        raise TransferError(
            "this experiment reads a SYN from the kernel (TCP_SAVE_SYN), which only Linux has"
        ) from None


def _saved_syn(connection: socket.socket) -> bytes:
    """Return the IPv4 packet with which the peer began the connection."""
    return connection.getsockopt(socket.IPPROTO_TCP, _TCP_SAVED_SYN, _MAX_SYN_BYTES)


def handshake() -> dict[str, str]:
    """Lesson: the three-way handshake. States of both ends from connect() to close(), and an RST."""
    with ExitStack() as stack:
        listener = listening_socket(stack)
        _save_syn(listener)
        port = port_of(listener)
        client = tcp_socket(stack)
        began_ns = time.monotonic_ns()
        client.connect((LOOPBACK, port))
        values = {
            "us": f"{(time.monotonic_ns() - began_ns) / 1000:.0f}",
            "server_port": str(port),
            "client_port": str(port_of(client)),
            "listener_state": state_of(listener),
            "state_before_accept": state_of(client),
        }
        connection = accepted(stack, listener)
        values["server_state"] = state_of(connection)
        header = _saved_syn(connection)[_IP_BYTES:]
        sequence = int.from_bytes(header[4:8], "big")
        values |= {"syn_sequence": str(sequence), "next_sequence": str((sequence + 1) % 2**32)}
        client.shutdown(socket.SHUT_WR)
        values["client_after_fin"] = _wait_for_state(client, "FIN_WAIT2")
        values["server_after_fin"] = state_of(connection)
        listener.close()
        try:
            tcp_socket(stack).connect((LOOPBACK, port))
        except OSError as error:
            values["refused"] = error_name(error)
    return values


def listen_queue() -> dict[str, str]:
    """Lesson: the listen queue. Four clients, a queue of one, and a server that does not accept at first."""
    with ExitStack() as stack:
        listener = listening_socket(stack, backlog=_BACKLOG)
        clients = []
        began_s = time.monotonic()
        for _ in range(_CLIENTS):
            client = tcp_socket(stack)
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            clients.append(client)
        queued = clients[: _BACKLOG + 1]
        for client in queued:
            _wait_for_state(client, "ESTABLISHED")
        values = {f"state_{number}": state_of(client) for number, client in enumerate(clients, 1)}
        values["established"] = str(sum(state_of(client) == "ESTABLISHED" for client in clients))
        for _ in queued:
            accepted(stack, listener)
        accepted_s = time.monotonic()
        waiting = clients[_BACKLOG + 1 :]
        _, connected, _ = select.select([], waiting, [], WAIT_S)  # their kernel sends the SYN again after a second
        values["accepted_ms"] = f"{(accepted_s - began_s) * 1000:.1f}"
        values["connected_s"] = f"{time.monotonic() - began_s:.2f}"
        values["late_state"] = state_of(connected[0]) if connected else "SYN_SENT"
    return values | {"backlog": str(_BACKLOG), "clients": str(_CLIENTS)}


def layers() -> dict[str, str]:
    """Lesson: layers. The headers of a real SYN, word by word, and what a few bytes of text weigh on a wire."""
    with ExitStack() as stack:
        listener = listening_socket(stack)
        _save_syn(listener)
        client = tcp_socket(stack)
        client.connect(listener.getsockname())
        packet = _saved_syn(accepted(stack, listener))
    tcp = packet[_IP_BYTES:]
    header_bytes = (tcp[12] >> 4) * _WORD_BYTES
    options = _options(tcp[20:header_bytes])
    overhead = _IP_BYTES + 20 + (12 if "timestamps" in options else 0)
    words = {f"word_{at // _WORD_BYTES}": packet[at : at + _WORD_BYTES].hex(" ") for at in range(0, 40, _WORD_BYTES)}
    return words | {
        "version": str(packet[0] >> 4),
        "length": str(int.from_bytes(packet[2:4], "big")),
        "ttl": str(packet[8]),
        "protocol": str(packet[9]),
        "source": str(IPv4Address(packet[12:16])),
        "destination": str(IPv4Address(packet[16:20])),
        "source_port": str(int.from_bytes(tcp[0:2], "big")),
        "destination_port": str(int.from_bytes(tcp[2:4], "big")),
        "sequence": str(int.from_bytes(tcp[4:8], "big")),
        "acknowledgement": str(int.from_bytes(tcp[8:12], "big")),
        "tcp_bytes": str(header_bytes),
        "flags": f"0x{tcp[13]:02x}",
        "window": str(int.from_bytes(tcp[14:16], "big")),
        "options": ", ".join(options),
        "ip_packet": str(5 + overhead),
        "frame": str(5 + overhead + _ETHERNET_BYTES),
        "udp_frame": str(5 + 8 + _IP_BYTES + _ETHERNET_BYTES),
    }


def _options(data: bytes) -> list[str]:
    """Return the names of the TCP options, with the value of the maximum segment size."""
    names = []
    at = 0
    while at < len(data) and data[at]:
        kind = data[at]
        if kind == 1:  # a byte of padding
            at += 1
            continue
        size = max(data[at + 1], 2)
        value = f" {int.from_bytes(data[at + 2 : at + size], 'big')}" if kind in (2, 3) else ""
        names.append(f"{_OPTION_NAMES.get(kind, kind)}{value}")
        at += size
    return names
