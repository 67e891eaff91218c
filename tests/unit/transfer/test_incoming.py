"""The files of a session by id: content before its offer, content of refused entries, and the bounds on both."""

import gc
from pathlib import Path

import pytest

from tests.support.sessions import XXH3, commit, deliver, file_entry, xxh3
from toolkit.errors import ProtocolError
from toolkit.transfer.incoming import MAX_EARLY_PIECES, OPTIMISTIC_BYTES, IncomingFiles
from toolkit.transfer.incoming_file import IncomingFile
from toolkit.transfer.messages import EntryStatus, FileDigest, Hole


def test_content_may_arrive_before_its_offer(files: IncomingFiles, root: Path) -> None:
    files.write(0, 0, memoryview(b"hello"))
    files.offer([file_entry(b"a")], XXH3)
    assert commit(files, 0, b"hello").status is EntryStatus.OK
    assert (root / "a").read_bytes() == b"hello"


def test_content_of_a_refused_entry_is_dropped(files: IncomingFiles, root: Path) -> None:
    files.write(0, 0, memoryview(b"early"))
    files.offer([file_entry(b"../a", 7)], XXH3)
    files.write(0, 5, memoryview(b"late"))
    files.expect(FileDigest(0, 9, xxh3(b"earlylate")))
    assert not list(files.complete_files())
    assert not list(root.iterdir())


def test_nothing_is_left_of_a_withdrawn_file_whose_content_still_arrives(files: IncomingFiles, root: Path) -> None:
    files.offer([file_entry(b"a"), file_entry(b"../refused")], XXH3)
    files.write(0, 0, memoryview(b"hel"))
    assert files.withdraw(0) is not None
    assert not list(root.iterdir())
    files.write(0, 3, memoryview(b"lo"))
    assert files.withdraw(0) is None
    assert files.withdraw(1) is None
    assert not files.awaits_digests()
    assert not list(root.iterdir())


def test_content_after_the_first_offer_needs_an_offer(files: IncomingFiles) -> None:
    files.offer([file_entry(b"a")], XXH3)
    with pytest.raises(ProtocolError, match="did not offer"):
        files.write(1, 0, memoryview(b"hello"))


def test_early_content_is_bounded_in_bytes(files: IncomingFiles) -> None:
    files.write(0, 0, memoryview(bytes(OPTIMISTIC_BYTES)))
    with pytest.raises(ProtocolError, match="did not offer"):
        files.write(0, OPTIMISTIC_BYTES, memoryview(b"x"))


def test_early_content_is_bounded_in_pieces(files: IncomingFiles) -> None:
    for number in range(MAX_EARLY_PIECES):
        files.write(0, number, memoryview(b"x"))
    with pytest.raises(ProtocolError, match="did not offer"):
        files.write(0, MAX_EARLY_PIECES, memoryview(b"x"))


def test_a_hole_and_a_digest_need_an_offer(files: IncomingFiles) -> None:
    files.offer([file_entry(b"a")], XXH3)
    with pytest.raises(ProtocolError, match="did not offer"):
        files.write_hole(Hole(1, 0, 1))
    with pytest.raises(ProtocolError, match="did not offer"):
        files.expect(FileDigest(1, 0, bytes(16)))


def test_pending_ranges_are_bounded_over_all_files(files: IncomingFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.transfer.digest.MAX_PENDING_RANGES", 3)
    files.offer([file_entry(b"%d" % number) for number in range(8)], XXH3)
    for file_id in range(3):
        files.write(file_id, 3, memoryview(b"lo"))
        files.write(file_id, 0, memoryview(b"hel"))
    for file_id in range(3, 6):
        files.write(file_id, 3, memoryview(b"lo"))
    with pytest.raises(ProtocolError, match="too many separate pieces"):
        files.write(6, 3, memoryview(b"lo"))
    files.close(complete=False)
    assert files.pending_ranges == 0


def test_received_bytes_count_committed_and_unfinished_files(files: IncomingFiles) -> None:
    files.offer([file_entry(b"a"), file_entry(b"b")], XXH3)
    files.write(0, 0, memoryview(b"hello"))
    files.write(1, 3, memoryview(b"lo"))
    assert files.received_bytes == 7
    commit(files, 0, b"hello")
    assert files.received_bytes == 7


@pytest.mark.usefixtures("no_cycle_collector")
def test_a_file_is_gone_from_memory_once_it_is_committed_or_discarded(files: IncomingFiles) -> None:
    files.offer([file_entry(b"a"), file_entry(b"b")], XXH3)
    deliver(files, 0, b"hello")
    files.write(1, 1, memoryview(b"x"))
    files.withdraw(1)
    assert not [one for one in gc.get_objects() if isinstance(one, IncomingFile)]
