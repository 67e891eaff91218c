"""Content without an end that ends in time, and what counts of it."""

import math
import threading
import time
from typing import Any

import pytest
import xxhash

from tests.support.sessions import channel_pair
from toolkit.comparison.discard import receive_and_discard
from toolkit.comparison.endpoint_result import Samples
from toolkit.comparison.timed import (
    Cut,
    TimedDestination,
    TimedStream,
    backlog_bytes,
    paced_portions,
    portions,
    real_portions,
    until,
)
from toolkit.transfer import SendOptions, TransferResult, send
from toolkit.transfer.digest import Algorithm, algorithm_by_name

ALGORITHM = algorithm_by_name("xxh3-128")


class Steps:
    """A clock that goes on by a second whenever somebody looks."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


def stream(algorithm: Algorithm = ALGORITHM, seed: int = 1, until_s: float = 5.0) -> TimedStream:
    return TimedStream(algorithm, seed, until_s, clock=Steps())


def content_of(one: TimedStream) -> bytes:
    parts = []
    while (piece := one.next_slice()).data:
        assert piece.offset == sum(map(len, parts))
        parts.append(piece.data)
    return b"".join(parts)


def test_the_content_ends_when_the_time_is_up_and_has_the_digest_of_what_was_read() -> None:
    one = stream()
    content = content_of(one)
    assert len(content) == one.size_bytes > 3_000_000
    assert one.digest() == xxhash.xxh3_128(content).digest()


def test_the_content_depends_on_the_seed_and_repeats_with_a_prime_period() -> None:
    content = content_of(stream())
    assert content == content_of(stream())
    assert content[:5000] != content_of(stream(seed=2))[:5000]
    assert content[1_000_003:] == content[: len(content) - 1_000_003]
    assert content[: 1 << 16] != content[1 << 16 : 2 << 16]


def test_the_content_may_end_at_a_size() -> None:
    one = TimedStream(ALGORITHM, 1, math.inf, 1 << 16, end_bytes=2_500_001)
    assert content_of(one) == content_of(stream())[:2_500_001]


def test_slices_are_small_where_little_may_be_unsent() -> None:
    assert portions("tcp", None) == portions("udp", None) == (None, 1 << 20)
    tcp, udp = portions("tcp", 100e6), portions("udp", 100e6)
    assert tcp.backlog_bytes == udp.backlog_bytes == 125_000
    assert tcp.slice_bytes < udp.slice_bytes < 125_000
    assert len(TimedStream(ALGORITHM, 1, 9.0, 5000, Steps()).next_slice().data) == 5000


def test_on_a_real_path_only_the_window_of_each_transport_bounds_what_is_unsent() -> None:
    """For UDP a backlog is a lower bound beside two windows; for TCP it would be TCP_NOTSENT_LOWAT."""
    tcp, udp = real_portions("tcp"), real_portions("udp")
    assert tcp.backlog_bytes is None
    assert udp.backlog_bytes is not None
    assert tcp.slice_bytes == udp.slice_bytes


@pytest.mark.parametrize(("rate_bps", "expected"), [(1e3, 1_200), (8e6, 10_000), (10e9, 1 << 16)])
def test_a_paced_sender_hands_over_what_its_rate_carries_in_a_moment(rate_bps: float, expected: int) -> None:
    assert paced_portions(rate_bps) == (expected, expected)


def test_a_session_sends_it_and_the_destination_knows_how_much_is_hashed() -> None:
    destination = TimedDestination()
    assert destination.hashed_bytes == 0
    received: list[TransferResult] = []
    with channel_pair() as (sender, receiver):
        thread = threading.Thread(
            target=lambda: received.append(receive_and_discard(receiver, destination=destination))
        )
        thread.start()
        sent = send(sender, ["-"], SendOptions(stream_name="content", open_stream=stream))
        thread.join()
    assert (received[0].digest, received[0].size_bytes) == (sent.digest, sent.size_bytes)
    assert destination.hashed_bytes == sent.size_bytes > 0


class Arriving:
    """A destination that has hashed so much, and a channel with so much of an incomplete record."""

    def __init__(self, hashed_bytes: int, unopened_bytes: int | None) -> None:
        self.hashed_bytes = hashed_bytes
        self._statistics = {} if unopened_bytes is None else {"unopened_bytes": unopened_bytes}

    def statistics(self) -> dict[str, int]:
        return self._statistics


@pytest.mark.parametrize(
    ("hashed", "unopened", "counted"),
    [(500_000, 9_000, 509_000), (500_000, None, 500_000), (0, 40, 0)],  # TCP, UDP, and a message before any content
)
def test_what_has_arrived_of_a_record_counts_when_the_time_is_up(
    hashed: int, unopened: int | None, counted: int
) -> None:
    arriving: Any = Arriving(hashed, unopened)
    cut = Cut(arriving, clock=lambda: 7.0)
    cut.channel = arriving
    cut.take()
    assert (cut.cut_s, cut.cut_bytes) == (7.0, counted)


def test_a_session_that_ends_after_the_deadline_is_cut_once_even_if_the_timer_is_late() -> None:
    arriving: Any = Arriving(500, 0)
    cut = Cut(arriving, clock=iter([0.0, 59.0, 61.0, 62.0]).__next__)
    cut.channel = arriving
    cut.take_at(60.0)
    cut.take_if_due()
    assert cut.cut_s is None  # the sender failed before
    cut.take_if_due()
    assert (cut.cut_s, cut.cut_bytes) == (62.0, 500)
    arriving.hashed_bytes = 900
    cut.take()
    assert (cut.cut_s, cut.cut_bytes) == (62.0, 500)


def test_the_deadline_takes_the_cut() -> None:
    arriving: Any = Arriving(500, 0)
    is_taken = threading.Event()
    arriving.statistics = lambda: is_taken.set() or {}
    cut = Cut(arriving)
    cut.channel = arriving
    cut.take_at(time.monotonic() - 1.0)
    assert is_taken.wait(30)


def test_nothing_has_arrived_before_there_is_a_channel() -> None:
    cut = Cut(TimedDestination(), clock=lambda: 7.0)
    assert (cut.cut_s, cut.cut_bytes) == (None, None)
    cut.take()
    assert cut.cut_bytes == 0


def test_samples_until_a_time() -> None:
    columns = [[0.0, 1.0, 2.0]] * 8
    assert until(Samples(*columns), 1.5) == Samples(*[[0.0, 1.0]] * 8)
    assert until(Samples(*columns), 9.0) == Samples(*columns)
    assert until(Samples(*columns), -1.0) == Samples(*[[0.0]] * 8)


@pytest.mark.parametrize(("rate_bps", "expected"), [(None, None), (1e6, 65536), (1e9, 1_250_000)])
def test_a_sender_on_a_slow_path_holds_little_unsent(rate_bps: float | None, expected: int | None) -> None:
    assert backlog_bytes(rate_bps) == expected
