"""The destination that writes files: final names only for verified files, and nothing left of the others."""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.background import PATIENCE_S
from tests.support.sessions import MTIME_NS, XXH3, commit, deliver, directory_entry, failure_of, file_entry, xxh3
from toolkit.errors import TransferError, UsageError
from toolkit.transfer.attributes import Attributes, Owner
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.limits import LimitError
from toolkit.transfer.manifest import MAX_FILE_BYTES, Entry, EntryKind
from toolkit.transfer.messages import EntryOutcome, EntryStatus, FileDigest, Hole
from toolkit.transfer.open_files import OPEN_FILES
from toolkit.transfer.storage import Storage
from toolkit.transfer.tree import Tree, rename_new


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The usual umask, whatever the user has."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_a_file_gets_its_name_when_it_is_verified(files: IncomingFiles, root: Path) -> None:
    files.offer([file_entry(b"a", mode=0o600)], XXH3)
    assert not list(root.iterdir())
    files.write(0, 3, memoryview(b"lo"))
    (part,) = root.iterdir()
    assert part.name.startswith(".nettool-")
    assert part.stat().st_mode & 0o777 == 0o600
    files.write(0, 0, memoryview(b"hel"))
    assert not (root / "a").exists()
    assert commit(files, 0, b"hello").status is EntryStatus.OK
    assert [path.name for path in root.iterdir()] == ["a"]
    assert (root / "a").read_bytes() == b"hello"
    assert (root / "a").stat().st_mtime_ns == MTIME_NS


def test_a_file_with_a_wrong_digest_is_removed(files: IncomingFiles, root: Path) -> None:
    files.offer([file_entry(b"a")], XXH3)
    files.write(0, 0, memoryview(b"hellO"))
    assert commit(files, 0, b"hello").status is EntryStatus.MISMATCHED
    assert not list(root.iterdir())


@pytest.mark.parametrize(
    ("umask", "offered", "preserves", "file", "directory"),
    [
        (0o022, 0o777, False, 0o644, 0o755),
        (0o022, 0o777, True, 0o755, 0o755),
        (0o077, 0o755, False, 0o600, 0o700),
        (0o077, 0o755, True, 0o700, 0o700),
        (0o027, 0o640, False, 0o640, 0o640),
        (0o002, 0o666, False, 0o664, 0o664),
    ],
)
def test_modes_are_masked_and_files_are_executable_only_on_request(
    root: Path, umask: int, offered: int, preserves: bool, file: int, directory: int
) -> None:
    os.umask(umask)
    files = IncomingFiles(Storage(root, overwrite=False, durable=False, preserve_modes=preserves))
    files.offer([file_entry(b"a", mode=offered), directory_entry(b"d", offered)], XXH3)
    assert deliver(files, 0, b"hello").status is EntryStatus.OK
    files.close(complete=True)
    assert (root / "a").stat().st_mode & 0o7777 == file
    assert (root / "d").stat().st_mode & 0o7777 == directory


def test_a_directory_inherits_the_group_and_the_bit_of_a_shared_directory(root: Path) -> None:
    root.chmod(0o2775)
    if not root.stat().st_mode & stat.S_ISGID:
        pytest.skip("this user cannot set the set-group-ID bit here")
    files = IncomingFiles(Storage(root, overwrite=False, durable=False))
    files.offer([directory_entry(b"d"), directory_entry(b"d/e"), file_entry(b"d/a")], XXH3)
    assert deliver(files, 2, b"hello").status is EntryStatus.OK
    files.close(complete=True)
    for path, mode in ((root / "d", 0o2755), (root / "d" / "e", 0o2755), (root / "d" / "a", 0o644)):
        assert path.stat().st_mode & 0o7777 == mode
        assert path.stat().st_gid == root.stat().st_gid


@pytest.mark.parametrize("failing", ["fchmod", "utime"])
def test_a_verified_file_is_kept_where_modes_or_times_cannot_be_set(
    written_files: IncomingFiles,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failing: str,
) -> None:
    """As on FAT, or on a share of another user."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, failing, refuse)
    written_files.offer([file_entry(b"a")], XXH3)
    assert deliver(written_files, 0, b"hello").status is EntryStatus.OK
    assert (root / "a").read_bytes() == b"hello"
    written_files.close(complete=True)
    assert "mode or time of 1 received entries could not be set" in caplog.text


def test_a_write_error_that_shows_when_the_mode_is_set_is_a_failure(
    written_files: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, which writes a file back before it sets the mode."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    written_files.offer([file_entry(b"a")], XXH3)
    assert deliver(written_files, 0, b"hello").status is EntryStatus.FAILED
    assert not list(root.iterdir())


def test_names_that_begin_with_a_dot_are_refused_unless_asked_for(root: Path) -> None:
    entries = [file_entry(b".bashrc"), directory_entry(b".ssh"), file_entry(b".ssh/authorized_keys")]
    for dotfiles in (False, True):
        files = IncomingFiles(Storage(root, overwrite=False, durable=False, dotfiles=dotfiles))
        outcomes = files.offer([*entries, directory_entry(b"project"), directory_entry(b"project/.git")], XXH3)
        assert [outcome.status for outcome in outcomes] == [
            *[EntryStatus.OK if dotfiles else EntryStatus.REFUSED] * 3,
            *[EntryStatus.OK] * 2,
        ]
        if not dotfiles:
            assert {outcome.reason for outcome in outcomes[:3]} == {
                "the name begins with a dot; the receiver accepts it only with `dotfiles`"
            }
        files.close(complete=False)
        assert not list(root.iterdir())


@pytest.mark.parametrize("mtime_ns", [-(2**63), -1, 0, 2**63 - 1])
def test_any_modification_time_is_accepted(files: IncomingFiles, root: Path, mtime_ns: int) -> None:
    files.offer([Entry(EntryKind.FILE, b"a", 0o644, mtime_ns, 5, 5)], XXH3)
    assert deliver(files, 0, b"hello").status is EntryStatus.OK
    assert (root / "a").read_bytes() == b"hello"


def test_bad_names_are_refused_and_nothing_is_created(files: IncomingFiles, root: Path) -> None:
    names = [b"../out", b"/out", b"a/../../out", b"-rf", b"a\0", b"a\x1b[2J", b"", b".", b"x" * 256]
    entries = [entry(name) for name in names for entry in (file_entry, directory_entry)]
    outcomes = files.offer(entries, XXH3)
    assert {outcome.status for outcome in outcomes} == {EntryStatus.REFUSED}
    assert all(outcome.reason for outcome in outcomes)
    assert not list(root.iterdir())
    assert [path.name for path in root.parent.iterdir()] == ["root"]


def test_a_directory_that_cannot_be_opened_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(UsageError, match="name an existing directory"):
            Storage(path, overwrite=False, durable=False)


# Files that exist.


def test_a_file_created_meanwhile_by_another_process_is_not_replaced(files: IncomingFiles, root: Path) -> None:
    files.offer([file_entry(b"a")], XXH3)
    files.write(0, 0, memoryview(b"hel"))
    (root / "a").write_bytes(b"mine")
    files.write(0, 3, memoryview(b"lo"))
    outcome = commit(files, 0, b"hello")
    assert outcome.status is EntryStatus.REFUSED
    assert "already exists" in outcome.reason
    assert (root / "a").read_bytes() == b"mine"
    assert len(list(root.iterdir())) == 1


def test_one_of_several_concurrent_sessions_publishes_a_name(root: Path) -> None:
    sessions = [IncomingFiles(Storage(root, overwrite=False, durable=False)) for _ in range(8)]
    contents = [b"%05d" % number for number in range(8)]
    for files, content in zip(sessions, contents, strict=True):
        files.offer([file_entry(b"a")], XXH3)
        files.write(0, 0, memoryview(content))
    start = threading.Barrier(8)
    outcomes: list[EntryOutcome] = []

    def run(files: IncomingFiles, content: bytes) -> None:
        start.wait()
        outcomes.append(commit(files, 0, content))

    threads = [threading.Thread(target=run, args=pair) for pair in zip(sessions, contents, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for files in sessions:
        files.close(complete=True)
    assert sorted(outcome.status for outcome in outcomes) == [EntryStatus.OK] + [EntryStatus.REFUSED] * 7
    assert (root / "a").read_bytes() in contents
    assert len(list(root.iterdir())) == 1


def test_a_file_system_without_hard_links_publishes_by_rename(
    files: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    files.offer([file_entry(b"a"), file_entry(b"b")], XXH3)
    assert deliver(files, 0, b"hello").status is EntryStatus.OK
    (root / "b").write_bytes(b"mine")
    assert deliver(files, 1, b"hello").status is EntryStatus.REFUSED
    assert (root / "a").read_bytes() == b"hello"
    assert (root / "b").read_bytes() == b"mine"
    assert len(list(root.iterdir())) == 2


@pytest.mark.parametrize("renames", [True, False])
def test_a_file_that_another_process_creates_at_the_last_moment_is_not_replaced(
    files: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch, renames: bool
) -> None:
    """One way to publish without replacing is missing; the check that the name is free has just been made."""
    check_file = Tree.check_file

    def create(*_: object, **__: object) -> None:
        (root / "a").write_bytes(b"mine")
        monkeypatch.setattr(Tree, "check_file", lambda *_, **__: monkeypatch.setattr(Tree, "check_file", check_file))
        raise OSError(errno.EPERM, "Operation not permitted")

    files.offer([file_entry(b"a")], XXH3)
    monkeypatch.setattr(*((os, "link") if renames else ("toolkit.transfer.tree.rename_new",)), create)
    if renames:
        (root / "a").write_bytes(b"mine")
    assert deliver(files, 0, b"hello").status is not EntryStatus.OK
    assert (root / "a").read_bytes() == b"mine"
    assert len(list(root.iterdir())) == 1


class CaselessNames:
    """A file system that does not tell upper from lower case, as far as files of a session notice.

    Every name that `os` is given relative to a directory is taken for the lower-case one.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("stat", "rename", "link", "mkdir", "open"):
            monkeypatch.setattr(os, name, self._folding(getattr(os, name)))
        monkeypatch.setattr("toolkit.transfer.tree.rename_new", self._folding(rename_new))

    def _folding(self, call: Any) -> Any:
        def folded(*names: Any, **options: Any) -> Any:
            return call(*(name.lower() if isinstance(name, bytes) else name for name in names), **options)

        return folded


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("names", [(b"README", b"readme"), (b"D/a", b"d/A"), (b"a", b"a")])
def test_two_names_that_are_one_file_here_do_not_overwrite_each_other(
    root: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, names: tuple[bytes, bytes]
) -> None:
    if names[0] != names[1]:
        CaselessNames(monkeypatch)
    files = IncomingFiles(Storage(root, overwrite=overwrite, durable=False))
    directories = [directory_entry(name[:1]) for name in names if b"/" in name]
    try:
        files.offer([*directories, file_entry(names[0]), file_entry(names[1])], XXH3)
        first = len(directories)
        assert deliver(files, first, b"hello").status is EntryStatus.OK
        second = deliver(files, first + 1, b"world")
        late = files.offer([file_entry(names[1])], XXH3)
    finally:
        files.close(complete=True)
    for outcome in (second, *late):
        assert outcome.status is EntryStatus.REFUSED
        assert ("of this session" if overwrite else "already exists") in outcome.reason
    (stored,) = (path for path in root.rglob("*") if path.is_file())
    assert stored.read_bytes() == b"hello"


def test_another_session_may_replace_what_an_earlier_one_has_stored(root: Path) -> None:
    for content in (b"first", b"again"):
        files = IncomingFiles(Storage(root, overwrite=True, durable=False))
        files.offer([file_entry(b"a")], XXH3)
        assert deliver(files, 0, content).status is EntryStatus.OK
        files.close(complete=True)
        assert (root / "a").read_bytes() == content


def test_a_temporary_file_that_another_process_replaces_is_noticed(
    written_files: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OPEN_FILES, "capacity", 1)
    written_files.offer([file_entry(b"a"), file_entry(b"b")], XXH3)
    written_files.write(0, 0, memoryview(b"hel"))
    (part,) = root.iterdir()
    written_files.write(1, 0, memoryview(b"hel"))  # closes the first one
    (root / "theirs").write_bytes(b"hel")
    os.rename(root / "theirs", part)
    written_files.write(0, 3, memoryview(b"lo"))
    assert "another process replaced" in failure_of(written_files, 0)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_takes_the_name_of_a_verified_one_is_not_taken_for_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    """In a directory that others may write to, one of them acts between the verification and the final name."""
    root.chmod(0o777)
    files = IncomingFiles(Storage(root, overwrite, durable=False))
    files.offer([file_entry(b"a"), file_entry(b"b")], XXH3)
    assert deliver(files, 0, b"hello").status is EntryStatus.OK
    publish = Tree.publish

    def swap_and_publish(tree: Tree, components: tuple[bytes, ...], temporary: bytes, *arguments: Any) -> None:
        (root / "theirs").write_bytes(b"other")
        os.rename(root / "theirs", root / os.fsdecode(temporary))
        publish(tree, components, temporary, *arguments)

    monkeypatch.setattr(Tree, "publish", swap_and_publish)
    outcome = deliver(files, 1, b"hello")
    assert outcome.status is EntryStatus.FAILED
    assert "another process replaced" in outcome.reason
    files.close(complete=True)
    assert {path.name for path in root.iterdir()} == ({"a", "b"} if overwrite else {"a"})
    assert (root / "a").read_bytes() == b"hello"


def test_overwrite_replaces_a_file_only_by_a_verified_one(root: Path) -> None:
    (root / "a").write_bytes(b"old")
    files = IncomingFiles(Storage(root, overwrite=True, durable=True))
    try:
        files.offer([file_entry(b"a")], XXH3)
        files.write(0, 0, memoryview(b"hel"))
        assert (root / "a").read_bytes() == b"old"
        files.write(0, 3, memoryview(b"lo"))
        assert commit(files, 0, b"hello").status is EntryStatus.OK
    finally:
        files.close(complete=True)
    assert (root / "a").read_bytes() == b"hello"


@pytest.mark.parametrize("overwrite", [False, True])
def test_only_regular_files_are_replaced(root: Path, overwrite: bool) -> None:
    (root / "directory").mkdir()
    os.mkfifo(root / "fifo")
    (root / "file").write_bytes(b"mine")
    files = IncomingFiles(Storage(root, overwrite, durable=False))
    try:
        outcomes = files.offer(
            [
                file_entry(b"directory"),
                file_entry(b"fifo"),
                directory_entry(b"file"),
                file_entry(b"file/below"),
                file_entry(b"nowhere/a"),
            ],
            XXH3,
        )
    finally:
        files.close(complete=True)
    assert {outcome.status for outcome in outcomes} == {EntryStatus.REFUSED}
    assert (root / "file").read_bytes() == b"mine"


# Space on the disk.


def test_an_offer_that_does_not_fit_on_the_disk_is_refused(files: IncomingFiles, root: Path) -> None:
    status = os.statvfs(root)
    free = status.f_bavail * status.f_frsize
    entries = [
        file_entry(b"too large", free + (1 << 30)),
        file_entry(b"sparse", free + (1 << 30), content=1000),
        file_entry(b"half", free * 2 // 3),
        file_entry(b"other half", free * 2 // 3),
        file_entry(b"above the limit", MAX_FILE_BYTES + 1, content=0),
    ]
    outcomes = files.offer(entries, XXH3)
    assert [outcome.status for outcome in outcomes] == [
        EntryStatus.REFUSED,
        EntryStatus.OK,
        EntryStatus.OK,
        EntryStatus.REFUSED,
        EntryStatus.REFUSED,
    ]
    assert "no space" in outcomes[0].reason


def test_two_sessions_are_not_promised_the_same_space(files: IncomingFiles, root: Path) -> None:
    status = os.statvfs(root)
    most = status.f_bavail * status.f_frsize * 2 // 3
    other = IncomingFiles(Storage(root, overwrite=False, durable=False))
    (first,) = files.offer([file_entry(b"a", most)], XXH3)
    (second,) = other.offer([file_entry(b"b", most)], XXH3)
    assert first.status is EntryStatus.OK
    assert second.status is EntryStatus.REFUSED
    assert "no space" in second.reason
    files.close(complete=False)
    (third,) = other.offer([file_entry(b"b", most)], XXH3)
    assert third.status is EntryStatus.OK
    other.close(complete=False)


def test_space_that_was_promised_is_free_again_when_the_file_has_arrived(files: IncomingFiles, root: Path) -> None:
    status = os.statvfs(root)
    most = status.f_bavail * status.f_frsize * 2 // 3
    for number in range(3):
        (outcome,) = files.offer([file_entry(b"%d" % number, None, content=most)], XXH3)
        assert outcome.status is EntryStatus.OK
        deliver(files, number, b"hello")


@pytest.mark.parametrize("size_bytes", [None, 1 << 40], ids=["stream", "more content than offered"])
def test_a_file_gets_no_space_that_another_was_promised(
    files: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int | None
) -> None:
    free_mib = 100
    monkeypatch.setattr("toolkit.transfer.tree.Tree.free_bytes", lambda _: free_mib << 20)
    other = IncomingFiles(Storage(root, overwrite=False, durable=False))
    (promised,) = other.offer([file_entry(b"a", 97 << 20)], XXH3)
    (greedy,) = files.offer([file_entry(b"b", size_bytes, content=0)], XXH3)
    assert (promised.status, greedy.status) == (EntryStatus.OK, EntryStatus.OK)
    mib = memoryview(bytes(1 << 20))
    for number in range(3):
        files.write(0, number << 20, mib)
        free_mib -= 1
    files.write(0, 3 << 20, mib)
    assert failure_of(files, 0).startswith("no space left")
    other.close(complete=False)


def test_a_session_may_not_bring_more_bytes_than_its_limit(root: Path) -> None:
    files = IncomingFiles(Storage(root, overwrite=False, durable=False), limit_bytes=20)
    entries = [file_entry(b"a", 15), file_entry(b"large", 6), file_entry(b"stream", None), file_entry(b"b", 1)]
    outcomes = files.offer(entries, XXH3)
    assert [outcome.status for outcome in outcomes] == [
        EntryStatus.OK,
        EntryStatus.REFUSED,
        EntryStatus.OK,
        EntryStatus.OK,
    ]
    assert "20 B in a session (its `max_bytes`)" in outcomes[1].reason
    files.write(2, 0, memoryview(b"1234"))
    with pytest.raises(LimitError, match="`max_bytes`"):
        files.write(2, 4, memoryview(b"5"))
    with pytest.raises(LimitError, match="`max_bytes`"):
        files.write_hole(Hole(2, 4, 1))
    files.close(complete=False)


@pytest.mark.parametrize("failing", ["pwrite", "open"])
def test_a_file_fails_by_itself_on_a_disk_that_fills_up(
    written_files: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    written_files.offer([file_entry(b"a"), file_entry(b"b")], XXH3)
    if failing == "pwrite":
        written_files.write(0, 0, memoryview(b"h"))

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    written_files.write(0, 1, memoryview(b"e"))
    monkeypatch.undo()
    written_files.write(0, 2, memoryview(b"llo"))
    assert failure_of(written_files, 0).startswith("no space left")
    assert not list(root.iterdir())
    assert deliver(written_files, 1, b"hello").status is EntryStatus.OK


def test_an_error_of_a_late_write_belongs_to_the_file_that_was_written(
    written_files: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where close(2) reports it; here when the cache closes the file to make room for another."""
    monkeypatch.setattr(OPEN_FILES, "capacity", 1)
    written_files.offer([file_entry(b"a"), file_entry(b"b")], XXH3)
    written_files.write(0, 0, memoryview(b"hello"))
    close = os.close

    def fail(descriptor: int) -> None:
        close(descriptor)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patched:
        patched.setattr(os, "close", fail)
        written_files.write(1, 0, memoryview(b"hello"))
    assert failure_of(written_files, 0) == "the receiver's disk quota is exceeded"
    assert commit(written_files, 1, b"hello").status is EntryStatus.OK
    assert [path.name for path in root.iterdir()] == ["b"]


def test_a_temporary_file_that_another_process_truncates_is_not_published(
    written_files: IncomingFiles, root: Path
) -> None:
    written_files.offer([file_entry(b"a"), file_entry(b"b", 1 << 20, content=5)], XXH3)
    for file_id in (0, 1):
        written_files.write(file_id, 0, memoryview(b"hello"))
        (part,) = root.iterdir()
        os.truncate(part, 2)
        if file_id:
            written_files.write_hole(Hole(1, 5, (1 << 20) - 5))
        outcome = commit(written_files, file_id, b"hello" + bytes(((1 << 20) - 5) * file_id))
        assert (outcome.status, "truncated" in outcome.reason) == (EntryStatus.FAILED, True)
    assert not list(root.iterdir())


# The end of a session.


def test_directories_get_their_mode_and_time_at_the_end(root: Path) -> None:
    files = IncomingFiles(Storage(root, overwrite=False, durable=False))
    (root / "existing").mkdir(mode=0o700)
    entries = [
        directory_entry(b"new", 0o555),
        directory_entry(b"new/below"),
        file_entry(b"new/a"),
        directory_entry(b"existing"),
    ]
    files.offer(entries, XXH3)
    assert deliver(files, 2, b"hello").status is EntryStatus.OK
    files.close(complete=True)
    assert (root / "new").stat().st_mode & 0o777 == 0o555
    assert (root / "new").stat().st_mtime_ns == MTIME_NS
    assert (root / "new" / "below").is_dir()
    assert (root / "existing").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("offered", "attributes", "meanwhile"),
    [
        (0o775, None, 0o755),
        (0o750, None, 0o750),
        (0o511, None, 0o711),
        (0o755, Attributes(0o755, Owner(os.geteuid(), os.getegid())), 0o700),
    ],
)
def test_a_session_that_is_killed_leaves_directories_that_can_be_read_as_their_modes_say(
    root: Path, offered: int, attributes: Attributes | None, meanwhile: int
) -> None:
    os.umask(0o002)
    files = IncomingFiles(Storage(root, overwrite=False, durable=False))
    files.offer([replace(directory_entry(b"d", offered), attributes=attributes)], XXH3)
    assert stat.S_IMODE((root / "d").stat().st_mode) == meanwhile
    files.close(complete=True)
    assert stat.S_IMODE((root / "d").stat().st_mode) == offered


def test_a_directory_that_cannot_be_forced_to_the_disk_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = IncomingFiles(Storage(root, overwrite=False, durable=True))
    files.offer([directory_entry(b"d")], XXH3)

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(TransferError, match="d: the receiver cannot store it"):
        files.close(complete=True)
    files.close(complete=False)


def test_a_failed_session_keeps_verified_files_and_nothing_else(files: IncomingFiles, root: Path) -> None:
    (root / "existing").mkdir()
    entries = [
        directory_entry(b"d"),
        file_entry(b"d/a"),
        file_entry(b"d/b"),
        directory_entry(b"e"),
        directory_entry(b"e/f"),
        directory_entry(b"existing"),
    ]
    files.offer(entries, XXH3)
    deliver(files, 1, b"hello")
    files.write(2, 0, memoryview(b"hel"))
    files.close(complete=False)
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == ["d", "d/a", "existing"]


def test_more_files_in_progress_than_descriptors(
    files: IncomingFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OPEN_FILES, "capacity", 4)
    files.offer([file_entry(b"%d" % number, 2) for number in range(20)], XXH3)
    for offset in (1, 0):
        for number in range(20):
            files.write(number, offset, memoryview(b"xy"[offset : offset + 1]))
        assert len(OPEN_FILES) <= 4
    for number in range(20):
        assert commit(files, number, b"xy").status is EntryStatus.OK
    assert {path.read_bytes() for path in root.iterdir()} == {b"xy"}


def test_files_are_committed_where_no_thread_is_left_to_share_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    files = IncomingFiles(Storage(root, overwrite=False, durable=True))
    files.offer([file_entry(b"a"), file_entry(b"b")], XXH3)
    for file_id in range(2):
        files.write(file_id, 0, memoryview(b"hello"))
        files.expect(FileDigest(file_id, 5, xxh3(b"hello")))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert [outcome.status for outcome in files.commit_all([0, 1])] == [EntryStatus.OK, EntryStatus.OK]
    files.close(complete=True)


def test_files_that_are_committed_together_are_forced_to_the_disk_together(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting = threading.Barrier(2)
    monkeypatch.setattr(os, "fsync", lambda _: meeting.wait(PATIENCE_S))
    files = IncomingFiles(Storage(root, overwrite=False, durable=True))
    files.offer([file_entry(b"a"), file_entry(b"b")], XXH3)
    for file_id in range(2):
        files.write(file_id, 0, memoryview(b"hello"))
        files.expect(FileDigest(file_id, 5, xxh3(b"hello")))
    assert [outcome.status for outcome in files.commit_all([0, 1])] == [EntryStatus.OK, EntryStatus.OK]
    assert {path.name for path in root.iterdir()} == {"a", "b"}
    files.close(complete=True)
