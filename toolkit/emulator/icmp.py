"""ICMP echo: round-trip times by the clock of the kernel.

The remote kernel answers a request, and the local kernel stamps the reply on arrival (SO_TIMESTAMPNS). The time at
which the scheduler runs this process is therefore no part of the figure.

To read: RFC 792 (echo and echo reply), RFC 1071 (checksum), icmp(7) for ping sockets.
"""

import select
import socket
import struct
import time

from toolkit.emulator.offload import ones_complement_sum
from toolkit.kernel_timestamps import TIMESTAMP_BYTES, arrival_time_ns, enable_timestamps

ECHO_PACKET_BYTES = 84
"""Size of an echo request as an IP packet: the default of ping(8)."""
_IP_ICMP_HEADER_BYTES = 28
_IPV4_WITHOUT_OPTIONS = 0x45
_REQUEST, _REPLY = 8, 0
_HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
_MAX_REPLY_BYTES = 2048


class EchoProbe:
    """Sends echo requests to one address and matches the replies.

    sent:            requests that the kernel accepted
    replies:         replies that arrived, duplicates included
    round_trips_ns:  one entry for each answered request, in the order of arrival
    answers_ns:      the same by sequence number
    """

    def __init__(self, sock: socket.socket, address: str, identifier: int) -> None:
        """`sock` is a raw ICMP socket or a ping socket (icmp(7)); the caller closes it.

        The kernel chooses the identifier of a ping socket itself.
        """
        self.sent = 0
        self.replies = 0
        self.round_trips_ns: list[int] = []
        self.answers_ns: dict[int, int] = {}
        self._sock = sock
        self._address = address
        self._identifier = identifier
        self._is_raw = sock.type == socket.SOCK_RAW
        self._last_answered_ns = 0
        self._sent_ns: dict[int, int] = {}  # by sequence number, of the requests without a reply
        enable_timestamps(sock)

    @property
    def lost(self) -> int:
        """Requests without a reply that were sent before one that has a reply; later ones may still get theirs."""
        return sum(sent_ns < self._last_answered_ns for sent_ns in self._sent_ns.values())

    def send(self, packet_bytes: int = ECHO_PACKET_BYTES) -> None:
        """Send one request, as an IP packet of this size.

        A request that the kernel refuses (no buffer, no route, too large for the interface) does not count.
        """
        sequence = self.sent & 0xFFFF
        self._sent_ns[sequence] = time.time_ns()
        try:
            self._sock.sendto(encode_echo_request(self._identifier, sequence, packet_bytes), (self._address, 0))
            self.sent += 1
        except OSError:
            del self._sent_ns[sequence]

    def receive(self, timeout_s: float) -> None:
        """Take every reply that has arrived; wait up to `timeout_s` for the first one."""
        while select.select([self._sock], [], [], timeout_s)[0]:
            timeout_s = 0.0
            try:
                packet, ancillary, _, _ = self._sock.recvmsg(_MAX_REPLY_BYTES, TIMESTAMP_BYTES)
            except OSError:
                return
            sequence = self._reply_sequence_untrusted(packet)
            if sequence is None:
                continue
            self.replies += 1
            sent_ns = self._sent_ns.pop(sequence, None)
            self._last_answered_ns = max(self._last_answered_ns, sent_ns or 0)
            arrived_ns = arrival_time_ns(ancillary)
            if sent_ns is not None and arrived_ns is not None:
                self.answers_ns[sequence] = max(0, arrived_ns - sent_ns)
                self.round_trips_ns.append(self.answers_ns[sequence])

    def _reply_sequence_untrusted(self, packet: bytes) -> int | None:
        """The sequence number of a reply to this probe; None for any other packet."""
        offset = (packet[0] & 15) * 4 if self._is_raw and packet else 0
        if len(packet) < offset + _HEADER.size:
            return None
        kind, _, _, identifier, sequence = _HEADER.unpack_from(packet, offset)
        is_ours = kind == _REPLY and (identifier == self._identifier or not self._is_raw)
        return int(sequence) if is_ours else None


def echo_sequence(packet: bytes) -> int | None:
    """The sequence number of an IPv4 packet without options that is an echo or a reply; None for any other packet."""
    if len(packet) < _IP_ICMP_HEADER_BYTES or packet[0] != _IPV4_WITHOUT_OPTIONS or packet[9] != socket.IPPROTO_ICMP:
        return None
    kind, _, _, _, sequence = _HEADER.unpack_from(packet, _IP_ICMP_HEADER_BYTES - _HEADER.size)
    return int(sequence) if kind in (_REQUEST, _REPLY) else None


def encode_echo_request(identifier: int, sequence: int, packet_bytes: int = ECHO_PACKET_BYTES) -> bytes:
    """An echo request whose payload of zeros fills an IP packet of this size."""
    payload = bytes(packet_bytes - _IP_ICMP_HEADER_BYTES)
    checksum = 0xFFFF - ones_complement_sum(_HEADER.pack(_REQUEST, 0, 0, identifier, sequence) + payload)
    return _HEADER.pack(_REQUEST, 0, checksum, identifier, sequence) + payload
