"""What a sender reads from, and in which order it finds it."""

import os
import subprocess
import threading
from pathlib import Path

import pytest
import xxhash

from toolkit.channel import Extent
from toolkit.errors import TransferError, UsageError, printable
from toolkit.transfer.digest import ALGORITHMS
from toolkit.transfer.manifest import MAX_GROUP_BYTES, MAX_GROUP_ENTRIES, EntryKind
from toolkit.transfer.open_files import OPEN_FILES
from toolkit.transfer.scan import SkippedEntry, SourceEntry, check_sources, in_groups, scan, totals_of
from toolkit.transfer.sources import (
    FileIdentity,
    FileOrigin,
    FileSource,
    Segment,
    StreamSlice,
    StreamSource,
    segments_of,
)

XXH3 = ALGORITHMS[0]


def origin_of(path: Path) -> FileOrigin:
    status = path.stat()
    is_sparse = status.st_blocks * 512 < status.st_size
    return FileOrigin(os.fsencode(path), path.name, FileIdentity.of(status), is_sparse)


@pytest.fixture
def content() -> bytes:
    return os.urandom(1_000_003)


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


def test_the_digest_is_that_of_the_content_however_it_was_read(path: Path, content: bytes) -> None:
    def by_reading(source: FileSource) -> None:
        for offset in range(0, len(content), 100_000):
            source.read_into(offset, memoryview(bytearray(min(100_000, len(content) - offset))))

    def again_and_out_of_order(source: FileSource) -> None:
        for offset, length in ((500_000, 10), (0, 70_000), (60_000, 20_000), (0, 100)):
            buffer = memoryview(bytearray(length))
            source.read_into(offset, buffer)
            assert buffer == content[offset : offset + length]

    def by_moving(source: FileSource) -> None:
        for offset, length in ((500_000, 500_003), (0, 500_000)):
            assert os.pread(source.fileno(), length, offset) == content[offset : offset + length]
            source.on_sendfile(offset, length)

    def not_at_all(_: FileSource) -> None:
        pass

    for read in (by_reading, again_and_out_of_order, by_moving, not_at_all):
        source = FileSource(origin_of(path), XXH3)
        read(source)
        assert source.finish() == xxhash.xxh3_128(content).digest()
        source.close()
    assert len(OPEN_FILES) == 0


def test_a_descriptor_stays_while_extents_are_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OPEN_FILES, "capacity", 1)
    source, other = FileSource(origin_of(path), XXH3), FileSource(origin_of(path), XXH3)
    extent = Extent(0, 0, 10)
    source.retain()
    descriptor = source.fileno()
    other.read_into(0, memoryview(bytearray(1)))
    assert os.fstat(descriptor).st_ino == path.stat().st_ino
    assert source.fileno() == descriptor
    source.finish()
    assert not source.is_released
    source.release(extent)
    assert source.is_released
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)
    other.close()
    assert len(OPEN_FILES) == 0


@pytest.mark.parametrize("change", ["grow", "shrink", "touch", "replace", "remove"])
@pytest.mark.parametrize("when", ["before", "between"])
def test_a_change_is_an_error(path: Path, content: bytes, change: str, when: str) -> None:
    source = FileSource(origin_of(path), XXH3)
    if when == "between":
        source.read_into(0, memoryview(bytearray(1000)))
    if change == "grow":
        with open(path, "ab") as file:
            file.write(b"x")
    elif change == "shrink":
        os.truncate(path, 10_000)
    elif change == "touch":
        os.utime(path, ns=(0, 12345))
    elif change == "replace":
        path.with_name("new").write_bytes(content)
        os.replace(path.with_name("new"), path)
    else:
        path.unlink()
    if when == "between" and change in ("replace", "remove"):
        assert source.finish() == xxhash.xxh3_128(content).digest()  # the file that was opened has not changed
    else:
        with pytest.raises(TransferError):
            source.finish()
    source.close()
    assert len(OPEN_FILES) == 0


def test_a_file_that_is_opened_again_is_the_same_one(
    path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OPEN_FILES, "capacity", 1)
    source, other = FileSource(origin_of(path), XXH3), FileSource(origin_of(path), XXH3)
    for part in (source, other, source, other):
        part.read_into(0, memoryview(bytearray(1)))
    path.with_name("new").write_bytes(content)
    os.replace(path.with_name("new"), path)
    with pytest.raises(TransferError, match="file: changed while it was sent"):
        source.read_into(1, memoryview(bytearray(1)))
    source.close()
    other.close()


def test_holes_are_found_and_small_ones_are_not_worth_it(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.write(b"x" * 4096)
        file.seek(8192)
        file.write(b"x" * 4096)
        file.seek(1 << 20)
        file.write(b"x" * 4096)
        file.truncate(1 << 21)
    with open(path, "rb") as file:
        segments = list(segments_of(file.fileno(), 1 << 21))
    assert segments == [
        Segment(0, 12288, False),
        Segment(12288, (1 << 20) - 12288, True),
        Segment(1 << 20, 4096, False),
        Segment((1 << 20) + 4096, (1 << 20) - 4096, True),
    ]
    source = FileSource(origin_of(path), XXH3)
    assert list(source.segments()) == segments
    for segment in segments:
        if segment.is_hole:
            source.hash_hole(segment.offset, segment.length)
    assert source.finish() == xxhash.xxh3_128(path.read_bytes()).digest()
    source.close()


def test_a_file_without_holes_or_without_content_is_one_segment_or_none(tmp_path: Path) -> None:
    for size in (0, 1, 100_000):
        path = tmp_path / str(size)
        path.write_bytes(b"x" * size)
        with open(path, "rb") as file:
            assert list(segments_of(file.fileno(), size)) == ([Segment(0, size, False)] if size else [])
    hole = tmp_path / "hole"
    hole.touch()
    os.truncate(hole, 1 << 30)
    with open(hole, "rb") as file:
        assert list(segments_of(file.fileno(), 1 << 30)) == [Segment(0, 1 << 30, True)]


def test_a_stream_gives_what_there_is_and_an_end() -> None:
    reading, writing = os.pipe()
    stream = StreamSource(reading, XXH3)
    assert stream.next_slice() is None
    os.write(writing, b"hello")
    first = stream.next_slice()
    assert first is not None
    assert (first.offset, first.data) == (0, b"hello")
    assert stream.next_slice() is None
    os.write(writing, b"world")
    os.close(writing)
    second, end = stream.next_slice(), stream.next_slice()
    assert second is not None
    assert end is not None
    assert (second.offset, second.data, end.data) == (5, b"world", b"")
    assert stream.digest() == xxhash.xxh3_128(b"helloworld").digest()
    os.close(reading)
    with pytest.raises(TransferError, match="standard input"):
        stream.next_slice()


def test_a_slice_is_in_no_file() -> None:
    stretch = StreamSlice(1_000_000, b"hello")
    buffer = bytearray(3)
    stretch.read_into(1_000_001, memoryview(buffer))
    assert buffer == b"ell"
    assert stretch.fileno() is None


def paths_of(items: list[SourceEntry]) -> list[bytes]:
    return [item.entry.path for item in items]


def test_a_walk_is_sorted_by_whole_paths_and_follows_no_links(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("a/z", "a-b", "a.txt", "b/c/d", "b/c-d"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "empty").mkdir()
    (root / "link").symlink_to("/etc")
    os.mkfifo(root / "fifo")
    left_out: list[SkippedEntry] = []
    items = list(scan(check_sources([root], recursive=True, stream_name=""), left_out))
    files = [item.entry.path for item in items if item.entry.kind is EntryKind.FILE]
    assert files == sorted(files)
    assert set(files) == {b"root/" + name for name in (b"a/z", b"a-b", b"a.txt", b"b/c/d", b"b/c-d")}
    assert {item.entry.path for item in items} - set(files) == {
        b"root",
        b"root/a",
        b"root/b",
        b"root/b/c",
        b"root/empty",
    }
    assert {(found.path, found.is_failure) for found in left_out} == {(b"root/link", False), (b"root/fifo", False)}
    seen = set()
    for path in paths_of(items):
        assert path.rpartition(b"/")[0] in seen | {b""}
        seen.add(path)


def test_a_time_beyond_what_a_message_holds_is_told_as_the_nearest(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x")
    for path in (tree / "file", tree):
        os.utime(path, ns=(0, 2**63 + 10**9))  # in the year 2262
    items = list(scan(check_sources([tree], recursive=True, stream_name=""), []))
    kept_ns = tree.stat().st_mtime_ns  # not every file system goes so far
    assert [item.entry.mtime_ns for item in items] == [min(kept_ns, 2**63 - 1)] * 2
    assert all(item.entry.encode() for item in items)


def test_a_very_deep_tree_is_walked(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(1500):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)
    left_out: list[SkippedEntry] = []
    try:
        items = list(scan(check_sources([tmp_path / "d"], recursive=True, stream_name=""), left_out))
    finally:
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # deeper than shutil and pytest recurse
    assert len(items) == 1500
    assert not left_out


def test_what_cannot_be_read_below_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in for access(2): whoever runs the tests may be allowed everything."""
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "open").write_bytes(b"x")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: b"secret" not in os.fsencode(path) and access(path, mode))
    left_out: list[SkippedEntry] = []
    items = list(scan(check_sources([tmp_path], recursive=True, stream_name=""), left_out))
    assert len(items) == 2
    assert [(found.path.split(b"/")[-1], found.is_failure) for found in left_out] == [(b"secret", True)]
    with pytest.raises(UsageError, match="permission denied"):
        check_sources([tmp_path / "secret"], recursive=False, stream_name="")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: None, "no such file"),
        (lambda path: path.mkdir(), "use -r"),
        (os.mkfifo, "neither a file nor a directory"),
        (lambda path: path.symlink_to("nowhere"), "no such file"),
    ],
)
def test_sources_that_cannot_be_sent_are_usage_errors(tmp_path: Path, make: object, words: str) -> None:
    assert callable(make)
    make(tmp_path / "x\x1b[31m")
    with pytest.raises(UsageError, match=words) as caught:
        check_sources([tmp_path / "x\x1b[31m"], recursive=False, stream_name="")
    assert printable(str(caught.value), 1000) == str(caught.value)


def test_odd_sources_are_usage_errors(tmp_path: Path, path: Path) -> None:
    for sources in ([], ["/"], [""], ["a\0b"], [path, path], ["-", "-"], [tmp_path / "missing" / ".."]):
        with pytest.raises(UsageError):
            check_sources(sources, recursive=True, stream_name="stdin")


def test_names_are_those_of_the_last_component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "here" / "below"
    below.mkdir(parents=True)
    (below / "file").write_bytes(b"12345")
    (tmp_path / "here" / "link").symlink_to(below / "file")
    monkeypatch.chdir(tmp_path / "here")
    roots = check_sources([".", "below/", "below/file", "below/..//link", "-"], recursive=True, stream_name="in")
    assert [root.name for root in roots] == [b"here", b"below", b"file", b"link", b"in"]
    assert totals_of(roots) == (None, None)
    assert totals_of(roots[2:4]) == (2, 10)


def test_groups_fit_an_offer(tmp_path: Path) -> None:
    for number in range(1500):
        (tmp_path / f"{number:0200d}").touch()
    groups = list(in_groups(scan(check_sources([tmp_path], recursive=True, stream_name=""), [])))
    assert sum(map(len, groups)) == 1501
    for group in groups:
        assert 1 <= len(group) <= MAX_GROUP_ENTRIES
        assert sum(item.entry.encoded_bytes for item in group) <= MAX_GROUP_BYTES
        assert sum(len(item.entry.encode()) for item in group) == sum(i.entry.encoded_bytes for i in group)


def test_many_threads_share_few_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OPEN_FILES, "capacity", 3)
    sources = []
    for number in range(12):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 1000)
        sources.append(FileSource(origin_of(tmp_path / str(number)), XXH3))
    wrong: list[int] = []

    def read(offset: int) -> None:
        for _ in range(20):
            for number, source in enumerate(sources):
                buffer = bytearray(10)
                source.read_into(offset, memoryview(buffer))
                if buffer != bytes([number]) * 10:
                    wrong.append(number)

    threads = [threading.Thread(target=read, args=(100 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    for source in sources:
        source.close()
    assert len(OPEN_FILES) == 0
