"""Unfinished files: what is kept, found again, compared, and left alone."""

import errno
import fcntl
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sessions import XXH3, commit, failure_of, file_entry
from toolkit.errors import ProtocolError
from toolkit.transfer import tree
from toolkit.transfer.chunks import CHUNK_BYTES, ChunkRange, Chunks, chunk_digest
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.messages import EntryStatus
from toolkit.transfer.names import resumable_partial_name
from toolkit.transfer.storage import Storage
from toolkit.transfer.stored_file import StoredFile
from toolkit.transfer.tree import Tree, file_key
from toolkit.transfer.unfinished import MAX_UNFINISHED_FILES, UnfinishedFiles, hold, let_go

pytestmark = pytest.mark.usefixtures("few_chunks")

KEY = bytes(range(16))
CONTENT = random.Random(1).randbytes(8 * CHUNK_BYTES + 5)
ENTRY = file_entry(b"film", len(CONTENT))


@pytest.fixture
def opened() -> Iterator[list[IncomingFiles]]:
    """The sessions of a test; all are closed at its end."""
    sessions: list[IncomingFiles] = []
    yield sessions
    for session in sessions:
        session.close(complete=False)


def session_below(root: Path, opened: list[IncomingFiles], key: bytes = KEY, overwrite: bool = False) -> IncomingFiles:
    files = IncomingFiles(Storage(root, overwrite=overwrite, durable=False))
    files.begin(key)
    opened.append(files)
    return files


def leave(root: Path, opened: list[IncomingFiles], chunks: int = 6) -> Path:
    """A session that ends after so many chunks; what it leaves."""
    files = session_below(root, opened)
    files.offer([ENTRY], XXH3)
    files.write(0, 0, memoryview(CONTENT[: chunks * CHUNK_BYTES]))
    files.close(complete=False)
    (left,) = root.iterdir()
    return left


def digests_of(first: int, count: int) -> tuple[bytes, ...]:
    numbers = range(first, first + count)
    return tuple(chunk_digest(XXH3, CONTENT[n * CHUNK_BYTES : (n + 1) * CHUNK_BYTES]) for n in numbers)


def test_a_later_session_goes_on_with_what_is_the_same(root: Path, opened: list[IncomingFiles]) -> None:
    left = leave(root, opened)
    assert left.stat().st_mode & 0o777 == 0o600
    with left.open("r+b") as file:
        file.seek(3 * CHUNK_BYTES + 7)
        file.write(b"damage")
    files = session_below(root, opened)
    files.offer([ENTRY], XXH3)
    assert files.held(1) == {0: (ChunkRange(0, 6),)}
    kept = files.compare(Chunks(0, 0, digests_of(0, 6)))
    assert kept is not None
    assert kept.are_same == (True, True, True, False, True, True)
    files.write(0, 3 * CHUNK_BYTES, memoryview(CONTENT[3 * CHUNK_BYTES : 4 * CHUNK_BYTES]))
    files.write(0, 6 * CHUNK_BYTES, memoryview(CONTENT[6 * CHUNK_BYTES :]))
    assert commit(files, 0, CONTENT).status is EntryStatus.OK
    assert [path.name for path in root.iterdir()] == ["film"]
    assert (root / "film").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("first", "count"), [(5, 2), (6, 1), (1 << 20, 1)], ids=["over the end", "not held", "beyond the file"]
)
def test_digests_of_anything_but_the_chunks_held_in_order_end_the_session(
    root: Path, opened: list[IncomingFiles], first: int, count: int
) -> None:
    leave(root, opened)
    files = session_below(root, opened)
    files.offer([ENTRY], XXH3)
    with pytest.raises(ProtocolError):
        files.compare(Chunks(0, first, (bytes(16),) * count))
    assert files.compare(Chunks(0, 2, digests_of(2, 1))) is not None
    with pytest.raises(ProtocolError):
        files.compare(Chunks(0, 1, digests_of(1, 1)))


def test_a_new_file_has_nothing_to_compare(root: Path, opened: list[IncomingFiles]) -> None:
    files = session_below(root, opened)
    files.offer([ENTRY], XXH3)
    assert files.held(1) == {}
    with pytest.raises(ProtocolError):
        files.compare(Chunks(0, 0, digests_of(0, 1)))


def test_a_newer_session_of_the_same_sender_takes_the_file_over(root: Path, opened: list[IncomingFiles]) -> None:
    older, newer = session_below(root, opened), session_below(root, opened)
    older.offer([ENTRY], XXH3)
    older.write(0, 0, memoryview(CONTENT[: 5 * CHUNK_BYTES]))
    newer.offer([ENTRY], XXH3)
    assert newer.held(1) == {0: (ChunkRange(0, 5),)}
    older.write(0, 5 * CHUNK_BYTES, memoryview(bytes(CHUNK_BYTES)))
    assert failure_of(older, 0) == "the receiver cannot store it (another session of its sender goes on with it)"
    newer.compare(Chunks(0, 0, digests_of(0, 5)))
    newer.write(0, 5 * CHUNK_BYTES, memoryview(CONTENT[5 * CHUNK_BYTES :]))
    assert commit(newer, 0, CONTENT).status is EntryStatus.OK
    assert (root / "film").read_bytes() == CONTENT


class HastyFile(StoredFile):
    """A file whose session commits it, as it has failed, before a newer session gets to discard it."""

    __slots__ = ("is_committed",)

    def discard(self, keep: bool = False) -> None:
        if keep and not hasattr(self, "is_committed"):
            self.is_committed = True
            self.commit()
        super().discard(keep)


def test_a_session_that_loses_a_file_to_a_newer_one_does_not_remove_it(root: Path, opened: list[IncomingFiles]) -> None:
    older, newer = IncomingFiles(Storage(root, False, False, file_type=HastyFile)), session_below(root, opened)
    older.begin(KEY)
    older.offer([ENTRY], XXH3)
    older.write(0, 0, memoryview(CONTENT[: 5 * CHUNK_BYTES]))
    newer.offer([ENTRY], XXH3)
    assert newer.held(1) == {0: (ChunkRange(0, 5),)}
    older.close(complete=False)


def test_two_sessions_that_take_files_over_from_each_other_do_not_wait_for_each_other(root: Path) -> None:
    """What one does to give a file up may need the lock of the directories of the other, which does the same."""
    path = root / os.fsdecode(resumable_partial_name(KEY, ENTRY.path))
    path.write_bytes(CONTENT)
    directories = Tree(root, durable=False)
    waits: list[bool] = []

    def give_up() -> None:
        other = threading.Thread(target=directories.free_bytes)
        other.start()
        other.join(1)
        waits.append(other.is_alive())

    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        identity = file_key(os.fstat(held.fileno()))
        hold(identity, give_up)
        assert UnfinishedFiles(directories, KEY).claim(ENTRY) is None
        let_go(identity)
    directories.close()
    assert waits == [False]


def test_where_files_cannot_be_locked_nothing_is_left(
    root: Path, opened: list[IncomingFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    files = session_below(root, opened)
    files.offer([ENTRY], XXH3)
    files.write(0, 0, memoryview(CONTENT))
    assert commit(files, 0, CONTENT).status is EntryStatus.OK
    assert [path.name for path in root.iterdir()] == ["film"]


def test_what_is_cut_off_because_the_file_is_shorter_now_is_not_counted_as_space(
    root: Path, opened: list[IncomingFiles]
) -> None:
    leave(root, opened, chunks=8)
    directories = Tree(root, durable=False)
    claimed = UnfinishedFiles(directories, KEY).claim(file_entry(ENTRY.path, 5 * CHUNK_BYTES))
    directories.close()
    assert claimed is not None
    os.close(claimed.descriptor)
    assert claimed.allocated_bytes <= 5 * CHUNK_BYTES


def test_two_entries_of_one_name_do_not_confuse_the_space_that_was_promised(
    root: Path, opened: list[IncomingFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second finds no room, and what was found of the first stays the first's."""
    leave(root, opened)
    monkeypatch.setattr(Tree, "free_bytes", lambda _: 3 * CHUNK_BYTES)
    files = session_below(root, opened)
    first, second = files.offer([ENTRY, ENTRY], XXH3)
    assert (first.status, second.status) == (EntryStatus.OK, EntryStatus.REFUSED)
    assert files.held(2) == {0: (ChunkRange(0, 6),)}


def test_a_claimed_file_that_finds_no_room_is_left_even_if_it_closes_with_an_error(
    root: Path, opened: list[IncomingFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = leave(root, opened)
    number, close = left.stat().st_ino, os.close

    def failing(descriptor: int) -> None:
        is_left = os.fstat(descriptor).st_ino == number
        close(descriptor)
        if is_left:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    files = session_below(root, opened)
    with monkeypatch.context() as patches:
        patches.setattr(Tree, "free_bytes", lambda _: 0)
        patches.setattr(os, "close", failing)
        (outcome,) = files.offer([ENTRY], XXH3)
    assert outcome.status is EntryStatus.REFUSED
    files.offer([ENTRY], XXH3)
    assert files.held(1) == {0: (ChunkRange(0, 6),)}


def test_a_file_that_a_channel_may_write_to_is_not_taken_over(
    root: Path, opened: list[IncomingFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channel would write to whatever has the number of the closed descriptor."""
    monkeypatch.setattr(tree, "maps_extents", lambda _: True)
    older, newer = session_below(root, opened), session_below(root, opened)
    older.offer([ENTRY], XXH3)
    older.write(0, 0, memoryview(CONTENT[: 5 * CHUNK_BYTES]))
    descriptor = older.descriptor(0, 5 * CHUNK_BYTES, CHUNK_BYTES)
    assert descriptor is not None
    newer.offer([ENTRY], XXH3)
    assert newer.held(1) == {}
    os.pwrite(descriptor, CONTENT[5 * CHUNK_BYTES :], 5 * CHUNK_BYTES)
    older.on_spliced(0, 5 * CHUNK_BYTES, len(CONTENT) - 5 * CHUNK_BYTES)
    assert commit(older, 0, CONTENT).status is EntryStatus.OK


def test_a_file_with_another_name_is_not_touched(root: Path, opened: list[IncomingFiles]) -> None:
    left = leave(root, opened)
    other = root / "other"
    os.link(left, other)
    before = other.read_bytes()
    files = session_below(root, opened)
    files.offer([ENTRY], XXH3)
    assert files.held(1) == {}
    files.write(0, 0, memoryview(bytes(len(CONTENT))))
    assert other.read_bytes() == before


def test_a_wrong_digest_and_a_withdrawn_file_leave_nothing(root: Path, opened: list[IncomingFiles]) -> None:
    for is_withdrawn in (False, True):
        files = session_below(root, opened)
        files.offer([ENTRY], XXH3)
        files.write(0, 0, memoryview(bytes(len(CONTENT))))
        if is_withdrawn:
            files.withdraw(0)
        else:
            assert commit(files, 0, CONTENT).status is EntryStatus.MISMATCHED
        assert not list(root.iterdir())


def test_a_full_disk_leaves_what_has_arrived(
    root: Path, opened: list[IncomingFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = session_below(root, opened)
    files.offer([ENTRY], XXH3)
    files.write(0, 0, memoryview(CONTENT[: 6 * CHUNK_BYTES]))
    real = os.pwrite

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    files.write(0, 6 * CHUNK_BYTES, memoryview(CONTENT[6 * CHUNK_BYTES :]))
    monkeypatch.setattr(os, "pwrite", real)
    assert failure_of(files, 0) == "no space left on the receiver's disk; free some and send again"
    assert [file.entry for file in files.unfinished] == [ENTRY]
    again = session_below(root, opened)
    again.offer([ENTRY], XXH3)
    assert again.held(1) == {0: (ChunkRange(0, 6),)}


def test_few_files_of_a_session_keep_a_descriptor(root: Path, opened: list[IncomingFiles]) -> None:
    files = session_below(root, opened)
    count = MAX_UNFINISHED_FILES + 3
    files.offer([file_entry(b"%d" % number, len(CONTENT)) for number in range(count)], XXH3)
    for number in range(count):
        files.write(number, 0, memoryview(CONTENT[: 5 * CHUNK_BYTES]))
    files.close(complete=False)
    assert len(list(root.iterdir())) == MAX_UNFINISHED_FILES == len(files.unfinished)
