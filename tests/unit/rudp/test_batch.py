"""Batches: headers and payload of many packets in one buffer, and its division into super-packets."""

import random

import numpy as np
import pytest

from toolkit.rudp import wire
from toolkit.rudp.batch import MAX_SEGMENTS, MAX_SUPER_PACKET_BYTES, PacketBuffer, Transmit
from toolkit.rudp.protection import Unprotected

ID = 0xFEDC_BA98_7654_3210


def filled(payload_bytes: int, total_bytes: int, ack_now: bool = False) -> tuple[Transmit, bytes]:
    buffer = PacketBuffer(1 << 18, Unprotected())
    content = np.random.default_rng(total_bytes).bytes(total_bytes)
    buffer.scratch(total_bytes)[:] = content
    count = -(-total_bytes // payload_bytes)
    numbers = np.arange(1000, 1000 + count)
    offsets = 7 + payload_bytes * np.arange(count)
    return (
        buffer.fill(wire.PacketType.DATA, ID, numbers, offsets, payload_bytes, total_bytes, ack_now),
        content,
    )


class TestPacketBuffer:
    @pytest.mark.parametrize("total_bytes", [1, 999, 1000, 1001, 5000, 44_444])
    def test_builds_the_packets_one_after_the_other(self, total_bytes: int) -> None:
        transmit, content = filled(1000, total_bytes)
        segment = transmit.segment_bytes
        assert segment == 1000 + wire.HEADER_BYTES
        datagrams = [bytes(transmit.data[i : i + segment]) for i in range(0, len(transmit.data), segment)]
        for i, datagram in enumerate(datagrams):
            assert wire.DATA.unpack_untrusted(datagram) == (wire.PacketType.DATA, 0, ID, 1000 + i, 7 + 1000 * i)
        assert b"".join(d[wire.HEADER_BYTES :] for d in datagrams) == content

    @pytest.mark.parametrize("total_bytes", [500, 1000, 3500])
    def test_ack_now_is_set_on_the_last_packet(self, total_bytes: int) -> None:
        transmit, _ = filled(1000, total_bytes, ack_now=True)
        flags = [transmit.data[i + 1] for i in range(0, len(transmit.data), transmit.segment_bytes)]
        assert flags == [0] * (len(flags) - 1) + [wire.Flags.ACK_NOW]

    def test_overwrites_everything_from_before(self) -> None:
        buffer = PacketBuffer(1 << 16, Unprotected())
        for fill, flags in ((b"\xff", True), (b"\x11", False)):
            buffer.scratch(3000)[:] = fill * 3000
            transmit = buffer.fill(
                wire.PacketType.MESSAGE, ID, np.arange(3), np.arange(0, 3000, 1000), 1000, 3000, flags
            )
        assert bytes(transmit.data) == b"".join(
            wire.DATA.pack(wire.PacketType.MESSAGE, 0, ID, i, 1000 * i) + b"\x11" * 1000 for i in range(3)
        )

    def test_writes_whatever_differs_from_the_batch_before(self) -> None:
        dice = random.Random(1)
        buffer = PacketBuffer(1 << 16, Unprotected())
        for _ in range(200):
            packet_type = dice.choice((wire.PacketType.DATA, wire.PacketType.MESSAGE))
            count, payload_bytes, first = dice.randint(1, 9), dice.choice((500, 1000)), dice.randrange(1 << 40)
            size, ack_now, connection_id = (
                count * payload_bytes - dice.randrange(500),
                dice.random() < 0.3,
                ID + count % 2,
            )
            offsets = first * payload_bytes + np.arange(count) * payload_bytes
            content = dice.randbytes(size)
            buffer.scratch(size)[:] = content
            transmit = buffer.fill(
                packet_type, connection_id, first + np.arange(count), offsets, payload_bytes, size, ack_now
            )
            assert bytes(transmit.data) == b"".join(
                wire.DATA.pack(
                    packet_type,
                    wire.Flags.ACK_NOW if ack_now and i == count - 1 else 0,
                    connection_id,
                    first + i,
                    int(offsets[i]),
                )
                + content[i * payload_bytes : (i + 1) * payload_bytes]
                for i in range(count)
            )


class TestTransmit:
    @pytest.mark.parametrize("segment_bytes", [30, 1200, 1472, 9000, 65_507])
    @pytest.mark.parametrize("datagrams", [1, 2, 44, 45, 63, 64, 65, 200])
    def test_super_packets_are_whole_datagrams_that_fit_one_send(self, segment_bytes: int, datagrams: int) -> None:
        data = np.random.default_rng(1).bytes(segment_bytes * datagrams - 7)
        pieces = Transmit(memoryview(data), segment_bytes).super_packets()
        assert b"".join(pieces) == data
        for piece in pieces[:-1]:
            assert len(piece) % segment_bytes == 0
        for piece in pieces:
            assert len(piece) <= MAX_SUPER_PACKET_BYTES
            assert len(piece) <= MAX_SEGMENTS * segment_bytes
