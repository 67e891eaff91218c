"""The discarding receiver: its memory stays bounded, whatever a hostile peer sends."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.sessions import failure_of
from toolkit.comparison.discard import MAX_FILES, MAX_HELD_BYTES, DiscardingDestination
from toolkit.errors import ProtocolError
from toolkit.transfer.digest import algorithm_by_name
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.messages import EntryStatus

ALGORITHM = algorithm_by_name("xxh3-128")
STEP = memoryview(bytes(1 << 20))


def storage_of(*sizes_bytes: int) -> IncomingFiles:
    storage = IncomingFiles(DiscardingDestination())
    entries = [Entry(EntryKind.FILE, b"%d" % n, 0o600, 0, size, size) for n, size in enumerate(sizes_bytes)]
    assert all(outcome.status is EntryStatus.OK for outcome in storage.offer(entries, ALGORITHM))
    return storage


def memory_pages_bytes() -> int:
    """Memory that the anonymous files of this process occupy."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            if "memfd:nettool" in os.readlink(link):
                found += os.stat(link).st_blocks * 512
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd_create")
def test_memory_is_returned_when_the_digest_has_passed() -> None:
    storage = storage_of(128 << 20)
    assert storage.descriptor(0, 0, len(STEP)) is None  # content must pass through write, which returns its memory
    for offset in range(0, 128 << 20, len(STEP)):
        storage.write(0, offset, STEP)
        assert memory_pages_bytes() <= 8 << 20
    storage.close(complete=False)


def test_content_too_far_ahead_of_missing_content_is_refused() -> None:
    storage = storage_of(1 << 40, 1 << 40)
    storage.write(0, MAX_HELD_BYTES // 2, STEP[:1])
    storage.write(1, MAX_HELD_BYTES // 2 - 2, STEP[:1])
    with pytest.raises(ProtocolError, match="too far ahead"):
        storage.write(1, MAX_HELD_BYTES // 2 + 10, STEP[:1])
    storage.close(complete=False)


def test_too_many_files_at_a_time_are_refused() -> None:
    storage = storage_of(*[1 << 30] * MAX_FILES)
    (outcome,) = storage.offer([Entry(EntryKind.FILE, b"more", 0o600, 0, 1, 1)], ALGORITHM)
    assert outcome.status is EntryStatus.REFUSED
    storage.close(complete=False)


def test_errors_of_the_system_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    opener: Callable[..., int] = full
    monkeypatch.setattr(os, "memfd_create", opener, raising=False)
    storage = storage_of(1 << 20)
    storage.write(0, 0, STEP)
    assert "open files" in failure_of(storage, 0)
    storage.close(complete=False)
