"""Gaps and ranges that do not fit an ACK packet: a peer that skips packet numbers must not break the receiver."""

import pytest

from toolkit.rudp import wire


@pytest.mark.parametrize(
    ("ranges", "encoded"),
    [
        ([(1 << 40, (1 << 40) + 1), (0, 1)], [(1 << 40, (1 << 40) + 1)]),
        ([(1 << 32, (1 << 32) + 1), (0, 1)], [(1 << 32, (1 << 32) + 1), (0, 1)]),
        ([(0, 1 << 33)], [((1 << 33) - 0xFFFF_FFFF, 1 << 33)]),
        (
            [((1 << 62), (1 << 62) + 5), ((1 << 62) - 9, (1 << 62) - 3)],
            [((1 << 62), (1 << 62) + 5), ((1 << 62) - 9, (1 << 62) - 3)],
        ),
    ],
    ids=["gap too wide", "widest gap", "run too long", "high numbers"],
)
def test_ranges_that_do_not_fit_their_fields_are_left_out(
    ranges: list[tuple[int, int]], encoded: list[tuple[int, int]]
) -> None:
    packet = wire.encode_ack(7, 0, wire.AckPacket(ranges, 0, 0, 0, 0, 0, 0))
    assert wire.decode_ack_untrusted(packet).ranges == encoded
