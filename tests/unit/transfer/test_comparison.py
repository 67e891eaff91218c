"""Sending again: what the receiver has already is not sent, and what differs is replaced only with its consent."""

import os
from pathlib import Path

import pytest

from tests.support.background import Background
from tests.support.sessions import XXH3, RecordingChannel, channel_pair, file_entry, xxh3
from toolkit.errors import ProtocolError, RefusedError
from toolkit.transfer import Comparison, SendOptions, TransferResult, receive, send
from toolkit.transfer.comparison import KnownFiles, comparison_untrusted, is_same_time
from toolkit.transfer.limits import ByteBudget
from toolkit.transfer.messages import EntryStatus
from toolkit.transfer.receiver import ReceiveOptions
from toolkit.transfer.storage import Storage

CHANGE_TIME_NS = 1_700_000_000_000_000_150
"""Of no file system's units: a nanosecond later, none of them takes it for the same."""
BY_TIME, BY_DIGEST = (SendOptions(recursive=True, update=comparison) for comparison in Comparison)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree to send."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    for name in ("a", "sub/b", "sub/empty"):
        (tree / name).write_bytes(name.encode() * (name != "sub/empty"))
        os.utime(tree / name, ns=(CHANGE_TIME_NS, CHANGE_TIME_NS))
    return tree


def transfer(
    tree: Path, root: Path, options: SendOptions, overwrite: bool = False
) -> tuple[TransferResult, TransferResult, list[str]]:
    """Send once: the results of both ends, and the sender's calls on its channel. Raises what the sender does."""
    with channel_pair() as (sending, receiving):
        received = Background(lambda: receive(receiving, root, ReceiveOptions(overwrite=overwrite)))
        recorder = RecordingChannel(sending)
        sent = send(recorder, [tree], options)
        return sent, received.outcome(), recorder.calls


@pytest.mark.parametrize("options", [BY_TIME, BY_DIGEST], ids=["time", "digest"])
def test_what_the_receiver_has_is_not_sent_again(tree: Path, root: Path, options: SendOptions) -> None:
    transfer(tree, root, options)
    (tree / "new").write_bytes(b"new")
    sent, received, calls = transfer(tree, root, options)
    assert (sent.files, sent.unchanged, sent.undelivered) == (1, 3, [])
    assert (received.files, received.unchanged, received.digest) == (1, 3, sent.digest)
    assert [call for call in calls if call.endswith("bytes of 2")] == ["3 bytes of 2"]
    assert not any(" bytes of " in call for call in calls if not call.endswith(" of 2"))


def change(path: Path, content: bytes, options: SendOptions) -> None:
    """Change a file so that it keeps what `options` do not compare."""
    before = path.stat()
    path.write_bytes(content)
    if options is BY_DIGEST:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


@pytest.mark.parametrize("options", [BY_TIME, BY_DIGEST], ids=["time", "digest"])
def test_a_changed_file_needs_the_receivers_consent(tree: Path, root: Path, options: SendOptions) -> None:
    transfer(tree, root, options)
    change(tree / "sub/b", b"other", options)
    with pytest.raises(
        RefusedError, match=r"^tree/sub/b: differs from the receiver's; .* only with `overwrite`$"
    ) as info:
        transfer(tree, root, options)
    assert isinstance(info.value.result, TransferResult)
    assert info.value.result.unchanged == 2
    assert (root / "tree/sub/b").read_bytes() == b"sub/b"
    sent, *_ = transfer(tree, root, options, overwrite=True)
    assert (sent.files, sent.unchanged) == (1, 2)
    assert (root / "tree/sub/b").read_bytes() == b"other"


def test_equal_content_is_the_same_file_by_digest_whatever_its_time(tree: Path, root: Path) -> None:
    transfer(tree, root, BY_DIGEST)
    os.utime(tree / "a", ns=(1, 1))
    assert transfer(tree, root, BY_DIGEST)[0].unchanged == 3
    with pytest.raises(RefusedError, match="differs"):
        transfer(tree, root, BY_TIME)


def test_without_update_a_file_that_exists_is_refused_with_the_way_out(tree: Path, root: Path) -> None:
    transfer(tree, root, SendOptions(recursive=True))
    with pytest.raises(RefusedError, match=r"already exists; .*`update`"):
        transfer(tree, root, SendOptions(recursive=True))


def test_a_link_in_the_way_is_never_the_same_file(tree: Path, root: Path) -> None:
    transfer(tree, root, BY_TIME)
    (root / "tree/a").unlink()
    (root / "tree/a").symlink_to(tree / "a")
    with pytest.raises(RefusedError, match="a symbolic link is in the way"):
        transfer(tree, root, BY_TIME, overwrite=True)
    assert (root / "tree/a").is_symlink()


@pytest.mark.parametrize(
    ("stored_ns", "is_same"),
    [
        (1_234_567_891_123_456_789, True),
        (1_234_567_891_123_456_700, True),  # NTFS
        (1_234_567_891_000_000_000, True),  # ext3
        (1_234_567_890_000_000_000, True),  # FAT
        (1_234_567_891_123_456_788, False),
        (1_234_567_892_000_000_000, False),
    ],
)
def test_a_time_is_the_same_if_the_file_system_keeps_no_more_of_it(stored_ns: int, is_same: bool) -> None:
    assert is_same_time(1_234_567_891_123_456_789, stored_ns) is is_same


def test_offers_and_comparisons_of_a_hostile_sender_are_protocol_errors() -> None:
    entries = [file_entry(b"a"), file_entry(b"b")]
    for value in (None, b"", bytes(16), bytes(33)):
        with pytest.raises(ProtocolError):
            KnownFiles.decode_untrusted(Comparison.DIGEST, XXH3, entries, value)
    for value in (b"", b"\x02", b"\x00\x02"):
        with pytest.raises(ProtocolError):
            comparison_untrusted(value)
    assert comparison_untrusted(b"\x01") is Comparison.DIGEST


def test_a_session_has_a_file_read_only_once_for_each_of_its_names(root: Path) -> None:
    (root / "a").write_bytes(b"hello")
    os.link(root / "a", root / "b")
    storage = Storage(root, overwrite=True, durable=False)
    entries = [file_entry(name) for name in (b"a", b"b", b"a", b"b")]
    known = KnownFiles(Comparison.DIGEST, XXH3, [xxh3(b"hello")] * 4)
    outcomes = storage.accept(entries, ByteBudget(None), known)
    assert [outcome.status for outcome in outcomes] == [EntryStatus.UNCHANGED] * 2 + [EntryStatus.REFUSED] * 2
    storage.close(complete=True)
