"""A UDP socket that sends and receives batches: with UDP_SEGMENT and UDP_GRO if available, else one datagram a call.

Most of a datagram's cost is its trip through the kernel. UDP_SEGMENT (GSO) takes up to 64 equal datagrams in one call;
the kernel splits them as late as possible (in the network card, or never on loopback). UDP_GRO joins received datagrams
of a flow and reports their size in a control message. Linux has the first since 4.18, the second since 5.0. Both are
probed: `DatagramSocket` sets `can_segment` and `can_coalesce`, and works without them.

IP_MTU_DISCOVER is set to PROBE: datagrams carry "don't fragment", and the path MTU that routers report is ignored (RFC
8899 section 4.6.2; the engine probes for itself). SO_RXQ_OVFL counts the datagrams that the host drops at this socket.
The receive buffer is enlarged to 16 MiB if the system permits it. `send_room.py` sizes the send buffer. IP_RECVERR
makes the drops of this host's queues visible: otherwise the kernel reports such a datagram as sent. SO_TIMESTAMPNS says
when a datagram arrived, however late it is read.

Read: udp(7), ip(7), linux/udp.h, linux/in.h, linux/in6.h.
"""

import contextlib
import errno
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from toolkit.kernel_timestamps import TIMESTAMP_BYTES, Ancillary, ArrivalStamps
from toolkit.rudp.batch import MAX_BATCH_BYTES, Batch, Transmit
from toolkit.transports.udp.route import socket_on_new_route
from toolkit.transports.udp.send_room import SendRoom
from toolkit.transports.udp.socket_options import SO_RXQ_OVFL, grow_receive_buffer, report_ecn, try_option

_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_IP_MTU_DISCOVER: Final = 10
_IP_MTU: Final = 14
_IPV6_MTU_DISCOVER: Final = 23
_IPV6_MTU: Final = 24
_IPV6_TCLASS: Final = 67
_IP_RECVERR: Final = 11
_IPV6_RECVERR: Final = 25
_PMTUDISC_PROBE: Final = 3

_SEND_WAIT_MS: Final = 10
"""How long one send waits for room; what arrives meanwhile waits too."""
_RECEIVE_ROOM_BYTES: Final = 1 << 16
"""The room that each `recvmsg` needs: the most that UDP_GRO joins."""
_ANCILLARY_BYTES: Final = TIMESTAMP_BYTES + 4 * socket.CMSG_SPACE(4) + socket.CMSG_SPACE(20)
_UINT32: Final = struct.Struct("=I")
_INT32: Final = struct.Struct("=i")

# Errors that concern one datagram, which then counts as lost. The first ones mean that there is no route from the local
# address (EINVAL is Linux's answer if the address itself is gone).
_ROUTE_ERRORS: Final = frozenset(
    (errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
)
_ICMP_ERRORS: Final = {errno.EHOSTDOWN, errno.EACCES, errno.ENONET, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EPROTO}
"""What else a router may report (`icmp_err_convert` and `icmpv6_err_convert` of Linux)."""
_TRANSIENT_ERRORS: Final = _ROUTE_ERRORS | _ICMP_ERRORS | {errno.ENOBUFS, errno.EMSGSIZE, errno.EPERM}


class PeerUnreachableError(Exception):
    """The peer's host reports that nothing listens at the port (ICMP port unreachable)."""


class DatagramSocket:
    """A non-blocking UDP socket; owns `sock`.

    offload:            "auto" uses what the kernel offers, "off" nothing
    can_segment:        whether UDP_SEGMENT is in use
    can_coalesce:       whether UDP_GRO is in use
    drop_count:         datagrams that the host has dropped at this socket and those before it
    receive_buffer_bytes: how much the kernel queues before it drops, with its own overhead
    is_drained:         whether the last `receive` has emptied the queue
    is_route_lost:      whether a send failed because there is no route, until `follow_route`
    room:               how much may wait in this host's queues
    local_drops:        datagrams that a queue of this host had no room for; `send` reports them as not sent
    send_errors, datagrams_sent, datagrams_received: counters
    """

    def __init__(self, sock: socket.socket, offload: str = "auto") -> None:
        self.drop_count = 0
        self.is_drained = True
        self.is_route_lost = False
        self.send_errors = 0
        self.local_drops = 0
        self.datagrams_sent = 0
        self.datagrams_received = 0
        self._buffer = np.zeros(MAX_BATCH_BYTES, np.uint8).data  # takes no memory before it is written to
        self._offload = offload
        self._reports_drops = False
        self._configure(sock)

    def _configure(self, sock: socket.socket) -> None:
        """Use `sock` from now on: set its options and probe its offloads."""
        self.sock = sock
        self._earlier_drops = self.drop_count  # at the previous socket
        self._is_refused = False
        self._segment_bytes = 0  # the value of UDP_SEGMENT
        self._unsent_bytes = 0  # of the batch that is being sent
        self.room = SendRoom(sock)
        self._ancillary: Ancillary = []  # of the last arrival
        self._segment_and_ecn = (0, 0)  # parsed from it
        self._ecn = 0  # of outgoing datagrams
        sock.setblocking(False)
        self.can_segment = self._offload == "auto" and try_option(sock, _SOL_UDP, _UDP_SEGMENT, 0)
        self.can_coalesce = self._offload == "auto" and try_option(sock, _SOL_UDP, _UDP_GRO, 1)
        try_option(sock, socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        self._stamps = ArrivalStamps(sock)
        for level, option in ((socket.IPPROTO_IP, _IP_MTU_DISCOVER), (socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER)):
            try_option(sock, level, option, _PMTUDISC_PROBE)
        report_ecn(sock)
        grow_receive_buffer(sock)
        self.receive_buffer_bytes = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        if self._reports_drops:
            self.report_local_drops()

    def report_local_drops(self) -> None:
        """Have `send` notice what this host drops. The socket must then be read by `receive`, which clears errors."""
        self._reports_drops = try_option(self.sock, socket.IPPROTO_IP, _IP_RECVERR, 1)
        if self.sock.family == socket.AF_INET6:
            self._reports_drops |= try_option(self.sock, socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()

    def follow_route(self) -> bool:
        """Change to a new socket if the system's route to the peer starts at another local address; return whether."""
        self.is_route_lost = False
        new_socket = socket_on_new_route(self.sock)
        if new_socket is None:
            return False
        self.sock.close()
        self._configure(new_socket)
        return True

    def max_datagram_bytes(self, limit: int) -> int:
        """Return the largest UDP payload that the route's interface sends unfragmented, at most `limit`.

        Returns `limit` if the socket is not connected.
        """
        is_ipv6 = self.sock.family == socket.AF_INET6
        try:
            level, option = (socket.IPPROTO_IPV6, _IPV6_MTU) if is_ipv6 else (socket.IPPROTO_IP, _IP_MTU)
            mtu = self.sock.getsockopt(level, option)
        except OSError:
            return limit
        return min(limit, mtu - (48 if is_ipv6 else 28))

    # Sending

    def send(self, transmit: Transmit) -> int:
        """Send a batch on a connected socket; return how many datagrams at its end were not sent, 0 in general.

        The host has no room for these now. A datagram that the path rejects counts as lost.
        """
        if transmit.destination is not None:
            self.send_to(bytes(transmit.data), transmit.destination)
            return 0
        if transmit.ecn != self._ecn:
            self._ecn = transmit.ecn
            try_option(self.sock, socket.IPPROTO_IP, socket.IP_TOS, transmit.ecn)
            try_option(self.sock, socket.IPPROTO_IPV6, _IPV6_TCLASS, transmit.ecn)
        data, segment_bytes = transmit.data, transmit.segment_bytes
        self._unsent_bytes = len(data)
        unsent = 0
        try:
            if self.can_segment:
                self._send_super_packets(transmit.super_packets(self.room.max_super_packet_bytes), segment_bytes)
            else:
                self._send_each(data, segment_bytes)
        except _NoRoomError:
            unsent = -(-self._unsent_bytes // segment_bytes)
        datagrams = -(-len(data) // segment_bytes)
        self.room.on_sent(len(data), datagrams)
        self.datagrams_sent += datagrams - unsent
        return unsent

    def send_datagram(self, datagram: bytes) -> None:
        """Send one datagram on a connected socket."""
        self.datagrams_sent += 1
        with contextlib.suppress(_NoRoomError):  # it counts as lost
            self._send_super_packets([memoryview(datagram)], len(datagram))

    def send_to(self, datagram: bytes, peer: tuple[str, int]) -> None:
        """Send one datagram to any address; if it cannot be sent now, it counts as lost."""
        try:
            self.sock.sendto(datagram, peer)
        except OSError:
            self._clear_errors()

    def _send_super_packets(self, pieces: list[memoryview], segment_bytes: int) -> None:
        # The option stays set on the socket; it changes only if it would split these pieces wrongly.
        longest = len(pieces[0])
        would_split_wrongly = longest > segment_bytes or 0 < self._segment_bytes < longest
        if would_split_wrongly and self._segment_bytes != segment_bytes:
            self.sock.setsockopt(_SOL_UDP, _UDP_SEGMENT, segment_bytes)
            self._segment_bytes = segment_bytes
        sent = 0
        try:
            for piece in pieces:
                if sent and self.room.has_shrunk and not self.room.wait(_SEND_WAIT_MS):
                    raise _NoRoomError
                self._send_piece(piece)
                sent += 1
        except _SegmentationRefusedError:
            self.can_segment = False
            self.sock.setsockopt(_SOL_UDP, _UDP_SEGMENT, 0)
            self._segment_bytes = 0
            errors_before = self.send_errors
            try:
                for piece in pieces[sent:]:
                    self._send_each(piece, segment_bytes)
            finally:
                self.can_segment = self.send_errors > errors_before  # segmentation was not the reason

    def _send_each(self, piece: memoryview, segment_bytes: int) -> None:
        for i in range(0, len(piece), segment_bytes):
            self._send_piece(piece[i : i + segment_bytes])

    def _send_piece(self, data: memoryview) -> None:
        """Send a datagram or super-packet. Raises _NoRoomError if a queue of this host is full."""
        is_retry = has_waited = False
        while True:
            try:
                self.sock.send(data)
                self._unsent_bytes -= len(data)
                return
            except BlockingIOError:
                if has_waited or not self.room.wait(_SEND_WAIT_MS):
                    raise _NoRoomError from None
                has_waited = True
            except OSError as error:
                if self.can_segment and error.errno in (errno.EIO, errno.EINVAL):
                    raise _SegmentationRefusedError from None
                if error.errno not in _TRANSIENT_ERRORS and error.errno != errno.ECONNREFUSED:
                    raise
                if error.errno == errno.ENOBUFS:  # it never belongs to an earlier datagram
                    self.local_drops += -(-len(data) // (self._segment_bytes or len(data)))
                    self.room.on_drop(len(data))
                    raise _NoRoomError from None
                # The error may belong to an earlier datagram, or be forged: clear it, and try again.
                self._clear_errors()
                self._is_refused |= error.errno == errno.ECONNREFUSED  # reported by the next `receive`
                if is_retry:
                    self.send_errors += 1
                    self.is_route_lost |= error.errno in _ROUTE_ERRORS
                    self._unsent_bytes -= len(data)
                    return
                is_retry = True

    def _clear_errors(self) -> None:
        """Forget errors of earlier datagrams. Those in the queue of IP_RECVERR would end every wait at once."""
        self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if self._reports_drops:
            with contextlib.suppress(OSError):  # the queue is empty
                while True:
                    self.sock.recvmsg(0, 0, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)

    # Receiving

    def receive(self) -> list[Batch]:
        """Return what has arrived, at most MAX_BATCH_BYTES; [] for nothing. Valid until the next call.

        Consecutive datagrams of one size form one batch. Raises PeerUnreachableError.
        """
        batches: list[Batch] = []
        start = end = segment = ecn = 0
        stamp: Ancillary = []
        started_ns = time.monotonic_ns()
        self.is_drained = False
        if self._is_refused:
            self._is_refused = False
            raise PeerUnreachableError
        while end + _RECEIVE_ROOM_BYTES <= MAX_BATCH_BYTES:
            try:
                size, ancillary, _, _ = self.sock.recvmsg_into([self._buffer[end:]], _ANCILLARY_BYTES)
            except BlockingIOError:
                self.is_drained = True
                break
            except ConnectionRefusedError:
                self._clear_errors()
                if end == 0:
                    raise PeerUnreachableError from None
                self._is_refused = True  # reported by the next call, after what came before it
                break
            except OSError as error:
                if error.errno in _TRANSIENT_ERRORS:
                    self._clear_errors()
                    continue  # it concerns a datagram that was sent, such as a router's report that it is too long
                raise
            if size == 0:
                continue
            new_segment, new_ecn = self._read_ancillary(ancillary, size)
            if end > start and (new_segment != segment or new_ecn != ecn or (end - start) % segment):
                batches.append(Batch(self._buffer[start:end], segment, ecn, self._stamps.waited_ns(stamp)))
                start = end
            segment, ecn, stamp = new_segment, new_ecn, self._stamps.last
            self.datagrams_received += -(-size // segment)
            end += size
        if end > start:
            batches.append(Batch(self._buffer[start:end], segment, ecn, self._stamps.waited_ns(stamp)))
        if self.is_drained:
            self._stamps.on_drained(started_ns)
        return batches

    def _read_ancillary(self, ancillary: Ancillary, size: int) -> tuple[int, int]:
        unstamped = self._stamps.strip(ancillary)
        if unstamped != self._ancillary:  # it is nearly always the same as before
            self._ancillary = unstamped
            self._segment_and_ecn = self._parse_ancillary(unstamped)
        segment, ecn = self._segment_and_ecn
        return (min(segment, size) if segment else size), ecn

    def _parse_ancillary(self, ancillary: Ancillary) -> tuple[int, int]:
        """Return the size of the datagrams that UDP_GRO has joined (0 if it has joined none), and the IP ECN field."""
        segment = ecn = 0
        for level, kind, value in ancillary:
            if level == _SOL_UDP and kind == _UDP_GRO:
                segment = _INT32.unpack_from(value)[0]
            elif level == socket.SOL_SOCKET and kind == SO_RXQ_OVFL:
                self.drop_count = self._earlier_drops + _UINT32.unpack_from(value)[0]
            elif (level == socket.IPPROTO_IP and kind == socket.IP_TOS) or (
                level == socket.IPPROTO_IPV6 and kind == _IPV6_TCLASS
            ):
                ecn = value[0] & 0b11
        return segment, ecn


def wait_readable(descriptors: Sequence[int], timeout_ns: int | None, writable: int | None = None) -> list[int]:
    """Wait until some descriptors are readable, and return those; none after `timeout_ns`, or once `writable`,
    one of them, is writable and nothing is readable.

    The timeout is exact to the microsecond if all descriptors are small enough for select(2).
    """
    timeout_s = None if timeout_ns is None else max(0, timeout_ns) / 1e9
    if max(descriptors) < 1024:  # FD_SETSIZE
        return select.select(descriptors, [] if writable is None else [writable], [], timeout_s)[0]
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN | (select.POLLOUT if descriptor == writable else 0))
    events = poll.poll(None if timeout_s is None else timeout_s * 1000)
    return [descriptor for descriptor, event in events if event & ~select.POLLOUT]


class _NoRoomError(Exception):
    """A queue of this host has no room for a datagram."""


class _SegmentationRefusedError(Exception):
    """The device of the route cannot segment: older virtual devices, some tunnels."""
