"""Files that share few descriptors."""

import resource
import threading
from pathlib import Path

import pytest

from tests.support.sessions import XXH3, origin_of
from toolkit.transfer.open_files import MAX_DESCRIPTORS, OPEN_FILES, raise_descriptor_limit
from toolkit.transfer.sources import FileSource


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


def test_the_soft_limit_on_descriptors_is_raised_to_the_hard_one() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    capacity = OPEN_FILES.capacity
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])
        assert OPEN_FILES.capacity == MAX_DESCRIPTORS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        OPEN_FILES.capacity = capacity
