"""The earlier version of a file: what of it is used, and that it stays whole until the new one is verified."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.sessions import XXH3, commit, file_entry
from toolkit.errors import ProtocolError
from toolkit.transfer.chunks import CHUNK_BYTES, MAX_HELD_RANGES, ChunkRange, Chunks, chunk_digest
from toolkit.transfer.comparison import Comparison, KnownFiles
from toolkit.transfer.earlier_version import with_chunks
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.manifest import Entry
from toolkit.transfer.messages import EntryStatus
from toolkit.transfer.storage import Storage
from toolkit.transfer.tree import Tree

pytestmark = pytest.mark.usefixtures("few_chunks")

KEY = bytes(range(16))
OLD = random.Random(1).randbytes(6 * CHUNK_BYTES + 5)
CHANGED = 2  # the number of a chunk
NEW = OLD[: CHANGED * CHUNK_BYTES] + bytes(CHUNK_BYTES) + OLD[(CHANGED + 1) * CHUNK_BYTES :]


@pytest.fixture
def film(root: Path) -> Path:
    """The earlier version."""
    path = root / "film"
    path.write_bytes(OLD)
    return path


@pytest.fixture
def update(root: Path) -> Iterator[Callable[..., IncomingFiles]]:
    """Begin a session that updates what is offered, and may replace it."""
    sessions: list[IncomingFiles] = []

    def begin(*entries: Entry, overwrite: bool = True, compares: bool = True) -> IncomingFiles:
        files = IncomingFiles(Storage(root, overwrite=overwrite, durable=False))
        sessions.append(files)
        files.begin(KEY)
        known = KnownFiles(Comparison.TIME, XXH3, [None] * len(entries)) if compares else None
        files.offer(entries, XXH3, known)
        return files

    yield begin
    for files in sessions:
        files.close(complete=False)


def chunk(content: bytes, number: int) -> bytes:
    return content[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]


def compare(files: IncomingFiles, content: bytes, first: int, count: int, file_id: int = 0) -> tuple[bool, ...]:
    """Compare chunks of a new version with what the receiver has."""
    digests = tuple(chunk_digest(XXH3, chunk(content, number)) for number in range(first, first + count))
    kept = files.compare(Chunks(file_id, first, digests))
    assert kept is not None
    return kept.are_same


def write_missing(files: IncomingFiles, content: bytes, first: int, are_same: tuple[bool, ...]) -> None:
    """Send the chunks that differ, and what follows the last one that was compared."""
    for number, is_same in enumerate(are_same, first):
        if not is_same:
            files.write(0, number * CHUNK_BYTES, memoryview(chunk(content, number)))
    end = (first + len(are_same)) * CHUNK_BYTES
    if end < len(content):
        files.write(0, end, memoryview(content[end:]))


def test_only_what_differs_is_needed_and_the_old_version_stays_until_then(
    film: Path, update: Callable[..., IncomingFiles]
) -> None:
    files = update(file_entry(b"film", len(NEW)))
    assert files.held(1) == {0: (ChunkRange(0, 7),)}
    are_same = compare(files, NEW, 0, 7)
    assert are_same == tuple(number != CHANGED for number in range(7))
    assert film.read_bytes() == OLD
    write_missing(files, NEW, 0, are_same)
    assert film.read_bytes() == OLD
    assert files.received_bytes == len(NEW)
    assert commit(files, 0, NEW).status is EntryStatus.OK
    assert film.read_bytes() == NEW
    assert [path.name for path in film.parent.iterdir()] == ["film"]


@pytest.mark.parametrize("size_bytes", [5 * CHUNK_BYTES + 3, 9 * CHUNK_BYTES + 1], ids=["shorter", "longer"])
def test_the_sizes_may_differ(film: Path, update: Callable[..., IncomingFiles], size_bytes: int) -> None:
    new = (OLD + random.Random(2).randbytes(4 * CHUNK_BYTES))[:size_bytes]
    files = update(file_entry(b"film", len(new)))
    ((held,),) = files.held(1).values()
    are_same = compare(files, new, held.first, held.length)
    assert all(are_same)
    assert held.length == 6
    write_missing(files, new, 0, are_same)
    assert commit(files, 0, new).status is EntryStatus.OK
    assert film.read_bytes() == new


@pytest.mark.parametrize("overwrite", [True, False])
def test_nothing_is_offered_unless_the_sender_updates_and_the_receiver_replaces(
    film: Path, update: Callable[..., IncomingFiles], overwrite: bool
) -> None:
    files = update(file_entry(b"film", len(NEW)), overwrite=overwrite, compares=not overwrite)
    assert files.held(1) == {}
    assert film.read_bytes() == OLD


def test_a_small_file_is_sent_as_a_whole(film: Path, update: Callable[..., IncomingFiles]) -> None:
    film.write_bytes(OLD[: 3 * CHUNK_BYTES])
    assert update(file_entry(b"film", len(NEW))).held(1) == {}
    film.write_bytes(OLD)
    assert update(file_entry(b"film", 3 * CHUNK_BYTES)).held(1) == {}


@pytest.mark.parametrize("meanwhile", ["removed", "a link", "a pipe", "truncated", "another"])
def test_what_becomes_of_the_old_version_meanwhile_does_no_harm(
    film: Path, update: Callable[..., IncomingFiles], tmp_path: Path, meanwhile: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(NEW)
    files = update(file_entry(b"film", len(NEW)))
    film.unlink()
    if meanwhile == "a link":
        film.symlink_to(secret)
    elif meanwhile == "a pipe":
        os.mkfifo(film)
    elif meanwhile != "removed":
        film.write_bytes(OLD[:CHUNK_BYTES] if meanwhile == "truncated" else bytes(len(OLD)))
    are_same = compare(files, NEW, 0, 7)
    assert sum(are_same) == {"truncated": 1, "another": 1}.get(meanwhile, 0)
    write_missing(files, NEW, 0, are_same)
    is_in_the_way = meanwhile in ("a link", "a pipe")
    assert commit(files, 0, NEW).status is (EntryStatus.REFUSED if is_in_the_way else EntryStatus.OK)
    if not is_in_the_way:
        assert film.read_bytes() == NEW


def test_an_interrupted_update_goes_on(film: Path, update: Callable[..., IncomingFiles]) -> None:
    new = NEW + random.Random(2).randbytes(5 * CHUNK_BYTES)
    files = update(file_entry(b"film", len(new)))
    compare(files, new, 0, 6)
    files.write(0, CHANGED * CHUNK_BYTES, memoryview(chunk(new, CHANGED)))
    files.write(0, 7 * CHUNK_BYTES, memoryview(new[7 * CHUNK_BYTES : 9 * CHUNK_BYTES]))
    files.close(complete=False)
    assert film.read_bytes() == OLD
    files = update(file_entry(b"film", len(new)))
    assert files.held(1) == {0: (ChunkRange(0, 6), ChunkRange(7, 2))}
    assert compare(files, new, 0, 6) == (True,) * 6
    assert compare(files, new, 7, 2) == (True,) * 2
    for first, end in ((6, 7), (9, 12)):
        files.write(0, first * CHUNK_BYTES, memoryview(new[first * CHUNK_BYTES : end * CHUNK_BYTES]))
    assert commit(files, 0, new).status is EntryStatus.OK
    assert film.read_bytes() == new


def test_a_session_has_a_file_compared_only_once_for_each_of_its_names(
    film: Path, update: Callable[..., IncomingFiles]
) -> None:
    (film.parent / "name").hardlink_to(film)
    entries = [file_entry(name, len(NEW)) for name in (b"film", b"name", b"film", b"film")]
    files = update(*entries)
    assert set(files.held(4)) == {0, 1}
    with pytest.raises(ProtocolError):
        compare(files, NEW, 0, 1, file_id=2)


@pytest.mark.parametrize(("free_chunks", "kept"), [(4, 4), (5, 6)])
def test_copies_take_no_more_space_than_was_offered_if_others_were_promised_it(
    film: Path, update: Callable[..., IncomingFiles], monkeypatch: pytest.MonkeyPatch, free_chunks: int, kept: int
) -> None:
    """The offer says that all of the file is a hole. It gets four chunks without asking."""
    for module in ("incoming_file", "space"):
        monkeypatch.setattr(f"toolkit.transfer.{module}.UNASKED_BYTES", 4 * CHUNK_BYTES)
    monkeypatch.setattr(Tree, "free_bytes", lambda _: free_chunks * CHUNK_BYTES)
    files = update(file_entry(b"film", len(OLD), content=0))
    assert sum(sum(compare(files, OLD, number, 1)) for number in range(6)) == kept
    assert film.read_bytes() == OLD


def test_chunks_of_an_unfinished_file_behind_the_end_of_the_earlier_version_count() -> None:
    ranges = [ChunkRange(2, 3), ChunkRange(8, 4), ChunkRange(20, 1)]
    assert with_chunks(ranges, ChunkRange(0, 10)) == (ChunkRange(0, 10), ChunkRange(10, 2), ChunkRange(20, 1))
    assert with_chunks([], ChunkRange(0, 10)) == (ChunkRange(0, 10),)
    many = [ChunkRange(2 * number, 1) for number in range(10, 10 + MAX_HELD_RANGES)]
    assert len(with_chunks(many, ChunkRange(0, 10))) == MAX_HELD_RANGES
