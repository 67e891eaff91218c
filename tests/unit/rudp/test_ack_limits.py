"""What an ACK range cannot express: a peer may skip packet numbers as it likes, and must not break who acknowledges."""

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
