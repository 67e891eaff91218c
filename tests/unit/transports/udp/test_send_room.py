"""How much a socket may leave in the host's queues. The kernel reports twice the size that was set."""

import socket
from collections.abc import Iterator

import pytest

from toolkit.rudp.batch import MAX_SUPER_PACKET_BYTES
from toolkit.rudp.sender import MAX_ROUND_BYTES
from toolkit.transports.udp.send_room import SendRoom

SECOND = 1_000_000_000


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        yield sock


def room_of(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2


@pytest.mark.parametrize(("rate_bps", "room_bytes"), [(1e6, 65_536), (400e6, 100_000), (600e6, 150_000)])
def test_it_is_two_milliseconds_of_the_rate(sock: socket.socket, rate_bps: float, room_bytes: int) -> None:
    SendRoom(sock).follow_rate(rate_bps, 1)
    assert room_of(sock) == room_bytes


def test_small_changes_of_the_rate_change_nothing(sock: socket.socket) -> None:
    room = SendRoom(sock)
    for rate_bps in (400e6, 500e6, 300e6):
        room.follow_rate(rate_bps, 1)
        assert room_of(sock) == 100_000


def test_after_drops_room_and_super_packets_shrink_and_grow_again_with_time(sock: socket.socket) -> None:
    room = SendRoom(sock)
    room.follow_rate(400e6, 1)
    assert not room.has_shrunk
    assert room.max_round_bytes == MAX_ROUND_BYTES
    room.on_drop(60_000)  # while nothing of this socket waits
    assert room.has_shrunk
    assert room.max_round_bytes == 1 << 16
    assert room_of(sock) < 10_000
    assert room.max_super_packet_bytes == 30_000
    start_ns = 1 << 62
    for second in range(200):
        room.follow_rate(400e6, start_ns + 2 * second * SECOND)
    assert room_of(sock) > 66_666
    assert room.max_super_packet_bytes == MAX_SUPER_PACKET_BYTES
    assert room.max_round_bytes == MAX_ROUND_BYTES


@pytest.mark.parametrize(
    ("queued_bytes", "round_bytes"),
    [(100_000, 2 * MAX_SUPER_PACKET_BYTES), (400_000, 300_000), (8 << 20, MAX_ROUND_BYTES)],
)
def test_a_round_is_the_room_that_drops_have_left_and_two_super_packets_at_least(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch, queued_bytes: int, round_bytes: int
) -> None:
    monkeypatch.setattr("toolkit.transports.udp.send_room._queued_bytes", lambda _: queued_bytes)
    room = SendRoom(sock)
    room.on_drop(60_000)
    assert room.max_round_bytes == round_bytes


def test_there_is_room_while_nothing_waits(sock: socket.socket) -> None:
    assert SendRoom(sock).is_left


def test_the_system_is_asked_again_once_an_eighth_of_the_buffer_was_sent() -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        room = SendRoom(near)
        while room.wait(0):
            near.send(bytes(1 << 12))
        room.on_sent(100, 1)
        assert room.is_left
        room.on_sent(room.buffer_bytes // 8, 1)
        assert not room.is_left
        while not room.is_left:
            far.recv(1 << 16)
