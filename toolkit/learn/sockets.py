"""The experiments of the lessons on sockets and ports: real sockets on this machine, as in a textbook."""

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from toolkit.errors import error_name

LOOPBACK: Final = "127.0.0.1"
WAIT_S: Final = 5.0
"""How long an experiment waits for what the kernel does at once, before it gives up."""
_ELSEWHERE: Final = ("192.0.2.1", 9)  # TEST-NET-1 (RFC 5737): a destination to ask the routing table about
_ANOTHER_LOOPBACK: Final = "127.0.0.2"
_PORT_SETTINGS: Final = Path("/proc/sys/net/ipv4")


def tcp_socket(stack: ExitStack) -> socket.socket:
    """Return a TCP socket that `stack` closes."""
    sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    sock.settimeout(WAIT_S)
    return sock


def udp_socket(stack: ExitStack) -> socket.socket:
    """Return a UDP socket that `stack` closes."""
    sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.settimeout(WAIT_S)
    return sock


def listening_socket(stack: ExitStack, address: str = LOOPBACK, backlog: int = 5) -> socket.socket:
    """Return a TCP socket that listens on a port of the kernel's choice."""
    listener = tcp_socket(stack)
    listener.bind((address, 0))
    listener.listen(backlog)
    return listener


def accepted(stack: ExitStack, listener: socket.socket) -> socket.socket:
    """Return the socket of the next connection."""
    connection, _ = listener.accept()
    connection.settimeout(WAIT_S)
    return stack.enter_context(connection)


def port_of(sock: socket.socket) -> int:
    """Return the local port."""
    return int(sock.getsockname()[1])


def sockets_and_ports() -> dict[str, str]:
    """Lesson: socket and port. A server and two clients; each connection has a socket of its own at the server."""
    with ExitStack() as stack:
        listener = listening_socket(stack)
        server_port = port_of(listener)
        values = {"listen_fd": str(listener.fileno()), "server_port": str(server_port)}
        for name, text in (("a", b"hello"), ("b", b"world")):
            client = tcp_socket(stack)
            client.connect((LOOPBACK, server_port))
            connection = accepted(stack, listener)
            client.sendall(text)
            received = connection.recv(100)
            connection.sendall(received.upper())
            values |= {
                f"client_fd_{name}": str(client.fileno()),
                f"client_port_{name}": str(port_of(client)),
                f"accepted_fd_{name}": str(connection.fileno()),
                f"accepted_port_{name}": str(port_of(connection)),
                f"received_{name}": received.decode(),
                f"answer_{name}": client.recv(100).decode(),
            }
    return values


def who_gets_a_port() -> dict[str, str]:
    """Lesson: who gets a port. What bind(), connect(), sendto() and accept() do to the local port of a socket."""
    with ExitStack() as stack:
        listener = listening_socket(stack)
        port = port_of(listener)
        values = {"server_port": str(port)}
        client = tcp_socket(stack)
        values["client_before"] = str(port_of(client))
        client.connect((LOOPBACK, port))
        values["client_after"] = str(port_of(client))
        values["accepted_port"] = str(port_of(accepted(stack, listener)))
        sender = udp_socket(stack)
        values["udp_before"] = str(port_of(sender))
        sender.sendto(b"hello", (LOOPBACK, port))
        values["udp_after"] = str(port_of(sender))
        values["second_bind"] = _error_of_bind(tcp_socket(stack), port)
        values["udp_bind"] = _error_of_bind(udp_socket(stack), port)
    low, high = _setting("ip_local_port_range", "32768 60999").split()
    return values | {"low": low, "high": high, "first_free": _setting("ip_unprivileged_port_start", "1024")}


def _error_of_bind(sock: socket.socket, port: int) -> str:
    """Bind, and return "OK", or the name of the error."""
    try:
        sock.bind((LOOPBACK, port))
    except OSError as error:
        return error_name(error)
    return "OK"


def _setting(name: str, usual: str) -> str:
    try:
        return (_PORT_SETTINGS / name).read_text("ascii").strip()
    except OSError:
        return usual


def loopback_and_lan() -> dict[str, str]:
    """Lesson: loopback and LAN. Who reaches a server that is bound to 127.0.0.1, and one that is bound to 0.0.0.0."""
    other = _other_address()
    with ExitStack() as stack:
        private = listening_socket(stack, LOOPBACK)
        public = listening_socket(stack, "0.0.0.0")
        return {
            "other": other,
            "private_port": str(port_of(private)),
            "public_port": str(port_of(public)),
            "private_loopback": _outcome_of_connect(stack, LOOPBACK, private),
            "private_other": _outcome_of_connect(stack, other, private),
            "public_loopback": _outcome_of_connect(stack, LOOPBACK, public),
            "public_other": _outcome_of_connect(stack, other, public),
        }


def _other_address() -> str:
    """Return this machine's address on its network; without a network, another address of the loopback interface."""
    with ExitStack() as stack:
        probe = udp_socket(stack)
        try:
            probe.connect(_ELSEWHERE)  # sends nothing: it only looks up the route
        except OSError:
            return _ANOTHER_LOOPBACK
        address = str(probe.getsockname()[0])
    return _ANOTHER_LOOPBACK if address.startswith("127.") else address


def _outcome_of_connect(stack: ExitStack, address: str, listener: socket.socket) -> str:
    client = tcp_socket(stack)
    try:
        client.connect((address, port_of(listener)))
    except OSError as error:
        return error_name(error)
    return "OK"


def stream_and_datagram() -> dict[str, str]:
    """Lesson: stream and datagram. Three writes over TCP and three over UDP, and what the receiver reads."""
    writes = (b"one", b"two", b"three")
    with ExitStack() as stack:
        listener = listening_socket(stack)
        client = tcp_socket(stack)
        client.connect(listener.getsockname())
        connection = accepted(stack, listener)
        for text in writes:
            client.sendall(text)
        length = len(b"".join(writes))
        connection.recv(length, socket.MSG_PEEK | socket.MSG_WAITALL)  # until all of it is there
        values = {"stream_first": connection.recv(4).decode(), "stream_rest": connection.recv(100).decode()}
        client.shutdown(socket.SHUT_WR)
        values["stream_end"] = str(len(connection.recv(100)))

        receiver, sender = udp_socket(stack), udp_socket(stack)
        receiver.bind((LOOPBACK, 0))
        for text in writes:
            sender.sendto(text, receiver.getsockname())
        for number in (1, 2):
            values[f"datagram_{number}"] = receiver.recv(100).decode()
        cut, _, flags, _ = receiver.recvmsg(2)
        values |= {"datagram_cut": cut.decode(), "is_cut": "MSG_TRUNC" if flags & socket.MSG_TRUNC else "-"}
        values["too_large"] = _error_of_send(sender, bytes(65_508), receiver.getsockname())
    return values


def _error_of_send(sock: socket.socket, data: bytes, to: tuple[str, int]) -> str:
    try:
        sock.sendto(data, to)
    except OSError as error:
        return error_name(error)
    return "OK"
