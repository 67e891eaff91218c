"""During a flood, a share of the first packets passes, and the share adapts to what the listener handles."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import numpy as np
import pytest

from tests.support.udp_handshakes import CodeClientSecurity, OpenClientSecurity, client, make_server
from toolkit.rudp.address_validation import AddressValidator, token_mark_untrusted
from toolkit.rudp.handshake_packets import InitialPacket, make_offer
from toolkit.rudp.wire import COMMON, PacketType
from toolkit.transports.udp.flood_guard import INTERVAL_NS, MIN_SHARE, FloodGuard

VALIDATOR = AddressValidator(bytes(32))
HOST = bytes((127, 0, 0, 1))
WITHOUT_TOKEN = InitialPacket(7, make_offer(), b"M1").encode()
WITH_TOKEN = InitialPacket(7, make_offer(), b"M1", VALIDATOR.return_token(HOST, 1)).encode()
MADE_UP = InitialPacket(7, make_offer(), b"M1", bytes(25)).encode()
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
        self.guard = FloodGuard(self.sock, VALIDATOR.marks)
        self._now_ns = 0

    def interval(self, datagrams: list[bytes], is_full: bool, at_ns: int | None = None) -> None:
        """The interval ends with a round of these datagrams; in a flood, others like it come before."""
        self._now_ns = self._now_ns + INTERVAL_NS if at_ns is None else at_ns
        for ns_left in range(8, -1, -1) if is_full else (0,):
            for datagram in datagrams:
                self.guard.on_datagram(datagram, HOST)
            self.guard.on_round(is_full, self._now_ns - ns_left)

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
        flooded.interval([WITHOUT_TOKEN] * 100, is_full=False)
    assert not flooded.guard.is_active
    assert flooded.passing(WITHOUT_TOKEN, 50) == 50


@pytest.mark.parametrize(
    ("flood", "limited", "free"),
    [
        (WITHOUT_TOKEN, [WITHOUT_TOKEN, MADE_UP], WITH_TOKEN),
        (MADE_UP, [WITHOUT_TOKEN, MADE_UP], WITH_TOKEN),
        (WITH_TOKEN, [WITH_TOKEN], WITHOUT_TOKEN),
    ],
)
def test_a_share_of_one_kind_passes_and_all_of_the_others(
    flooded: Flooded, flood: bytes, limited: list[bytes], free: bytes
) -> None:
    """A made-up token is worth no more than none."""
    for _ in range(2):
        flooded.interval([flood] * 90 + [free] * 10, is_full=True)
    assert flooded.guard.shares[flood is WITH_TOKEN] == pytest.approx(0.64)
    for datagram in limited:
        assert 250 <= flooded.passing(datagram) <= 390  # 320 expected; beyond 6 standard deviations
    assert flooded.passing(free, 50) == 50
    assert flooded.passing(PROTECTED, 50) == 50
    assert flooded.passing(b"x", 50) == 50


def test_a_flood_of_other_packets_keeps_no_client_out(flooded: Flooded) -> None:
    for _ in range(50):
        flooded.interval([WITHOUT_TOKEN, WITH_TOKEN] + [PROTECTED] * 126, is_full=True)
    assert not flooded.guard.is_active


def test_the_share_has_a_lower_bound(flooded: Flooded) -> None:
    for _ in range(50):
        flooded.interval([WITHOUT_TOKEN], is_full=True)
    assert flooded.guard.shares == [MIN_SHARE, 1.0]


def test_the_filter_goes_when_the_flood_is_over(flooded: Flooded) -> None:
    for _ in range(5):
        flooded.interval([WITHOUT_TOKEN], is_full=True)
    while (time_ns := flooded.guard.poll_timeout()) is not None:
        flooded.interval([], is_full=False, at_ns=time_ns)  # nothing arrives any more
    assert flooded.passing(WITHOUT_TOKEN, 50) == 50
    assert flooded.passing(b"x", 50) == 50


@pytest.mark.parametrize("asks_for_code", [False, True])
@pytest.mark.parametrize("flood", [WITHOUT_TOKEN, MADE_UP], ids=["no token", "made-up token"])
def test_a_new_client_gets_in_within_five_seconds(flood: bytes, asks_for_code: bool) -> None:
    """Of 50,000 INITIALs a second, the listener handles 15,000. In virtual time; the filter is a model of it."""
    for seed in range(20):
        with ExitStack() as cleanup:
            seconds = connect_during_a_flood(Flooded(cleanup).guard, seed, flood, asks_for_code)
        assert seconds < 5.0, f"seed {seed}"


def connect_during_a_flood(guard: FloodGuard, seed: int, flood: bytes, asks_for_code: bool) -> float:
    """Return how many seconds a client needs to get its ACCEPT, from when the flood has lasted for a second."""
    assert token_mark_untrusted(flood) != VALIDATOR.marks.of(bytes(4))
    rng = np.random.default_rng(seed)
    tick_ns, begin_ns, sent, handled, queue_limit = 10_000_000, 1_000_000_000, 500, 150, 450
    server, queued, now_ns = make_server(asks_for_code), 0, 0
    security = CodeClientSecurity if asks_for_code else OpenClientSecurity
    connecting = client(security=security, now_ns=begin_ns)
    while connecting.accepted is None:
        now_ns += tick_ns
        passed = int(rng.binomial(sent, guard.shares[False]))
        overflow = max(0, queued + passed - handled - queue_limit)
        arrivals = min(queued + passed, handled)
        queued += passed - overflow - arrivals
        guard.on_unmarked(arrivals)
        if now_ns >= begin_ns and (datagram := connecting.poll_transmit(now_ns)) is not None:
            is_marked = token_mark_untrusted(datagram) == VALIDATOR.marks.of(HOST)
            if rng.random() < guard.shares[is_marked] * (1 - overflow / max(1, passed)):
                guard.on_datagram(datagram, HOST)
                for answer in server.handle_initial_untrusted(datagram, ("127.0.0.1", 4711), HOST, now_ns):
                    connecting.handle_datagram_untrusted(answer, now_ns)
        guard.on_round(queued > 0, now_ns)
    return (now_ns - begin_ns) / 1e9


def test_a_listener_that_had_to_wait_for_a_processor_takes_one_full_queue_for_no_flood(flooded: Flooded) -> None:
    for number in range(1, 10):
        for left in range(7, -1, -1):  # 450 INITIALs in rounds of 64
            flooded.guard.on_unmarked(64 if left else 2)
            flooded.guard.on_round(left > 0, number * INTERVAL_NS - left)
    assert not flooded.guard.is_active


def test_a_round_that_drains_the_queue_spares_the_whole_interval(flooded: Flooded) -> None:
    flooded.interval([WITHOUT_TOKEN], is_full=True)
    share = flooded.guard.shares[False]
    flooded.interval([WITHOUT_TOKEN], is_full=False, at_ns=2 * INTERVAL_NS - 1)
    flooded.interval([WITHOUT_TOKEN], is_full=True)
    assert flooded.guard.shares[False] > share
