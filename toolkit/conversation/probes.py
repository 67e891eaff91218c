"""Numbered probes to an echo server, and their replies: over TCP, over UDP, and over the reliable protocol on UDP.

A reply over plain TCP or UDP has arrived when the kernel has it, as for ping(8), and not when this program wakes. A
message of the reliable protocol has arrived when the protocol hands it over; the protocol itself measures the round
trip of the path, without the time for which the two hosts held the packets.
"""

import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from toolkit.channel import Address, Channel, Statistic
from toolkit.conversation.round_trips import EchoRoundTrips
from toolkit.errors import PeerClosedError, UnreachableError, printable
from toolkit.kernel_timestamps import TIMESTAMP_BYTES, enable_timestamps, waited_ns
from toolkit.transports.addresses import resolve

_HEAD: Final = struct.Struct("!8sQ")
MIN_PROBE_BYTES: Final = _HEAD.size
MAX_PROBE_BYTES: Final = 1400
"""What fits into a packet of every usual path."""

_RECEIVE_BYTES: Final = 1 << 16


class EchoReply(NamedTuple):
    """A reply.

    arrived_ns:  when it has arrived, by the monotonic clock
    path_rtt_ns: the latest round trip of the path, without the time for which the hosts held the packets; None if it
                 was not measured since the last reply
    """

    data: bytes
    arrived_ns: int
    path_rtt_ns: int | None = None


class EchoPath(Protocol):
    """A way to an echo server and back."""

    def send(self, probe: bytes) -> None:
        """Send a probe."""

    def receive(self, timeout_s: float) -> EchoReply | None:
        """Return the next reply; None after `timeout_s`."""

    def close(self) -> None:
        """Free everything."""


class StreamEcho:
    """Probes over a TCP connection: the server returns a stream, which is cut at the size of a probe."""

    def __init__(self, address: Address, timeout_s: float, probe_bytes: int) -> None:
        """Connect. Raises UnreachableError."""
        self._socket = _connected(address, socket.SOCK_STREAM, timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._probe_bytes = probe_bytes
        self._received, self._arrived_ns = b"", 0

    def send(self, probe: bytes) -> None:
        """See EchoPath."""
        try:
            self._socket.sendall(probe)
        except (BrokenPipeError, ConnectionResetError):
            pass  # `receive` reports it
        except OSError as error:
            raise _lost(error) from error

    def receive(self, timeout_s: float) -> EchoReply | None:
        """See EchoPath. Raises PeerClosedError."""
        if len(self._received) < self._probe_bytes:
            if not select.select([self._socket], [], [], timeout_s)[0]:
                return None
            try:
                data, self._arrived_ns, _ = _receive_stamped(self._socket)
            except ConnectionResetError:
                data = b""
            except OSError as error:
                raise _lost(error) from error
            if not data:
                raise PeerClosedError("the other side closed the connection: it has too many, or is no echo server")
            self._received += data
        if len(self._received) < self._probe_bytes:
            return None
        reply, self._received = self._received[: self._probe_bytes], self._received[self._probe_bytes :]
        return EchoReply(reply, self._arrived_ns)

    def close(self) -> None:
        """See EchoPath."""
        self._socket.close()


class DatagramEcho:
    """A probe in each UDP datagram: it may get lost, be repeated, or overtake another."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        """Choose the address. Raises UnreachableError for a name without one, or if there is no route."""
        self._address = address
        self._socket = _connected(address, socket.SOCK_DGRAM, timeout_s)

    def send(self, probe: bytes) -> None:
        """See EchoPath."""
        with suppress(OSError):  # an error of an earlier datagram, or no room: this one counts as lost
            self._socket.send(probe)

    def receive(self, timeout_s: float) -> EchoReply | None:
        """See EchoPath. Raises UnreachableError if the host says that nothing listens there."""
        if not select.select([self._socket], [], [], timeout_s)[0]:
            return None
        try:
            return _receive_stamped(self._socket)
        except ConnectionRefusedError:
            raise nothing_there(self._address, "UDP") from None
        except OSError:
            return None  # a router's report about an earlier datagram

    def close(self) -> None:
        """See EchoPath."""
        self._socket.close()


class SessionEcho:
    """A probe in each message of a channel: none gets lost, and a lost packet makes it late.

    The round trip of the path is that of the probe's packet and its acknowledgement, which says how long it has waited.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._last_sample = self._path_rtt_ms()  # the handshake's

    def send(self, probe: bytes) -> None:
        """See EchoPath. Raises PeerClosedError."""
        self._channel.send_message(probe)

    def receive(self, timeout_s: float) -> EchoReply | None:
        """See EchoPath. Raises PeerClosedError."""
        message = self._channel.receive(None, timeout_s)
        return None if message is None else EchoReply(message, time.monotonic_ns(), self._new_path_rtt_ns())

    def _new_path_rtt_ns(self) -> int | None:
        """The round trip of the path, if it was measured since the last call."""
        last, sample = self._last_sample, self._path_rtt_ms()
        self._last_sample = sample
        return None if sample is None or sample == last else int(float(sample) * 1e6)

    def _path_rtt_ms(self) -> Statistic | None:
        return self._channel.statistics().get("path_rtt_ms")

    def close(self) -> None:
        """See EchoPath."""
        self._channel.close()


def measure(
    path: EchoPath,
    trips: EchoRoundTrips,
    count: int,
    interval_s: float,
    wait_s: float,
    probe_bytes: int,
    on_change: Callable[[EchoRoundTrips], object] = lambda _trips: None,
) -> None:
    """Send `count` probes, one every `interval_s`, and wait for replies until `wait_s` after the last.

    trips:     takes the probes and replies, also of a measurement that is interrupted
    on_change: called after each reply and each probe. Raises what the path raises.
    """
    mark = b"ping" + os.urandom(4)
    filler = bytes(probe_bytes - MIN_PROBE_BYTES)
    next_s = time.monotonic()
    while trips.answered < count:
        now_s = time.monotonic()
        if trips.sent < count and now_s >= next_s:
            number = trips.sent
            trips.on_sent(number, time.monotonic_ns())
            path.send(_HEAD.pack(mark, number) + filler)
            next_s += interval_s if trips.sent < count else wait_s
            on_change(trips)
            continue
        if now_s >= next_s:
            break
        reply = path.receive(next_s - now_s)
        if reply is not None and len(reply.data) == probe_bytes and reply.data.startswith(mark):
            trips.on_reply(_HEAD.unpack_from(reply.data)[1], reply.arrived_ns)
            if reply.path_rtt_ns is not None:
                trips.path_times_ns.append(reply.path_rtt_ns)
            on_change(trips)


def _connected(address: Address, kind: int, timeout_s: float) -> socket.socket:
    """Return a socket that is connected to the first address that accepts it. Raises UnreachableError."""
    failure: OSError | None = None
    for family, name in resolve(address, kind):
        sock = socket.socket(family, kind)
        try:
            sock.settimeout(timeout_s)
            sock.connect(name)
            if sys.platform == "linux":
                enable_timestamps(sock)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise nothing_there(address, "TCP" if kind == socket.SOCK_STREAM else "UDP") from failure


def _receive_stamped(sock: socket.socket) -> EchoReply:
    """Receive what is there, and when it arrived. Raises OSError."""
    data, ancillary, _, _ = sock.recvmsg(_RECEIVE_BYTES, TIMESTAMP_BYTES)
    passed_ns = waited_ns(ancillary)
    return EchoReply(data, time.monotonic_ns() - passed_ns)


def _lost(error: OSError) -> PeerClosedError:
    return PeerClosedError(f"the connection was lost: {(error.strerror or str(error)).lower()}")


def nothing_there(address: Address, protocol: str) -> UnreachableError:
    """Return the error for an address at which no echo server answers."""
    where = printable(str(address))
    return UnreachableError(f"nothing answers at {where} over {protocol}; is `nettool echo` running there?")
