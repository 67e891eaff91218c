"""What a sender reads from: files that must not change, holes, and streams."""

import gc
import os
from pathlib import Path

import pytest
import xxhash

from tests.support.sessions import XXH3, origin_of
from toolkit.channel import Extent
from toolkit.errors import TransferError
from toolkit.transfer.open_files import OPEN_FILES
from toolkit.transfer.sources import FileSource, Segment, SourceChangedError, StreamSlice, StreamSource, segments_of


@pytest.fixture
def content() -> bytes:
    return os.urandom(1_000_003)


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


def test_the_digest_does_not_depend_on_how_the_file_was_read(path: Path, content: bytes) -> None:
    def by_reading(source: FileSource) -> None:
        for offset in range(0, len(content), 100_000):
            source.read_into(offset, memoryview(bytearray(min(100_000, len(content) - offset))))

    def repeatedly_and_out_of_order(source: FileSource) -> None:
        for offset, length in ((500_000, 10), (0, 70_000), (60_000, 20_000), (0, 100)):
            buffer = memoryview(bytearray(length))
            source.read_into(offset, buffer)
            assert buffer == content[offset : offset + length]

    def by_sendfile(source: FileSource) -> None:
        for offset, length in ((500_000, 500_003), (0, 500_000)):
            assert os.pread(source.fileno(), length, offset) == content[offset : offset + length]
            source.on_sendfile(offset, length)

    def not_at_all(_: FileSource) -> None:
        pass

    for read in (by_reading, repeatedly_and_out_of_order, by_sendfile, not_at_all):
        source = FileSource(origin_of(path), XXH3)
        read(source)
        assert source.finish() == xxhash.xxh3_128(content).digest()
        source.close()


def test_a_descriptor_stays_open_while_a_channel_sends_extents(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("change", ["grow", "shrink", "touch", "replace", "remove", "rewrite"])
@pytest.mark.parametrize("when", ["before", "between"])
def test_a_file_that_changes_is_an_error(path: Path, content: bytes, change: str, when: str) -> None:
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
    elif change == "remove":
        path.unlink()
    else:  # a program that hides its change from everybody who looks at size and modification time only
        before = path.stat()
        path.write_bytes(content[::-1])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(SourceChangedError):
        source.finish()
    source.close()


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="only Linux has it")
def test_a_size_of_0_is_not_believed_where_the_file_system_is_not_known() -> None:
    source = FileSource(origin_of(Path("/proc/version")), XXH3)
    with pytest.raises(SourceChangedError, match="a size of 0; pipe it"):
        source.finish()
    source.close()


def test_a_file_that_grows_is_told_apart(path: Path) -> None:
    source = FileSource(origin_of(path), XXH3)
    source.read_into(0, memoryview(bytearray(10)))
    with open(path, "ab") as file:
        file.write(b"one more line")
    with pytest.raises(SourceChangedError, match=r"grew while it was sent; .* pipe it"):
        source.finish()
    source.close()


@pytest.mark.usefixtures("no_cycle_collector")
def test_a_file_is_gone_from_memory_once_it_is_sent(path: Path) -> None:
    def send() -> None:
        source = FileSource(origin_of(path), XXH3)
        source.retain()
        source.finish()
        source.release(Extent(0, 0, 10))

    send()
    assert not [one for one in gc.get_objects() if isinstance(one, FileSource)]


def test_a_channel_gets_zeros_for_what_can_no_longer_be_read_and_the_session_the_error(path: Path) -> None:
    source = FileSource(origin_of(path), XXH3)
    os.truncate(path, 10_000)
    buffer = bytearray(b"x" * 100)
    source.read_into(50_000, memoryview(buffer))
    assert buffer == bytes(100)
    assert source.fileno() is None
    with pytest.raises(SourceChangedError, match="file: changed while it was sent"):
        source.retain()
    with pytest.raises(SourceChangedError, match="file: changed while it was sent"):
        source.finish()
    source.close()


def test_a_file_that_was_replaced_is_found_when_it_is_opened_again(
    path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OPEN_FILES, "capacity", 1)
    source, other = FileSource(origin_of(path), XXH3), FileSource(origin_of(path), XXH3)
    for part in (source, other, source, other):
        part.read_into(0, memoryview(bytearray(1)))
    path.with_name("new").write_bytes(content)
    os.replace(path.with_name("new"), path)
    source.read_into(1, memoryview(bytearray(1)))
    with pytest.raises(SourceChangedError, match="file: changed while it was sent"):
        source.finish()
    source.close()
    other.close()


def test_large_holes_are_found_and_small_ones_count_as_content(tmp_path: Path) -> None:
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


def test_a_file_of_only_content_or_only_a_hole_is_one_segment(tmp_path: Path) -> None:
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


def test_a_stream_gives_what_can_be_read_and_an_empty_slice_at_its_end() -> None:
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


def test_a_file_that_waits_for_new_content_is_an_error(path: Path) -> None:
    """As /proc/kmsg does."""
    reading, writing = os.pipe()
    stream = StreamSource(reading, XXH3, origin_of(path))
    with pytest.raises(SourceChangedError, match="no end"):
        stream.next_slice()
    os.close(writing)
    os.close(reading)


def test_a_slice_of_a_stream_has_no_descriptor() -> None:
    stream_slice = StreamSlice(1_000_000, b"hello")
    buffer = bytearray(3)
    stream_slice.read_into(1_000_001, memoryview(buffer))
    assert buffer == b"ell"
    assert stream_slice.fileno() is None
