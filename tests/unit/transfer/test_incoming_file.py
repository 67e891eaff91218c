"""A file that arrives, stored on disk: any order, holes, splicing, reserved blocks, and peers that lie about sizes."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.sessions import XXH3, commit, deliver, failure_of, file_entry, xxh3
from toolkit.errors import ProtocolError
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.manifest import MAX_FILE_BYTES
from toolkit.transfer.messages import EntryStatus, FileDigest, Hole
from toolkit.transfer.open_files import OPEN_FILES


def test_a_file_is_complete_when_all_content_and_the_digest_are_there(files: IncomingFiles) -> None:
    files.offer([file_entry(b"a"), file_entry(b"b")], XXH3)
    files.expect(FileDigest(0, 5, xxh3(b"hello")))
    files.write(0, 3, memoryview(b"lo"))
    assert not list(files.complete_files())
    files.write(0, 0, memoryview(b"hel"))
    assert [file_id for file_id, _ in files.complete_files()] == [0]
    files.write(1, 0, memoryview(b"hello"))
    assert not list(files.complete_files())
    assert files.awaits_digests()
    files.expect(FileDigest(1, 5, xxh3(b"hello")))
    assert [file_id for file_id, _ in files.complete_files()] == [1]
    assert not files.awaits_digests()


def test_a_short_write_is_continued(files: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:2], offset))
    files.offer([file_entry(b"a")], XXH3)
    deliver(files, 0, b"hello")
    assert (root / "a").read_bytes() == b"hello"


def test_holes_are_not_written(files: IncomingFiles, root: Path) -> None:
    size = 10 << 20
    files.offer([file_entry(b"a", size, content=5), file_entry(b"b", 1 << 20, content=0)], XXH3)
    files.write_hole(Hole(0, (1 << 20) + 5, size - (1 << 20) - 5))
    files.write(0, 1 << 20, memoryview(b"hello"))
    files.write_hole(Hole(0, 0, 1 << 20))
    content = bytes(1 << 20) + b"hello" + bytes(size - (1 << 20) - 5)
    assert commit(files, 0, content).status is EntryStatus.OK
    files.write_hole(Hole(1, 0, 1 << 20))
    assert commit(files, 1, bytes(1 << 20)).status is EntryStatus.OK
    assert (root / "a").read_bytes() == content
    assert (root / "a").stat().st_blocks * 512 < 100_000
    assert (root / "b").stat().st_size == 1 << 20


def test_a_stream_ends_where_its_digest_says(files: IncomingFiles, root: Path) -> None:
    files.offer([file_entry(b"a", None)], XXH3)
    assert deliver(files, 0, b"of unknown length").status is EntryStatus.OK
    assert (root / "a").read_bytes() == b"of unknown length"


def test_a_stream_with_content_beyond_its_end_is_an_error(files: IncomingFiles, root: Path) -> None:
    files.offer([file_entry(b"a", None)], XXH3)
    files.write(0, 100, memoryview(b"unverified"))
    with pytest.raises(ProtocolError, match="beyond its end"):
        deliver(files, 0, b"hello")
    files.close(complete=False)
    assert not list(root.iterdir())


@pytest.mark.parametrize(
    "lie",
    [
        lambda files: files.write(0, 3, memoryview(b"xyz")),
        lambda files: files.write(0, 1 << 62, memoryview(b"x")),
        lambda files: files.write_hole(Hole(0, 0, 6)),
        lambda files: files.expect(FileDigest(0, 4, bytes(16))),
        lambda files: files.expect(FileDigest(1, MAX_FILE_BYTES + 1, bytes(16))),
        lambda files: files.write(1, MAX_FILE_BYTES, memoryview(b"x")),
        lambda files: [files.expect(FileDigest(0, 5, bytes(16))) for _ in range(2)],
        lambda files: [files.write(0, 0, memoryview(b"x")) for _ in range(2)],
    ],
    ids=[
        "content beyond the end",
        "content far beyond the end",
        "hole beyond the end",
        "another size than offered",
        "stream above the limit",
        "stream content above the limit",
        "two digests",
        "the same byte twice",
    ],
)
def test_a_peer_that_lies_about_a_file_is_a_protocol_error(
    files: IncomingFiles, lie: Callable[[IncomingFiles], object]
) -> None:
    files.offer([file_entry(b"a"), file_entry(b"stream", None)], XXH3)
    with pytest.raises(ProtocolError):
        lie(files)


# Splicing.


def splice(files: IncomingFiles, file_id: int, offset: int, content: bytes) -> None:
    """Store content as a channel does that splices."""
    descriptor = files.descriptor(file_id, offset, len(content))
    assert descriptor is not None
    os.pwrite(descriptor, content, offset)
    files.on_spliced(file_id, offset, len(content))


def test_spliced_content_is_verified_like_written_content(splicing: IncomingFiles, root: Path) -> None:
    content = os.urandom(3 << 20)
    splicing.offer([file_entry(b"a", len(content))], XXH3)
    splice(splicing, 0, 2 << 20, content[2 << 20 :])
    splice(splicing, 0, 0, content[: 1 << 20])
    splicing.write(0, 1 << 20, memoryview(content)[1 << 20 : 2 << 20])
    assert commit(splicing, 0, content).status is EntryStatus.OK
    assert (root / "a").read_bytes() == content


def test_a_descriptor_is_given_only_for_new_content_of_an_unfinished_file(splicing: IncomingFiles) -> None:
    splicing.offer([file_entry(b"a"), file_entry(b"../b"), file_entry(b"c")], XXH3)
    assert splicing.descriptor(1, 0, 5) is None  # refused
    assert splicing.descriptor(3, 0, 5) is None  # not offered; `write` raises the error
    with pytest.raises(ProtocolError):
        splicing.descriptor(0, 3, 3)
    splice(splicing, 0, 0, b"hel")
    splice(splicing, 2, 3, b"lo")
    with pytest.raises(ProtocolError):
        splicing.descriptor(0, 0, 1)
    with pytest.raises(ProtocolError):
        splicing.descriptor(2, 3, 1)
    splice(splicing, 0, 3, b"lo")
    splicing.expect(FileDigest(0, 5, xxh3(b"hello")))
    assert splicing.descriptor(0, 0, 1) is None  # complete


def test_a_descriptor_in_use_by_a_channel_stays_open(splicing: IncomingFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OPEN_FILES, "capacity", 1)
    splicing.offer([file_entry(b"a"), file_entry(b"b")], XXH3)
    descriptor = splicing.descriptor(0, 0, 5)
    assert descriptor is not None
    status = os.fstat(descriptor)
    splicing.write(1, 0, memoryview(b"hello"))
    assert os.path.samestat(os.fstat(descriptor), status)
    os.pwrite(descriptor, b"hello", 0)
    splicing.on_spliced(0, 0, 5)


# Reserved blocks.


@pytest.fixture
def reserved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The ranges that are reserved, as (offset, length)."""
    ranges: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "toolkit.transfer.preallocate.reserve", lambda _, offset, length: ranges.append((offset, length))
    )
    return ranges


def test_blocks_are_reserved_for_large_files_without_holes(
    splicing: IncomingFiles, reserved: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    mib = 1 << 20
    monkeypatch.setattr("toolkit.transfer.preallocate.STEP_BYTES", 2 * mib)
    size = 8 * mib
    entries = [file_entry(b"a", size), file_entry(b"small", 1000), file_entry(b"sparse", size, content=2 * mib)]
    splicing.offer(entries, XXH3)
    splicing.write(1, 0, memoryview(bytes(1000)))
    splicing.write(2, 0, memoryview(bytes(2 * mib)))
    assert reserved == []
    for number in range(8):
        splicing.write(0, number * mib, memoryview(bytes(mib)))
    assert reserved == [(0, 2 * mib), (2 * mib, 3 * mib), (5 * mib, 3 * mib)]


def test_blocks_are_reserved_by_what_has_arrived_and_not_by_what_is_announced(
    splicing: IncomingFiles, reserved: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.transfer.tree.Tree.free_bytes", lambda _: None)
    size = 1 << 40
    splicing.offer([file_entry(b"a", size)], XXH3)
    assert splicing.descriptor(0, 0, size) is not None  # the header of an extent: announced, and nothing has come
    assert reserved == []
    splicing.write(0, size - 1, memoryview(b"x"))
    assert reserved == []
    splicing.write(0, 0, memoryview(bytes(3 << 20)))
    assert sum(length for _, length in reserved) <= 2 * ((3 << 20) + 1)


@pytest.mark.parametrize(
    ("number", "is_fatal"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EOPNOTSUPP, False)]
)
def test_only_a_full_disk_is_an_error_when_blocks_are_reserved(
    splicing: IncomingFiles, monkeypatch: pytest.MonkeyPatch, number: int, is_fatal: bool
) -> None:
    def fail(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("toolkit.transfer.preallocate.reserve", fail)
    content = os.urandom(1 << 20)
    splicing.offer([file_entry(b"a", len(content))], XXH3)
    if is_fatal:
        splicing.write(0, 0, memoryview(content))
        assert "receiver's disk" in failure_of(splicing, 0)
    else:
        assert deliver(splicing, 0, content).status is EntryStatus.OK
