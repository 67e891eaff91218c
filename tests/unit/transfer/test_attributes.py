"""What --preserve keeps: exact modes, owners, extended attributes; only if both ends say so, and never for content."""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.background import Background
from tests.support.sessions import MTIME_NS, XXH3, Ends, RecordingChannel, channel_pair, deliver
from toolkit.errors import ProtocolError, UsageError
from toolkit.parameters import MAX_VALUE_BYTES
from toolkit.transfer import SendOptions, receive, send
from toolkit.transfer.attributes import (
    MAX_ENTRY_XATTR_BYTES,
    MAX_ID,
    PRESERVE_ALL,
    Attributes,
    Owner,
    Preserve,
    attributes_of,
    decode_list_untrusted,
    encode_list,
    ids_of,
    missing_words,
    parse_preserve,
    read_xattrs,
)
from toolkit.transfer.handed_over import HandedOverDestination
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.messages import EntryStatus
from toolkit.transfer.receiver import ReceiveOptions
from toolkit.transfer.scan import SourceEntry, in_groups
from toolkit.transfer.selection import LinkChoice, Selection
from toolkit.transfer.send_progress import SendProgress
from toolkit.transfer.storage import Storage

NOBODY = pwd.getpwnam("nobody").pw_uid
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
CONTENT = b"hello"


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The usual umask, whatever the user has."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def need_xattrs(directory: Path) -> None:
    """Skip the test if the file system has no extended attributes."""
    try:
        os.setxattr(directory, "user.test", b"")
    except OSError:
        pytest.skip("no extended attributes here")


def store(root: Path, attributes: Attributes, size_bytes: int = len(CONTENT)) -> os.stat_result:
    """Store a file, and a directory, with these attributes; the status of the file."""
    content = CONTENT.ljust(size_bytes)
    files = IncomingFiles(Storage(root, overwrite=False, durable=False))
    entries = [
        Entry(EntryKind.FILE, b"file", 0o644, MTIME_NS, size_bytes, size_bytes, attributes=attributes),
        Entry(EntryKind.DIRECTORY, b"directory", 0o755, MTIME_NS, attributes=attributes),
    ]
    files.offer(entries, XXH3)
    assert deliver(files, 0, content).status is EntryStatus.OK
    files.close(complete=True)
    assert (root / "file").read_bytes() == content
    assert (root / "file").stat().st_mtime_ns == MTIME_NS
    return (root / "file").stat()


SIZES = pytest.mark.parametrize("size_bytes", [5, 100_000], ids=["small", "large"])


@SIZES
def test_modes_are_exact(root: Path, size_bytes: int) -> None:
    os.umask(0o077)
    assert stat.S_IMODE(store(root, Attributes(0o775), size_bytes).st_mode) == 0o775
    assert stat.S_IMODE((root / "directory").stat().st_mode) == 0o775


@SIZES
@AS_ROOT
def test_owners_are_kept_in_a_directory_of_others_too(root: Path, size_bytes: int) -> None:
    root.chmod(0o777)
    owner = Owner(NOBODY, 12_345, b"nobody", b"")
    status = store(root, Attributes(0o640, owner), size_bytes)
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (NOBODY, 12_345, 0o640)
    assert (root / "directory").stat().st_uid == NOBODY


@SIZES
def test_what_cannot_be_set_costs_no_content_and_no_power_is_given(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, size_bytes: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(os, "fchown", refuse)
    monkeypatch.setattr(os, "setxattr", refuse)
    status = store(root, Attributes(0o6755, Owner(NOBODY, NOBODY), ((b"user.a", b"b"),)), size_bytes)
    assert stat.S_IMODE(status.st_mode) == 0o755
    assert "of 2 received entries could not be set" in caplog.text


@AS_ROOT
def test_special_bits_are_set_after_the_owner(root: Path) -> None:
    assert stat.S_IMODE(store(root, Attributes(0o4755, Owner(NOBODY, NOBODY))).st_mode) == 0o4755


def test_special_bits_without_an_owner_are_not_set(root: Path) -> None:
    assert stat.S_IMODE(store(root, Attributes(0o6755)).st_mode) == 0o755


@SIZES
def test_extended_attributes_of_users_are_kept(root: Path, size_bytes: int) -> None:
    need_xattrs(root)
    xattrs = ((b"user.empty", b""), (b"user.origin", b"\x00\xff"))
    store(root, Attributes(0o400, None, xattrs), size_bytes)
    for name in ("file", "directory"):
        descriptor = os.open(root / name, os.O_RDONLY)
        try:
            assert read_xattrs(descriptor) == xattrs
        finally:
            os.close(descriptor)


def test_too_many_extended_attributes_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listxattr", lambda _: ["user.large", "security.capability"])
    monkeypatch.setattr(os, "getxattr", lambda _, name: bytes(MAX_ENTRY_XATTR_BYTES if b"large" in name else 1))
    with pytest.raises(OSError, match="more than 16 KiB"):
        read_xattrs(0)


def test_users_are_found_by_name_and_else_by_number() -> None:
    assert ids_of(Owner(4711, 0, b"nobody", b"")) == (NOBODY, 0)
    assert ids_of(Owner(4711, 4712, b"no such user", b"no-such-group")) == (4711, 4712)
    assert ids_of(Owner(4711, 4712, b"\xff", b"../x")) == (4711, 4712)


def test_names_that_no_receiver_looks_up_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    base = 3_000_000_000  # looked up by no other test
    names = {base: "alice", base + 1: "J\udcf6rg", base + 2: "a b", base + 3: ""}
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name=names[uid]))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_name=names[gid]))
    for number in (0, *range(base, base + 5)):
        status = os.stat_result((0o644, 0, 0, 1, number, number, 0, 0, 0, 0))
        name = b"alice" if number == base else b""
        assert attributes_of(status, Preserve.OWNERS) == Attributes(owner=Owner(number, number, name, name))


def sent_over(tree: Path, root: Path, offered: Preserve, allowed: Preserve) -> list[str]:
    """Send a tree; the calls of the sender."""
    selection = Selection(links=LinkChoice.SEND, preserve=offered)
    with channel_pair() as (sending, receiving):
        received = Background(lambda: receive(receiving, root, ReceiveOptions(preserve=allowed)))
        recorder = RecordingChannel(sending)
        send(recorder, [tree], SendOptions(recursive=True, selection=selection))
        received.outcome()
        return recorder.calls


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree whose modes, owners and extended attributes are unusual, where the user may set them."""
    need_xattrs(tmp_path)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(CONTENT)
    (tree / "link").symlink_to("file")
    for path in (tree / "file", tree):
        os.setxattr(path, "user.origin", b"here")
        if not os.geteuid():
            os.chown(path, NOBODY, NOBODY)
        path.chmod(0o2773)
    if not os.geteuid():
        os.chown(tree / "link", NOBODY, NOBODY, follow_symlinks=False)
    return tree


def facts(path: Path) -> tuple[int, int, int, list[str]]:
    status = path.lstat()
    names = [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user.")]
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, names


def test_a_tree_keeps_everything_if_both_ends_say_so(tree: Path, root: Path) -> None:
    sent_over(tree, root, PRESERVE_ALL, PRESERVE_ALL)
    for name in ("tree", "tree/file", "tree/link"):
        assert facts(root / name) == facts(tree.parent / name)


@pytest.mark.parametrize(
    ("offered", "allowed"),
    [(PRESERVE_ALL, Preserve.NOTHING), (Preserve.NOTHING, PRESERVE_ALL)],
    ids=["sender", "receiver"],
)
def test_one_end_alone_preserves_nothing(
    tree: Path, root: Path, offered: Preserve, allowed: Preserve, caplog: pytest.LogCaptureFixture
) -> None:
    sent_over(tree, root, offered, allowed)
    assert facts(root / "tree" / "file") == (0o640, os.geteuid(), (root / "tree" / "file").stat().st_gid, [])
    assert ("the receiver does not keep modes,owners,xattrs,setid" in caplog.text) == bool(offered)


def test_a_sender_names_all_that_a_receiver_has_to_be_started_with(
    tree: Path, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent_over(tree, root, Preserve.MODES | Preserve.XATTRS, Preserve.MODES)
    assert "the receiver does not keep xattrs: have it preserve modes,xattrs" in caplog.text


def test_a_sender_learns_that_a_program_which_takes_the_files_preserves_nothing(
    ends: Ends, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    destination = HandedOverDestination(lambda *_: None)
    options = ReceiveOptions(preserve=PRESERVE_ALL)
    received = Background(lambda: receive(ends[1], lambda: destination, options))
    send(ends[0], [tmp_path / "file"], SendOptions(selection=Selection(preserve=Preserve.MODES)))
    received.outcome()
    assert "the receiver does not keep modes" in caplog.text


def test_special_bits_need_a_word_of_their_own(tree: Path, root: Path) -> None:
    sent_over(tree, root, PRESERVE_ALL, PRESERVE_ALL & ~Preserve.SETID)
    assert facts(root / "tree" / "file")[0] == 0o773


def test_counting_a_tree_ahead_reads_no_extended_attributes(
    tree: Path, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: int) -> Any:
        raise PermissionError(errno.EACCES, "no")

    counted: list[SourceEntry] = []
    monkeypatch.setattr("toolkit.transfer.scan.read_xattrs", refuse)
    monkeypatch.setattr(SendProgress, "count_ahead", lambda _, entries: counted.extend(entries()))
    sent_over(tree, root, PRESERVE_ALL, PRESERVE_ALL)
    assert len(counted) == 3
    assert caplog.text.count("tree/file: extended attributes not sent") == 1


NAMES = st.binary(max_size=40)
ATTRIBUTES = st.builds(
    Attributes,
    st.none() | st.integers(0, 0o7777),
    st.none() | st.builds(Owner, st.integers(0, MAX_ID), st.integers(0, MAX_ID), NAMES, NAMES),
    st.lists(st.tuples(st.binary(max_size=9).map(lambda name: b"user." + name.replace(b"\0", b"")), NAMES)).map(tuple),
)


@given(st.lists(ATTRIBUTES, max_size=4))
def test_a_list_decodes_to_what_was_encoded(attributes: list[Attributes]) -> None:
    assert decode_list_untrusted(encode_list(attributes), len(attributes), PRESERVE_ALL) == attributes


@given(st.binary(max_size=64), st.integers(0, 3))
def test_hostile_bytes_raise_one_error(value: bytes, count: int) -> None:
    with suppress(ProtocolError):
        decode_list_untrusted(value, count, PRESERVE_ALL)


@pytest.mark.parametrize(
    "one",
    [
        Attributes(0o10000),
        Attributes(owner=Owner(MAX_ID + 1, 0)),
        Attributes(owner=Owner(0, MAX_ID + 1)),
        Attributes(xattrs=((b"security.capability", b""),)),
        Attributes(xattrs=((b"user.\0", b""),)),
    ],
)
def test_what_no_sender_offers_ends_the_session(one: Attributes) -> None:
    with pytest.raises(ProtocolError):
        decode_list_untrusted(encode_list([one]), 1, Preserve.NOTHING)


def test_the_attributes_of_a_group_fit_its_parameter() -> None:
    large = Attributes(xattrs=((b"user.x", bytes(MAX_ENTRY_XATTR_BYTES - 100)),))
    entries = [
        SourceEntry(Entry(EntryKind.FILE, b"%d" % number, 0o644, 0, attributes=large if number % 2 else None))
        for number in range(30)
    ]
    groups = list(in_groups(entries))
    assert [source for group in groups for source in group] == entries
    values = [encode_list(source.entry.attributes for source in group) for group in groups]
    assert all(len(value) <= MAX_VALUE_BYTES for value in values)
    assert len(groups) == 4


def test_the_words_of_a_user() -> None:
    assert parse_preserve(None) is Preserve.NOTHING
    assert parse_preserve("modes, xattrs") == Preserve.MODES | Preserve.XATTRS
    assert parse_preserve("setid") == Preserve.MODES | Preserve.OWNERS | Preserve.SETID
    for words in ("", "all", "modes,,owners"):
        with pytest.raises(UsageError, match="list some of modes, owners, xattrs, setid"):
            parse_preserve(words)


def test_a_sender_learns_what_a_receiver_does_not_preserve() -> None:
    asked = Preserve.MODES | Preserve.OWNERS
    assert missing_words(asked, None) == "modes,owners"
    assert missing_words(asked, bytes([Preserve.MODES | 0x80])) == "owners"
    assert missing_words(Preserve.NOTHING, b"") == ""
