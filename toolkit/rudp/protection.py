"""Packet protection: every packet is sealed before it is sent, and opened before anything believes it.

This is the interface between the engine and its protection, the memory that they share, and the protection of packets
in the clear. `aead_protection.py` encrypts.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ProtocolError
from toolkit.rudp import wire


class ForgeryLimitError(ProtocolError):
    """So many packets have failed to open that another one may be a forgery that opens. The connection has to end."""


class StreamMemory:
    """The memory of stream packets: their payload in one piece, and the packets as they are sent.

    payload, packets: arrays of bytes of the same size
    """

    def __init__(self, max_bytes: int) -> None:
        # Unlike bytearray, np.zeros takes no memory before it is written to: a small file uses little of it.
        self.payload = np.zeros(max_bytes, np.uint8)
        self.packets = np.zeros(max_bytes, np.uint8)
        self._sizes = (0, 0)
        self._headers: list[memoryview] = []
        self._payloads: list[memoryview] = []
        self._bodies: list[memoryview] = []

    def slices(
        self, count: int, payload_bytes: int, tag_bytes: int
    ) -> tuple[list[memoryview], list[memoryview], list[memoryview]]:
        """Header, payload, and place of the sealed payload, of at least `count` full packets.

        They are kept for the next call with the same sizes.
        """
        if self._sizes != (payload_bytes, tag_bytes):
            self._sizes = (payload_bytes, tag_bytes)
            self._headers, self._payloads, self._bodies = [], [], []
        segment = wire.HEADER_BYTES + payload_bytes + tag_bytes
        packets, payload = self.packets.data, self.payload.data
        for i in range(len(self._headers), count):
            body = i * segment + wire.HEADER_BYTES
            self._headers.append(packets[i * segment : body])
            self._payloads.append(payload[i * payload_bytes : (i + 1) * payload_bytes])
            self._bodies.append(packets[body : (i + 1) * segment])
        return self._headers, self._payloads, self._bodies


class PacketProtection(Protocol):
    """Seals the packets of one side, and opens those of the other.

    tag_bytes:             what protection adds to the end of every packet
    stream_overhead_bytes: size of a DATA or MESSAGE packet without its payload; every size computation uses this
    phase_flags:           flags of the header that the next packets to be sealed have
    """

    tag_bytes: int
    stream_overhead_bytes: int
    phase_flags: int

    def update_keys(self, next_number: int, largest_acked: int) -> bool:
        """Update the keys for sending if it is time; return whether it is and an acknowledgement is missing.

        `next_number` is the number of the next packet, `largest_acked` the highest number that was acknowledged.
        """

    def is_exhausted(self, next_number: int) -> bool:
        """Whether the current keys may seal no further packets."""

    def seal_stream(
        self, memory: StreamMemory, numbers: NDArray[np.int64], payload_bytes: int, total_bytes: int
    ) -> int:
        """Seal DATA or MESSAGE packets whose headers are in `memory.packets`; return the end of the last packet.

        Each takes `payload_bytes` of the `total_bytes` of `memory.payload`; the last may have fewer.
        """

    def seal(self, packet: bytes) -> bytes:
        """Seal one packet, whose last `tag_bytes` are free for the tag."""

    def open_stream(
        self, packets: NDArray[np.uint8], numbers: NDArray[np.int64], buffer: NDArray[np.uint8], start: int
    ) -> int:
        """Open DATA packets, one in each row of `packets`, into `buffer` from `start` on, one after the other.

        All have the same key phase. Returns how many have been opened, from the first on: the next one is forged or
        damaged, or has other keys. Raises ForgeryLimitError.
        """

    def open_untrusted(self, packet: memoryview) -> memoryview:
        """Open one packet: return it without tag, in the clear.

        Raises ProtocolError if it is forged or damaged, ForgeryLimitError if too many have been.
        """


class Unprotected:
    """Packets in the clear, for comparison and simulation. Implements `PacketProtection`."""

    def __init__(self) -> None:
        self.tag_bytes = 0
        self.stream_overhead_bytes = wire.HEADER_BYTES
        self.phase_flags = 0

    def update_keys(self, next_number: int, largest_acked: int) -> bool:
        del next_number, largest_acked
        return False

    def is_exhausted(self, next_number: int) -> bool:
        del next_number
        return False

    def seal_stream(
        self, memory: StreamMemory, numbers: NDArray[np.int64], payload_bytes: int, total_bytes: int
    ) -> int:
        """Copy the payload to its packets."""
        count, segment = len(numbers), wire.HEADER_BYTES + payload_bytes
        full = total_bytes // payload_bytes
        if full:
            rows = memory.packets[: full * segment].reshape(full, segment)
            rows[:, wire.HEADER_BYTES :] = memory.payload[: full * payload_bytes].reshape(full, payload_bytes)
        end = full * segment
        if full < count:
            start = end + wire.HEADER_BYTES
            end = start + total_bytes - full * payload_bytes
            memory.packets[start:end] = memory.payload[full * payload_bytes : total_bytes]
        return end

    def seal(self, packet: bytes) -> bytes:
        return packet

    def open_stream(
        self, packets: NDArray[np.uint8], numbers: NDArray[np.int64], buffer: NDArray[np.uint8], start: int
    ) -> int:
        """Copy the payload of all packets."""
        del numbers
        count, payload_bytes = len(packets), packets.shape[1] - wire.HEADER_BYTES
        end = start + count * payload_bytes
        buffer[start:end].reshape(count, payload_bytes)[:] = packets[:, wire.HEADER_BYTES :]
        return count

    def open_untrusted(self, packet: memoryview) -> memoryview:
        return packet
