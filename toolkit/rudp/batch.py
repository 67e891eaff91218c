"""A batch of datagrams: equal segments in one buffer; only the last one may be shorter.

This is what UDP_GRO delivers and what UDP_SEGMENT accepts; without them a batch is one datagram. The engine works on
whole batches with numpy: one round of Python per batch, not per packet.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.rudp import wire
from toolkit.rudp.protection import PacketProtection, StreamMemory

MAX_SUPER_PACKET_BYTES = 65_507  # maximum payload of one UDP_SEGMENT send over IPv4
MAX_BATCH_BYTES = 9 << 16
"""Maximum size of a batch that the engine accepts."""
MAX_SEGMENTS = 64  # UDP_MAX_SEGMENTS of kernels before 6.9


PeerAddress = tuple[str, int]
"""The peer's end of a path: host and port, as the driver names them."""


class Batch(NamedTuple):
    """Received datagrams, at most MAX_BATCH_BYTES. A datagram begins every `segment_bytes` of `data`.

    ecn:       the IP ECN field of all of them
    waited_ns: how long the last has waited in the socket before it was read; 0 if unknown
    """

    data: memoryview
    segment_bytes: int
    ecn: int = 0
    waited_ns: int = 0


def segments_per_send(segment_bytes: int, max_bytes: int = MAX_SUPER_PACKET_BYTES) -> int:
    """How many datagrams of this size one UDP_SEGMENT send may carry."""
    return max(1, min(MAX_SEGMENTS, max_bytes // segment_bytes))


class Transmit(NamedTuple):
    """Datagrams to send, in one or more super-packets. Valid until the next call into the connection.

    `ecn` is the codepoint for the IP ECN field. `destination` is None for the peer's current address.
    """

    data: memoryview
    segment_bytes: int
    ecn: int = 0
    destination: PeerAddress | None = None

    def super_packets(self, max_bytes: int = MAX_SUPER_PACKET_BYTES) -> list[memoryview]:
        """Return pieces that each fit one UDP_SEGMENT send, of at most `max_bytes` if that is a datagram or more."""
        step = self.segment_bytes * segments_per_send(self.segment_bytes, max_bytes)
        if len(self.data) <= step:
            return [self.data]
        return [self.data[i : i + step] for i in range(0, len(self.data), step)]


_ACK_NOW: Final = int(wire.Flags.ACK_NOW)
"""numpy gets plain numbers only. It looks for special attributes of an enum, which runs Python code, and drops what
that raises: an interrupt would be lost."""


class PacketBuffer:
    """Buffers for the stream packets of one `Transmit`. Header fields are written as columns."""

    def __init__(self, max_bytes: int, protection: PacketProtection) -> None:
        self._protection = protection
        self._memory = StreamMemory(max_bytes)
        self._scratch = self._memory.payload.data
        self._view = self._memory.packets.data
        self._headers = _HeaderColumns(self._memory.packets)

    def scratch(self, size_bytes: int) -> memoryview:
        """Return contiguous memory for the payload of the next `fill`."""
        return self._scratch[:size_bytes]

    def fill(
        self,
        packet_type: wire.PacketType,
        connection_id: int,
        packet_numbers: NDArray[np.int64],
        offsets: NDArray[np.int64],
        payload_bytes: int,
        total_bytes: int,
        ack_now: bool,
    ) -> Transmit:
        """Seal packets with `payload_bytes` of payload each, the last perhaps shorter, from `scratch`."""
        protection, memory = self._protection, self._memory
        segment = protection.stream_overhead_bytes + payload_bytes
        common = int(packet_type), protection.phase_flags, connection_id
        self._headers.write(segment, common, packet_numbers, offsets, ack_now)
        end = protection.seal_stream(memory, packet_numbers, payload_bytes, total_bytes)
        return Transmit(self._view[:end], segment)


class _HeaderColumns:
    """The headers of stream packets in their buffer. What is the same as in the batch before is not written again."""

    def __init__(self, packets: NDArray[np.uint8]) -> None:
        self._packets = packets
        self._segment_bytes = 0
        self._common = (0, 0, 0)
        self._written = 0  # how many headers have the common fields
        self._ack_now_at = 0  # where one of them has another flag; 0 if none has
        self._number = self._offset = packets[:0]

    def write(
        self,
        segment_bytes: int,
        common: tuple[int, int, int],
        packet_numbers: NDArray[np.int64],
        offsets: NDArray[np.int64],
        ack_now: bool,
    ) -> None:
        """Write the headers of packets of `segment_bytes`; `common` is their type, flags and connection id."""
        count = len(packet_numbers)
        if segment_bytes != self._segment_bytes or common != self._common or count > self._written:
            header = np.ndarray((count,), wire.DATA.dtype, self._packets, 0, (segment_bytes,))
            header["type"], header["flags"], header["connection_id"] = common
            self._segment_bytes, self._common, self._written = segment_bytes, common, count
            self._number, self._offset = header["packet_number"], header["offset"]
        elif self._ack_now_at:
            self._packets[self._ack_now_at] = common[1]
        self._ack_now_at = 0
        self._number[:count] = packet_numbers
        self._offset[:count] = offsets
        if ack_now:
            self._ack_now_at = (count - 1) * segment_bytes + 1
            self._packets[self._ack_now_at] |= _ACK_NOW
