"""During a flood, a share of the first packets passes, and the share adapts to what the listener handles."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from toolkit.rudp.handshake_packets import InitialPacket, make_offer
from toolkit.rudp.wire import COMMON, PacketType
from toolkit.transports.udp.flood_guard import INTERVAL_NS, MIN_SHARE, FloodGuard

WITHOUT_TOKEN = InitialPacket(7, make_offer(), b"M1").encode()
WITH_TOKEN = InitialPacket(7, make_offer(), b"M1", b"token").encode()
PROTECTED = COMMON.pack(PacketType.PING, 1, 7, 0)


class Flooded:
    """A socket with a guard, and one that sends to it."""

    def __init__(self, cleanup: ExitStack) -> None:
        self.sock, self._sender = (
            cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)
        )
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self._sender.connect(self.sock.getsockname())
        self.guard = FloodGuard(self.sock)
        self._now_ns = 0

    def interval(self, initials: list[bool], is_full: bool, others: int = 0) -> None:
        self._now_ns += INTERVAL_NS
        self.guard.on_round(initials, others, is_full, self._now_ns)

    def passing(self, datagram: bytes, count: int = 500) -> int:
        """Return how many of `count` datagrams pass."""
        found = 0
        for _ in range(count):
            self._sender.send(datagram)
            with suppress(BlockingIOError):
                self.sock.recv(2048)
                found += 1
        return found


@pytest.fixture
def flooded() -> Iterator[Flooded]:
    with ExitStack() as cleanup:
        yield Flooded(cleanup)


def test_everything_passes_without_a_flood(flooded: Flooded) -> None:
    for _ in range(100):
        flooded.interval([False] * 100, is_full=False)
    assert not flooded.guard.is_active
    assert flooded.passing(WITHOUT_TOKEN, 50) == 50


@pytest.mark.parametrize("has_token", [False, True])
def test_a_share_of_one_kind_passes_and_all_of_the_others(flooded: Flooded, has_token: bool) -> None:
    for _ in range(2):
        flooded.interval([has_token] * 90 + [not has_token] * 10, is_full=True)
    assert flooded.guard.shares[has_token] == pytest.approx(0.36)
    limited, free = (WITH_TOKEN, WITHOUT_TOKEN) if has_token else (WITHOUT_TOKEN, WITH_TOKEN)
    assert 110 <= flooded.passing(limited) <= 250  # 180 expected; beyond 6 standard deviations
    assert flooded.passing(free, 50) == 50
    assert flooded.passing(PROTECTED, 50) == 50
    assert flooded.passing(b"x", 50) == 50


def test_a_flood_of_other_packets_keeps_no_client_out(flooded: Flooded) -> None:
    for _ in range(50):
        flooded.interval([False, True], is_full=True, others=126)
    assert not flooded.guard.is_active


def test_the_share_has_a_lower_bound(flooded: Flooded) -> None:
    for _ in range(50):
        flooded.interval([False], is_full=True)
    assert flooded.guard.shares == [MIN_SHARE, 1.0]


def test_the_filter_goes_when_the_flood_is_over(flooded: Flooded) -> None:
    for _ in range(5):
        flooded.interval([False], is_full=True)
    while flooded.guard.is_active:
        flooded.interval([], is_full=False)
    assert flooded.passing(WITHOUT_TOKEN, 50) == 50
    assert flooded.passing(b"x", 50) == 50


def test_a_round_that_drains_the_queue_spares_the_whole_interval(flooded: Flooded) -> None:
    flooded.interval([False], is_full=True)
    share = flooded.guard.shares[False]
    flooded.guard.on_round([False], 0, False, 2 * INTERVAL_NS - 1)
    flooded.interval([False], is_full=True)
    assert flooded.guard.shares[False] > share
