"""The digest of a file whose bytes arrive in any order is the standard one of its content."""

import blake3
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.repetitions import examples
from toolkit.errors import ProtocolError
from toolkit.transfer.digest import (
    ALGORITHMS,
    BURST_S,
    Algorithm,
    PendingRanges,
    ReceivedDigest,
    RunningDigest,
    ZeroHashing,
)

STANDARD = {
    "xxh3-128": lambda content: xxhash.xxh3_128(content).digest(),
    "blake3": lambda content: blake3.blake3(content).digest(),
}


@st.composite
def layouts(draw: st.DrawFn) -> list[tuple[int, bytes | int]]:
    """A file cut into pieces, each content or the length of a hole, in shuffled order."""
    pieces: list[tuple[int, bytes | int]] = []
    offset = 0
    for piece in draw(st.lists(st.binary(min_size=1, max_size=20) | st.integers(1, 50), max_size=30)):
        pieces.append((offset, piece))
        offset += piece if isinstance(piece, int) else len(piece)
    return draw(st.permutations(pieces))


def hash_backlog(digest: ReceivedDigest) -> None:
    """Hash every hole and long range that the frontier reaches, in steps that end within them."""
    while digest.is_behind:
        digest.hash_backlog(7)
        digest.catch_up()


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
@settings(max_examples=examples(150))
@given(layouts(), st.booleans(), st.integers(1, 100))
def test_any_order_gives_the_standard_digest(
    algorithm: Algorithm, layout: list[tuple[int, bytes | int]], hashes_backlog_at_once: bool, catch_up_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.transfer.digest.CATCH_UP_BYTES", catch_up_bytes)
        check_any_order(algorithm, layout, hashes_backlog_at_once)


def check_any_order(algorithm: Algorithm, layout: list[tuple[int, bytes | int]], hashes_backlog_at_once: bool) -> None:
    stored = bytearray(sum(piece if isinstance(piece, int) else len(piece) for _, piece in layout))

    def read_into(offset: int, buffer: memoryview) -> None:
        buffer[:] = stored[offset : offset + len(buffer)]

    digest = ReceivedDigest(algorithm, read_into, PendingRanges())
    for offset, piece in layout:
        if isinstance(piece, int):
            digest.on_hole(offset, piece)
        else:
            stored[offset : offset + len(piece)] = piece
            digest.on_data(offset, memoryview(piece))
        if hashes_backlog_at_once:
            hash_backlog(digest)
    hash_backlog(digest)
    assert digest.offset == len(stored)
    assert digest.pending_ranges == 0
    assert digest.digest() == STANDARD[algorithm.name](bytes(stored))


def unread(_offset: int, _buffer: memoryview) -> None:
    """A `read_into` for files whose content does not matter."""


@settings(max_examples=examples(100))
@given(layouts().filter(bool), st.data())
def test_bytes_that_come_twice_are_an_error(layout: list[tuple[int, bytes | int]], data: st.DataObject) -> None:
    digest = ReceivedDigest(ALGORITHMS[0], unread, PendingRanges())
    for offset, piece in layout:
        if isinstance(piece, int):
            digest.on_hole(offset, piece)
        else:
            digest.on_data(offset, memoryview(piece))
    hash_backlog(digest)
    offset, _ = data.draw(st.sampled_from(layout))
    with pytest.raises(ProtocolError):
        digest.on_data(offset, memoryview(b"again"))
    with pytest.raises(ProtocolError):
        digest.on_hole(offset, 1)


@pytest.mark.parametrize("first", ["content", "hole"])
@pytest.mark.parametrize("second", ["content", "hole"])
def test_a_pending_range_that_comes_twice_is_an_error(first: str, second: str) -> None:
    digest = ReceivedDigest(ALGORITHMS[0], unread, PendingRanges())
    inputs = {
        "content": lambda: digest.on_data(10, memoryview(b"x")),
        "hole": lambda: digest.on_hole(10, 1),
    }
    inputs[first]()
    with pytest.raises(ProtocolError):
        inputs[second]()


@pytest.mark.parametrize("kind", ["content", "hole"])
def test_pending_ranges_are_bounded_over_all_files(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("toolkit.transfer.digest.MAX_PENDING_RANGES", 100)
    pending = PendingRanges()
    files = [ReceivedDigest(ALGORITHMS[0], unread, pending) for _ in range(4)]

    def receive(file: ReceivedDigest, offset: int) -> None:
        if kind == "hole":
            file.on_hole(offset, 1)
        else:
            file.on_data(offset, memoryview(b"x"))

    for number in range(100):
        receive(files[number % 4], 1 + 2 * number)
    files[0].on_data(0, memoryview(b"x"))
    hash_backlog(files[0])  # file 0 advances to offset 2: one pending range less
    receive(files[1], 1000)
    files[1].clear()
    for number in range(26):
        receive(files[1], 1 + 2 * number)
    with pytest.raises(ProtocolError, match="too many separate pieces"):
        receive(files[2], 1000)
    for file in files:
        file.clear()
    assert pending.count == 0


def test_adjacent_ranges_are_merged() -> None:
    digest = ReceivedDigest(ALGORITHMS[0], unread, PendingRanges())
    for offset in (5, 7, 9, 3, 1):
        digest.on_data(offset, memoryview(b"xy"))
    assert digest.pending_ranges == 1
    digest.on_data(0, memoryview(b"x"))
    assert digest.offset == 11
    assert digest.pending_ranges == 0


def test_a_hole_is_hashed_in_steps_and_not_when_it_is_announced() -> None:
    digest = ReceivedDigest(ALGORITHMS[0], unread, PendingRanges())
    for start in (2, 0, 1):
        digest.on_hole(start << 30, 1 << 30)
    assert (digest.offset, digest.pending_ranges) == (0, 1)
    digest.on_data(3 << 30, memoryview(b"content"))
    digest.hash_backlog(1 << 20)
    assert digest.offset == 1 << 20
    with pytest.raises(ProtocolError, match="twice"):
        digest.on_data(1 << 20, memoryview(b"x"))


def test_zeros_are_hashed_for_half_of_the_time_at_most() -> None:
    now_s = cpu_s = 100.0
    zeros = ZeroHashing(lambda: now_s, lambda: cpu_s)

    def step() -> int:
        nonlocal now_s, cpu_s
        assert zeros.run(step) is None  # another session meanwhile
        now_s += 0.3  # of which another process had a third
        cpu_s += 0.2
        return 7

    assert zeros.run(step) == 7
    assert zeros.wait_s() == pytest.approx(0.1 - BURST_S)
    assert zeros.run(step) is None
    now_s += 0.1
    assert zeros.run(step) == 7
    steps = 0
    end_s = now_s + 100
    while now_s < end_s:
        if zeros.run(step) is None:
            now_s += zeros.wait_s() + 1e-9
        else:
            steps += 1
    assert 0.45 * 100 < steps * 0.2 < 0.51 * 100


def test_small_holes_wait_for_nothing() -> None:
    now_s = cpu_s = 100.0
    zeros = ZeroHashing(lambda: now_s, lambda: cpu_s)

    def step() -> int:
        nonlocal cpu_s
        cpu_s += 1e-5
        return 1

    for _ in range(10_000):
        assert zeros.run(step) == 1
        now_s += 3e-5


@pytest.mark.parametrize("length", [1, (1 << 20) - 1, 1 << 20, (3 << 20) + 5])
def test_zeros_are_hashed_as_those_of_a_file(length: int) -> None:
    digest = RunningDigest(ALGORITHMS[0], unread)
    digest.update_zeros(length)
    assert digest.digest() == xxhash.xxh3_128(bytes(length)).digest()
    assert digest.offset == length


def test_little_is_read_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a gap in a file that is resumed there may be gigabytes; whoever fills it must not wait for them."""
    monkeypatch.setattr("toolkit.transfer.digest.CATCH_UP_BYTES", 10)
    read_bytes = 0

    def read_into(_offset: int, buffer: memoryview) -> None:
        nonlocal read_bytes
        read_bytes += len(buffer)

    digest = ReceivedDigest(ALGORITHMS[0], read_into, PendingRanges())
    digest.on_data(1, memoryview(bytes(100)))
    digest.on_data(0, memoryview(b"x"))
    assert (read_bytes, digest.offset, digest.is_behind) == (10, 11, True)
    digest.on_data(101, memoryview(b"x"))
    hash_backlog(digest)
    assert (read_bytes, digest.offset, digest.is_behind) == (101, 102, False)
