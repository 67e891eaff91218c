"""Small files wait in memory until they are verified; whatever else happens to one, it is stored as a larger one is."""

import os
import stat
import threading
from pathlib import Path

import pytest

from tests.support.sessions import XXH3, commit, deliver, file_entry, xxh3
from toolkit.errors import ProtocolError
from toolkit.transfer import incoming_file
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.messages import EntryStatus, FileDigest, Hole
from toolkit.transfer.small_files import SMALL_BYTES
from toolkit.transfer.storage import Storage


@pytest.mark.parametrize("pieces", [[b"hello"], [b"he", b"l", b"lo"]])
def test_nothing_is_on_the_disk_before_a_small_file_is_verified(
    files: IncomingFiles, root: Path, pieces: list[bytes]
) -> None:
    files.offer([file_entry(b"a")], XXH3)
    offset = 0
    for piece in pieces:
        files.write(0, offset, memoryview(piece))
        offset += len(piece)
    assert files.received_bytes == 5
    assert not list(root.iterdir())
    assert commit(files, 0, b"hello").status is EntryStatus.OK
    assert (root / "a").read_bytes() == b"hello"
    assert [path.name for path in root.iterdir()] == ["a"]


def test_a_digest_may_come_before_the_content(files: IncomingFiles, root: Path) -> None:
    files.offer([file_entry(b"a"), file_entry(b"empty", 0)], XXH3)
    files.expect(FileDigest(0, 5, xxh3(b"hello")))
    files.expect(FileDigest(1, 0, xxh3(b"")))
    files.write(0, 0, memoryview(b"hello"))
    assert [files.commit(file_id).status for file_id, _ in files.complete_files()] == [EntryStatus.OK] * 2
    assert (root / "a").read_bytes() + (root / "empty").read_bytes() == b"hello"


@pytest.mark.parametrize("order", [(1, 0), (0, 2, 1)])
def test_content_out_of_order_is_stored_too(files: IncomingFiles, root: Path, order: tuple[int, ...]) -> None:
    content = os.urandom(3000)
    step = len(content) // len(order)
    files.offer([file_entry(b"a", 3000)], XXH3)
    for number in order:
        files.write(0, number * step, memoryview(content[number * step : (number + 1) * step]))
    assert files.received_bytes == 3000
    assert commit(files, 0, content).status is EntryStatus.OK
    assert (root / "a").read_bytes() == content


def test_a_hole_that_was_not_announced_is_stored_too(files: IncomingFiles) -> None:
    files.offer([file_entry(b"a", 5000)], XXH3)
    files.write(0, 0, memoryview(bytes(range(200)) * 5))
    files.write_hole(Hole(0, 1000, 4000))
    files.hash_backlog()
    assert commit(files, 0, bytes(range(200)) * 5 + bytes(4000)).status is EntryStatus.OK


def test_what_waits_in_memory_is_bounded(files: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming_file, "MAX_HELD_BYTES", 2 * SMALL_BYTES)
    contents = [os.urandom(SMALL_BYTES) for _ in range(4)]
    files.offer([file_entry(b"%d" % number, SMALL_BYTES) for number in range(4)], XXH3)
    for number, content in enumerate(contents):
        files.write(number, 0, memoryview(content))
    assert len(list(root.iterdir())) == 2  # written under temporary names
    for number, content in enumerate(contents):
        assert commit(files, number, content).status is EntryStatus.OK
        assert (root / str(number)).read_bytes() == content
    files.offer([file_entry(b"5", SMALL_BYTES)], XXH3)
    files.write(4, 0, memoryview(contents[0]))
    assert len(list(root.iterdir())) == 4  # there is room again


def test_a_small_file_with_a_wrong_digest_leaves_nothing(files: IncomingFiles, root: Path) -> None:
    files.offer([file_entry(b"a")], XXH3)
    files.write(0, 0, memoryview(b"hello"))
    assert commit(files, 0, b"other").status is EntryStatus.MISMATCHED
    assert not list(root.iterdir())


def test_bytes_that_come_twice_or_beyond_the_end_are_an_error(files: IncomingFiles) -> None:
    files.offer([file_entry(b"a"), file_entry(b"b")], XXH3)
    files.write(0, 0, memoryview(b"hello"))
    with pytest.raises(ProtocolError):
        files.write(0, 0, memoryview(b"hello"))
    with pytest.raises(ProtocolError, match="beyond the end"):
        files.write(1, 0, memoryview(b"hello!"))


def test_a_second_digest_is_an_error(files: IncomingFiles) -> None:
    files.offer([file_entry(b"a")], XXH3)
    files.expect(FileDigest(0, 5, xxh3(b"hello")))
    with pytest.raises(ProtocolError, match="changed the size or the digest"):
        files.expect(FileDigest(0, 5, xxh3(b"hello")))


def test_a_name_that_another_process_takes_meanwhile_is_not_replaced(files: IncomingFiles, root: Path) -> None:
    files.offer([file_entry(b"a")], XXH3)
    files.write(0, 0, memoryview(b"hello"))
    (root / "a").write_bytes(b"theirs")
    assert commit(files, 0, b"hello").status is EntryStatus.REFUSED
    assert (root / "a").read_bytes() == b"theirs"
    assert [path.name for path in root.iterdir()] == ["a"]


@pytest.mark.parametrize("mode", [0o644, 0o400, 0o000])
def test_a_small_file_gets_its_mode_and_time(files: IncomingFiles, root: Path, mode: int) -> None:
    files.offer([file_entry(b"a", mode=mode)], XXH3)
    assert deliver(files, 0, b"hello").status is EntryStatus.OK
    status = (root / "a").stat()
    assert stat.S_IMODE(status.st_mode) == mode
    assert status.st_mtime_ns == file_entry(b"a").mtime_ns


def test_the_space_of_small_files_is_given_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.transfer.tree.Tree.free_bytes", lambda _: 10)
    for _ in range(3):
        files = IncomingFiles(Storage(root, overwrite=True, durable=False))
        outcomes = files.offer([file_entry(b"a"), file_entry(b"b"), file_entry(b"c")], XXH3)
        assert [outcome.status for outcome in outcomes] == [EntryStatus.OK, EntryStatus.OK, EntryStatus.REFUSED]
        assert deliver(files, 0, b"hello").status is EntryStatus.OK
        files.write(1, 2, memoryview(b"l"))
        assert [outcome.status for outcome in files.offer([file_entry(b"d")], XXH3)] == [EntryStatus.OK]
        files.withdraw(1)
        files.close(complete=False)


def test_pieces_may_come_from_several_threads(files: IncomingFiles, root: Path) -> None:
    count, half = 200, 500
    contents = [os.urandom(2 * half) for _ in range(count)]
    files.offer([file_entry(b"%d" % number, 2 * half) for number in range(count)], XXH3)

    def write(start: int) -> None:
        for number, content in enumerate(contents):
            files.write(number, start, memoryview(content[start : start + half]))

    threads = [threading.Thread(target=write, args=(start,)) for start in (half, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files.received_bytes == count * 2 * half
    for number, content in enumerate(contents):
        assert commit(files, number, content).status is EntryStatus.OK
        assert (root / str(number)).read_bytes() == content
