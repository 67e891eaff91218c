"""A batch of datagrams: equal segments in one buffer; only the last one may be shorter.

This is what UDP_GRO delivers and what UDP_SEGMENT accepts; without them a batch is one datagram. The engine works on
whole batches with numpy: one round of Python per batch, not per packet.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.rudp import wire

MAX_SUPER_PACKET_BYTES = 65_507  # maximum payload of one UDP_SEGMENT send over IPv4
MAX_BATCH_BYTES = 9 << 16
"""Maximum size of a batch that the engine accepts."""
MAX_SEGMENTS = 64  # UDP_MAX_SEGMENTS of kernels before 6.9


PeerAddress = tuple[str, int]
"""The peer's end of a path: host and port, as the driver names them."""


class Batch(NamedTuple):
    """Received datagrams, at most MAX_BATCH_BYTES. A datagram begins every `segment_bytes` of `data`.

    `ecn` is the IP ECN field of all of them.
    """

    data: memoryview
    segment_bytes: int
    ecn: int = 0


def segments_per_send(segment_bytes: int) -> int:
    """How many datagrams of this size one UDP_SEGMENT send may carry."""
    return max(1, min(MAX_SEGMENTS, MAX_SUPER_PACKET_BYTES // segment_bytes))


class Transmit(NamedTuple):
    """Datagrams to send, in one or more super-packets. Valid until the next call into the connection.

    `ecn` is the codepoint for the IP ECN field. `destination` is None for the peer's current address.
    """

    data: memoryview
    segment_bytes: int
    ecn: int = 0
    destination: PeerAddress | None = None

    def super_packets(self) -> list[memoryview]:
        """Return pieces that each fit one UDP_SEGMENT send."""
        step = self.segment_bytes * segments_per_send(self.segment_bytes)
        if len(self.data) <= step:
            return [self.data]
        return [self.data[i : i + step] for i in range(0, len(self.data), step)]


class PacketBuffer:
    """Buffers for the stream packets of one `Transmit`. Header fields are written as columns."""

    def __init__(self, max_bytes: int) -> None:
        # Unlike bytearray, np.zeros takes no memory before it is written to: a small file uses little of it.
        self._bytes = np.zeros(max_bytes, np.uint8)
        self._view = self._bytes.data
        self._payload = np.zeros(max_bytes, np.uint8)
        self._scratch = self._payload.data

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
        """Build packets with `payload_bytes` of payload each, the last perhaps shorter, from `scratch`."""
        count = len(packet_numbers)
        segment = wire.HEADER_BYTES + payload_bytes
        header = np.ndarray((count,), wire.DATA.dtype, self._bytes, 0, (segment,))
        header["type"] = packet_type
        header["flags"] = 0
        header["connection_id"] = connection_id
        header["packet_number"] = packet_numbers
        header["offset"] = offsets
        if ack_now:
            header["flags"][-1] = wire.Flags.ACK_NOW
        full = total_bytes // payload_bytes
        if full:
            rows = self._bytes[: full * segment].reshape(full, segment)
            rows[:, wire.HEADER_BYTES :] = self._payload[: full * payload_bytes].reshape(full, payload_bytes)
        end = full * segment
        if full < count:
            rest = total_bytes - full * payload_bytes
            start = end + wire.HEADER_BYTES
            self._bytes[start : start + rest] = self._payload[full * payload_bytes : total_bytes]
            end = start + rest
        return Transmit(self._view[:end], segment)
