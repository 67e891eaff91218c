"""Benchmarks of a session's hot code: messages, names, and the digest of content as it arrives."""

import random
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from toolkit.transfer.digest import ALGORITHMS, Algorithm, PendingRanges, ReceivedDigest, RunningDigest
from toolkit.transfer.manifest import MAX_GROUP_ENTRIES, Entry, EntryKind
from toolkit.transfer.messages import Digests, FileDigest, Offer, decode_untrusted
from toolkit.transfer.names import refusal_reason_untrusted

PIECE_BYTES = 1400  # a datagram's payload
PIECES = 2048
PATHS = [f"photographs/2024/06/IMG_{index:05}.jpeg".encode() for index in range(MAX_GROUP_ENTRIES)]
OFFER = Offer(7, tuple(Entry(EntryKind.FILE, path, 0o644, 10**18, 4096, 4096) for path in PATHS))
DIGESTS = Digests(tuple(FileDigest(index, 4096, bytes(16)) for index in range(MAX_GROUP_ENTRIES)))


@pytest.mark.parametrize("message", [OFFER, DIGESTS], ids=["offer of 1024", "digests of 1024"])
def test_encode(benchmark: BenchmarkFixture, message: Offer | Digests) -> None:
    encoded = benchmark(message.encode)
    assert decode_untrusted(encoded) == message


@pytest.mark.parametrize("message", [OFFER, DIGESTS], ids=["offer of 1024", "digests of 1024"])
def test_decode(benchmark: BenchmarkFixture, message: Offer | Digests) -> None:
    assert benchmark(decode_untrusted, message.encode()) == message


def test_check_1024_names(benchmark: BenchmarkFixture) -> None:
    assert benchmark(lambda: [refusal_reason_untrusted(path) for path in PATHS]) == [None] * len(PATHS)


def in_order(count: int) -> list[int]:
    return list(range(count))


def with_holes(count: int) -> list[int]:
    """Every tenth piece is lost, and arrives a hundred pieces later."""
    order = []
    for index in range(count + 100):
        if index < count and index % 10:
            order.append(index)
        if index >= 100 and (index - 100) % 10 == 0:
            order.append(index - 100)
    return order


def shuffled(count: int) -> list[int]:
    order = list(range(count))
    random.Random(1).shuffle(order)
    return order


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
@pytest.mark.parametrize("order", [in_order, with_holes, shuffled], ids=lambda order: order.__name__)
def test_digest_of_pieces_as_they_arrive(
    benchmark: BenchmarkFixture, algorithm: Algorithm, order: Callable[[int], list[int]]
) -> None:
    content = memoryview(random.Random(2).randbytes(PIECE_BYTES * PIECES))
    pieces = [(PIECE_BYTES * index, content[PIECE_BYTES * index :][:PIECE_BYTES]) for index in order(PIECES)]

    def read_into(offset: int, buffer: memoryview) -> None:
        buffer[:] = content[offset : offset + len(buffer)]

    def receive() -> bytes:
        digest = ReceivedDigest(algorithm, read_into, PendingRanges())
        for offset, piece in pieces:
            digest.on_data(offset, piece)
        return digest.digest()

    whole = RunningDigest(algorithm, read_into)
    whole.update(content)
    assert benchmark(receive) == whole.digest()
