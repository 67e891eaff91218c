"""A batch of datagrams as a type: equal segments in one buffer, only the last of which may be short.

That is what the kernel's UDP_GRO hands up and what UDP_SEGMENT takes down; without these a batch is one datagram.
All vector work of the engine is over batches: one Python round a batch, not a packet.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.rudp import wire

MAX_SUPER_PACKET_BYTES = 65_507  # what one UDP_SEGMENT send may carry over IPv4
MAX_BATCH_BYTES = 9 << 16
"""The longest batch that the engine takes in one round."""
MAX_SEGMENTS = 64  # UDP_MAX_SEGMENTS of kernels before 6.9


PeerAddress = tuple[str, int]
"""The peer's end of a path: host and port, as the driver names them."""


class Batch(NamedTuple):
    """Received datagrams, at most MAX_BATCH_BYTES: `data` is cut every `segment_bytes`.

    `ecn` is the IP ECN field that all of them carried.
    """

    data: memoryview
    segment_bytes: int
    ecn: int = 0


def segments_per_send(segment_bytes: int) -> int:
    """How many datagrams of that size one UDP_SEGMENT send may carry."""
    return max(1, min(MAX_SEGMENTS, MAX_SUPER_PACKET_BYTES // segment_bytes))


class Transmit(NamedTuple):
    """Datagrams to send, by one super-packet or several; valid until the next call into the connection.

    `ecn` is the codepoint for the IP ECN field. `destination` is None for the peer's current address.
    """

    data: memoryview
    segment_bytes: int
    ecn: int = 0
    destination: PeerAddress | None = None

    def super_packets(self) -> list[memoryview]:
        """Cut so that each piece can go out by one UDP_SEGMENT send."""
        step = self.segment_bytes * segments_per_send(self.segment_bytes)
        if len(self.data) <= step:
            return [self.data]
        return [self.data[i : i + step] for i in range(0, len(self.data), step)]


class PacketBuffer:
    """Room for one round's outgoing DATA packets, with the header fields of each as columns to write into."""

    def __init__(self, max_bytes: int) -> None:
        # np.zeros, unlike bytearray, takes no memory before it is written to: a small file never needs most of it.
        self._bytes = np.zeros(max_bytes, np.uint8)
        self._view = self._bytes.data
        self._payload = np.zeros(max_bytes, np.uint8)
        self._scratch = self._payload.data

    def scratch(self, size_bytes: int) -> memoryview:
        """Contiguous room for the payload of the next `fill`."""
        return self._scratch[:size_bytes]

    def fill(
        self,
        kind: wire.PacketType,
        connection_id: int,
        packet_numbers: NDArray[np.int64],
        offsets: NDArray[np.int64],
        payload_bytes: int,
        total_bytes: int,
        ack_now: bool,
    ) -> Transmit:
        """Headers from the columns, payload from `scratch`: segments of `payload_bytes`, the last may be shorter."""
        count = len(packet_numbers)
        segment = wire.HEADER_BYTES + payload_bytes
        header = np.ndarray((count,), wire.DATA.dtype, self._bytes, 0, (segment,))
        header["type"] = kind
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
