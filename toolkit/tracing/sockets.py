"""Sockets that report their calls.

`TracedSocket` makes the calls that it is asked for. `TextbookSocket` makes those of a textbook in their place: `sendto`
and `recvfrom` for each datagram, and a `connect` that waits until the connection stands.

Calls on other than IP sockets are not reported: they are how threads wake each other.
"""

import errno
import os
import socket
import time
from collections.abc import Iterable
from typing import Any, ClassVar

from toolkit.channel import DEFAULT_CONNECT_TIMEOUT_S
from toolkit.errors import ProtocolError
from toolkit.tracing.call import Call, CallTrace
from toolkit.tracing.meaning import (
    RECORD,
    datagram_kind,
    describe_address,
    preface_kind,
    socket_meaning,
)
from toolkit.transports.tcp.wire import PREFACE_BYTES, decode_preface_untrusted

_HEAD_BYTES = PREFACE_BYTES  # enough to tell what follows


class TracedSocket(socket.socket):
    """A socket that reports its calls to `trace`; see `toolkit.tracing.interpose`, which sets it."""

    trace: ClassVar[CallTrace]

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:  # noqa: A002 - the names of socket.socket
        began_s = time.monotonic()
        super().__init__(family, type, proto, fileno)
        self._is_listening = False
        self._is_connected = fileno is not None  # accept() has returned it
        self._connecting_since_s: float | None = None
        self._has_preface = False  # of nettool: what follows is its own
        self._body = ("", "", 0)  # kind and meaning of the rest of a preface, and its bytes
        if fileno is None:
            arguments = f"{self.family.name}, {self.type.name}"
            self._report(began_s, "socket", arguments, str(self.fileno()), socket_meaning(self.type))

    # Reporting

    def _report(self, time_s: float, name: str, arguments: str, result: str, meaning: str = "") -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            self.trace.add(Call(time_s, name, self.fileno(), arguments, result, meaning))

    def _report_error(self, time_s: float, name: str, arguments: str, error: OSError) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            text = f"{self.fileno()}, {arguments}" if arguments else f"{self.fileno()}"
            self.trace.add_failed(time_s, name, self.fileno(), text, error)

    def _report_data(self, time_s: float, name: str, data: Any, size_bytes: int, peer: Any = None) -> None:
        if self.family not in (socket.AF_INET, socket.AF_INET6):
            return
        is_stream = self.type == socket.SOCK_STREAM
        head = bytes(data[: min(_HEAD_BYTES, size_bytes)])
        where = f", {describe_address(peer)}" if peer is not None else ""
        if is_stream and not size_bytes:
            kind, meaning = "end", "0 bytes: the other side has closed the connection, or its half of it"
        else:
            kind, meaning = self._stream_kind(head, size_bytes) if is_stream else datagram_kind(head)
        arguments = f"{self.fileno()}, {len(data)} bytes{where}"
        self.trace.add(Call(time_s, name, self.fileno(), arguments, str(size_bytes), meaning, size_bytes, kind))

    def _stream_kind(self, head: bytes, size_bytes: int) -> tuple[str, str]:
        """Return the kind of data on a TCP connection, and its meaning; the body of a preface is of its kind."""
        kind, meaning, left_bytes = self._body
        if left_bytes > 0:
            self._body = (kind, meaning, left_bytes - size_bytes)
            return kind, meaning
        try:
            preface = decode_preface_untrusted(head)
        except ProtocolError:
            preface = None
        if preface is None:
            return ("record", RECORD) if self._has_preface else ("stream", "bytes of the stream")
        kind, meaning = preface_kind(preface)
        self._has_preface = True
        self._body = (kind, meaning, preface.body_bytes + PREFACE_BYTES - size_bytes)
        return kind, meaning

    # Setting up

    def bind(self, address: Any) -> None:
        """Report bind(2)."""
        began_s, arguments = time.monotonic(), describe_address(address)
        try:
            super().bind(address)
        except OSError as error:
            self._report_error(began_s, "bind", arguments, error)
            raise
        bound = describe_address(self.getsockname())
        meaning = f"{bound} is ours: what is sent there comes to this socket"
        self._report(began_s, "bind", f"{self.fileno()}, {arguments}", "0", meaning)

    def listen(self, backlog: int = socket.SOMAXCONN, /) -> None:
        """Report listen(2)."""
        began_s = time.monotonic()
        super().listen(backlog)
        self._is_listening = True
        meaning = f"the kernel completes handshakes from now on; {backlog:,} may wait for accept()"
        self._report(began_s, "listen", f"{self.fileno()}, {backlog}", "0", meaning)

    def accept(self) -> tuple[socket.socket, Any]:
        """Report accept(2)."""
        try:
            connection, peer = super().accept()
        except OSError as error:
            self._report_error(time.monotonic(), "accept", "", error)
            raise
        number, name = connection.fileno(), describe_address(peer)
        meaning = f"descriptor {number} is the connection with {name}; {self.fileno()} goes on listening"
        self._report(time.monotonic(), "accept", f"{self.fileno()}", f"{number}, {name}", meaning)
        return connection, peer

    def connect(self, address: Any) -> None:
        """Report connect(2)."""
        began_s, arguments = time.monotonic(), describe_address(address)
        try:
            super().connect(address)
        except OSError as error:
            self._report_error(began_s, "connect", arguments, error)
            raise
        self._report(began_s, "connect", f"{self.fileno()}, {arguments}", "0", self._connected(began_s))

    def connect_ex(self, address: Any) -> int:
        """Report connect(2) on a socket that does not wait."""
        began_s = time.monotonic()
        code = super().connect_ex(address)
        result = errno.errorcode.get(code, str(code)) if code else "0"
        if code == errno.EINPROGRESS:
            self._connecting_since_s = began_s
            meaning = f"SYN is on its way from port {self.getsockname()[1]}, which the kernel chose; we need not wait"
        else:
            meaning = os.strerror(code) if code else self._connected(began_s)
        self._report(began_s, "connect", f"{self.fileno()}, {describe_address(address)}", result, meaning)
        return code

    def _connected(self, began_s: float) -> str:
        self._is_connected = True
        port, took_ms = self.getsockname()[1], (time.monotonic() - began_s) * 1e3
        if self.type == socket.SOCK_STREAM:
            return f"the kernel chose port {port} for us; SYN, SYN-ACK, ACK took {took_ms:.1f} ms"
        return f"nothing is sent: our port is {port}, and only this peer's datagrams reach the socket"

    def getpeername(self) -> Any:
        """Report, once, that a connection stands: it can have a peer's name only then."""
        name = super().getpeername()
        if self._connecting_since_s is not None:
            took_ms = (time.monotonic() - self._connecting_since_s) * 1e3
            self._connecting_since_s, self._is_connected = None, True
            meaning = f"the connection stands: SYN, SYN-ACK, ACK took {took_ms:.1f} ms"
            self._report(time.monotonic(), "getpeername", f"{self.fileno()}", describe_address(name), meaning)
        return name

    def setsockopt(self, *arguments: Any) -> None:
        """Count setsockopt(2): there are many, and their names differ from system to system."""
        self.trace.count("setsockopt()")
        super().setsockopt(*arguments)

    # Sending

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Report send(2)."""
        began_s = time.monotonic()
        try:
            count = super().send(data, flags)
        except OSError as error:
            self._report_error(began_s, "send", f"{len(data)} bytes", error)
            raise
        self._report_data(began_s, "send", data, count)
        return count

    def sendto(self, data: Any, *rest: Any) -> int:
        """Report sendto(2); `rest` is an address, or flags and an address."""
        began_s = time.monotonic()
        try:
            count = super().sendto(data, *rest)
        except OSError as error:
            self._report_error(began_s, "sendto", f"{len(data)} bytes, {describe_address(rest[-1])}", error)
            raise
        self._report_data(began_s, "sendto", data, count, rest[-1])
        return count

    # Receiving: the time is that of the return, since these calls wait for what the peer does

    def recv(self, size_bytes: int, flags: int = 0, /) -> bytes:
        """Report recv(2)."""
        try:
            data = super().recv(size_bytes, flags)
        except OSError as error:
            self._report_error(time.monotonic(), "recv", f"{size_bytes} bytes", error)
            raise
        self._report_data(time.monotonic(), "recv", data, len(data))
        return data

    def recv_into(self, buffer: Any, size_bytes: int = 0, flags: int = 0) -> int:
        """Report recv(2)."""
        try:
            count = super().recv_into(buffer, size_bytes, flags)
        except OSError as error:
            self._report_error(time.monotonic(), "recv", "", error)
            raise
        self._report_data(time.monotonic(), "recv", memoryview(buffer).cast("B")[:count], count)
        return count

    def recvfrom(self, size_bytes: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """Report recvfrom(2)."""
        try:
            data, peer = super().recvfrom(size_bytes, flags)
        except OSError as error:
            self._report_error(time.monotonic(), "recvfrom", f"{size_bytes} bytes", error)
            raise
        self._report_data(time.monotonic(), "recvfrom", data, len(data), peer)
        return data, peer

    def recvmsg_into(
        self, buffers: Iterable[Any], ancillary_bytes: int = 0, flags: int = 0, /
    ) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
        """Report recvmsg(2)."""
        into = list(buffers)
        try:
            received = super().recvmsg_into(into, ancillary_bytes, flags)
        except OSError as error:
            self._report_error(time.monotonic(), "recvmsg", "", error)
            raise
        self._report_data(time.monotonic(), "recvmsg", memoryview(into[0])[: received[0]], received[0])
        return received

    # Ending

    def shutdown(self, how: int, /) -> None:
        """Report shutdown(2)."""
        began_s = time.monotonic()
        try:
            super().shutdown(how)
        except OSError as error:
            self._report_error(began_s, "shutdown", "", error)
            raise
        how_name = {socket.SHUT_RD: "SHUT_RD", socket.SHUT_WR: "SHUT_WR", socket.SHUT_RDWR: "SHUT_RDWR"}[how]
        meaning = "FIN is sent: nothing more comes from this side, which still reads"
        self._report(began_s, "shutdown", f"{self.fileno()}, {how_name}", "0", meaning)

    def close(self) -> None:
        """Report close(2)."""
        began_s, number = time.monotonic(), self.fileno()
        super().close()
        if number >= 0 and self.family in (socket.AF_INET, socket.AF_INET6):
            self.trace.add(Call(began_s, "close", number, str(number), "0", self._closing_meaning()))

    def _closing_meaning(self) -> str:
        if self.type == socket.SOCK_DGRAM:
            return "of the socket: nothing is sent, since UDP knows no connection"
        if self._is_listening:
            return "of the listener: its port is free again"
        if self._is_connected:
            return "of the connection: both sides have sent their FIN, or send it now"
        return "of the socket: it has no connection that could end"


class TextbookSocket(TracedSocket):
    """Makes the calls of a textbook in place of those that are faster or do not wait."""

    def connect_ex(self, address: Any) -> int:
        """Connect, and wait for the result for as long as nettool waits without an option."""
        timeout_s = self.gettimeout()
        self.settimeout(DEFAULT_CONNECT_TIMEOUT_S)
        try:
            self.connect(address)
        except OSError as error:
            return error.errno or errno.ETIMEDOUT
        finally:
            self.settimeout(timeout_s)
        return 0

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send a datagram with sendto(2), also if the socket knows its peer."""
        if self.type == socket.SOCK_DGRAM and self.family in (socket.AF_INET, socket.AF_INET6):
            return self.sendto(data, flags, self.getpeername())
        return super().send(data, flags)

    def recvmsg_into(
        self, buffers: Iterable[Any], _ancillary_bytes: int = 0, flags: int = 0, /
    ) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
        """Receive one datagram with recvfrom(2): without its marks of congestion, which take recvmsg(2)."""
        buffer = next(iter(buffers))
        data, peer = self.recvfrom(len(buffer), flags)
        buffer[: len(data)] = data
        return len(data), [], 0, peer
