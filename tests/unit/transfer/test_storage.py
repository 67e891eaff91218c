"""Where content lands: nothing outside the directory, nothing that is not verified, nothing left behind."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

from toolkit.errors import ProtocolError, TransferError, UsageError
from toolkit.transfer import preallocate
from toolkit.transfer.digest import ALGORITHMS
from toolkit.transfer.incoming import MAX_EARLY_PIECES, OPTIMISTIC_BYTES, IncomingFiles
from toolkit.transfer.manifest import MAX_FILE_BYTES, Entry, EntryKind
from toolkit.transfer.messages import EntryOutcome, EntryStatus, FileDigest, Hole
from toolkit.transfer.open_files import OPEN_FILES
from toolkit.transfer.storage import Storage

XXH3 = ALGORITHMS[0]


def file(path: bytes, size: int | None = 5, content: int | None = None, mode: int = 0o644) -> Entry:
    return Entry(EntryKind.FILE, path, mode, 10**18, size, (size or 0) if content is None else content)


def directory(path: bytes, mode: int = 0o755) -> Entry:
    return Entry(EntryKind.DIRECTORY, path, mode, 10**18)


def digest_of(content: bytes) -> bytes:
    return xxhash.xxh3_128(content).digest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def storage(root: Path) -> Iterator[IncomingFiles]:
    made = IncomingFiles(Storage(root, overwrite=False, durable=False))
    yield made
    made.close(complete=False)
    assert len(OPEN_FILES) == 0


def land(storage: IncomingFiles, file_id: int, content: bytes) -> EntryOutcome:
    """All of a file at once."""
    storage.write(file_id, 0, memoryview(content))
    storage.expect(FileDigest(file_id, len(content), digest_of(content)))
    assert [found for found, _ in storage.complete_files()] == [file_id]
    return storage.commit(file_id)


def test_a_file_has_its_name_only_when_it_is_verified(storage: IncomingFiles, root: Path) -> None:
    storage.offer([file(b"a", mode=0o600)], XXH3)
    assert not list(root.iterdir())
    storage.write(0, 3, memoryview(b"lo"))
    (part,) = root.iterdir()
    assert part.name.startswith(".nettool-")
    assert part.stat().st_mode & 0o777 == 0o600
    storage.expect(FileDigest(0, 5, digest_of(b"hello")))
    assert not list(storage.complete_files())
    storage.write(0, 0, memoryview(b"hel"))
    assert [found for found, _ in storage.complete_files()] == [0]
    assert not (root / "a").exists()
    assert storage.commit(0).status is EntryStatus.OK
    assert [path.name for path in root.iterdir()] == ["a"]
    assert (root / "a").read_bytes() == b"hello"
    assert (root / "a").stat().st_mtime_ns == 10**18


def test_a_wrong_digest_leaves_nothing(storage: IncomingFiles, root: Path) -> None:
    storage.offer([file(b"a")], XXH3)
    storage.write(0, 0, memoryview(b"hellO"))
    storage.expect(FileDigest(0, 5, digest_of(b"hello")))
    assert [found for found, _ in storage.complete_files()] == [0]
    assert storage.commit(0).status is EntryStatus.MISMATCHED
    assert not list(root.iterdir())


def test_special_mode_bits_are_no_part_of_an_entry_and_never_set(storage: IncomingFiles, root: Path) -> None:
    storage.offer([file(b"a", mode=0o777)], XXH3)
    land(storage, 0, b"hello")
    assert (root / "a").stat().st_mode & 0o7777 == 0o777


def test_bad_names_are_refused_and_nothing_is_made(storage: IncomingFiles, root: Path) -> None:
    names = [b"../out", b"/out", b"a/../../out", b"-rf", b"a\0", b"a\x1b[2J", b"", b".", b"x" * 256]
    outcomes = storage.offer([entry(name) for name in names for entry in (file, directory)], XXH3)
    assert {outcome.status for outcome in outcomes} == {EntryStatus.REFUSED}
    assert all(outcome.reason for outcome in outcomes)
    assert not list(root.iterdir())
    assert [path.name for path in root.parent.iterdir()] == ["root"]


def test_links_in_the_way_are_not_followed(storage: IncomingFiles, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"theirs")
    (root / "to-directory").symlink_to(outside)
    (root / "to-file").symlink_to(outside / "file")
    (root / "dangling").symlink_to(outside / "new")
    entries = [
        directory(b"to-directory"),
        file(b"to-directory/new"),
        file(b"to-directory/file"),
        file(b"to-file"),
        file(b"dangling"),
    ]
    for outcome in storage.offer(entries, XXH3):
        assert outcome == EntryOutcome(EntryStatus.REFUSED, "a symbolic link is in the way")
    replacing = IncomingFiles(Storage(root, overwrite=True, durable=False))
    try:
        assert {outcome.status for outcome in replacing.offer(entries, XXH3)} == {EntryStatus.REFUSED}
    finally:
        replacing.close(complete=True)
    assert {path.name for path in outside.iterdir()} == {"file"}
    assert (outside / "file").read_bytes() == b"theirs"


def test_a_link_that_appears_later_is_not_followed(storage: IncomingFiles, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    storage.offer([directory(b"d"), file(b"d/a"), file(b"b")], XXH3)
    os.rename(root / "d", root / "moved")
    (root / "d").symlink_to(outside)
    (root / "b").symlink_to(outside / "b")
    assert land(storage, 1, b"hello").status is EntryStatus.OK
    assert land(storage, 2, b"hello").status is EntryStatus.REFUSED
    assert not list(outside.iterdir())
    assert (root / "moved" / "a").read_bytes() == b"hello"


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_file_is_never_replaced(root: Path, overwrite: bool) -> None:
    (root / "directory").mkdir()
    os.mkfifo(root / "fifo")
    (root / "file").write_bytes(b"mine")
    storage = IncomingFiles(Storage(root, overwrite, durable=False))
    try:
        outcomes = storage.offer(
            [file(b"directory"), file(b"fifo"), directory(b"file"), file(b"file/below"), file(b"nowhere/a")],
            XXH3,
        )
    finally:
        storage.close(complete=True)
    assert {outcome.status for outcome in outcomes} == {EntryStatus.REFUSED}
    assert (root / "file").read_bytes() == b"mine"


def test_who_comes_in_between_is_not_replaced(storage: IncomingFiles, root: Path) -> None:
    storage.offer([file(b"a")], XXH3)
    storage.write(0, 0, memoryview(b"hel"))
    (root / "a").write_bytes(b"mine")
    storage.write(0, 3, memoryview(b"lo"))
    storage.expect(FileDigest(0, 5, digest_of(b"hello")))
    assert [found for found, _ in storage.complete_files()] == [0]
    outcome = storage.commit(0)
    assert outcome.status is EntryStatus.REFUSED
    assert "already exists" in outcome.reason
    assert (root / "a").read_bytes() == b"mine"
    assert len(list(root.iterdir())) == 1


def test_of_many_at_once_one_wins_and_none_is_torn(root: Path) -> None:
    storages = [IncomingFiles(Storage(root, overwrite=False, durable=False)) for _ in range(8)]
    contents = [b"%05d" % number for number in range(8)]
    for storage, content in zip(storages, contents, strict=True):
        storage.offer([file(b"a")], XXH3)
        storage.write(0, 0, memoryview(content))
        storage.expect(FileDigest(0, 5, digest_of(content)))
    start = threading.Barrier(8)
    outcomes: list[EntryOutcome] = []

    def commit(storage: IncomingFiles) -> None:
        start.wait()
        outcomes.append(storage.commit(0))

    threads = [threading.Thread(target=commit, args=(storage,)) for storage in storages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for storage in storages:
        storage.close(complete=True)
    assert sorted(outcome.status for outcome in outcomes) == [EntryStatus.OK] + [EntryStatus.REFUSED] * 7
    assert (root / "a").read_bytes() in contents
    assert len(list(root.iterdir())) == 1


def test_a_file_system_without_links_publishes_too(
    storage: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    storage.offer([file(b"a"), file(b"b")], XXH3)
    assert land(storage, 0, b"hello").status is EntryStatus.OK
    (root / "b").write_bytes(b"mine")
    assert land(storage, 1, b"hello").status is EntryStatus.REFUSED
    assert (root / "a").read_bytes() == b"hello"
    assert (root / "b").read_bytes() == b"mine"
    assert len(list(root.iterdir())) == 2


def test_overwriting_replaces_only_by_what_is_verified(root: Path) -> None:
    (root / "a").write_bytes(b"old")
    storage = IncomingFiles(Storage(root, overwrite=True, durable=True))
    try:
        storage.offer([file(b"a")], XXH3)
        storage.write(0, 0, memoryview(b"hel"))
        assert (root / "a").read_bytes() == b"old"
        storage.write(0, 3, memoryview(b"lo"))
        storage.expect(FileDigest(0, 5, digest_of(b"hello")))
        assert [found for found, _ in storage.complete_files()] == [0]
        assert storage.commit(0).status is EntryStatus.OK
    finally:
        storage.close(complete=True)
    assert (root / "a").read_bytes() == b"hello"


def test_no_space_is_seen_when_it_is_offered(storage: IncomingFiles, root: Path) -> None:
    status = os.statvfs(root)
    free = status.f_bavail * status.f_frsize
    entries = [
        file(b"too large", free + (1 << 30)),
        file(b"sparse", free + (1 << 30), content=1000),
        file(b"half", free * 2 // 3),
        file(b"other half", free * 2 // 3),
        file(b"absurd", MAX_FILE_BYTES + 1, content=0),
    ]
    outcomes = storage.offer(entries, XXH3)
    assert [outcome.status for outcome in outcomes] == [
        EntryStatus.REFUSED,
        EntryStatus.OK,
        EntryStatus.OK,
        EntryStatus.REFUSED,
        EntryStatus.REFUSED,
    ]
    assert "no space" in outcomes[0].reason


@pytest.mark.parametrize("failing", ["pwrite", "open"])
def test_a_disk_that_fills_ends_the_session_with_a_clear_error(
    storage: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    storage.offer([file(b"a")], XXH3)
    if failing == "pwrite":
        storage.write(0, 0, memoryview(b"h"))

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(TransferError, match="a: no space left"):
        storage.write(0, 1, memoryview(b"ello"))
    monkeypatch.undo()
    storage.close(complete=False)
    assert not list(root.iterdir())


def test_a_short_write_is_continued(storage: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:2], offset))
    storage.offer([file(b"a")], XXH3)
    land(storage, 0, b"hello")
    assert (root / "a").read_bytes() == b"hello"


def test_holes_stay_holes(storage: IncomingFiles, root: Path) -> None:
    size = 10 << 20
    storage.offer([file(b"a", size, content=5), file(b"b", 1 << 20, content=0)], XXH3)
    storage.write_hole(Hole(0, (1 << 20) + 5, size - (1 << 20) - 5))
    storage.write(0, 1 << 20, memoryview(b"hello"))
    storage.write_hole(Hole(0, 0, 1 << 20))
    storage.write_hole(Hole(1, 0, 1 << 20))
    content = bytes(1 << 20) + b"hello" + bytes(size - (1 << 20) - 5)
    storage.expect(FileDigest(0, size, digest_of(content)))
    storage.expect(FileDigest(1, 1 << 20, digest_of(bytes(1 << 20))))
    assert {found for found, _ in storage.complete_files()} == {0, 1}
    assert storage.commit(0).status is storage.commit(1).status is EntryStatus.OK
    assert (root / "a").read_bytes() == content
    assert (root / "a").stat().st_blocks * 512 < 100_000
    assert (root / "b").stat().st_size == 1 << 20


def test_directories_get_their_mode_and_time_in_the_end(root: Path) -> None:
    storage = IncomingFiles(Storage(root, overwrite=False, durable=False))
    (root / "there").mkdir(mode=0o700)
    storage.offer([directory(b"new", 0o555), directory(b"new/below"), file(b"new/a"), directory(b"there")], XXH3)
    assert land(storage, 2, b"hello").status is EntryStatus.OK
    storage.close(complete=True)
    assert (root / "new").stat().st_mode & 0o777 == 0o555
    assert (root / "new").stat().st_mtime_ns == 10**18
    assert (root / "new" / "below").is_dir()
    assert (root / "there").stat().st_mode & 0o777 == 0o700


def test_a_failed_session_keeps_what_is_verified_and_nothing_else(storage: IncomingFiles, root: Path) -> None:
    (root / "there").mkdir()
    storage.offer(
        [directory(b"d"), file(b"d/a"), file(b"d/b"), directory(b"e"), directory(b"e/f"), directory(b"there")],
        XXH3,
    )
    land(storage, 1, b"hello")
    storage.write(2, 0, memoryview(b"hel"))
    storage.close(complete=False)
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == ["d", "d/a", "there"]


def test_more_directories_than_stay_open(storage: IncomingFiles, root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    entries = [entry for number in range(50) for entry in (directory(b"d%d" % number), file(b"d%d/a" % number))]
    storage.offer(entries, XXH3)
    for number in range(50):
        assert land(storage, 2 * number + 1, b"hello").status is EntryStatus.OK
    assert len(os.listdir("/proc/self/fd")) < before + 20
    assert len(list(root.rglob("a"))) == 50


def test_more_files_under_way_than_descriptors(
    storage: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OPEN_FILES, "capacity", 4)
    storage.offer([file(b"%d" % number, 2) for number in range(20)], XXH3)
    for offset in (1, 0):
        for number in range(20):
            storage.write(number, offset, memoryview(b"xy"[offset : offset + 1]))
        assert len(OPEN_FILES) <= 4
    for number in range(20):
        storage.expect(FileDigest(number, 2, digest_of(b"xy")))
    for number, _ in storage.complete_files():
        assert storage.commit(number).status is EntryStatus.OK
    assert {path.read_bytes() for path in root.iterdir()} == {b"xy"}


def test_content_may_come_before_its_offer_but_not_much(storage: IncomingFiles, root: Path) -> None:
    storage.write(0, 0, memoryview(b"hello"))
    storage.write(1, 0, memoryview(b"refused"))
    storage.offer([file(b"a"), file(b"../b", 7)], XXH3)
    storage.write(1, 7, memoryview(b"still thrown away"))
    storage.expect(FileDigest(0, 5, digest_of(b"hello")))
    storage.expect(FileDigest(1, 7, digest_of(b"refused")))
    assert [found for found, _ in storage.complete_files()] == [0]
    assert storage.commit(0).status is EntryStatus.OK
    assert [path.name for path in root.iterdir()] == ["a"]
    with pytest.raises(ProtocolError):
        storage.write(2, 0, memoryview(b"never offered"))


def test_what_comes_early_is_bounded(storage: IncomingFiles) -> None:
    storage.write(0, 0, memoryview(bytes(OPTIMISTIC_BYTES)))
    with pytest.raises(ProtocolError):
        storage.write(0, OPTIMISTIC_BYTES, memoryview(b"x"))


def test_what_comes_early_is_bounded_in_pieces_too(storage: IncomingFiles) -> None:
    for number in range(MAX_EARLY_PIECES):
        storage.write(0, number, memoryview(b"x"))
    with pytest.raises(ProtocolError):
        storage.write(0, MAX_EARLY_PIECES, memoryview(b"x"))


def test_ranges_that_wait_are_counted_over_all_files_under_way(
    storage: IncomingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.transfer.digest.MAX_PENDING_RANGES", 3)
    storage.offer([file(b"%d" % number) for number in range(8)], XXH3)
    for file_id in range(3):
        storage.write(file_id, 3, memoryview(b"lo"))
        storage.write(file_id, 0, memoryview(b"hel"))
    for file_id in range(3, 6):
        storage.write(file_id, 3, memoryview(b"lo"))
    with pytest.raises(ProtocolError, match="too many separate pieces"):
        storage.write(6, 3, memoryview(b"lo"))
    storage.close(complete=False)
    assert storage.pending_ranges == 0


@pytest.mark.parametrize(
    "lie",
    [
        lambda storage: storage.write(0, 3, memoryview(b"xyz")),
        lambda storage: storage.write(0, 1 << 62, memoryview(b"x")),
        lambda storage: storage.write_hole(Hole(0, 0, 6)),
        lambda storage: storage.write_hole(Hole(2, 0, 1)),
        lambda storage: storage.expect(FileDigest(0, 4, bytes(16))),
        lambda storage: storage.expect(FileDigest(2, 0, bytes(16))),
        lambda storage: storage.expect(FileDigest(1, MAX_FILE_BYTES + 1, bytes(16))),
        lambda storage: storage.write(1, MAX_FILE_BYTES, memoryview(b"x")),
        lambda storage: [storage.expect(FileDigest(0, 5, bytes(16))) for _ in range(2)],
        lambda storage: [storage.write(0, 0, memoryview(b"x")) for _ in range(2)],
    ],
)
def test_lies_about_sizes_are_protocol_errors(storage: IncomingFiles, lie: object) -> None:
    storage.offer([file(b"a"), file(b"stream", None)], XXH3)
    assert callable(lie)
    with pytest.raises(ProtocolError):
        lie(storage)


def test_a_stream_ends_where_its_digest_says(storage: IncomingFiles, root: Path) -> None:
    storage.offer([file(b"a", None)], XXH3)
    assert land(storage, 0, b"as long as it was").status is EntryStatus.OK
    assert (root / "a").read_bytes() == b"as long as it was"


def test_a_stream_holds_nothing_beyond_its_verified_end(storage: IncomingFiles, root: Path) -> None:
    storage.offer([file(b"a", None)], XXH3)
    storage.write(0, 100, memoryview(b"unverified"))
    with pytest.raises(ProtocolError, match="beyond its end"):
        land(storage, 0, b"hello")
    storage.close(complete=False)
    assert not list(root.iterdir())


@pytest.mark.parametrize("mtime_ns", [-(2**63), -1, 0, 2**63 - 1])
def test_any_time_can_be_offered(storage: IncomingFiles, root: Path, mtime_ns: int) -> None:
    storage.offer([Entry(EntryKind.FILE, b"a", 0o644, mtime_ns, 5, 5)], XXH3)
    assert land(storage, 0, b"hello").status is EntryStatus.OK
    assert (root / "a").read_bytes() == b"hello"


def test_no_directory_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(UsageError, match="name an existing directory"):
            IncomingFiles(Storage(path, overwrite=False, durable=False))


def spliced(storage: IncomingFiles, file_id: int, offset: int, content: bytes) -> None:
    """Land content as a channel does that splices."""
    descriptor = storage.descriptor(file_id, offset, len(content))
    assert descriptor is not None
    os.pwrite(descriptor, content, offset)
    storage.on_spliced(file_id, offset, len(content))


@pytest.fixture
def splicing(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IncomingFiles]:
    """A storage that lets a channel splice, whatever the file system."""
    monkeypatch.setattr(preallocate, "maps_extents", lambda _: True)
    files = IncomingFiles(Storage(root, overwrite=False, durable=False))
    yield files
    files.close(complete=False)
    assert len(OPEN_FILES) == 0


def test_spliced_content_is_verified_like_any(splicing: IncomingFiles, root: Path) -> None:
    content = os.urandom(3 << 20)
    splicing.offer([file(b"a", len(content))], XXH3)
    spliced(splicing, 0, 2 << 20, content[2 << 20 :])
    spliced(splicing, 0, 0, content[: 1 << 20])
    splicing.write(0, 1 << 20, memoryview(content)[1 << 20 : 2 << 20])
    splicing.expect(FileDigest(0, len(content), digest_of(content)))
    assert [found for found, _ in splicing.complete_files()] == [0]
    assert splicing.commit(0).status is EntryStatus.OK
    assert (root / "a").read_bytes() == content


def test_a_descriptor_is_lent_for_new_content_of_a_file_under_way_only(splicing: IncomingFiles) -> None:
    splicing.offer([file(b"a"), file(b"../b"), file(b"c")], XXH3)
    assert splicing.descriptor(1, 0, 5) is None  # refused
    assert splicing.descriptor(3, 0, 5) is None  # not offered: `write` will say so
    with pytest.raises(ProtocolError):
        splicing.descriptor(0, 3, 3)
    spliced(splicing, 0, 0, b"hel")
    spliced(splicing, 2, 3, b"lo")
    with pytest.raises(ProtocolError):
        splicing.descriptor(0, 0, 1)
    with pytest.raises(ProtocolError):
        splicing.descriptor(2, 3, 1)
    spliced(splicing, 0, 3, b"lo")
    splicing.expect(FileDigest(0, 5, digest_of(b"hello")))
    assert splicing.descriptor(0, 0, 1) is None  # complete


def test_a_lent_descriptor_is_not_taken_away(splicing: IncomingFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OPEN_FILES, "capacity", 1)
    splicing.offer([file(b"a"), file(b"b")], XXH3)
    descriptor = splicing.descriptor(0, 0, 5)
    assert descriptor is not None
    status = os.fstat(descriptor)
    splicing.write(1, 0, memoryview(b"hello"))
    assert os.path.samestat(os.fstat(descriptor), status)
    os.pwrite(descriptor, b"hello", 0)
    splicing.on_spliced(0, 0, 5)


def test_blocks_are_reserved_for_large_files_that_are_all_content(
    splicing: IncomingFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved: list[tuple[int, int]] = []
    monkeypatch.setattr("toolkit.transfer.preallocate.STEP_BYTES", 1 << 20)
    monkeypatch.setattr(
        "toolkit.transfer.preallocate.reserve", lambda _, offset, length: reserved.append((offset, length))
    )
    size = 4 << 20
    splicing.offer([file(b"a", size), file(b"small", 1000), file(b"sparse", size, content=1000)], XXH3)
    for file_id in range(3):
        splicing.write(file_id, 0, memoryview(bytes(1000)))
    assert reserved == [(0, (1 << 20) + 1000)]
    splicing.write(0, 1000, memoryview(bytes(1 << 20)))
    assert len(reserved) == 1
    splicing.write(0, size - 1, memoryview(b"x"))
    assert reserved[1:] == [((1 << 20) + 1000, size - (1 << 20) - 1000)]


@pytest.mark.parametrize(
    ("number", "is_fatal"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EOPNOTSUPP, False)]
)
def test_only_a_full_disk_matters_when_blocks_are_reserved(
    splicing: IncomingFiles, monkeypatch: pytest.MonkeyPatch, number: int, is_fatal: bool
) -> None:
    def fail(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("toolkit.transfer.preallocate.reserve", fail)
    content = os.urandom(1 << 20)
    splicing.offer([file(b"a", len(content))], XXH3)
    if is_fatal:
        with pytest.raises(TransferError, match=r"a: .*(space|quota)"):
            splicing.write(0, 0, memoryview(content))
    else:
        assert land(splicing, 0, content).status is EntryStatus.OK


def test_reserving_changes_no_size(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as made:
        preallocate.reserve(made.fileno(), 0, 1 << 20)
        assert os.fstat(made.fileno()).st_size == 0
        assert os.fstat(made.fileno()).st_blocks * 512 >= 1 << 20
    with pytest.raises(OSError, match="Bad file"):
        preallocate.reserve(-1, 0, 1)
