"""Packets that elicit no acknowledgement: FINISH, ACK, PATH_CHALLENGE, PATH_RESPONSE and CLOSE.

They are sent before everything else but a new message, whatever the congestion window. All but FINISH have room for the
tag, and are sealed when they leave the connection.
"""

from collections import deque
from typing import Final

from toolkit.rudp import wire
from toolkit.rudp.batch import Transmit
from toolkit.rudp.path import MAX_AMPLIFICATION, PathState
from toolkit.rudp.sent_packets import SentPackets
from toolkit.rudp.wire import PacketType

_MAX_PENDING_RESPONSES: Final = 4


class FinishPacket:
    """A client's last packet of the handshake: sent first, and repeated until `stop`.

    It has a timer of its own. The server can open nothing before it has FINISH; new packets, which put the probe
    timeout off, would otherwise keep a lost FINISH from being repeated.
    """

    def __init__(self, datagram: bytes | None = None, sent_time_ns: int | None = None) -> None:
        """None on a server, which sends none. `sent_time_ns` says when the driver has sent it already."""
        self._datagram = datagram
        self._sent_time_ns = sent_time_ns
        self._repetitions = 0

    def stop(self) -> None:
        """The server has answered with a protected packet."""
        self._datagram = None

    @property
    def is_pending(self) -> bool:
        """Whether the server has not answered yet."""
        return self._datagram is not None

    def poll_timeout(self, path: PathState) -> int | None:
        """When to repeat it; None for never."""
        if self._datagram is None or self._sent_time_ns is None:
            return None
        return self._sent_time_ns + path.loss.backed_off_pto_ns(self._repetitions)

    def poll_transmit(self, path: PathState, now_ns: int) -> Transmit | None:
        """FINISH, if it is due."""
        due_ns = self.poll_timeout(path)
        if self._datagram is None or (due_ns is not None and now_ns < due_ns):
            return None
        self._repetitions += due_ns is not None
        self._sent_time_ns = now_ns
        return Transmit(memoryview(self._datagram), len(self._datagram))


class ControlPackets:
    """Queue acknowledgements and responses, then call `poll_transmit` until None."""

    def __init__(self, sent: SentPackets, peer_id: int, tag_bytes: int) -> None:
        """The packets take their numbers from `sent`."""
        self._sent = sent
        self._peer_id = peer_id
        self._tag_bytes = tag_bytes
        self._acks: deque[wire.AckPacket] = deque()
        self._responses: deque[tuple[int, int]] = deque(maxlen=_MAX_PENDING_RESPONSES)  # challenge, its size

    def queue_acks(self, acks: list[wire.AckPacket]) -> None:
        """Send an acknowledgement, in one or more packets."""
        self._acks += acks

    def queue_response(self, challenge: int, size_bytes: int) -> None:
        """Answer a PATH_CHALLENGE that came in a datagram of `size_bytes`."""
        self._responses.append((challenge, size_bytes))

    def poll_transmit(self, path: PathState, now_ns: int) -> Transmit | None:
        """The next packet to send; None if there is none."""
        if self._responses:
            challenge, size_bytes = self._responses.popleft()
            return self._path_packet(PacketType.PATH_RESPONSE, challenge, MAX_AMPLIFICATION * size_bytes)
        candidate = path.candidate
        if candidate is not None:
            sendable_bytes = candidate.poll_challenge(now_ns, path.rtt.pto_ns(0))
            if sendable_bytes:
                transmit = self._path_packet(PacketType.PATH_CHALLENGE, candidate.challenge, sendable_bytes)
                candidate.on_challenge_sent(len(transmit.data))
                return transmit._replace(destination=candidate.peer_address)
        if self._acks:
            packet = wire.encode_ack(self._peer_id, self._sent.number_non_eliciting(), self._acks.popleft())
            return self._transmit(packet, len(packet))._replace(ecn=path.ecn.codepoint)
        return None

    def close(self, code: int, reason: str) -> Transmit:
        """A CLOSE."""
        packet = wire.encode_close(self._peer_id, self._sent.number_non_eliciting(), code, reason)
        return self._transmit(packet, len(packet))

    def _path_packet(self, packet_type: PacketType, challenge: int, max_bytes: int) -> Transmit:
        """It shows that the path carries datagrams of the minimum size, unless `max_bytes` is less than that."""
        packet = wire.PATH.pack(packet_type, 0, self._peer_id, self._sent.number_non_eliciting(), challenge)
        return self._transmit(packet, min(max_bytes, wire.MIN_DATAGRAM_BYTES) - self._tag_bytes)

    def _transmit(self, packet: bytes, size_bytes: int) -> Transmit:
        """The packet, padded to `size_bytes`, with room for the tag."""
        data = packet.ljust(size_bytes, b"\0") + bytes(self._tag_bytes)
        return Transmit(memoryview(data), len(data))
