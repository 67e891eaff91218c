"""Send side of the two streams: what is to be sent, what was lost, and what has been acknowledged.

The data stream carries file content, which the peer may take in any order. The message stream carries
length-prefixed messages, which the peer delivers in order. Each numbers its bytes from 0. A retransmission is a range
of offsets, sent under a new packet number and cut into packets afresh.

Read: RFC 9000 sections 2.2 (offsets), 4.1 (flow control) and 13.3 (retransmission of information).
"""

import struct
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.rudp.flow_control import INITIAL_DATA_WINDOW_BYTES, MESSAGE_WINDOW_BYTES
from toolkit.rudp.range_set import RangeSet
from toolkit.rudp.sent_packets import PacketGroup

MESSAGE_LENGTH: Final = struct.Struct(">I")
"""Precedes each message in the message stream."""


class DataSource(Protocol):
    """Where the engine reads the bytes of a stream when it sends them, and again when it retransmits them."""

    def read_into(self, offset: int, buffer: memoryview) -> int | None:
        """Fill all of `buffer` with the bytes from stream offset `offset` on.

        Returns how many nanoseconds that took, if any: the packets are sent so much later.
        """


class SendStream:
    """One stream. All offsets and sizes are in bytes.

    end:         end of what the application has handed over
    next_offset: first byte that was never sent
    limit:       first byte that the peer does not accept yet
    acked, lost: ranges of offsets; lost ones wait for retransmission
    """

    def __init__(self, limit: int) -> None:
        self.end = 0
        self.next_offset = 0
        self.limit = limit
        self.acked = RangeSet()
        self.lost = RangeSet()
        self.retransmitted_bytes = 0
        self._is_abandoned = False

    def offer(self, length_bytes: int) -> int:
        """Add bytes to send; return the offset of the first. Raises ValueError after `abandon`."""
        if self._is_abandoned:
            raise ValueError("the source of this stream has failed: nothing more is sent from it")
        self.end += length_bytes
        return self.end - length_bytes

    def abandon(self) -> None:
        """The source has failed: send nothing more of this stream, and wait for nothing of it."""
        self._is_abandoned = True
        self.end = self.next_offset
        self.lost = RangeSet()

    @property
    def has_new(self) -> bool:
        """Bytes that were never sent may be sent now."""
        return self.next_offset < self.end and self.next_offset < self.limit

    @property
    def has_unsent(self) -> bool:
        """Bytes may be sent now, for the first time or again."""
        return bool(self.lost) or (self.next_offset < self.end and self.next_offset < self.limit)

    @property
    def is_blocked(self) -> bool:
        """There are bytes to send, and only the peer's receive window holds them back."""
        return self.limit <= self.next_offset < self.end

    @property
    def is_fully_acked(self) -> bool:
        """Everything that was handed over has arrived."""
        return self._is_abandoned or self.acked.contiguous_end() == self.end

    def on_acked(self, runs: list[tuple[int, int]]) -> None:
        """These ranges have arrived. What was declared lost of them is not sent again."""
        for start, end in runs:
            self.acked.add(start, end)
            if self.lost:
                self.lost.remove(start, end)

    def on_lost(self, runs: list[tuple[int, int]]) -> None:
        """Queue for retransmission what has not arrived in another packet."""
        if self._is_abandoned:
            return
        for start, end in runs:
            missing = start
            while missing < end:
                missing = self.acked.contiguous_end(missing)
                if missing >= end:
                    break
                missing_end = self.acked.next_start(missing, end)
                self.lost.add(missing, missing_end)
                missing = missing_end

    def oldest_unacked(self, limit_bytes: int) -> tuple[int, int] | None:
        """The first bytes that were sent and not acknowledged, at most `limit_bytes`; None if there are none."""
        start = self.acked.contiguous_end()
        if start >= self.next_offset or self._is_abandoned:
            return None
        return start, self.acked.next_start(start, min(start + limit_bytes, self.next_offset))

    def take(self, max_packets: int, payload_bytes: int) -> list[tuple[int, int]]:
        """Return the ranges to send next, lost bytes first, and count them as sent.

        The length of each range but the last is a multiple of `payload_bytes`.
        """
        runs = []
        room = max_packets
        while room and self.lost:
            start, lost_end = self.lost.first
            end = min(lost_end, start + room * payload_bytes)
            self.lost.remove(start, end)
            self.retransmitted_bytes += end - start
            runs.append((start, end))
            room -= -(-(end - start) // payload_bytes)
            if (end - start) % payload_bytes:
                return runs
        if room and self.has_new:
            start = self.next_offset
            end = min(self.end, self.limit, start + room * payload_bytes)
            self.next_offset = end
            if runs and runs[-1][1] == start:
                runs[-1] = (runs[-1][0], end)
            else:
                runs.append((start, end))
        return runs


class MessageBuffer:
    """Messages that are not acknowledged yet: the source of the message stream."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._base = 0

    def append(self, message: bytes) -> int:
        """Queue a message; return the new end of the stream."""
        self._bytes += MESSAGE_LENGTH.pack(len(message))
        self._bytes += message
        return self._base + len(self._bytes)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        start = offset - self._base
        buffer[:] = self._bytes[start : start + len(buffer)]

    def release(self, offset: int) -> None:
        """Free everything below `offset`: it will not be read again."""
        if offset > self._base:
            del self._bytes[: offset - self._base]
            self._base = offset


class SendStreams:
    """Both streams of a connection, and the buffer of unacknowledged messages."""

    def __init__(self) -> None:
        self.data = SendStream(INITIAL_DATA_WINDOW_BYTES)
        self.messages = SendStream(MESSAGE_WINDOW_BYTES)
        self.message_buffer = MessageBuffer()

    @property
    def is_fully_acked(self) -> bool:
        """Everything that was handed over has arrived."""
        return self.data.is_fully_acked and self.messages.is_fully_acked

    @property
    def is_blocked(self) -> bool:
        """The peer's receive window holds one of them back."""
        return self.data.is_blocked or self.messages.is_blocked

    def raise_limits(self, data_limit: int, message_limit: int) -> None:
        """Take the receive limits that the peer has advertised; a limit never decreases."""
        self.data.limit = max(self.data.limit, data_limit)
        self.messages.limit = max(self.messages.limit, message_limit)

    def on_acked(self, packets: PacketGroup) -> None:
        """These packets were acknowledged."""
        self.data.on_acked(packets.data)
        self.messages.on_acked(packets.messages)
        self.message_buffer.release(self.messages.acked.contiguous_end())

    def on_lost(self, packets: PacketGroup) -> None:
        """These packets were declared lost, or are given up."""
        self.data.on_lost(packets.data)
        self.messages.on_lost(packets.messages)


def segment_offsets(runs: list[tuple[int, int]], payload_bytes: int) -> NDArray[np.int64]:
    """The stream offset of each packet that carries `payload_bytes` of these ranges."""
    if len(runs) == 1:
        return np.arange(runs[0][0], runs[0][1], payload_bytes)
    return np.concatenate([np.arange(start, end, payload_bytes) for start, end in runs])
